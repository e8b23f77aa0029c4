//! Any bytes as what a client sends: path, query, body, cursor; and as a file of tokens.
#![no_main]

use http::Method;
use libfuzzer_sys::fuzz_target;
use unisondb_api::body::request::{
    Batch, Begin, BtreeBackup, DropColumns, NewNamespace, Put, PutRow, RowBatch, WalBackup,
};
use unisondb_api::{Cursor, Query, Route, base64, lenient, percent};

const METHODS: [Method; 5] = [
    Method::GET,
    Method::HEAD,
    Method::PUT,
    Method::POST,
    Method::DELETE,
];

fuzz_target!(|input: &[u8]| {
    let Some((which, bytes)) = input.split_first() else {
        return;
    };
    body(bytes);
    if let Some(mended) = lenient::mend(bytes) {
        body(&mended);
    }
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    let method = &METHODS[usize::from(*which) % METHODS.len()];
    if let Ok(route) = Route::parse(method, text) {
        assert!(!route.pattern().is_empty());
    }
    if let Ok(decoded) = percent::decode(text) {
        let again = percent::encode(&decoded);
        assert_eq!(percent::decode(&again).expect("our own"), decoded);
    }
    drop(percent::decode_query(text));
    let query = Query::new(Some(text));
    drop(query.bytes("start"));
    drop(query.list("columns"));
    drop(query.text("prefix"));
    drop(query.parse::<u64>("limit", "a number"));
    drop(query.switch("reverse"));
    if let Ok(cursor) = Cursor::decode(text) {
        assert_eq!(Cursor::decode(&cursor.encode()), Ok(cursor));
    }
    if let Ok(bytes) = base64::decode(text) {
        assert_eq!(base64::decode(&base64::encode(&bytes)), Ok(bytes));
    }
    drop(unisondb_http::Tokens::parse(text));
});

fn body(bytes: &[u8]) {
    drop(serde_json::from_slice::<Put>(bytes));
    drop(serde_json::from_slice::<Batch>(bytes));
    drop(serde_json::from_slice::<PutRow>(bytes));
    drop(serde_json::from_slice::<DropColumns>(bytes));
    drop(serde_json::from_slice::<RowBatch>(bytes));
    drop(serde_json::from_slice::<Begin>(bytes));
    drop(serde_json::from_slice::<WalBackup>(bytes));
    drop(serde_json::from_slice::<BtreeBackup>(bytes));
    drop(serde_json::from_slice::<NewNamespace>(bytes));
}
