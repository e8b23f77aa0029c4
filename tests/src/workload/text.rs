//! Base64 and percent encoding, and chance that a seed repeats. Written here and not taken from the
//! product: a mistake in its own would then be seen.

const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// Standard base64, padded.
pub fn to_base64(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let byte = |i: usize| u32::from(group.get(i).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for i in 0..4 {
            let digit = DIGITS[(bits >> (18 - 6 * i)) as usize & 63];
            text.push(if i > group.len() {
                '='
            } else {
                char::from(digit)
            });
        }
    }
    text
}

/// The bytes of standard base64; `None` if it is none.
pub fn from_base64(text: &str) -> Option<Vec<u8>> {
    const fn table() -> [u8; 256] {
        let mut table = [0xff; 256];
        let mut i = 0;
        while i < 64 {
            table[DIGITS[i] as usize] = i.to_le_bytes()[0];
            i += 1;
        }
        table
    }
    const VALUES: [u8; 256] = table();
    let digits = text.trim_end_matches('=').as_bytes();
    if !text.len().is_multiple_of(4) || text.len() - digits.len() > 2 {
        return None;
    }
    let mut bytes = Vec::with_capacity(digits.len() * 3 / 4);
    for group in digits.chunks(4) {
        let mut bits = 0u32;
        for i in 0..4 {
            let value = group.get(i).map_or(0, |d| VALUES[usize::from(*d)]);
            if value > 63 {
                return None;
            }
            bits = bits << 6 | u32::from(value);
        }
        bytes.extend_from_slice(&bits.to_be_bytes()[1..group.len()]);
    }
    Some(bytes)
}

/// `text` for a path segment or a query value.
pub fn percent(text: &str) -> String {
    let mut out = String::new();
    for b in text.bytes() {
        if b.is_ascii_alphanumeric() || b"-._~".contains(&b) {
            out.push(char::from(b));
        } else {
            out.push_str(&format!("%{b:02X}"));
        }
    }
    out
}

/// Chance: SplitMix64 (Steele, Lea, Flood 2014). The same seed gives the same row.
#[derive(Debug, Clone)]
pub struct Chance(u64);

impl Chance {
    /// From a seed.
    pub fn new(seed: u64) -> Chance {
        Chance(seed)
    }
    /// The next number.
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }
    /// A number below `n`.
    pub fn below(&mut self, n: u64) -> u64 {
        self.number() % n
    }
    /// One of `items`.
    ///
    /// # Panics
    /// When there is none.
    pub fn one<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        let n = u64::try_from(items.len()).expect("a length fits");
        &items[usize::try_from(self.below(n)).expect("below a length")]
    }
    /// `len` bytes.
    pub fn bytes(&mut self, len: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(len + 8);
        while bytes.len() < len {
            bytes.extend_from_slice(&self.number().to_le_bytes());
        }
        bytes.truncate(len);
        bytes
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn base64_is_the_standard_one_and_comes_back() {
        // RFC 4648, section 10.
        for (plain, coded) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("fooba", "Zm9vYmE="),
            ("foobar", "Zm9vYmFy"),
        ] {
            assert_eq!(to_base64(plain.as_bytes()), coded);
            assert_eq!(from_base64(coded).unwrap(), plain.as_bytes());
        }
        let bytes = Chance::new(1).bytes(1000);
        assert_eq!(from_base64(&to_base64(&bytes)).unwrap(), bytes);
        assert!(from_base64("Zg=").is_none() && from_base64("Z!==").is_none());
    }

    #[test]
    fn a_slash_and_a_space_are_encoded() {
        assert_eq!(percent("c1/k 2%é"), "c1%2Fk%202%25%C3%A9");
    }
}
