//! The configuration file: TOML, tables or not: `wal_retention = "7d"`, `wal-retention = "7d"` and
//! `[wal]` with `retention = "7d"` say the same.

use std::path::Path;

use super::{ConfigError, KEYS, Texts, nearest};

/// The texts of all keys in the file.
///
/// # Errors
/// Not TOML, an unknown key, one given twice, or a value of a kind that no key has.
pub(super) fn read(path: &Path, bytes: &[u8]) -> Result<Texts, ConfigError> {
    let malformed = |why: String| ConfigError::Toml {
        path: path.to_owned(),
        why,
    };
    let text = std::str::from_utf8(bytes).map_err(|e| malformed(e.to_string()))?;
    let table: toml::Table = text
        .parse()
        .map_err(|e: toml::de::Error| malformed(e.to_string().trim_end().to_owned()))?;
    let mut texts = Texts::new();
    flatten(path, "", &table, &mut texts)?;
    Ok(texts)
}

fn flatten(
    path: &Path,
    above: &str,
    table: &toml::Table,
    texts: &mut Texts,
) -> Result<(), ConfigError> {
    for (name, value) in table {
        let written = match above {
            "" => name.clone(),
            above => format!("{above}.{name}"),
        };
        if let toml::Value::Table(inner) = value {
            flatten(path, &written, inner, texts)?;
            continue;
        }
        let name = written.replace(['-', '.'], "_");
        let Some(key) = KEYS.iter().find(|key| key.name == name) else {
            return Err(ConfigError::UnknownKey {
                place: path.display().to_string(),
                nearest: nearest(&name, KEYS.iter().map(|key| key.name.to_owned())),
                name: written,
            });
        };
        let wrong = |why: &str| ConfigError::Value {
            place: format!("{}: {written}", path.display()),
            why: why.to_owned(),
        };
        let text = match value {
            toml::Value::Array(items) if key.list => {
                let items: Option<Vec<String>> = items.iter().map(scalar).collect();
                items
                    .ok_or_else(|| wrong("a list of texts is wanted"))?
                    .join(",")
            }
            value => scalar(value).ok_or_else(|| wrong("a single value is wanted"))?,
        };
        if texts.insert(key.name, text).is_some() {
            return Err(wrong("the key is given twice"));
        }
    }
    Ok(())
}

fn scalar(value: &toml::Value) -> Option<String> {
    match value {
        toml::Value::String(text) => Some(text.clone()),
        toml::Value::Integer(n) => Some(n.to_string()),
        toml::Value::Boolean(b) => Some(b.to_string()),
        toml::Value::Datetime(time) => Some(time.to_string()),
        toml::Value::Float(_) | toml::Value::Array(_) | toml::Value::Table(_) => None,
    }
}
