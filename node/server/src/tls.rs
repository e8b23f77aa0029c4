//! Certificates and keys, from PEM files: of the listener for clients, and of the side that faces other
//! nodes, where both ends show one that the same authority has signed.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::TlsConnector;
use unisondb_platform::{Dial, Dialled, Disk, DiskExt as _, Stream};

/// A chain or key longer than this is none.
const PEM_BYTES: u64 = 1 << 20;

/// Why there is no TLS.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file is not what it should be.
    #[error("{}: {why}", path.display())]
    Pem {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// Certificate and key do not make a server.
    #[error("certificate and key do not go together: {0}")]
    Pair(#[from] rustls::Error),
    /// Certificates of an authority by which nobody can be verified.
    #[error("no authority to verify other nodes by: {0}")]
    Authority(#[from] rustls::client::VerifierBuilderError),
}

/// Both ends of the side that faces other nodes.
pub struct PeerTls {
    /// For those who connect: each has to show a certificate of the authority's.
    pub server: Arc<ServerConfig>,
    /// For connecting: whoever answers has to show one of the authority's, for the host that was called.
    pub client: Arc<ClientConfig>,
}

/// Reads the certificates and the key of the side that faces other nodes.
///
/// # Errors
/// [`TlsError`]; the key's bytes are never in it.
pub fn load_peers(
    disk: &dyn Disk,
    cert: &Path,
    key: &Path,
    authority: &Path,
) -> Result<PeerTls, TlsError> {
    let mut roots = RootCertStore::empty();
    for root in chain(disk, authority)? {
        roots.add(root)?;
    }
    let (roots, provider) = (Arc::new(roots), provider());
    let verifier =
        WebPkiClientVerifier::builder_with_provider(roots.clone(), provider.clone()).build()?;
    let server = ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain(disk, cert)?, secret(disk, key)?)?;
    let client = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_client_auth_cert(chain(disk, cert)?, secret(disk, key)?)?;
    Ok(PeerTls {
        server: Arc::new(server),
        client: Arc::new(client),
    })
}

/// Connections with TLS on them.
pub struct TlsDial {
    dial: Arc<dyn Dial>,
    connector: TlsConnector,
}

impl TlsDial {
    /// On the connections that `dial` makes.
    pub fn new(dial: Arc<dyn Dial>, client: Arc<ClientConfig>) -> TlsDial {
        TlsDial {
            dial,
            connector: TlsConnector::from(client),
        }
    }
}

impl Dial for TlsDial {
    fn dial<'a>(&'a self, address: &'a str) -> Dialled<'a> {
        Box::pin(async move {
            let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
            let host = host
                .trim_start_matches('[')
                .trim_end_matches(']')
                .to_owned();
            let name = ServerName::try_from(host).map_err(std::io::Error::other)?;
            let stream = self.dial.dial(address).await?;
            let stream = self.connector.connect(name, stream).await?;
            Ok(Box::new(stream) as Box<dyn Stream>)
        })
    }
}

/// Reads both files.
///
/// # Errors
/// [`TlsError`]; the key's bytes are never in it.
pub fn load(disk: &dyn Disk, cert: &Path, key: &Path) -> Result<Arc<ServerConfig>, TlsError> {
    let config = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain(disk, cert)?, secret(disk, key)?)?;
    Ok(Arc::new(config))
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn wrong(path: &Path, why: String) -> TlsError {
    TlsError::Pem {
        path: path.to_owned(),
        why,
    }
}

fn chain(disk: &dyn Disk, path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&read(disk, path)?).collect();
    let chain = chain.map_err(|e| wrong(path, e.to_string()))?;
    match chain.is_empty() {
        true => Err(wrong(path, "no certificate in it".to_owned())),
        false => Ok(chain),
    }
}

fn secret(disk: &dyn Disk, path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    PrivateKeyDer::from_pem_slice(&read(disk, path)?).map_err(|e| wrong(path, e.to_string()))
}

fn read(disk: &dyn Disk, path: &Path) -> Result<Vec<u8>, TlsError> {
    let bytes = std::path::absolute(path).and_then(|path| disk.read(&path, PEM_BYTES));
    bytes.map_err(|source| TlsError::Io {
        path: path.to_owned(),
        source,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use unisondb_platform::real;

    #[test]
    fn files_that_are_no_certificate_or_key_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let disk = real::platform().disk;
        let (cert, key) = (dir.path().join("cert.pem"), dir.path().join("key.pem"));
        let error = load(disk.as_ref(), &cert, &key).unwrap_err();
        assert!(matches!(error, TlsError::Io { .. }), "{error}");
        for bad in [
            b"".as_slice(),
            b"\x00\xff",
            b"-----BEGIN CERTIFICATE-----\n%%\n-----END CERTIFICATE-----\n",
        ] {
            disk.publish(&cert, bad).unwrap();
            let error = load(disk.as_ref(), &cert, &key).unwrap_err().to_string();
            assert!(error.contains("cert.pem"), "{error}");
        }
    }

    /// A certificate for 127.0.0.1 and its key, signed by `authority`.
    fn signed(
        dir: &Path,
        name: &str,
        authority: &rcgen::Issuer<'_, rcgen::KeyPair>,
    ) -> [PathBuf; 2] {
        let key = rcgen::KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
        let cert = params.signed_by(&key, authority).unwrap();
        put(dir, name, &cert.pem(), &key.serialize_pem())
    }

    fn put(dir: &Path, name: &str, cert: &str, key: &str) -> [PathBuf; 2] {
        let disk = real::platform().disk;
        let paths = ["cert", "key"].map(|kind| dir.join(format!("{name}.{kind}.pem")));
        disk.publish(&paths[0], cert.as_bytes()).unwrap();
        disk.publish(&paths[1], key.as_bytes()).unwrap();
        paths
    }

    fn authority(dir: &Path, name: &str) -> (PathBuf, rcgen::Issuer<'static, rcgen::KeyPair>) {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let cert = params.self_signed(&key).unwrap();
        let [path, _] = put(dir, name, &cert.pem(), "");
        (path, rcgen::Issuer::new(params, key))
    }

    struct Echo;

    impl unisondb_api::Respond for Echo {
        fn respond(
            &self,
            _: bytes::Bytes,
        ) -> std::pin::Pin<Box<dyn Future<Output = bytes::Bytes> + Send + '_>> {
            let told =
                unisondb_api::peer::envelope::encode(&unisondb_api::peer::Told::Done, |_| ());
            Box::pin(std::future::ready(told))
        }
    }

    #[tokio::test]
    async fn only_nodes_of_the_same_authority_talk_to_one_another() {
        use unisondb_api::peer::{Ask, Asked, Link, Told, ask::PROTOCOL};
        let dir = tempfile::tempdir().unwrap();
        let disk = real::platform().disk;
        let (root, issuer) = authority(dir.path(), "root");
        let (other_root, other) = authority(dir.path(), "other-root");
        let of = |name: &str, by: &rcgen::Issuer<'_, rcgen::KeyPair>, root: &Path| {
            let [cert, key] = signed(dir.path(), name, by);
            load_peers(disk.as_ref(), &cert, &key, root).unwrap()
        };
        let server = of("server", &issuer, &root).server;
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap();
        let serving = unisondb_http::serve_peers(
            vec![listener],
            Arc::new(Echo),
            Some(server),
            unisondb_http::Connections::default(),
            std::future::pending(),
        );
        let serving = tokio::spawn(serving);
        let asked = Asked {
            protocol: PROTOCOL,
            cluster: None,
            ask: Ask::Who,
        };
        let told = async |dial: Arc<dyn Dial>, host: &str| {
            let link = Link::new(
                format!("{host}:{}", at.port()),
                dial,
                real::platform().clock,
            );
            link.ask(&asked, b"").await.map(|(told, _)| told)
        };
        let tcp = || Arc::new(real::TcpDial) as Arc<dyn Dial>;
        let tls = |client| Arc::new(TlsDial::new(tcp(), client)) as Arc<dyn Dial>;
        let good = of("good", &issuer, &root).client;
        assert_eq!(told(tls(good.clone()), "127.0.0.1").await, Ok(Told::Done));
        // Without TLS; for another host than the certificate says; with another authority's certificate;
        // towards a node that is not of the own authority.
        assert!(told(tcp(), "127.0.0.1").await.is_err());
        assert!(told(tls(good), "localhost").await.is_err());
        assert!(
            told(tls(of("stranger", &other, &root).client), "127.0.0.1")
                .await
                .is_err()
        );
        assert!(
            told(tls(of("wary", &issuer, &other_root).client), "127.0.0.1")
                .await
                .is_err()
        );
        serving.abort();
    }
}
