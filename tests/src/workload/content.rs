//! Everything that a node serves, read back through the API: all keys by scanning, all rows and
//! objects that the clients may have written.

use std::collections::BTreeMap;

use super::model::{Content, Object};
use super::text::{from_base64, percent};
use super::worker::{OBJECTS, ROWS, name, tag_of};
use super::{path, upload};
use crate::http::Client;

/// Reads all of it. Nobody may be writing meanwhile.
///
/// # Panics
/// When the server does not answer as documented.
pub fn read(http: &mut Client, clients: u64) -> Content {
    let mut content = Content {
        kv: keys(http),
        ..Content::default()
    };
    let mut objects = vec![upload::KEY.to_owned()];
    for client in (0..clients).map(name) {
        for n in 0..ROWS {
            let row = format!("{client}/r{n}");
            if let Some(columns) = columns(http, &row) {
                content.rows.insert(row, columns);
            }
        }
        objects.extend((0..OBJECTS).map(|n| format!("{client}/o{n}")));
    }
    for key in objects {
        if let Some(object) = object(http, &key) {
            content.lobs.insert(key, object);
        }
    }
    content
}

fn keys(http: &mut Client) -> BTreeMap<String, super::model::Bytes> {
    let mut all = BTreeMap::new();
    let mut cursor = String::new();
    loop {
        let page = get(http, &format!("kv?limit=1000{cursor}"))
            .expect(200)
            .json();
        for item in page["items"].as_array().expect("items is a list") {
            let key = item["key"].as_str().expect("all keys are UTF-8").to_owned();
            let value = from_base64(item["value"].as_str().expect("a value")).expect("base64");
            let last = all.last_key_value();
            assert!(last.is_none_or(|(k, _)| *k < key), "{key} is out of order");
            all.insert(key, value.into());
        }
        match page["cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={}", percent(next)),
            None => return all,
        }
    }
}

fn columns(http: &mut Client, row: &str) -> Option<BTreeMap<String, super::model::Bytes>> {
    let answer = get(http, &format!("row/{}", percent(row)));
    let body = answer.json();
    assert_eq!(
        body["found"].as_bool(),
        Some(answer.status == 200),
        "{body}"
    );
    let columns = body["columns"]
        .as_object()
        .expect("columns is an object")
        .iter();
    let value = |v: &serde_json::Value| from_base64(v.as_str().expect("a value")).expect("base64");
    (answer.status == 200).then(|| columns.map(|(n, v)| (n.clone(), value(v).into())).collect())
}

fn object(http: &mut Client, key: &str) -> Option<Object> {
    let answer = get(http, &format!("lob/{}", percent(key)));
    if answer.status == 404 {
        return None;
    }
    let bytes = answer.expect(200).body;
    Some(
        Object::of(&bytes)
            .unwrap_or_else(|| panic!("{key}: {} bytes that nobody wrote", bytes.len())),
    )
}

/// The LSN of each of these keys.
///
/// # Panics
/// When one is not there.
pub fn tags<'k>(http: &mut Client, keys: impl Iterator<Item = &'k str>) -> BTreeMap<String, u64> {
    let mut tags = BTreeMap::new();
    for key in keys {
        let answer = get(http, &format!("kv/{}", percent(key))).expect(200);
        tags.insert(key.to_owned(), tag_of(&answer).expect("an ETag"));
    }
    tags
}

fn get(http: &mut Client, rest: &str) -> crate::http::Answer {
    http.get(&path(rest)).expect("the server answers")
}
