//! What is written: keys drawn at random but repeatably, and a pool of random values that a key
//! chooses from, so that any answer can be checked without remembering what was sent.

/// A seeded stream of numbers (SplitMix64, Steele et al. 2014).
#[derive(Debug, Clone)]
pub struct Draw(u64);

impl Draw {
    /// The stream of a seed.
    pub fn new(seed: u64) -> Draw {
        Draw(seed)
    }

    /// The next number.
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// The next key and value.
    pub fn item(&mut self) -> Item {
        Item(self.next_u64())
    }
}

/// One key and, by it, one value of the pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Item(pub u64);

impl Item {
    /// The key: 16 hexadecimal digits.
    pub fn key(self) -> [u8; 16] {
        let mut key = [0; 16];
        for (i, digit) in key.iter_mut().enumerate() {
            *digit = b"0123456789abcdef"[((self.0 >> (60 - 4 * i)) & 15) as usize];
        }
        key
    }
}

/// A prime, so that neighbouring keys do not share values.
const VALUES: u64 = 61;

/// The values of one size, raw and ready for JSON: encoding them is not what is measured.
#[derive(Debug)]
pub struct Payloads {
    raw: Vec<Vec<u8>>,
    base64: Vec<String>,
}

impl Payloads {
    /// Values of `size` random bytes.
    pub fn new(size: usize) -> Payloads {
        let mut draw = Draw::new(size as u64);
        let value = |_| {
            let bytes = std::iter::repeat_with(|| draw.next_u64().to_le_bytes());
            bytes.flatten().take(size).collect::<Vec<u8>>()
        };
        let raw: Vec<Vec<u8>> = (0..VALUES).map(value).collect();
        let base64 = raw.iter().map(|value| base64(value)).collect();
        Payloads { raw, base64 }
    }

    fn index(item: Item) -> usize {
        (item.0 % VALUES) as usize
    }

    /// The value of an item.
    pub fn raw(&self, item: Item) -> &[u8] {
        &self.raw[Self::index(item)]
    }

    /// The value of an item in standard base64.
    pub fn base64(&self, item: Item) -> &str {
        &self.base64[Self::index(item)]
    }
}

/// Standard base64 with padding (RFC 4648).
fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for part in bytes.chunks(3) {
        let byte = |i: usize| u32::from(part.get(i).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for i in 0..4 {
            let digit = ALPHABET[(bits >> (18 - 6 * i) & 63) as usize];
            text.push(if i <= part.len() {
                char::from(digit)
            } else {
                '='
            });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_that_of_the_rfc() {
        let cases = [
            "", "Zg==", "Zm8=", "Zm9v", "Zm9vYg==", "Zm9vYmE=", "Zm9vYmFy",
        ];
        for (n, expected) in cases.iter().enumerate() {
            assert_eq!(base64(&b"foobar"[..n]), *expected);
        }
    }

    #[test]
    fn a_seed_gives_the_same_items_and_an_item_the_same_value() {
        let items = |seed| {
            let mut draw = Draw::new(seed);
            [draw.item(), draw.item()]
        };
        assert_eq!(items(1), items(1));
        assert_ne!(items(1), items(2));
        assert_eq!(&Item(0x0123_4567_89ab_cdef).key(), b"0123456789abcdef");
        let payloads = Payloads::new(256);
        assert_eq!(payloads.raw(Item(3)).len(), 256);
        assert_eq!(payloads.raw(Item(3)), payloads.raw(Item(3 + VALUES)));
        assert_ne!(payloads.raw(Item(3)), payloads.raw(Item(4)));
    }
}
