//! Any text as a name, an id or a time: what parses prints as one text, and that parses as the same.
#![no_main]

use std::fmt::Display;
use std::str::FromStr;

use libfuzzer_sys::fuzz_target;
use unisondb_types::{
    ClusterId, Digest, LineageId, Lsn, Namespace, SegmentId, Sha256Sum, Stamp, Term, TxId,
};

fuzz_target!(|text: &str| {
    round::<Namespace>(text);
    round::<Stamp>(text);
    round::<Lsn>(text);
    round::<Term>(text);
    round::<SegmentId>(text);
    round::<LineageId>(text);
    round::<ClusterId>(text);
    round::<TxId>(text);
    round::<Digest>(text);
    round::<Sha256Sum>(text);
    if let Some(id) = SegmentId::parse_file_name(text) {
        assert_eq!(id.file_name(), text);
    }
    if let Ok(namespace) = text.parse::<Namespace>() {
        let name = namespace.as_str();
        assert!(
            !name.contains(['/', '.', '\0']),
            "one component of a path: {name:?}"
        );
    }
});

fn round<T: FromStr + Display + PartialEq>(text: &str) {
    if let Ok(value) = text.parse::<T>() {
        let printed = value.to_string();
        let again = printed.parse::<T>().ok();
        assert!(again == Some(value), "{text:?} prints as {printed:?}");
    }
}
