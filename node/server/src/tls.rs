//! Certificate and key of the listener, from PEM files.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::ServerConfig;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use unisondb_platform::{Disk, DiskExt as _};

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
}

/// Reads both files.
///
/// # Errors
/// [`TlsError`]; the key's bytes are never in it.
pub fn load(disk: &dyn Disk, cert: &Path, key: &Path) -> Result<Arc<ServerConfig>, TlsError> {
    let pem = |path: &Path, why: String| TlsError::Pem {
        path: path.to_owned(),
        why,
    };
    let chain: Result<Vec<CertificateDer<'static>>, _> =
        CertificateDer::pem_slice_iter(&read(disk, cert)?).collect();
    let chain = chain.map_err(|e| pem(cert, e.to_string()))?;
    if chain.is_empty() {
        return Err(pem(cert, "no certificate in it".to_owned()));
    }
    let secret =
        PrivateKeyDer::from_pem_slice(&read(disk, key)?).map_err(|e| pem(key, e.to_string()))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, secret)?;
    Ok(Arc::new(config))
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
}
