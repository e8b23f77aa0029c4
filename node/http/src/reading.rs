//! What a read may ask for: how fresh it is, and whether the client has it already.
//!
//! `consistency=linearizable` asks the writer for a position at or above every acknowledged write;
//! `minLsn=N` or `minLsn=LINEAGE:N` names one. Either way the read waits until it is applied here,
//! at most five seconds. A position of another history never comes: 409, with the fork.

use http::header::IF_NONE_MATCH;
use http::{HeaderMap, HeaderValue};
use unisondb_api::ApiError;
use unisondb_engine::Engine;
use unisondb_types::{LineageId, Lsn};

use crate::dispatch::{Absent, Inside, PATIENCE};
use crate::outcome;

/// The namespace, as fresh as the request wants it.
pub(crate) async fn fresh<'a>(at: &'a Inside<'_>) -> Result<&'a Engine, ApiError> {
    let engine = at.open(Absent::Refuse).await?;
    if !at.call.query.is_empty() {
        settle(at, engine).await?;
    }
    Ok(engine)
}

async fn settle(at: &Inside<'_>, engine: &Engine) -> Result<(), ApiError> {
    let query = at.call.query;
    match query.text("consistency")?.as_deref() {
        None | Some("local") => {}
        Some("linearizable") => {
            let writer = at.app().host.writer();
            let barrier = tokio::select! {
                biased;
                lsn = writer.barrier(&at.namespace) => lsn.map_err(outcome::write)?,
                () = at.app().clock().sleep(PATIENCE) => {
                    return Err(ApiError::unavailable("no leader confirmed this read in time"));
                }
            };
            applied(at, engine, barrier).await?;
        }
        Some(other) => {
            return Err(ApiError::bad_request(format_args!(
                "consistency={other:?}: local or linearizable is wanted"
            )));
        }
    }
    let Some(wanted) = query.text("minLsn")? else {
        return Ok(());
    };
    let (lineage, lsn) = min_lsn(&wanted)?;
    if let Some(lineage) = lineage {
        let history = engine.history();
        if !history.holds(lineage, lsn) {
            let fork = history
                .ancestors
                .iter()
                .find(|a| a.lineage == lineage)
                .map(|a| a.fork);
            let text = match fork {
                Some(fork) => format!(
                    "LSN {lsn} of lineage {lineage} is not part of this history: it was left at LSN {fork}"
                ),
                None => format!("lineage {lineage} is not part of this history"),
            };
            return Err(ApiError::conflict(text)
                .with("forkLsn", fork.map(Lsn::get))
                .with("lineage", history.lineage.to_string()));
        }
    }
    applied(at, engine, lsn).await
}

/// `N` or `LINEAGE:N`.
fn min_lsn(text: &str) -> Result<(Option<LineageId>, Lsn), ApiError> {
    let wrong = || {
        let shown: String = text.chars().take(80).collect();
        ApiError::bad_request(format_args!("minLsn={shown:?}: N or LINEAGE:N is wanted"))
    };
    let (lineage, lsn) = match text.split_once(':') {
        Some((lineage, lsn)) => (Some(lineage.parse().map_err(|_| wrong())?), lsn),
        None => (None, text),
    };
    Ok((lineage, lsn.parse().map_err(|_| wrong())?))
}

/// Waits until `lsn` is applied here.
pub(crate) async fn applied(at: &Inside<'_>, engine: &Engine, lsn: Lsn) -> Result<(), ApiError> {
    if engine.applied() >= lsn {
        return Ok(());
    }
    let mut position = engine.watch_applied();
    tokio::select! {
        biased;
        reached = position.wait_for(|applied| *applied >= lsn) => match reached {
            Ok(_) => Ok(()),
            Err(_) => Err(ApiError::unavailable("the namespace was closed meanwhile")),
        },
        () = at.app().clock().sleep(PATIENCE) => Err(ApiError::unavailable(format_args!(
            "LSN {lsn} is not applied here yet; this node is at {}",
            engine.applied()
        ))),
    }
}

/// Whether the client has what `tag` stands for already (`If-None-Match`).
pub(crate) fn has(headers: &HeaderMap, tag: &HeaderValue) -> bool {
    let mut all = headers.get_all(IF_NONE_MATCH).iter();
    all.any(|value| {
        value.as_bytes().split(|&b| b == b',').any(|one| {
            let one = one.trim_ascii();
            one == b"*" || one.strip_prefix(b"W/").unwrap_or(one) == tag.as_bytes()
        })
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::envelope::etag;
    use proptest::prelude::*;

    #[test]
    fn a_position_is_a_number_or_a_lineage_and_a_number() {
        let id = "0f".repeat(16);
        assert_eq!(min_lsn("7").unwrap(), (None, Lsn::new(7)));
        let both = min_lsn(&format!("{id}:7")).unwrap();
        assert_eq!(both, (Some(id.parse().unwrap()), Lsn::new(7)));
        for bad in [
            "",
            ":",
            "x",
            "-1",
            ":7",
            "abc:7",
            &format!("{id}:"),
            &format!("{id}:7:8"),
        ] {
            assert!(min_lsn(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_client_that_has_the_entry_is_known_by_its_tag() {
        let tag = etag(Lsn::new(7));
        let with = |value: &'static str| {
            let mut h = HeaderMap::new();
            h.insert(IF_NONE_MATCH, HeaderValue::from_static(value));
            has(&h, &tag)
        };
        assert!(with("\"7\"") && with("\"1\", W/\"7\"") && with("*"));
        assert!(!with("7") && !with("\"77\"") && !has(&HeaderMap::new(), &tag));
    }

    proptest! {
        #[test]
        fn any_text_as_a_position_is_read_or_refused(text: String) {
            let _ = min_lsn(&text);
        }
    }
}
