//! What must be true, worked out without the product's code: the log is read by what
//! `docs/formats` says of its bytes, the state at every LSN by a model of its own, and what clients
//! were told is held against both.

pub mod bytes;
pub mod history;
pub mod log;
pub mod model;
pub mod operations;
pub mod snapshot;
pub mod truth;
