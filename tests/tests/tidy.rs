//! The house rules, as tests: who may name whom, what must be absent, how a file begins, that what
//! the documentation says of the tree is so.
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use unisondb_tests::repository::{files, product_code, root, text};

/// Who names whom (docs/architecture.md, "Layers"). Naming one allows what lies below it.
const LAYERS: &[(&str, &[&str])] = &[
    ("types", &[]),
    ("platform", &["types"]),
    ("wal", &["types", "platform"]),
    ("store", &["types"]),
    ("engine", &["wal", "store"]),
    ("api", &["types", "platform"]),
    ("raft", &["engine", "api"]),
    ("http", &["engine", "api"]),
    ("server", &["raft", "http", "engine", "api"]),
    ("ctl", &["engine", "api"]),
    ("sim", &["server"]),
    ("tests", &[]),
];

/// Libraries with one home in the product.
const FENCED: &[(&str, &str)] = &[
    ("heed", "store"),
    ("openraft", "raft"),
    ("axum", "http"),
    ("turmoil", "sim"),
];

/// A library of another crate, and the one folder of `tests` that may use it: what is measured
/// against LMDB has to call LMDB.
const MEASURED_AGAINST: (&str, &str) = ("heed", "tests/src/bench/");

/// A workspace of its own.
const FUZZ: &str = "tests/fuzz/Cargo.toml";

/// Files past the limit, each with its reason.
const LONG_FILES: &[(&str, &str)] = &[];
const LONG: usize = 600;

/// What lies at the top.
const TOP: &[&str] = &[
    ".ci",
    ".clippy.toml",
    ".deny.toml",
    ".gitignore",
    ".justfile",
    ".rustfmt.toml",
    "Cargo.lock",
    "Cargo.toml",
    "LICENSE",
    "README.md",
    "ROADMAP.md",
    "deploy",
    "docs",
    "fuzz",
    "node",
    "sim",
    "tests",
];

fn metadata() -> Value {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let out = Command::new(cargo)
        .current_dir(root())
        .args([
            "metadata",
            "--format-version=1",
            "--no-deps",
            "--offline",
            "--locked",
        ])
        .output()
        .expect("cargo can be run");
    assert!(
        out.status.success(),
        "{}",
        String::from_utf8_lossy(&out.stderr)
    );
    serde_json::from_slice(&out.stdout).expect("cargo speaks JSON")
}

/// Package (without the prefix) → names of its dependencies; dev-dependencies apart.
fn dependencies(dev: bool) -> BTreeMap<String, BTreeSet<String>> {
    let metadata = metadata();
    let packages = metadata["packages"].as_array().unwrap();
    packages
        .iter()
        .map(|package| {
            let name = package["name"]
                .as_str()
                .unwrap()
                .trim_start_matches("unisondb-");
            let named = package["dependencies"].as_array().unwrap();
            let named = named.iter().filter(|d| (d["kind"] == "dev") == dev);
            (
                name.to_owned(),
                named
                    .map(|d| d["name"].as_str().unwrap().to_owned())
                    .collect(),
            )
        })
        .collect()
}

fn below(layer: &str) -> BTreeSet<&'static str> {
    let (_, direct) = LAYERS.iter().find(|(name, _)| *name == layer).unwrap();
    direct
        .iter()
        .flat_map(|d| below(d).into_iter().chain([*d]))
        .collect()
}

#[test]
fn the_layers_are_as_the_architecture_says() {
    let normal = dependencies(false);
    let known: BTreeSet<_> = LAYERS.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(
        normal.keys().cloned().collect::<BTreeSet<_>>(),
        known,
        "crates of the workspace"
    );
    for (layer, named) in normal.iter().chain(&dependencies(true)) {
        let allowed = below(layer);
        for other in named.iter().filter_map(|n| n.strip_prefix("unisondb-")) {
            assert!(allowed.contains(other), "{layer} must not name {other}");
        }
    }
}

#[test]
fn a_fenced_library_has_one_home() {
    for (layer, named) in dependencies(false).iter().chain(&dependencies(true)) {
        for (library, home) in FENCED {
            assert!(
                layer == home
                    || !named.contains(*library)
                    || (layer == "tests" && *library == MEASURED_AGAINST.0),
                "{layer} names {library}"
            );
        }
        assert!(!named.contains("rand"), "{layer} names rand");
    }
    let (library, folder) = MEASURED_AGAINST;
    for path in files("tests", ".rs") {
        let used = product_code(&text(&path)).contains(&format!("{library}::"));
        assert!(
            !used || path.starts_with(folder),
            "{} uses {library}",
            path.display()
        );
    }
}

/// Library → version, as the root's Cargo.toml has it.
fn versions() -> BTreeMap<String, String> {
    let toml = text(Path::new("Cargo.toml"));
    toml.lines().filter_map(version_of).collect()
}

/// `name = "1.2"` or `name = { version = "1.2", … }`.
fn version_of(line: &str) -> Option<(String, String)> {
    let (name, rest) = line.split_once(" = ")?;
    let rest = rest.strip_prefix("{ version = ").unwrap_or(rest);
    let version = rest.strip_prefix('"')?.split('"').next()?;
    (!name.contains(' ')).then(|| (name.to_owned(), version.to_owned()))
}

/// The fuzz targets are a workspace of their own, because libfuzzer wants a nightly compiler: what
/// they test has the same libraries in the same versions.
#[test]
fn the_fuzz_targets_take_the_same_versions() {
    let known = versions();
    let toml = text(Path::new(FUZZ));
    let (_, named) = toml.split_once("[dependencies]\n").unwrap();
    let mut same = 0;
    for (name, version) in named
        .lines()
        .take_while(|l| !l.starts_with('['))
        .filter_map(version_of)
    {
        match known.get(&name) {
            Some(root) => assert_eq!(version, *root, "{name}"),
            None => assert_eq!(name, "libfuzzer-sys", "not in the root's Cargo.toml"),
        }
        same += 1;
    }
    assert!(same >= 3, "{toml}");
}

#[test]
fn crates_take_the_workspace_s_lints_and_versions() {
    let manifests = files("node", "Cargo.toml").into_iter();
    let manifests = manifests.chain(files("tests", "Cargo.toml"));
    for path in manifests.filter(|p| p != Path::new(FUZZ)) {
        let toml = text(&path);
        assert!(
            toml.contains("[lints]\nworkspace = true"),
            "{}: lints",
            path.display()
        );
        for line in toml
            .lines()
            .filter(|l| l.contains('=') && l.starts_with(char::is_alphabetic))
        {
            assert!(
                !line.contains("version = \"") && !line.contains("git = "),
                "{}: {line}: versions stand in the root's Cargo.toml",
                path.display()
            );
        }
    }
}

/// Every product source file: path and code without comments and tests.
fn product() -> Vec<(PathBuf, String)> {
    let sources = files("node", ".rs")
        .into_iter()
        .filter(|p| p.to_string_lossy().contains("/src/"));
    sources
        // A file that is all tests is named so.
        .filter(|p| {
            p.file_name().is_none_or(|n| n != "tests.rs")
                && !p.to_string_lossy().contains("/tests/")
        })
        .map(|p| {
            let code = product_code(&text(&p));
            (p, code)
        })
        .collect()
}

#[test]
fn only_platform_touches_the_machine() {
    let forbidden = [
        "std::fs",
        "tokio::fs",
        "std::{fs",
        "SystemTime::now",
        "Instant::now",
        "thread::spawn",
        "thread::sleep",
        "thread::Builder",
        "spawn_blocking",
        "rand::rng",
        "thread_rng",
        "getrandom::",
    ];
    let mut broken = Vec::new();
    for (path, code) in product() {
        let layer = path
            .components()
            .nth(1)
            .unwrap()
            .as_os_str()
            .to_string_lossy()
            .into_owned();
        if layer == "platform" {
            continue;
        }
        for (n, line) in code.lines().enumerate() {
            for call in forbidden.iter().filter(|c| line.contains(**c)) {
                // LMDB's own I/O, and the thread that LMDB's copy writes its pipe from.
                if layer == "store"
                    && matches!(*call, "std::fs" | "thread::spawn" | "thread::Builder")
                {
                    continue;
                }
                broken.push(format!("{}:{}: {call}", path.display(), n + 1));
            }
        }
    }
    assert!(
        broken.is_empty(),
        "outside node/platform:\n{}",
        broken.join("\n")
    );
}

#[test]
fn product_code_knows_no_simulator_and_leaves_nothing_undone() {
    let forbidden = ["cfg(sim", "todo!", "unimplemented!", "dbg!"];
    for (path, code) in product() {
        for (n, line) in code.lines().enumerate() {
            let found = forbidden.iter().find(|f| line.contains(**f));
            assert_eq!(found, None, "{}:{}", path.display(), n + 1);
        }
    }
}

fn all_rust() -> Vec<PathBuf> {
    files("node", ".rs")
        .into_iter()
        .chain(files("sim", ".rs"))
        .chain(files("tests", ".rs"))
        .collect()
}

#[test]
fn every_file_says_what_it_is() {
    for path in all_rust() {
        let source = text(&path);
        assert!(
            source.starts_with("//! "),
            "{} does not begin with `//!`",
            path.display()
        );
        assert!(
            !source.starts_with("//! (being written)"),
            "{}",
            path.display()
        );
    }
}

#[test]
fn a_file_has_one_subject() {
    for path in all_rust() {
        let lines = text(&path).lines().count();
        let name = path.to_string_lossy();
        let listed = LONG_FILES.iter().find(|(file, _)| *file == name);
        assert!(
            lines <= LONG || listed.is_some(),
            "{name}: {lines} lines, {LONG} are the limit"
        );
    }
}

#[test]
fn no_test_is_switched_off() {
    let mark = concat!("#[ign", "ore");
    for path in all_rust() {
        assert!(!text(&path).contains(mark), "{}", path.display());
    }
}

#[test]
fn every_planted_bug_can_still_be_planted() {
    let mut patches = files("sim/mutants", ".patch");
    patches.sort();
    assert!(patches.len() >= 20, "{patches:?}");
    for patch in patches {
        let applies = Command::new("git")
            .args(["apply", "--check"])
            .arg(&patch)
            .current_dir(root())
            .output()
            .expect("git runs");
        let why = String::from_utf8_lossy(&applies.stderr);
        assert!(applies.status.success(), "{}: {why}", patch.display());
    }
}

#[test]
fn names_say_what_a_thing_is() {
    for (path, code) in product() {
        let mut words = code
            .split(|c: char| !c.is_alphanumeric() && c != '_')
            .peekable();
        while let Some(word) = words.next() {
            let (true, Some(name)) = (matches!(word, "struct" | "enum" | "trait"), words.peek())
            else {
                continue;
            };
            for filler in ["Manager", "Helper", "Util"] {
                assert!(!name.ends_with(filler), "{}: {name}", path.display());
            }
        }
    }
}

#[test]
fn the_top_level_is_as_the_architecture_says() {
    for entry in std::fs::read_dir(root()).unwrap() {
        let name = entry.unwrap().file_name().to_string_lossy().into_owned();
        let ignored = matches!(&*name, ".git" | "target" | "data");
        assert!(
            ignored || TOP.contains(&&*name),
            "{name} has no place at the top"
        );
    }
}

/// Text files that a reader sees.
fn pages() -> Vec<PathBuf> {
    let mut pages = files("docs", ".md");
    pages.extend(["README.md", "ROADMAP.md"].map(PathBuf::from));
    pages
}

/// The anchor that a heading gets.
fn anchor(heading: &str) -> String {
    let kept = heading.to_lowercase();
    let kept = kept
        .chars()
        .filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.collect::<String>().replace(' ', "-")
}

#[test]
fn links_in_the_documentation_lead_somewhere() {
    for page in pages() {
        let folder = page.parent().unwrap();
        for link in text(&page)
            .split("](")
            .skip(1)
            .map(|rest| rest.split(')').next().unwrap())
        {
            if link.contains("://") {
                continue;
            }
            let (file, fragment) = link.split_once('#').unwrap_or((link, ""));
            let target = if file.is_empty() {
                page.clone()
            } else {
                folder.join(file)
            };
            assert!(root().join(&target).exists(), "{}: {link}", page.display());
            if !fragment.is_empty() {
                let text = text(&target);
                let mut headings = text.lines().filter(|l| l.starts_with('#'));
                assert!(
                    headings.any(|h| anchor(h.trim_start_matches('#').trim()) == fragment),
                    "{}: no heading for {link}",
                    page.display()
                );
            }
        }
    }
}

/// Texts `docs/….md` and `deploy/…` in any source or page.
fn mentions(text: &str, folder: &str) -> Vec<String> {
    let word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '/' | '-' | '_' | '.');
    text.split(|c: char| !word(c))
        .filter(|w| w.starts_with(folder) && !w.contains("..") && w.len() > folder.len())
        .map(|w| w.trim_end_matches('.').to_owned())
        .collect()
}

#[test]
fn what_the_code_says_of_the_documentation_is_there() {
    let mut missing = BTreeSet::new();
    for path in all_rust().into_iter().chain(pages()) {
        let text = text(&path);
        for mention in mentions(&text, "docs/")
            .into_iter()
            .chain(mentions(&text, "deploy/"))
        {
            if !root().join(&mention).exists() {
                missing.insert(format!("{}: {mention}", path.display()));
            }
        }
    }
    assert!(missing.is_empty(), "{missing:#?}");
}

#[test]
fn promises_and_decisions_that_are_named_are_written_down() {
    let architecture = text(Path::new("docs/architecture.md"));
    let mut missing = BTreeSet::new();
    for path in all_rust() {
        for word in text(&path).split(|c: char| !c.is_ascii_alphanumeric()) {
            let number = word.strip_prefix(['P', 'D']).unwrap_or_default();
            let named =
                (1..=2).contains(&number.len()) && number.bytes().all(|b| b.is_ascii_digit());
            if named && !architecture.contains(&format!("**{word} ")) {
                missing.insert(format!("{}: {word}", path.display()));
            }
        }
    }
    assert!(missing.is_empty(), "{missing:#?}");
}

#[test]
fn a_test_that_the_architecture_names_exists() {
    let architecture = text(Path::new("docs/architecture.md"));
    let code: String = all_rust().iter().map(|p| text(p)).collect();
    let mut named = 0;
    for name in architecture.split('`').skip(1).step_by(2) {
        if name.matches('_').count() >= 2
            && name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_')
        {
            assert!(code.contains(&format!("fn {name}(")), "no test `{name}`");
            named += 1;
        }
    }
    assert!(named >= 12, "only {named} tests are named");
}

#[test]
fn the_glossary_has_every_word_once() {
    let glossary = text(Path::new("docs/glossary.md"));
    let words: Vec<_> = glossary
        .lines()
        .filter_map(|l| l.strip_prefix("- **")?.split("**").next())
        .collect();
    let once: BTreeSet<_> = words.iter().collect();
    assert_eq!(once.len(), words.len(), "a word stands twice: {words:?}");
    for word in [
        "record",
        "frame",
        "LSN",
        "term",
        "lineage",
        "segment",
        "durable",
        "committed",
        "applied",
        "flushed",
        "purged",
        "stamp",
        "digest",
        "chain",
        "snapshot",
        "base",
        "target",
        "hold",
        "fork",
        "namespace",
        "seal",
        "memtable",
        "trailer",
    ] {
        assert!(words.contains(&word), "{word} is not in docs/glossary.md");
    }
}

#[test]
fn nothing_points_outside_the_repository() {
    for path in all_rust()
        .into_iter()
        .chain(pages())
        .chain(files("deploy", ""))
    {
        let text = text(&path);
        for outside in [concat!("../", "shared"), concat!("/wo", "rk/")] {
            assert!(!text.contains(outside), "{}: {outside}", path.display());
        }
    }
}
