//! The scripts of the user documentation, cut from the page byte for byte.
//!
//! The page (`docs/operations/backup-and-restore.txt`) is flattened text: code runs into the prose
//! that follows it (`fiCron schedule:`). So a script is named by a text that stands before it once,
//! its first line, its last line, and the prose glued to that. A page that changes breaks the cut
//! with the reason, never silently.

/// The page.
pub const PAGE: &str = include_str!("../../docs/operations/backup-and-restore.txt");

/// Where a script stands on the page.
#[derive(Debug, Clone, Copy)]
pub struct Script {
    /// What it is called here.
    pub name: &'static str,
    /// A text that occurs exactly once, before the script.
    pub after: &'static str,
    /// Its whole first line.
    pub first: &'static str,
    /// Its last line, without the prose glued to it.
    pub last: &'static str,
    /// The prose glued to its last line.
    pub then: &'static str,
}

macro_rules! scripts {
    ($($(#[$doc:meta])* $name:ident: $after:literal, $first:literal .. $last:literal, $then:literal;)*) => {
        $($(#[$doc])* pub const $name: Script = Script {
            name: stringify!($name), after: $after, first: $first, last: $last, then: $then,
        };)*
        /// Every script and unit of the page that can be run.
        pub const ALL: &[Script] = &[$($name),*];
    };
}

scripts! {
    /// The example of the WAL endpoint.
    WAL_EXAMPLE: "POST /api/v1/{namespace}/wal/backupRequest Body:",
        "curl -X POST http://localhost:8080/api/v1/users/wal/backup \\" .. "}'", "B-Tree Snapshot Backup#";
    /// The example of the snapshot endpoint.
    SNAPSHOT_EXAMPLE: "POST /api/v1/{namespace}/btree/backupRequest Body:",
        "curl -X POST http://localhost:8080/api/v1/users/btree/backup \\" .. "}'", "Backup Strategies#";
    /// Strategy 1.
    DAILY_SNAPSHOT: "Simple strategy for small databases or infrequent backups.",
        "# Daily full snapshot"
        .. "-d '{\"path\": \"daily/snapshot-'$(date +%Y%m%d)'.db\"}'", "2. Incremental Backup (WAL + Periodic Snapshots)#";
    /// Strategy 2, the baseline.
    BASELINE: "Daily baseline:", "# Full B-Tree snapshot"
        .. "-d '{\"path\": \"weekly/snapshot-'$(date +%Y%m%d)'.db\"}'", "Hourly incremental:";
    /// Strategy 2, every hour.
    HOURLY: "Hourly incremental:", "# Every hour: Copy new WAL segments"
        .. "| jq -r '.backups[-1].segmentId' > /var/backups/last_wal_id.txt", "3. Continuous WAL Archival#";
    /// Strategy 3: `unison-wal-archive.sh`, every 15 minutes.
    ARCHIVER: "Use a cron job or systemd timer to continuously ship WAL segments:",
        "#!/bin/bash" .. "fi", "Cron schedule:";
    /// `unison-backup.service`.
    BACKUP_SERVICE: "Service unit (/etc/systemd/system/unison-backup.service):",
        "[Unit]" .. "StandardError=journal", "Timer unit (/etc/systemd/system/unison-backup.timer):";
    /// `unison-backup.timer`.
    BACKUP_TIMER: "Timer unit (/etc/systemd/system/unison-backup.timer):",
        "[Unit]" .. "WantedBy=timers.target", "Backup script (/usr/local/bin/unison-backup.sh):";
    /// `unison-backup.sh`.
    BACKUP: "Backup script (/usr/local/bin/unison-backup.sh):",
        "#!/bin/bash" .. "echo \"Backup completed successfully\"", "Enable the timer:";
    /// Switching the timer on.
    ENABLE_TIMER: "Enable the timer:", "sudo systemctl daemon-reload"
        .. "sudo systemctl status unison-backup.timer", "Storage Integration Examples#";
    /// Snapshot to S3, compressed and encrypted.
    S3: "Amazon S3#", "#!/bin/bash"
        .. "rm -f \"$BACKUP_DIR/snapshots/btree-$DATE.db\"*", "Restore Procedures#";
    /// Full restore from a snapshot.
    FULL_RESTORE: "Scenario: Complete data loss, restore from latest snapshot.",
        "# 1. Stop UnisonDB" .. "curl http://localhost:8080/api/v1/users/kv/test-key", "Point-in-Time Recovery (PITR)#";
    /// Point-in-time recovery.
    PITR: "Scenario: Restore to a specific point in time using snapshot + WAL replay.",
        "#!/bin/bash" .. "sudo systemctl start unisondb", "Best Practices#";
    /// Encryption by hand.
    ENCRYPT: "1. Encrypt backups:", "# GPG encryption before upload"
        .. "gpg --encrypt --recipient backup-key@company.com backup.db", "2. Access control:";
    /// Rights of the backup folder.
    ACCESS: "2. Access control:", "# Restrict backup directory permissions"
        .. "chown unison:unison /var/unison/data/backups", "3. Audit logging:";
    /// A log line per call.
    AUDIT: "3. Audit logging:", "# Log all backup API calls"
        .. "| tee -a /var/log/unison-backups.log", "Testing Restores#";
    /// The restore drill.
    DRILL: "Monthly restore drill:", "#!/bin/bash"
        .. "echo \"Restore test completed successfully\"", "Monitoring#";
    /// Key metrics.
    METRICS: "Key metrics to track:", "# Backup success rate"
        .. "curl http://localhost:8080/metrics | grep backup_bytes_total", "Alert on:";
    /// Cure of "permission denied".
    FIX_PERMISSIONS: "Backup Fails with Permission Denied#", "# Ensure backup directory is writable"
        .. "sudo chmod -R 755 /var/unison/data/backups", "Backup Directory Full#";
    /// Cure of "no space left on device"; its last line mounts a volume that is the operator's.
    FIX_SPACE: "Backup Directory Full#", "# Clean up old local backups"
        .. "find /var/unison/data/backups -type f -mtime +7 -delete", "";
    /// What to do about a corrupted snapshot.
    FIX_CORRUPTED: "Restore Fails with Corrupted Snapshot#", "# 1. Verify checksum (if available)"
        .. "aws s3 ls s3://backups/unison/users/snapshots/ | sort | tail -2", "Next Steps#";
}

impl Script {
    /// The script's bytes. Panics with the reason when the page does not have it as described.
    pub fn text(&self) -> &'static str {
        cut(PAGE, self).unwrap_or_else(|why| panic!("{}: {why}", self.name))
    }
}

/// Cuts a script out of a page.
///
/// # Errors
/// What on the page is not as described.
pub fn cut<'p>(page: &'p str, script: &Script) -> Result<&'p str, String> {
    let mut places = page.match_indices(script.after);
    let (anchor, _) = places
        .next()
        .ok_or_else(|| format!("{:?} is not on the page", script.after))?;
    if places.next().is_some() {
        return Err(format!("{:?} is on the page more than once", script.after));
    }
    let end_line = format!("{}{}", script.last, script.then);
    let mut at = page[anchor..]
        .find('\n')
        .map_or(page.len(), |n| anchor + n + 1);
    let mut begin = None;
    for line in page[at..].split_inclusive('\n') {
        let bare = line.strip_suffix('\n').unwrap_or(line);
        if begin.is_none() && bare == script.first {
            begin = Some(at);
        }
        if let Some(begin) = begin
            && bare == end_line
        {
            return Ok(&page[begin..at + script.last.len()]);
        }
        at += line.len();
    }
    Err(match begin {
        None => format!("no line {:?} after {:?}", script.first, script.after),
        Some(_) => format!("no line {end_line:?} after its first"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = "Way#\none\ntwo\nfiProse#\none\nthree\nfi\n";
    const SCRIPT: Script = Script {
        name: "t",
        after: "Way#",
        first: "one",
        last: "fi",
        then: "Prose#",
    };

    #[test]
    fn a_script_ends_where_the_prose_begins() {
        assert_eq!(cut(PAGE, &SCRIPT), Ok("one\ntwo\nfi"));
        let second = Script {
            after: "Prose#",
            then: "",
            ..SCRIPT
        };
        assert_eq!(cut(PAGE, &second), Ok("one\nthree\nfi"));
    }

    #[test]
    fn a_page_that_changed_is_told_and_not_guessed() {
        let wrong = |s: Script| cut(PAGE, &s).expect_err("must be refused");
        assert!(
            wrong(Script {
                after: "nowhere",
                ..SCRIPT
            })
            .contains("not on the page")
        );
        assert!(
            wrong(Script {
                after: "one",
                ..SCRIPT
            })
            .contains("more than once")
        );
        assert!(
            wrong(Script {
                first: "on",
                ..SCRIPT
            })
            .contains("no line \"on\"")
        );
        assert!(
            wrong(Script {
                then: "Prose",
                ..SCRIPT
            })
            .contains("fiProse")
        );
    }

    #[test]
    fn every_script_is_cut_whole_and_without_prose() {
        for script in ALL {
            let text = script.text();
            assert!(text.starts_with(script.first), "{}", script.name);
            assert!(text.ends_with(script.last), "{}", script.name);
            assert!(PAGE_TEXT.contains(text), "{}", script.name);
            assert!(
                !text.contains('#') || !text.lines().any(|l| l.ends_with('#')),
                "{}: prose",
                script.name
            );
        }
        assert_eq!(BACKUP.text().lines().count(), 35);
        assert_eq!(PITR.text().lines().count(), 39);
        assert_eq!(DRILL.text().lines().count(), 20);
    }

    const PAGE_TEXT: &str = super::PAGE;

    #[test]
    fn the_scripts_are_programs_to_bash() {
        for script in ALL.iter().filter(|s| s.first != "[Unit]") {
            let out = std::process::Command::new("bash")
                .args(["-n", "-c", script.text()])
                .output()
                .expect("bash is there");
            assert!(
                out.status.success(),
                "{}: {}",
                script.name,
                String::from_utf8_lossy(&out.stderr)
            );
        }
    }
}
