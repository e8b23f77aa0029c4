//! The source tree, for the house rules: where it is, its files, its Rust code without comments.

use std::fs;
use std::path::{Path, PathBuf};

/// The repository's root.
pub fn root() -> PathBuf {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    tests.parent().expect("tests/ lies in the root").to_owned()
}

/// Every file below `folder` (relative to the root) whose name ends in `ending`, in order, as
/// paths relative to the root. Build output, data and hidden folders are left out.
pub fn files(folder: &str, ending: &str) -> Vec<PathBuf> {
    let root = root();
    let mut found = Vec::new();
    let mut open = vec![root.join(folder)];
    while let Some(dir) = open.pop() {
        let entries = fs::read_dir(&dir).unwrap_or_else(|e| panic!("{}: {e}", dir.display()));
        for entry in entries {
            let path = entry.expect("a folder can be listed").path();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if path.is_dir() {
                if !name.starts_with('.') && name != "target" && name != "data" {
                    open.push(path);
                }
            } else if name.ends_with(ending) {
                found.push(path.strip_prefix(&root).expect("below the root").to_owned());
            }
        }
    }
    found.sort();
    found
}

/// A file's text, by its path relative to the root.
pub fn text(path: &Path) -> String {
    let path = root().join(path);
    fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// The product part of a source file: comments blanked, and everything from a `#[cfg(test)]` that
/// opens a test module on left out (tests come last in a file). Line numbers stay as they are.
pub fn product_code(source: &str) -> String {
    let mut code = String::new();
    let mut lines = source.lines().peekable();
    while let Some(line) = lines.next() {
        let next_is_module = lines.peek().is_some_and(|l| {
            let l = l.trim_start();
            l.starts_with("mod ") && l.ends_with('{')
                || l.starts_with("#[allow")
                || l.starts_with("#[expect")
        });
        if line.trim() == "#[cfg(test)]" && next_is_module {
            break;
        }
        code.push_str(without_comment(line));
        code.push('\n');
    }
    code
}

/// A line up to its `//`, unless that stands in a string.
fn without_comment(line: &str) -> &str {
    let bytes = line.as_bytes();
    let mut in_string = false;
    let mut i = 0;
    while i < bytes.len() {
        match bytes[i] {
            b'\\' if in_string => i += 1,
            // A quote as a character literal opens no string.
            b'"' if bytes.get(i.wrapping_sub(1)) != Some(&b'\'') => in_string = !in_string,
            b'/' if !in_string && bytes.get(i + 1) == Some(&b'/') => return &line[..i],
            _ => {}
        }
        i += 1;
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_tests_are_no_product_code() {
        let source = "let a = \"// no\"; // Instant::now\nlet q = '\"'; // x\n#[cfg(test)]\nmod tests {\nstd::fs\n";
        assert_eq!(
            product_code(source),
            "let a = \"// no\"; \nlet q = '\"'; \n"
        );
    }

    #[test]
    fn the_tree_is_found() {
        assert!(files("tests", ".rs").contains(&PathBuf::from("tests/src/repository.rs")));
        assert!(text(Path::new("Cargo.toml")).contains("[workspace]"));
    }
}
