//! What a first start prints: the first write, backup and restore, ready to paste.

use std::net::SocketAddr;
use std::path::Path;

/// The text for a node that listens on `address` with its data in `data_dir`.
pub fn text(scheme: &str, address: &str, data_dir: &Path) -> String {
    let base = format!("{scheme}://{address}");
    let data = data_dir.display();
    format!(
        r#"
UnisonDB is ready on {base}, data in {data}. To try it, paste:

  # write and read (the first write makes the namespace)
  curl -X PUT {base}/api/v1/users/kv/test-key -d '{{"value":"aGVsbG8="}}'
  curl {base}/api/v1/users/kv/test-key

  # back up: the state as one file, then the log's segments
  curl -X POST {base}/api/v1/users/btree/backup -d '{{"path":"snapshots/first.db"}}'
  curl -X POST {base}/api/v1/users/wal/backup -d '{{"backupDir":"wal/first"}}'

  # restore: stop the node, put the snapshot in place, start it again
  rm -rf "{data}"/users/db/* && cp "{data}"/backups/users/snapshots/first.db "{data}"/users/db/data.mdb

`unisondb --help` explains every setting.
"#
    )
}

/// How people write a listener's address: `localhost` for the loopback.
pub fn address(bound: &[SocketAddr]) -> String {
    match bound.first() {
        Some(first) if first.ip().is_loopback() || first.ip().is_unspecified() => {
            format!("localhost:{}", first.port())
        }
        Some(first) => first.to_string(),
        None => "localhost".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_greeting_has_a_write_a_backup_and_a_restore_for_this_very_node() {
        let text = text("http", "localhost:8080", Path::new("/d"));
        for line in [
            r#"curl -X PUT http://localhost:8080/api/v1/users/kv/test-key -d '{"value":"aGVsbG8="}'"#,
            "/api/v1/users/btree/backup",
            "/api/v1/users/wal/backup",
            r#"cp "/d"/backups/users/snapshots/first.db "/d"/users/db/data.mdb"#,
        ] {
            assert!(text.contains(line), "{line}");
        }
    }

    #[test]
    fn an_address_is_written_as_people_type_it() {
        let on = |s: &str| address(&[s.parse().expect("an address")]);
        assert_eq!(on("127.0.0.1:8080"), "localhost:8080");
        assert_eq!(on("[::]:8080"), "localhost:8080");
        assert_eq!(on("192.0.2.1:80"), "192.0.2.1:80");
    }
}
