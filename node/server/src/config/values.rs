//! The types a setting can have, and the one text form of each: what a flag, an environment
//! variable and the file say alike, and what `config check` prints.

use std::path::PathBuf;
use std::time::Duration;

use unisondb_types::{Lsn, Namespace, SegmentId, Stamp};

use super::address::Address;

/// Something that a key can be set to.
pub trait Setting: Sized {
    /// What is wanted, in one word of the help.
    const KIND: &'static str;
    /// Whether a bare `--name` on the command line means `true`.
    const SWITCH: bool = false;
    /// Whether the key may be given several times, and takes a list.
    const LIST: bool = false;
    /// Parses its text form.
    ///
    /// # Errors
    /// What is wrong, and what is wanted.
    fn read(text: &str) -> Result<Self, String>;
    /// Its text form; [`read`](Self::read) gives the same value again.
    fn print(&self) -> String;
}

/// A number of bytes, printed with the largest binary unit that fits exactly.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(u64);

impl Size {
    /// In bytes.
    pub const fn bytes(self) -> u64 {
        self.0
    }
}

/// A share of the whole, 1 to 100 percent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share(u8);

impl Share {
    /// That share of `whole`.
    pub const fn of(self, whole: u64) -> u64 {
        whole / 100 * self.0 as u64 + whole % 100 * self.0 as u64 / 100
    }
}

const BINARY: [(&str, u64); 4] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
];
const DECIMAL: [(&str, u64); 5] = [
    ("TB", 1_000_000_000_000),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("KB", 1_000),
    ("B", 1),
];

impl Setting for Size {
    const KIND: &'static str = "SIZE";
    fn read(text: &str) -> Result<Size, String> {
        let wrong = || {
            format!(
                "{text:?} is not a size: a whole number and B, KiB, MiB, GiB or TiB are wanted, such as 64MiB"
            )
        };
        let at = text
            .find(|c: char| !c.is_ascii_digit())
            .unwrap_or(text.len());
        let (digits, unit) = text.split_at(at);
        let n: u64 = digits.parse().map_err(|_| wrong())?;
        let unit = unit.trim();
        let factor = if unit.is_empty() {
            1
        } else {
            let known = BINARY.iter().chain(&DECIMAL);
            let found = known
                .into_iter()
                .find(|(name, _)| name.eq_ignore_ascii_case(unit));
            found.ok_or_else(wrong)?.1
        };
        n.checked_mul(factor).map(Size).ok_or_else(wrong)
    }
    fn print(&self) -> String {
        let unit = BINARY
            .iter()
            .find(|(_, n)| self.0 >= *n && self.0.is_multiple_of(*n));
        unit.map_or_else(
            || format!("{}B", self.0),
            |(name, n)| format!("{}{name}", self.0 / n),
        )
    }
}

const TIMES: [(&str, u64); 7] = [
    ("w", 7 * 86_400_000_000),
    ("d", 86_400_000_000),
    ("h", 3_600_000_000),
    ("m", 60_000_000),
    ("s", 1_000_000),
    ("ms", 1_000),
    ("us", 1),
];

impl Setting for Duration {
    const KIND: &'static str = "DURATION";
    fn read(text: &str) -> Result<Duration, String> {
        let wrong = || {
            format!(
                "{text:?} is not a duration: whole numbers with w, d, h, m, s or ms are wanted, such as 7d or 1h30m"
            )
        };
        let mut rest = text;
        let mut micros = 0u64;
        if rest.is_empty() {
            return Err(wrong());
        }
        while !rest.is_empty() {
            let at = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
            let (digits, tail) = rest.split_at(at);
            let end = tail
                .find(|c: char| c.is_ascii_digit())
                .unwrap_or(tail.len());
            let (unit, tail) = tail.split_at(end);
            let n: u64 = digits.parse().map_err(|_| wrong())?;
            let factor = TIMES
                .iter()
                .find(|(name, _)| *name == unit.trim())
                .ok_or_else(wrong)?
                .1;
            let part = n.checked_mul(factor).ok_or_else(wrong)?;
            micros = micros.checked_add(part).ok_or_else(wrong)?;
            rest = tail;
        }
        Ok(Duration::from_micros(micros))
    }
    fn print(&self) -> String {
        let micros = u64::try_from(self.as_micros()).unwrap_or(u64::MAX);
        let unit = TIMES
            .iter()
            .find(|(_, n)| micros >= *n && micros.is_multiple_of(*n));
        unit.map_or_else(
            || "0s".to_owned(),
            |(name, n)| format!("{}{name}", micros / n),
        )
    }
}

impl Setting for Share {
    const KIND: &'static str = "PERCENT";
    fn read(text: &str) -> Result<Share, String> {
        let n = text.strip_suffix('%').unwrap_or(text).trim().parse();
        match n {
            Ok(n) if (1..=100).contains(&n) => Ok(Share(n)),
            _ => Err(format!("{text:?} is not a share: 1% to 100% is wanted")),
        }
    }
    fn print(&self) -> String {
        format!("{}%", self.0)
    }
}

impl Setting for bool {
    const KIND: &'static str = "BOOL";
    const SWITCH: bool = true;
    fn read(text: &str) -> Result<bool, String> {
        match text {
            "true" | "1" | "yes" | "on" => Ok(true),
            "false" | "0" | "no" | "off" => Ok(false),
            _ => Err(format!("{text:?} is neither true nor false")),
        }
    }
    fn print(&self) -> String {
        self.to_string()
    }
}

impl Setting for PathBuf {
    const KIND: &'static str = "PATH";
    fn read(text: &str) -> Result<PathBuf, String> {
        if text.is_empty() || text.contains('\0') {
            return Err("a path is wanted".to_owned());
        }
        Ok(PathBuf::from(text))
    }
    fn print(&self) -> String {
        self.display().to_string()
    }
}

impl Setting for String {
    const KIND: &'static str = "TEXT";
    fn read(text: &str) -> Result<String, String> {
        Ok(text.to_owned())
    }
    fn print(&self) -> String {
        self.clone()
    }
}

/// Types with a text form of their own.
macro_rules! by_from_str {
    ($($t:ty, $kind:literal;)*) => {$(
        impl Setting for $t {
            const KIND: &'static str = $kind;
            fn read(text: &str) -> Result<Self, String> {
                text.parse::<$t>().map_err(|e| e.to_string())
            }
            fn print(&self) -> String {
                self.to_string()
            }
        }
    )*};
}
by_from_str! {
    Address, "HOST:PORT";
    Namespace, "NAMESPACE";
    Stamp, "TIME";
    Lsn, "LSN";
    SegmentId, "ID";
}

/// An empty text is the absence of a value.
impl<T: Setting> Setting for Option<T> {
    const KIND: &'static str = T::KIND;
    const SWITCH: bool = T::SWITCH;
    fn read(text: &str) -> Result<Option<T>, String> {
        if text.is_empty() {
            return Ok(None);
        }
        T::read(text).map(Some)
    }
    fn print(&self) -> String {
        self.as_ref().map(T::print).unwrap_or_default()
    }
}

/// A list, its items between commas.
impl<T: Setting> Setting for Vec<T> {
    const KIND: &'static str = T::KIND;
    const LIST: bool = true;
    fn read(text: &str) -> Result<Vec<T>, String> {
        let items = text
            .split(',')
            .map(str::trim)
            .filter(|item| !item.is_empty());
        items.map(T::read).collect()
    }
    fn print(&self) -> String {
        self.iter().map(T::print).collect::<Vec<_>>().join(",")
    }
}

/// A setting that is one of a few words.
macro_rules! choice {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $text:literal,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum $name { $($(#[$vdoc])* $variant,)* }

        impl Setting for $name {
            const KIND: &'static str = concat!($($text, "|",)*);
            fn read(text: &str) -> Result<Self, String> {
                match text {
                    $($text => Ok($name::$variant),)*
                    _ => Err(format!(
                        "{text:?} is not one of {}",
                        Self::KIND.trim_end_matches('|').replace('|', ", "),
                    )),
                }
            }
            fn print(&self) -> String {
                match self { $($name::$variant => $text.to_owned(),)* }
            }
        }
    };
}

choice! {
    /// When a write is answered.
    Durability {
        /// After the fsync.
        Always = "always",
        /// Before it: a crash may lose what was answered since the last one.
        Interval = "interval",
    }
}

choice! {
    /// What log lines look like.
    LogFormat {
        /// For people.
        Text = "text",
        /// One JSON object a line.
        Json = "json",
    }
}

choice! {
    /// Which log lines are written.
    LogLevel {
        /// Only errors.
        Error = "error",
        /// And warnings.
        Warn = "warn",
        /// And what happens to the node.
        Info = "info",
        /// And each step of it.
        Debug = "debug",
        /// Everything.
        Trace = "trace",
    }
}

choice! {
    /// What a restored directory with a hole between snapshot and log does.
    OnGap {
        /// Does not start, and names the missing segments.
        Refuse = "refuse",
        /// Serves the state up to the hole, and takes no writes.
        ReadOnly = "read-only",
        /// Sets the log aside and starts a new lineage at the snapshot.
        SetAside = "set-aside",
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn sizes_take_binary_and_decimal_units_and_refuse_the_rest() {
        for (text, bytes) in [
            ("0", 0),
            ("4096", 4096),
            ("64MiB", 64 << 20),
            ("64 mib", 64 << 20),
            ("1GB", 1_000_000_000),
            ("7B", 7),
        ] {
            assert_eq!(Size::read(text).unwrap().bytes(), bytes, "{text}");
        }
        for bad in [
            "",
            "MiB",
            "-1",
            "1.5GiB",
            "64MiBs",
            "20000000TiB",
            "99999999999999999999",
        ] {
            assert!(Size::read(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn durations_may_have_several_parts() {
        for (text, seconds) in [("7d", 604_800), ("1h30m", 5400), ("0s", 0), ("90s", 90)] {
            assert_eq!(
                Duration::read(text).unwrap(),
                Duration::from_secs(seconds),
                "{text}"
            );
        }
        for bad in ["", "7", "d", "1y", "1h30", "99999999999w"] {
            assert!(Duration::read(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_share_of_a_large_volume_does_not_overflow() {
        assert_eq!(Share::read("25%").unwrap().of(1000), 250);
        assert_eq!(Share::read("100").unwrap().of(u64::MAX), u64::MAX);
        assert!(Share::read("0").is_err() && Share::read("101%").is_err());
    }

    proptest! {
        #[test]
        fn what_is_printed_reads_back_the_same(n: u64) {
            prop_assert_eq!(Size::read(&Size(n).print()), Ok(Size(n)));
            let d = Duration::from_micros(n);
            prop_assert_eq!(Duration::read(&d.print()), Ok(d));
        }

        #[test]
        fn any_text_is_read_or_refused_but_never_panics(text: String) {
            drop((Size::read(&text), Duration::read(&text), Share::read(&text)));
            drop(Vec::<Namespace>::read(&text));
        }
    }
}
