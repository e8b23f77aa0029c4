//! Who may come in: the `Host` header against rebinding, `Origin` against drive-by pages, tokens.
//!
//! A page in somebody's browser can send requests to `localhost`. It cannot hide its origin, and a
//! name that it has rebound to this address stands in `Host`: both are looked at before all else.

use std::net::IpAddr;

use http::header::{AUTHORIZATION, HOST, ORIGIN};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Version};
use unisondb_api::{ApiError, Place, Route};

use crate::tokens::Token;
use crate::{Role, Settings};

/// Checks `Host` and `Origin`. Gives the origin to be allowed in the answer, if there is one.
pub(crate) fn door<'a>(
    settings: &Settings,
    parts: &'a Parts,
) -> Result<Option<&'a HeaderValue>, ApiError> {
    let header = parts.headers.get(HOST).map(HeaderValue::as_bytes);
    // A target in absolute form counts more than the header (RFC 9112); both must be ours. A
    // client without either is no browser.
    let target = parts.uri.authority().map(|a| a.as_str().as_bytes());
    for host in [header, target].into_iter().flatten() {
        if !is_ours(settings, host) {
            return Err(ApiError::forbidden(format_args!(
                "host {:?} is not served here: use an address or localhost, or configure the name in allowed-hosts",
                String::from_utf8_lossy(host)
            )));
        }
    }
    let Some(origin) = parts.headers.get(ORIGIN) else {
        return Ok(None);
    };
    let allowed = settings
        .allowed_origins
        .iter()
        .any(|o| o.as_bytes() == origin.as_bytes());
    if allowed {
        Ok(Some(origin))
    } else {
        Err(ApiError::forbidden(format_args!(
            "requests from pages of origin {:?} are not allowed: configure it in allowed-origins",
            String::from_utf8_lossy(origin.as_bytes())
        )))
    }
}

/// Whether a request names its host as HTTP asks: exactly once, and in HTTP/1.0 at most once
/// (RFC 9112, section 3.2). Two of them would let a proxy and this node see different ones.
pub(crate) fn one_host(version: Version, headers: &HeaderMap) -> Result<(), ApiError> {
    match headers.get_all(HOST).iter().count() {
        1 => Ok(()),
        0 if version < Version::HTTP_11 => Ok(()),
        0 => Err(ApiError::bad_request(
            "a request of HTTP/1.1 has a Host header",
        )),
        _ => Err(ApiError::bad_request(
            "a request has one Host header, not several",
        )),
    }
}

fn is_ours(settings: &Settings, host: &[u8]) -> bool {
    let Ok(host) = std::str::from_utf8(host) else {
        return false;
    };
    let name = match host.strip_prefix('[') {
        Some(v6) => {
            return v6.split_once(']').is_some_and(|(address, rest)| {
                is_port(rest) && address.parse::<IpAddr>().is_ok_and(|a| a.is_ipv6())
            });
        }
        None => {
            let end = host.find(':').unwrap_or(host.len());
            let (name, port) = host.split_at(end);
            if !is_port(port) {
                return false;
            }
            name.strip_suffix('.').unwrap_or(name)
        }
    };
    name.eq_ignore_ascii_case("localhost")
        || name.parse::<IpAddr>().is_ok()
        || settings
            .allowed_hosts
            .iter()
            .any(|h| h.eq_ignore_ascii_case(name))
}

fn is_port(text: &str) -> bool {
    match text.strip_prefix(':') {
        Some(port) => port.bytes().all(|b| b.is_ascii_digit()),
        None => text.is_empty(),
    }
}

/// Whose token the request has; `None` if no tokens are configured.
pub(crate) fn who<'a>(
    settings: &'a Settings,
    parts: &Parts,
) -> Result<Option<&'a Token>, ApiError> {
    let Some(tokens) = &settings.tokens else {
        return Ok(None);
    };
    let secret = parts
        .headers
        .get(AUTHORIZATION)
        .and_then(|h| bearer(h.as_bytes()));
    match secret.and_then(|s| tokens.find(s)) {
        Some(token) => Ok(Some(token)),
        None => Err(ApiError::unauthorized()),
    }
}

fn bearer(header: &[u8]) -> Option<&[u8]> {
    let (scheme, rest) = header.split_first_chunk::<7>()?;
    scheme
        .eq_ignore_ascii_case(b"bearer ")
        .then(|| rest.trim_ascii())
}

/// Whether a route is for those who watch a node, not for those who use it.
pub(crate) fn is_monitoring(route: Route<'_>) -> bool {
    matches!(
        route,
        Route::Health
            | Route::Live
            | Route::Ready
            | Route::Primary
            | Route::Replica
            | Route::Metrics
    )
}

/// What a request in a namespace needs: any one of these.
pub(crate) fn needed(place: Place<'_>, method: &Method) -> &'static [Role] {
    let reads = matches!(*method, Method::GET | Method::HEAD);
    match place {
        Place::Kv(_) | Place::Row(_) | Place::Lob(_) if reads => &[Role::Read],
        Place::Kv(_)
        | Place::KvBatch
        | Place::Row(_)
        | Place::RowColumns(_)
        | Place::RowBatch
        | Place::Lob(_)
        | Place::TxBegin
        | Place::Tx(..) => &[Role::Write],
        Place::Offset | Place::Stats | Place::Checkpoint | Place::Digest | Place::Segments => {
            &[Role::Read, Role::Backup]
        }
        Place::WalBackup
        | Place::WalSeal
        | Place::Segment(_)
        | Place::BtreeBackup
        | Place::BtreeSnapshot => &[Role::Backup],
    }
}

/// Lets a token pass that may do one of `roles` in `namespace`.
pub(crate) fn allow(
    token: Option<&Token>,
    roles: &[Role],
    namespace: &str,
) -> Result<(), ApiError> {
    match token {
        Some(token) if !roles.iter().any(|&r| token.may(r, namespace)) => {
            let wanted = roles.first().expect("every route needs some role");
            Err(ApiError::forbidden(format_args!(
                "token {} may not do this in {namespace}: the role {wanted} is wanted",
                token.name
            )))
        }
        _ => Ok(()),
    }
}

/// Lets a token pass that may do this in every namespace.
pub(crate) fn allow_all(token: Option<&Token>, role: Role) -> Result<(), ApiError> {
    match token {
        Some(token) if !token.may_everywhere(role) => Err(ApiError::forbidden(format_args!(
            "token {} may not do this: the role {role} in all namespaces is wanted",
            token.name
        ))),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn hosts_are_addresses_localhost_or_configured_names() {
        let settings = Settings {
            allowed_hosts: vec!["db.example.com".into()],
            ..Settings::default()
        };
        for good in [
            "localhost",
            "LOCALHOST:8080",
            "localhost.",
            "127.0.0.1:9999",
            "192.168.1.7",
            "[::1]:8080",
            "[fe80::1]",
            "DB.example.com:80",
        ] {
            assert!(is_ours(&settings, good.as_bytes()), "{good}");
        }
        for bad in [
            "",
            "evil.example.com",
            "localhost.evil.com",
            "localhost:80:80",
            "localhost:x",
            "[::1",
            "[127.0.0.1]",
            "::1",
            "[::1]x",
            "db.example.com.evil",
            "user@localhost",
        ] {
            assert!(!is_ours(&settings, bad.as_bytes()), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_as_a_host_or_authorization_are_judged(bytes: Vec<u8>) {
            let _ = (is_ours(&Settings::default(), &bytes), bearer(&bytes));
        }
    }
}
