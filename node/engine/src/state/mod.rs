//! The state: what it is made of ([`table`]), how an entry is kept ([`entry`]), what has been
//! applied and is not yet in LMDB ([`memtable`]), both as one moment ([`view`]), and where in the
//! log it stands ([`position`]).

pub mod entry;
pub mod memtable;
pub mod position;
pub mod rows;
pub mod table;
pub mod view;
