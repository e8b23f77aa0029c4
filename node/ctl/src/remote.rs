//! `udbctl backup` and `udbctl status`: asked of a node over its HTTP API.

use serde_json::{Map, Value, json};
use unisondb_api::body::answer::{Health, Stats};
use unisondb_api::{Client, ClientError};

use crate::cli::{BackupArgs, BackupCommand, NodeArgs, StatusArgs};
use crate::exit::{Code, Failure};
use crate::output::{Output, or_dash, table};

pub fn backup(args: &BackupArgs, output: &Output) -> Result<(), Failure> {
    match &args.what {
        BackupCommand::Wal {
            node,
            namespace,
            dir,
            after,
            no_seal,
        } => {
            let done = ask(node, async |client: Client| {
                client
                    .wal_backup(namespace.as_str(), *after, dir, !no_seal)
                    .await
            })?;
            output.print(&done, |done| {
                let mut text: String = done
                    .backups
                    .iter()
                    .map(|b| format!("{:09}  {} bytes  {}\n", b.segment_id.get(), b.bytes, b.path))
                    .collect();
                if done.backups.is_empty() {
                    text.push_str("nothing new\n");
                }
                if let (false, Some(reason)) = (done.sealed, &done.reason) {
                    text.push_str(&format!("not sealed: {reason}\n"));
                }
                text
            })
        }
        BackupCommand::Btree {
            node,
            namespace,
            path,
        } => {
            let done = ask(node, async |client: Client| {
                client.btree_backup(namespace.as_str(), path).await
            })?;
            output.print(&done, |done| {
                format!(
                    "{}  {} bytes, LSN {} at {}, replay needs segments above {}\nsha256 {}\n",
                    done.path, done.bytes, done.lsn, done.time, done.segment_id, done.sha256
                )
            })
        }
    }
}

pub fn status(args: &StatusArgs, output: &Output) -> Result<(), Failure> {
    let only = args
        .namespace
        .as_ref()
        .map(unisondb_types::Namespace::as_str);
    let (health, stats) = ask(&args.node, async |client: Client| {
        let health = client.health().await?;
        let mut stats = Vec::new();
        for name in health
            .namespaces
            .iter()
            .filter(|n| only.is_none_or(|only| only == *n))
        {
            // One that is starting or has failed has no figures; health says why.
            match client.stats(name).await {
                Ok(one) => stats.push(one),
                Err(ClientError::Refused { .. }) => {}
                Err(e) => return Err(e),
            }
        }
        Ok((health, stats))
    })?;
    if let Some(only) = only.filter(|only| !health.namespaces.iter().any(|n| n == only)) {
        return Err(Failure::new(
            Code::NotFound,
            format!("namespace not found: {only}"),
        ));
    }
    let figures: Map<String, Value> = stats
        .iter()
        .map(|s| (s.namespace.clone(), json!(s)))
        .collect();
    let answer = json!({"health": health, "stats": figures});
    output.print(&answer, |_| in_words(&health, &stats))
}

fn in_words(health: &Health, stats: &[Stats]) -> String {
    let mut text = format!(
        "{}  node {} ({})\n",
        health.status, health.node, health.role
    );
    if !stats.is_empty() {
        let head = [
            "namespace",
            "LSN",
            "last time",
            "durable",
            "flushed",
            "segment",
            "open tx",
            "lineage",
        ];
        let mut rows = vec![head.map(str::to_owned).to_vec()];
        for s in stats {
            rows.push(vec![
                s.namespace.clone(),
                s.lsn.to_string(),
                or_dash(s.applied_time),
                s.durable_lsn.to_string(),
                s.flushed_lsn.to_string(),
                s.current_segment.to_string(),
                s.open_transactions.to_string(),
                s.lineage.to_string(),
            ]);
        }
        text.push_str(&table(&rows));
    }
    for note in health
        .more
        .get("notes")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
    {
        let field = |name| note.get(name).and_then(Value::as_str).unwrap_or_default();
        text.push_str(&format!(
            "note: {}: {}\n",
            field("namespace"),
            field("text")
        ));
    }
    text
}

/// Runs one conversation with a node.
pub(crate) fn ask<T>(
    node: &NodeArgs,
    talk: impl AsyncFnOnce(Client) -> Result<T, ClientError>,
) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| Failure::new(Code::Failed, format!("no runtime: {e}")))?;
    let client = Client::new(&node.url, node.token.as_deref())?;
    Ok(runtime.block_on(talk(client))?)
}
