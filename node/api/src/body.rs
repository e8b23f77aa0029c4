//! The JSON bodies: camelCase, unknown fields ignored, `null` the same as left out.
//!
//! [`request`] is what clients send; texts are borrowed from the body where JSON allows it.
//! [`answer`] is what nodes send back. Both directions derive both ways, so the client and the
//! server cannot disagree about a name.

pub mod answer;
pub mod request;
