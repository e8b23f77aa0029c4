//! Rules of the configuration: precedence, unknown keys, values, what goes together.
#![allow(clippy::unwrap_used)]

use std::path::Path;

use proptest::prelude::*;
use unisondb_platform::real;

use super::*;

fn try_load(args: &[&str], variables: &[(&str, &str)]) -> Result<Effective, ConfigError> {
    let args = ["unisondb"].iter().chain(args).map(OsString::from);
    let variables = variables.iter().map(|(n, v)| (n.into(), v.into()));
    match load(args, variables, real::platform().disk.as_ref())? {
        Invocation::Serve(effective) | Invocation::Check(effective) => Ok(*effective),
    }
}

fn error(args: &[&str], variables: &[(&str, &str)]) -> String {
    try_load(args, variables).unwrap_err().to_string()
}

fn with_file(text: &str, check: impl Fn(&str)) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("unisondb.toml");
    let disk = real::platform().disk;
    disk.publish(&path, text.as_bytes()).unwrap();
    check(path.to_str().unwrap());
}

#[test]
fn every_default_is_a_value_and_every_key_reads_its_own_print() {
    let effective = try_load(&[], &[]).unwrap();
    assert_eq!(effective.config.data_dir, Path::new("./data"));
    assert_eq!(effective.config.http_addr.to_string(), "localhost:8080");
    assert!(effective.config.auto_create());
    for key in KEYS {
        let printed = (key.check)(key.default).unwrap();
        assert_eq!((key.check)(&printed).unwrap(), printed, "{}", key.name);
    }
}

#[test]
fn flags_beat_variables_beat_the_file_beats_defaults() {
    with_file(
        "segment_size = \"1MiB\"\n[wal]\nretention = \"1d\"\n",
        |file| {
            let sources = |args: &[&str], variables: &[(&str, &str)]| {
                let e = try_load(args, variables).unwrap();
                (e.config.segment_size.print(), e.source("segment_size"))
            };
            let named = format!("--config={file}");
            let variable = ("UNISONDB_SEGMENT_SIZE", "2MiB");
            assert_eq!(sources(&[], &[]), ("64MiB".into(), Source::Default));
            assert_eq!(sources(&[&named], &[]), ("1MiB".into(), Source::File));
            assert_eq!(
                sources(&[], &[("UNISONDB_CONFIG", file)]),
                ("1MiB".into(), Source::File)
            );
            assert_eq!(
                sources(&[&named], &[variable]),
                ("2MiB".into(), Source::Environment)
            );
            assert_eq!(
                sources(&[&named, "--segment-size", "3MiB"], &[variable]),
                ("3MiB".into(), Source::Flag)
            );
            let e = try_load(&[&named], &[]).unwrap();
            assert_eq!(e.config.wal_retention.print(), "1d");
        },
    );
}

#[test]
fn a_flag_takes_its_value_after_a_blank_or_an_equals_sign() {
    for args in [
        ["--data-dir", "d", "--http-addr", "localhost:9999"].as_slice(),
        &["--data-dir=d", "--http-addr=localhost:9999"],
    ] {
        let e = try_load(args, &[]).unwrap();
        assert_eq!(e.config.data_dir, Path::new("d"));
        assert_eq!(e.config.http_addr.port(), 9999);
    }
    assert!(try_load(&["--drill"], &[]).unwrap().config.drill);
    assert!(!try_load(&["--drill=false"], &[]).unwrap().config.drill);
}

#[test]
fn an_unknown_key_is_an_error_that_names_the_nearest() {
    assert!(error(&["--data-dri", "x"], &[]).contains("--data-dir"));
    let text = error(&[], &[("UNISONDB_DATADIR", "x")]);
    assert_eq!(
        text,
        "environment: unknown key \"UNISONDB_DATADIR\"; did you mean \"UNISONDB_DATA_DIR\"?"
    );
    assert!(error(&[], &[("UNISONDB_ZZZZZZZZZZZZ", "x")]).contains("--help"));
    with_file("[wal]\nretentoin = \"7d\"\n", |file| {
        let text = error(&["--config", file], &[]);
        assert!(
            text.contains("\"wal.retentoin\"; did you mean \"wal_retention\"?"),
            "{text}"
        );
    });
}

#[test]
fn a_wrong_value_is_an_error_that_names_its_place() {
    assert!(
        error(&["--segment-size", "big"], &[]).starts_with("--segment-size: \"big\" is not a size")
    );
    let text = error(&[], &[("UNISONDB_HTTP_ADDR", "nowhere")]);
    assert!(text.starts_with("UNISONDB_HTTP_ADDR: "), "{text}");
    with_file("durability = \"never\"", |file| {
        let text = error(&["--config", file], &[]);
        assert!(
            text.ends_with("durability: \"never\" is not one of always, interval"),
            "{text}"
        );
    });
    with_file("segment_size = [1]", |file| {
        assert!(error(&["--config", file], &[]).contains("a single value is wanted"));
    });
    with_file("a b", |file| {
        assert!(error(&["--config", file], &[]).contains("line 1"));
    });
    assert!(error(&["--config", "/nowhere/x.toml"], &[]).starts_with("/nowhere/x.toml: "));
}

#[test]
fn an_empty_variable_counts_as_left_out() {
    let e = try_load(&[], &[("UNISONDB_DATA_DIR", "")]).unwrap();
    assert_eq!(e.source("data_dir"), Source::Default);
}

#[test]
fn values_that_contradict_each_other_are_refused() {
    for (args, word) in [
        (["--tls-cert=c"].as_slice(), "tls_key"),
        (
            &["--recovery-target-immediate", "--recovery-target-lsn=4"],
            "only one",
        ),
        (&["--recovery-target-exclusive"], "wants"),
        (&["--segment-size=1KiB"], "segment_size"),
        (&["--first-segment-id=900000001"], "first_segment_id"),
        (
            &["--durability=interval", "--durability-interval=0s"],
            "durability_interval",
        ),
        (
            &["--durability=interval", "--peer-addr=:9000"],
            "node alone",
        ),
        (&["--peer-tls-cert=c", "--peer-tls-key=k"], "peer_tls_ca"),
        (&["--node-name=a\nb"], "node_name"),
    ] {
        let text = error(args, &[]);
        assert!(text.contains(word), "{args:?}: {text}");
    }
}

#[test]
fn peers_without_a_word_on_the_command_line_are_kept_for_the_node_to_ignore() {
    let e = try_load(&[], &[("UNISONDB_PEERS", "other:9000")]).unwrap();
    assert!(!e.forced);
    assert_eq!(e.cluster_settings(), ["UNISONDB_PEERS"]);
}

#[test]
fn targets_include_their_record_unless_exclusive() {
    let target = |args: &[&str]| try_load(args, &[]).unwrap().config.target();
    assert_eq!(target(&[]), None);
    assert_eq!(
        target(&["--recovery-target-immediate"]),
        Some(Target::Immediate)
    );
    assert_eq!(
        target(&["--recovery-target-lsn=4", "--recovery-target-exclusive"]),
        Some(Target::BeforeLsn(unisondb_types::Lsn::new(4)))
    );
    let time = "2025-01-08T14:30:00Z";
    let stamp = time.parse().unwrap();
    assert_eq!(
        target(&["--recovery-target-time", time]),
        Some(Target::Time(stamp))
    );
    with_file("[recovery]\ntarget_time = 2025-01-08T14:30:00Z\n", |file| {
        assert_eq!(target(&["--config", file]), Some(Target::Time(stamp)));
    });
}

#[test]
fn a_list_of_namespaces_turns_creation_by_writing_off() {
    let e = try_load(&["--namespaces=users,orders", "--namespaces", "logs"], &[]).unwrap();
    assert_eq!(e.config.namespaces.len(), 3);
    assert!(!e.config.auto_create());
    with_file(
        "namespaces = [\"users\"]\nauto_create_namespaces = true",
        |file| {
            assert!(
                try_load(&["--config", file], &[])
                    .unwrap()
                    .config
                    .auto_create()
            );
        },
    );
    assert!(error(&["--namespaces=backups"], &[]).contains("reserved"));
}

#[test]
fn what_config_check_prints_reads_back_as_the_same_configuration() {
    let args = [
        "config",
        "check",
        "--data-dir=/tmp/\"quoted\"",
        "--namespaces=a,b",
    ];
    let first = try_load(&args, &[("UNISONDB_DRILL", "true")]).unwrap();
    let printed = first.print();
    assert!(printed.contains("# --data-dir"), "{printed}");
    assert!(
        printed.contains("drill = \"true\"  # UNISONDB_DRILL"),
        "{printed}"
    );
    with_file(&printed, |file| {
        assert_eq!(
            try_load(&["--config", file], &[]).unwrap().config,
            first.config
        );
    });
}

#[test]
fn help_explains_every_key() {
    let help = command().render_long_help().to_string();
    for key in KEYS {
        assert!(help.contains(&format!("--{}", key.flag())), "{}", key.name);
        assert!(help.contains(&key.variable()), "{}", key.name);
    }
    command().debug_assert();
}

proptest! {
    #[test]
    fn any_bytes_as_a_file_are_read_or_refused(bytes: Vec<u8>) {
        drop(file::read(Path::new("f"), &bytes));
    }
}
