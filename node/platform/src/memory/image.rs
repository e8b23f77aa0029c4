//! [`Image`]: the bytes of one file, sparse, in pages that copies share.

use std::collections::BTreeMap;
use std::sync::Arc;

/// Bytes that are allocated together; what a full disk has no more of.
pub(super) const PAGE: u64 = 4096;
const PAGE_LEN: usize = 4096;

type Page = Arc<[u8; PAGE_LEN]>;

/// Bytes by offset. What no page holds is zero.
#[derive(Debug, Clone, Default)]
pub(super) struct Image {
    pages: BTreeMap<u64, Page>,
    len: u64,
}

impl Image {
    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// Bytes that it takes on a volume.
    pub(super) fn allocated(&self) -> u64 {
        self.pages.len() as u64 * PAGE
    }

    pub(super) fn read(&self, buf: &mut [u8], offset: u64) -> usize {
        let there = usize::try_from(self.len.saturating_sub(offset)).unwrap_or(usize::MAX);
        let n = buf.len().min(there);
        for piece in pieces(offset, n) {
            let to = &mut buf[piece.start..piece.end];
            match self.pages.get(&piece.page) {
                Some(page) => to.copy_from_slice(&page[piece.within..][..to.len()]),
                None => to.fill(0),
            }
        }
        n
    }

    pub(super) fn write(&mut self, bytes: &[u8], offset: u64) {
        if bytes.is_empty() {
            return;
        }
        for piece in pieces(offset, bytes.len()) {
            let from = &bytes[piece.start..piece.end];
            let page = self.pages.entry(piece.page);
            let page = page.or_insert_with(|| Arc::new([0; PAGE_LEN]));
            Arc::make_mut(page)[piece.within..][..from.len()].copy_from_slice(from);
        }
        self.len = self.len.max(offset + bytes.len() as u64);
    }

    /// How many of `len` bytes at `offset` can be written with `room` bytes of new pages.
    pub(super) fn fitting(&self, offset: u64, len: usize, room: u64) -> usize {
        let mut room = room / PAGE;
        for piece in pieces(offset, len) {
            if !self.pages.contains_key(&piece.page) {
                if room == 0 {
                    return piece.start;
                }
                room -= 1;
            }
        }
        len
    }

    pub(super) fn set_len(&mut self, len: u64) {
        if len < self.len {
            self.pages.split_off(&len.div_ceil(PAGE));
            let within = usize::try_from(len % PAGE).expect("below a page");
            if within > 0
                && let Some(page) = self.pages.get_mut(&(len / PAGE))
            {
                // What is cut must not come back when the file grows again.
                Arc::make_mut(page)[within..].fill(0);
            }
        }
        self.len = len;
    }

    /// Changes one byte in place, on the medium: allocates nothing past the end.
    pub(super) fn flip(&mut self, offset: u64, mask: u8) {
        let mut byte = [0];
        if self.read(&mut byte, offset) == 1 {
            self.write(&[byte[0] ^ mask], offset);
        }
    }

    pub(super) fn to_vec(&self) -> Vec<u8> {
        let mut bytes = vec![0; usize::try_from(self.len).expect("a test's file fits in memory")];
        self.read(&mut bytes, 0);
        bytes
    }
}

/// A range of a buffer that lies in one page.
struct Piece {
    page: u64,
    within: usize,
    start: usize,
    end: usize,
}

fn pieces(offset: u64, len: usize) -> impl Iterator<Item = Piece> {
    let mut start = 0;
    std::iter::from_fn(move || {
        if start == len {
            return None;
        }
        let at = offset + start as u64;
        let within = usize::try_from(at % PAGE).expect("below a page");
        let end = len.min(start + PAGE_LEN - within);
        let piece = Piece {
            page: at / PAGE,
            within,
            start,
            end,
        };
        start = end;
        Some(piece)
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn an_image_is_an_array_of_bytes(
            steps in prop::collection::vec((0u64..20_000, 0usize..9_000, any::<u8>()), 1..20)
        ) {
            let mut image = Image::default();
            let mut model: Vec<u8> = Vec::new();
            for (at, len, byte) in steps {
                let start = usize::try_from(at).expect("small");
                if byte % 4 == 0 {
                    image.set_len(at);
                    model.resize(start, 0);
                } else {
                    image.write(&vec![byte; len], at);
                    if len > 0 {
                        model.resize(model.len().max(start + len), 0);
                        model[start..start + len].fill(byte);
                    }
                }
                prop_assert_eq!(image.to_vec(), model.clone());
            }
        }
    }

    #[test]
    fn a_hole_takes_no_room_and_a_written_page_takes_no_more() {
        let mut image = Image::default();
        image.set_len(1 << 40);
        assert_eq!(image.allocated(), 0);
        image.write(&[1; 10], 4090);
        assert_eq!(image.allocated(), 2 * PAGE);
        assert_eq!(image.fitting(0, 8192, 0), 8192, "both pages are there");
        assert_eq!(image.fitting(8000, 8192, PAGE), 2 * 4096 + 4096 - 8000);
    }
}
