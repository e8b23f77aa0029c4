//! The typed calls of the client, in the order of the contract.

use http::Method;
use http::header::{ACCEPT, CONTENT_TYPE};
use unisondb_types::{Lsn, SegmentId, TxId};

use super::{Client, ClientError, Download, refused};
use crate::body::{answer, request};
use crate::{Base64, Place, Route, TxStep, percent};

const RAW: &str = "application/octet-stream";
/// No body: every call names a type for the one that it does not send.
const NOTHING: Option<&()> = None;

impl Client {
    /// Writes a key.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn put(&self, ns: &str, key: &[u8], value: &[u8]) -> Result<Lsn, ClientError> {
        let key = percent::encode(key);
        let route = Route::In(ns, Place::Kv(Some(&key)));
        let headers = [(CONTENT_TYPE.as_str(), RAW)];
        let reply = self
            .send(Method::PUT, route, "", &headers, value.to_vec())
            .await?;
        Ok(reply.json::<answer::Written>()?.lsn)
    }

    /// Reads a key.
    ///
    /// # Errors
    /// [`ClientError`]; a key that is not there is `None`.
    pub async fn get(&self, ns: &str, key: &[u8]) -> Result<Option<Vec<u8>>, ClientError> {
        let key = percent::encode(key);
        let route = Route::In(ns, Place::Kv(Some(&key)));
        let reply = self
            .send(Method::GET, route, "", &[(ACCEPT.as_str(), RAW)], "")
            .await?;
        if reply.status.is_success() {
            return Ok(Some(reply.body.to_vec()));
        }
        match serde_json::from_slice::<answer::Found>(&reply.body) {
            Ok(answer::Found { found: false, .. }) => Ok(None),
            _ => Err(refused(reply.status, &reply.body)),
        }
    }

    /// Removes a key.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn delete(&self, ns: &str, key: &[u8]) -> Result<Lsn, ClientError> {
        let key = percent::encode(key);
        let route = Route::In(ns, Place::Kv(Some(&key)));
        let written: answer::Written = self.json(Method::DELETE, route, "", NOTHING).await?;
        Ok(written.lsn)
    }

    /// Writes many keys as one.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn batch_put(
        &self,
        ns: &str,
        items: &[(Vec<u8>, Vec<u8>)],
    ) -> Result<answer::BatchWritten, ClientError> {
        let items = items.iter().map(|(key, value)| item(key, value)).collect();
        let body = request::Batch {
            operation: Some("put".into()),
            items: Some(items),
            ..Default::default()
        };
        self.json(Method::POST, Route::In(ns, Place::KvBatch), "", Some(&body))
            .await
    }

    /// Opens a transaction: `operation` is `put`, `update` or `delete`, `entry_type` is `kv`,
    /// `row` or `lob`.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn tx_begin(
        &self,
        ns: &str,
        operation: &str,
        entry_type: &str,
    ) -> Result<TxId, ClientError> {
        let body = request::Begin {
            operation: Some(operation.into()),
            entry_type: Some(entry_type.into()),
        };
        let begun: answer::Begun = self
            .json(Method::POST, Route::In(ns, Place::TxBegin), "", Some(&body))
            .await?;
        Ok(begun.txn_id)
    }

    /// Adds a key to a transaction.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn tx_put(
        &self,
        ns: &str,
        tx: TxId,
        key: &[u8],
        value: &[u8],
    ) -> Result<(), ClientError> {
        let id = tx.to_string();
        let route = Route::In(ns, Place::Tx(&id, TxStep::Kv));
        let _: serde_json::Value = self
            .json(Method::POST, route, "", Some(&item(key, value)))
            .await?;
        Ok(())
    }

    /// Adds the next chunk of an object to a transaction.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn tx_chunk(
        &self,
        ns: &str,
        tx: TxId,
        key: &[u8],
        chunk: &[u8],
    ) -> Result<(), ClientError> {
        let id = tx.to_string();
        let route = Route::In(ns, Place::Tx(&id, TxStep::Lob));
        let query = format!("key={}", percent::encode(key));
        let headers = [(CONTENT_TYPE.as_str(), RAW)];
        let reply = self
            .send(Method::POST, route, &query, &headers, chunk.to_vec())
            .await?;
        reply.json::<serde_json::Value>()?;
        Ok(())
    }

    /// Makes a transaction visible.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn tx_commit(&self, ns: &str, tx: TxId) -> Result<answer::Committed, ClientError> {
        let id = tx.to_string();
        let route = Route::In(ns, Place::Tx(&id, TxStep::Commit));
        self.json(Method::POST, route, "", NOTHING).await
    }

    /// Forgets a transaction.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn tx_abort(&self, ns: &str, tx: TxId) -> Result<(), ClientError> {
        let id = tx.to_string();
        let route = Route::In(ns, Place::Tx(&id, TxStep::Abort));
        let _: serde_json::Value = self.json(Method::POST, route, "", NOTHING).await?;
        Ok(())
    }

    /// Copies sealed segments above `after` into folder `dir` on the node.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn wal_backup(
        &self,
        ns: &str,
        after: Option<SegmentId>,
        dir: &str,
        seal: bool,
    ) -> Result<answer::WalBackups, ClientError> {
        let body = request::WalBackup {
            after_segment_id: after.map(SegmentId::get),
            backup_dir: Some(dir.into()),
            seal: (!seal).then_some(false),
        };
        self.json(
            Method::POST,
            Route::In(ns, Place::WalBackup),
            "",
            Some(&body),
        )
        .await
    }

    /// Writes a snapshot to `path` on the node.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn btree_backup(
        &self,
        ns: &str,
        path: &str,
    ) -> Result<answer::BtreeBackedUp, ClientError> {
        let body = request::BtreeBackup {
            path: Some(path.into()),
        };
        self.json(
            Method::POST,
            Route::In(ns, Place::BtreeBackup),
            "",
            Some(&body),
        )
        .await
    }

    /// Ends the active segment, if it holds user data.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn seal(&self, ns: &str) -> Result<answer::SealedUpTo, ClientError> {
        self.json(Method::POST, Route::In(ns, Place::WalSeal), "", NOTHING)
            .await
    }

    /// What segments the node holds.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn segments(&self, ns: &str) -> Result<answer::Segments, ClientError> {
        self.json(Method::GET, Route::In(ns, Place::Segments), "", NOTHING)
            .await
    }

    /// Pulls a sealed segment.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn pull_segment(&self, ns: &str, id: SegmentId) -> Result<Download, ClientError> {
        let id = id.to_string();
        self.download(Route::In(ns, Place::Segment(&id)), "").await
    }

    /// Pulls a snapshot.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn pull_snapshot(&self, ns: &str) -> Result<Download, ClientError> {
        self.download(Route::In(ns, Place::BtreeSnapshot), "").await
    }

    /// The state's digest, now or at the end of a sealed segment.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn digest(&self, ns: &str, at: Option<Lsn>) -> Result<answer::DigestAt, ClientError> {
        let query = at.map(|lsn| format!("lsn={lsn}")).unwrap_or_default();
        self.json(Method::GET, Route::In(ns, Place::Digest), &query, NOTHING)
            .await
    }

    /// How far a namespace is.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn stats(&self, ns: &str) -> Result<answer::Stats, ClientError> {
        self.json(Method::GET, Route::In(ns, Place::Stats), "", NOTHING)
            .await
    }

    /// Who belongs to the cluster, as the node knows it.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn cluster(&self) -> Result<serde_json::Value, ClientError> {
        self.json(Method::GET, Route::Cluster, "", NOTHING).await
    }

    /// Takes the node at `address` into the cluster.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn add_node(&self, address: &str) -> Result<(), ClientError> {
        let body = request::NewMember {
            address: Some(address.into()),
        };
        let done: Result<serde_json::Value, _> = self
            .json(Method::POST, Route::Members, "", Some(&body))
            .await;
        done.map(drop)
    }

    /// Takes a node out of the cluster, by its id, its name or its address.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn remove_node(&self, who: &str) -> Result<(), ClientError> {
        let who = percent::encode(who.as_bytes());
        let done: Result<serde_json::Value, _> = self
            .json(Method::DELETE, Route::Member(&who), "", NOTHING)
            .await;
        done.map(drop)
    }

    /// The namespaces.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn namespaces(&self) -> Result<serde_json::Value, ClientError> {
        self.json(Method::GET, Route::Namespaces, "", NOTHING).await
    }

    /// Makes a namespace; one that is there is no error.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn create_namespace(&self, name: &str) -> Result<answer::NamespaceMade, ClientError> {
        let body = request::NewNamespace {
            name: Some(name.into()),
        };
        self.json(Method::POST, Route::Namespaces, "", Some(&body))
            .await
    }

    /// Moves a namespace to the trash; `confirm`: its name once more.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn delete_namespace(
        &self,
        name: &str,
        confirm: &str,
    ) -> Result<answer::NamespaceMade, ClientError> {
        let query = format!("confirm={}", percent::encode(confirm.as_bytes()));
        self.json(Method::DELETE, Route::Namespace(name), &query, NOTHING)
            .await
    }

    /// How the node is.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn health(&self) -> Result<answer::Health, ClientError> {
        self.json(Method::GET, Route::Health, "", NOTHING).await
    }
}

fn item<'a>(key: &'a [u8], value: &'a [u8]) -> request::Item<'a> {
    let text = std::str::from_utf8(key).ok();
    request::Item {
        key: text.map(Into::into),
        key_b64: text.is_none().then(|| Base64::new(key.to_vec())),
        value: Some(Base64::new(value.to_vec())),
    }
}
