//! Any bytes as a record's payload, of each kind, and as what the state keeps: one value or a typed
//! error, and one encoding for each value.
#![no_main]

use libfuzzer_sys::fuzz_target;
use unisondb_types::{
    Action, Check, Kind, LineageRecord, Lsn, Namespace, Op, Outcome, Record, SegmentId, Stamp,
    Target, Term, codec,
};

fuzz_target!(|input: &[u8]| {
    let Some((what, bytes)) = input.split_first() else {
        return;
    };
    if let Some(kind) = Kind::from_number(u16::from(*what)) {
        let record = Record {
            lsn: Lsn::FIRST,
            term: Term::new(1),
            stamp: Stamp::ZERO,
            committed: Lsn::ZERO,
            kind,
            payload: bytes.to_vec().into(),
        };
        if let Ok(command) = record.command() {
            assert_eq!(command.kind(), kind);
            assert_eq!(
                command.payload(),
                record.payload,
                "one encoding for {command:?}"
            );
        }
    }
    one::<Action>(bytes);
    one::<Check>(bytes);
    one::<LineageRecord>(bytes);
    one::<Namespace>(bytes);
    one::<Outcome>(bytes);
    one::<SegmentId>(bytes);
    one::<Target>(bytes);
    one::<Vec<Op>>(bytes);
});

fn one<T: bincode::Encode + bincode::Decode<()>>(bytes: &[u8]) {
    if let Ok(value) = codec::decode::<T>(bytes) {
        assert_eq!(
            codec::encode(&value),
            bytes,
            "{}",
            std::any::type_name::<T>()
        );
    }
}
