//! What clients send.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use serde::de::{IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::Base64;

/// A text, borrowed from the body unless JSON escaped something in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

impl<'a> Text<'a> {
    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl<'a, T: Into<Cow<'a, str>>> From<T> for Text<'a> {
    fn from(text: T) -> Text<'a> {
        Text(text.into())
    }
}

/// PUT `/kv/{key}`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Put {
    /// The value; must be there.
    pub value: Option<Base64>,
}

/// POST `/kv/batch`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Batch<'a> {
    /// `put` or `delete`.
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    pub operation: Option<Text<'a>>,
    /// What a `put` writes.
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    pub items: Option<Vec<Item<'a>>>,
    /// What a `delete` removes.
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    pub keys: Option<Vec<Text<'a>>>,
    /// The same for keys that are not UTF-8.
    #[serde(rename = "keysB64", skip_serializing_if = "Option::is_none")]
    pub keys_b64: Option<Vec<Base64>>,
}

/// One key and its value.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Item<'a> {
    /// The key.
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    pub key: Option<Text<'a>>,
    /// A key that is not UTF-8.
    #[serde(rename = "keyB64", skip_serializing_if = "Option::is_none")]
    pub key_b64: Option<Base64>,
    /// The value.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<Base64>,
}

/// PUT `/row/{rowKey}`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PutRow<'a> {
    /// What is merged into the row.
    #[serde(borrow)]
    pub columns: Option<Columns<'a>>,
}

/// DELETE `/row/{rowKey}/columns`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DropColumns<'a> {
    /// The columns' names.
    #[serde(borrow)]
    pub columns: Option<ColumnNames<'a>>,
}

/// POST `/row/batch`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RowBatch<'a> {
    /// `put` or `delete`.
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    pub operation: Option<Text<'a>>,
    /// The rows.
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    pub rows: Option<Vec<RowItem<'a>>>,
}

/// One row of a batch. What `columns` holds depends on the operation: with `delete` its values, if
/// it has any, do not count.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RowItem<'a> {
    /// The row's key.
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    pub row_key: Option<Text<'a>>,
    /// A row key that is not UTF-8.
    #[serde(rename = "rowKeyB64", skip_serializing_if = "Option::is_none")]
    pub row_key_b64: Option<Base64>,
    /// Columns to merge, or names of columns to remove.
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    pub columns: Option<ColumnsOrNames<'a>>,
}

/// POST `/tx/begin`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Begin<'a> {
    /// `put`, `update` or `delete`.
    #[serde(borrow)]
    pub operation: Option<Text<'a>>,
    /// `kv`, `row` or `lob`.
    #[serde(borrow)]
    pub entry_type: Option<Text<'a>>,
}

/// POST `/wal/backup`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WalBackup<'a> {
    /// Only segments above this id; left out or zero: all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after_segment_id: Option<u64>,
    /// Folder below the namespace's backup root.
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    pub backup_dir: Option<Text<'a>>,
    /// Whether an active segment that holds user data is sealed first (default true).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seal: Option<bool>,
}

/// POST `/btree/backup`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BtreeBackup<'a> {
    /// File below the namespace's backup root.
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    pub path: Option<Text<'a>>,
}

/// POST `/api/v1/namespaces`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewNamespace<'a> {
    /// Its name.
    #[serde(borrow)]
    pub name: Option<Text<'a>>,
}

/// POST `/api/v1/cluster/members`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewMember<'a> {
    /// Where other nodes reach it: `host:port` of its peer side.
    #[serde(borrow)]
    pub address: Option<Text<'a>>,
}

/// `{name: value}`, in the order given.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Columns<'a>(pub Vec<(Text<'a>, Base64)>);

/// `{name: anything}` or `[name]`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ColumnNames<'a>(pub Vec<Text<'a>>);

/// `{name: value}`, `{name: null}` or `[name]`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ColumnsOrNames<'a>(pub Vec<(Text<'a>, Option<Base64>)>);

impl Serialize for Columns<'_> {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_map(self.0.iter().map(|(name, value)| (name, value)))
    }
}

impl Serialize for ColumnNames<'_> {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_seq(&self.0)
    }
}

impl Serialize for ColumnsOrNames<'_> {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        let mut map = s.serialize_map(Some(self.0.len()))?;
        for (name, value) in &self.0 {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Columns<'a> {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Columns<'a>, D::Error> {
        let pairs = d.deserialize_map(Pairs::<Base64>(PhantomData))?;
        Ok(Columns(pairs))
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for ColumnNames<'a> {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<ColumnNames<'a>, D::Error> {
        let pairs = d.deserialize_any(Pairs::<IgnoredAny>(PhantomData))?;
        Ok(ColumnNames(
            pairs.into_iter().map(|(name, _)| name).collect(),
        ))
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for ColumnsOrNames<'a> {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<ColumnsOrNames<'a>, D::Error> {
        let pairs = d.deserialize_any(Pairs::<Option<Base64>>(PhantomData))?;
        Ok(ColumnsOrNames(pairs))
    }
}

/// Reads a map into pairs, or a list into pairs of a name and nothing. A list of columns whose
/// values must be there does not come here: it is asked for as a map.
struct Pairs<V>(PhantomData<V>);

impl<'de, V: Deserialize<'de> + Default> Visitor<'de> for Pairs<V> {
    type Value = Vec<(Text<'de>, V)>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("columns: an object by name, or a list of names")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut pairs = Vec::new();
        while let Some(pair) = map.next_entry()? {
            pairs.push(pair);
        }
        Ok(pairs)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let mut pairs = Vec::new();
        while let Some(name) = seq.next_element()? {
            pairs.push((name, V::default()));
        }
        Ok(pairs)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn null_is_left_out_and_unknown_fields_are_ignored() {
        let b: WalBackup = serde_json::from_str(
            r#"{"afterSegmentId": null, "backupDir":"wal/x", "seal":null, "extra":{"a":[1]}}"#,
        )
        .unwrap();
        assert_eq!((b.after_segment_id, b.seal), (None, None));
        assert_eq!(b.backup_dir.unwrap().as_str(), "wal/x");
        for bad in [
            r#"{"afterSegmentId":-1}"#,
            r#"{"afterSegmentId":"4"}"#,
            r#"{"afterSegmentId":1.5}"#,
        ] {
            assert!(serde_json::from_str::<WalBackup>(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn texts_are_borrowed_unless_they_are_escaped() {
        let b: Batch =
            serde_json::from_str(r#"{"operation":"delete","keys":["plain","esc\"aped"]}"#).unwrap();
        let keys = b.keys.unwrap();
        assert!(matches!(keys[0].0, Cow::Borrowed("plain")));
        assert_eq!(keys[1].as_str(), "esc\"aped");
    }

    #[test]
    fn columns_to_remove_come_as_an_object_or_a_list() {
        for body in [
            r#"{"columns":{"a":1,"b":null}}"#,
            r#"{"columns":["a","b"]}"#,
        ] {
            let d: DropColumns = serde_json::from_str(body).unwrap();
            let names: Vec<_> = d
                .columns
                .unwrap()
                .0
                .iter()
                .map(|t| t.as_str().to_owned())
                .collect();
            assert_eq!(names, ["a", "b"]);
        }
        let p: PutRow = serde_json::from_str(r#"{"columns":{"b":"YQ==","a":""}}"#).unwrap();
        let columns = p.columns.unwrap().0;
        assert_eq!(
            (columns[0].0.as_str(), columns[0].1.as_bytes()),
            ("b", &b"a"[..])
        );
        assert!(serde_json::from_str::<PutRow>(r#"{"columns":["a"]}"#).is_err());
        assert!(serde_json::from_str::<PutRow>(r#"{"columns":{"a":null}}"#).is_err());
    }
}
