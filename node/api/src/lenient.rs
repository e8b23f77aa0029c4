//! The one broken JSON that a server may understand: a field without a value.
//!
//! `{"afterSegmentId": , "backupDir": "wal/x"}` is what the documented scripts send when their
//! state file is empty. With `compat.lenient_json` such a field counts as left out, so that they do
//! not stay stuck for ever; nothing else is mended.

/// `body` with `null` wherever a value is missing behind a colon; `None` if none is.
#[must_use]
pub fn mend(body: &[u8]) -> Option<Vec<u8>> {
    let mut mended = Vec::with_capacity(body.len() + 8);
    let mut found = false;
    let mut in_string = false;
    let mut escaped = false;
    let mut after_colon = false;
    for &b in body {
        if in_string {
            in_string = escaped || b != b'"';
            escaped = !escaped && b == b'\\';
        } else if !b.is_ascii_whitespace() {
            if after_colon && matches!(b, b',' | b'}') {
                mended.extend_from_slice(b"null");
                found = true;
            }
            after_colon = b == b':';
            in_string = b == b'"';
        }
        mended.push(b);
    }
    found.then_some(mended)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_missing_value_becomes_null_and_strings_are_left_alone() {
        let mended = mend(br#"{"afterSegmentId": , "backupDir": "wal/:,}"}"#).unwrap();
        assert_eq!(
            mended,
            br#"{"afterSegmentId": null, "backupDir": "wal/:,}"}"#
        );
        assert_eq!(mend(br#"{"a":}"#).unwrap(), br#"{"a":null}"#);
        for whole in [&br#"{"a":1,"b":"\":,"}"#[..], b"", b"{", b"{\"a\""] {
            assert_eq!(mend(whole), None);
        }
    }

    proptest! {
        #[test]
        fn good_json_is_never_changed(text: String, n: u32) {
            let json = serde_json::json!({ text.clone(): [text, n, null], "b": {} }).to_string();
            prop_assert_eq!(mend(json.as_bytes()), None);
        }

        #[test]
        fn any_bytes_are_taken(body: Vec<u8>) {
            let _ = mend(&body);
        }
    }
}
