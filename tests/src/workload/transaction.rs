//! What a [`Worker`] writes in transactions: keys, rows, small objects, step by step, some of them
//! aborted in the end.

use serde_json::json;

use super::model::{Change, Object};
use super::path;
use super::text::percent;
use super::worker::{Gone, Worker, coded, send};

impl Worker {
    fn begin(&mut self, operation: &str, kind: &str) -> Result<String, Gone> {
        let body = json!({"operation": operation, "entryType": kind}).to_string();
        let answer = send(
            &mut self.http,
            "POST",
            &path("tx/begin"),
            &[],
            body.as_bytes(),
        )?;
        let answer = answer.expect(200).json();
        Ok(answer["txnId"]
            .as_str()
            .expect("a begin gives the id")
            .to_owned())
    }

    fn stage(&mut self, id: &str, step: &str, body: &[u8]) -> Result<(), Gone> {
        let at = path(&format!("tx/{id}/{step}"));
        send(&mut self.http, "POST", &at, &[], body)?.expect(200);
        Ok(())
    }

    /// Commits; one in five it aborts instead, and nothing is changed.
    fn finish(&mut self, id: &str, changes: Vec<Change>) -> Result<(), Gone> {
        if self.chance.below(5) == 0 {
            return self.stage(id, "abort", b"");
        }
        let at = path(&format!("tx/{id}/commit"));
        self.write("POST", &at, &[], b"", changes).map(drop)
    }

    pub(super) fn transaction(&mut self) -> Result<(), Gone> {
        let id = self.begin("put", "kv")?;
        let mut all = Vec::new();
        for _ in 0..1 + self.chance.below(4) {
            let (changes, items) = self.items(5);
            self.stage(&id, "kv", json!({"items": items}).to_string().as_bytes())?;
            all.extend(changes);
        }
        // What is staged is invisible until it is committed (P2).
        if let Some(Change::Kv(key, _)) = all.first().cloned() {
            self.same_value(&key)?;
        }
        self.finish(&id, all)
    }

    pub(super) fn row_transaction(&mut self) -> Result<(), Gone> {
        let id = self.begin("update", "row")?;
        let mut all = Vec::new();
        for _ in 0..1 + self.chance.below(3) {
            let (row, columns) = (self.row_key(), self.columns());
            let item = json!({"rowKey": row, "columns": coded(&columns)});
            self.stage(&id, "row", item.to_string().as_bytes())?;
            all.push(Change::Row(row, columns));
        }
        self.finish(&id, all)
    }

    pub(super) fn object(&mut self) -> Result<(), Gone> {
        let key = self.object_key();
        let len = Object::MIN + self.chance.below(150_000);
        let object = Object {
            seed: self.chance.number(),
            len,
        };
        let id = self.begin("put", "lob")?;
        let step = format!("lob?key={}", percent(&key));
        let chunk = 20_000 + self.chance.below(60_000);
        let mut from = 0;
        while from < len {
            self.stage(&id, &step, &object.bytes(from, chunk))?;
            from += chunk;
        }
        self.finish(&id, vec![Change::Lob(key, Some(object))])
    }
}
