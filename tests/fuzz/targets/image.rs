//! Any bytes as a `data.mdb` or a snapshot: opened, followed page by page, looked up in.
#![no_main]

use libfuzzer_sys::fuzz_target;
use unisondb_store::Trailer;
use unisondb_store::image::{Image, check_live};

/// An image that says it has more entries than this is not walked to its end.
const MOST: usize = 10_000;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(Some(trailer)) = Trailer::find(bytes) {
        drop(trailer.verify(bytes));
    }
    drop(check_live(bytes));
    let Ok(image) = Image::open(bytes) else {
        return;
    };
    let sound = image.scan().is_ok();
    let mut before: Option<Vec<u8>> = None;
    for (n, item) in image.iter().take(MOST).enumerate() {
        let Ok(item) = item else {
            assert!(!sound, "entry {n} of an image that was found sound");
            break;
        };
        if sound {
            assert!(before.as_deref() < Some(&item.key[..]), "keys in order");
            let found = image.get(&item.key).expect("a sound image");
            assert_eq!(found.as_deref(), Some(&item.value[..]), "entry {n}");
        }
        before = Some(item.key.to_vec());
    }
    drop(image.get(b"\0position"));
    drop(image.get(&[0xff; 511]));
});
