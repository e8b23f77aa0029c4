//! [`Reader`]: numbers and texts out of bytes, as `docs/formats` lays them out.

/// Reads from the front. `None`: there is not so much, or it is no such thing.
pub struct Reader<'b>(pub &'b [u8]);

impl<'b> Reader<'b> {
    pub fn take(&mut self, n: usize) -> Option<&'b [u8]> {
        let (front, rest) = self.0.split_at_checked(n)?;
        self.0 = rest;
        Some(front)
    }

    pub fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    pub fn byte(&mut self) -> Option<u8> {
        self.array::<1>().map(|[b]| b)
    }

    pub fn short(&mut self) -> Option<u16> {
        self.array().map(u16::from_le_bytes)
    }

    pub fn int(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    pub fn long(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    /// Length, then so many bytes.
    pub fn bytes(&mut self) -> Option<Vec<u8>> {
        let len = usize::try_from(self.long()?).ok()?;
        self.take(len).map(<[u8]>::to_vec)
    }

    /// Length, then so many of what `one` reads.
    pub fn list<T>(&mut self, mut one: impl FnMut(&mut Self) -> Option<T>) -> Option<Vec<T>> {
        let len = usize::try_from(self.long()?).ok()?;
        if len > self.0.len() {
            return None;
        }
        (0..len).map(|_| one(self)).collect()
    }

    /// 0, or 1 and what `one` reads.
    pub fn option<T>(&mut self, one: impl FnOnce(&mut Self) -> Option<T>) -> Option<Option<T>> {
        match self.byte()? {
            0 => Some(None),
            1 => Some(Some(one(self)?)),
            _ => None,
        }
    }
}
