//! Any bytes as a message between nodes: a question, what is told, and what may lie behind either.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use unisondb_api::peer::{Ask, Asked, Told, envelope, parts};
use unisondb_engine::start::Origin;
use unisondb_types::{Action, Idempotency, codec};

fuzz_target!(|bytes: &[u8]| {
    // As it came, and past the checksum.
    let mut sound = vec![0; 4];
    sound.extend_from_slice(bytes);
    let sum = crc32c::crc32c(&sound[4..]);
    sound[..4].copy_from_slice(&sum.to_le_bytes());
    for message in [Bytes::copy_from_slice(bytes), Bytes::from(sound)] {
        if let Ok((asked, rest)) = envelope::decode::<Asked>(message.clone()) {
            let again = envelope::encode(&asked, |out| out.extend_from_slice(&rest));
            assert_eq!(again[4..], message[4..], "one way to say it");
            drop(parts::take::<Ask>(rest.clone()));
            drop(codec::decode::<Origin>(&rest));
            drop(codec::decode::<(Option<Idempotency>, Action)>(&rest));
        }
        if let Ok((_, rest)) = envelope::decode::<Told>(message) {
            drop(parts::take::<Told>(rest));
        }
    }
});
