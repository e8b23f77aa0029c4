//! [`Address`]: where a listener listens, as people type it: `localhost:8080`, `:8080`,
//! `0.0.0.0:8080`, `[::]:8080`. A name is kept as a name; `listen` resolves it.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;

/// A host and a port. Port 0 asks the system for a free one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    host: Host,
    port: u16,
}

/// The host of an [`Address`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Host {
    /// Every address of this machine: nothing stood before the port.
    Any,
    /// One address.
    Ip(IpAddr),
    /// A name that has to be resolved.
    Name(String),
}

/// Why a text is not an address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{found:?} is not an address ({why}): host:port is wanted, such as localhost:8080, :8080, 0.0.0.0:8080 or [::]:8080"
)]
pub struct AddressError {
    found: String,
    why: &'static str,
}

impl Address {
    /// Whose addresses.
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// The port.
    pub fn port(&self) -> u16 {
        self.port
    }
}

impl FromStr for Address {
    type Err = AddressError;
    fn from_str(text: &str) -> Result<Address, AddressError> {
        let wrong = |why| AddressError {
            found: text.chars().take(120).collect(),
            why,
        };
        let (host, port) = text.rsplit_once(':').ok_or_else(|| wrong("no port"))?;
        if port.is_empty() || !port.bytes().all(|b| b.is_ascii_digit()) {
            return Err(wrong("the port is not a number"));
        }
        let port = port.parse().map_err(|_| wrong("the port is above 65535"))?;
        let host = if host.is_empty() {
            Host::Any
        } else if let Some(inner) = host.strip_prefix('[') {
            let inner = inner
                .strip_suffix(']')
                .ok_or_else(|| wrong("']' is missing"))?;
            let ip: Ipv6Addr = inner
                .parse()
                .map_err(|_| wrong("no IPv6 address between '[' and ']'"))?;
            Host::Ip(ip.into())
        } else if let Ok(ip) = host.parse::<IpAddr>() {
            if ip.is_ipv6() {
                return Err(wrong("an IPv6 address stands between '[' and ']'"));
            }
            Host::Ip(ip)
        } else {
            let fits = |b: u8| b.is_ascii_alphanumeric() || b"-._".contains(&b);
            if host.len() > 253 || !host.bytes().all(fits) {
                return Err(wrong("the host is not a name"));
            }
            Host::Name(host.to_owned())
        };
        Ok(Address { host, port })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            Host::Any => write!(f, ":{}", self.port),
            Host::Ip(IpAddr::V6(ip)) => write!(f, "[{ip}]:{}", self.port),
            Host::Ip(ip) => write!(f, "{ip}:{}", self.port),
            Host::Name(name) => write!(f, "{name}:{}", self.port),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn every_documented_form_is_an_address_and_prints_as_typed() {
        for text in [
            "localhost:8080",
            "localhost:9999",
            ":8080",
            "0.0.0.0:8080",
            "[::]:8080",
            "[::1]:0",
            "db-1.example.com:65535",
        ] {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), text);
        }
        assert_eq!(":1".parse::<Address>().unwrap().host(), &Host::Any);
    }

    #[test]
    fn what_is_no_address_is_refused_with_the_reason() {
        for (text, why) in [
            ("", "no port"),
            ("localhost", "no port"),
            ("localhost:", "not a number"),
            ("localhost:http", "not a number"),
            ("localhost:+80", "not a number"),
            ("localhost:65536", "above 65535"),
            ("::1:8080", "between"),
            ("[::1:8080", "missing"),
            ("[zz]:1", "no IPv6"),
            ("a b:1", "not a name"),
            ("http://localhost:8080", "not a name"),
        ] {
            let error = text.parse::<Address>().unwrap_err().to_string();
            assert!(error.contains(why), "{text}: {error}");
        }
    }

    proptest! {
        #[test]
        fn any_text_parses_or_is_refused(text: String) {
            if let Ok(address) = text.parse::<Address>() {
                prop_assert_eq!(address.to_string().parse::<Address>(), Ok(address));
            }
        }
    }
}
