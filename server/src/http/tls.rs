//! Certificates of the https listeners, read again when their files change.

use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use parking_lot::RwLock;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use crate::config::Tls;

/// The certificate in use.
#[derive(Debug)]
pub struct Certificate {
    files: Tls,
    current: RwLock<(Arc<CertifiedKey>, Option<SystemTime>)>,
}

impl Certificate {
    /// Errors: a sentence naming the file that cannot be used.
    pub fn load(files: &Tls) -> Result<Certificate, String> {
        let changed = newest_change(files);
        Ok(Certificate { files: files.clone(), current: RwLock::new((Arc::new(read(files)?), changed)) })
    }

    /// Takes the files up if they have changed. A pair that does not fit together, such as one of which only half has
    /// been written yet, is tried again next time while the old one stays in use. Returns whether it changed.
    pub fn reload(&self) -> Result<bool, String> {
        let changed = newest_change(&self.files);
        if changed == self.current.read().1 {
            return Ok(false);
        }
        let key = read(&self.files)?;
        *self.current.write() = (Arc::new(key), changed);
        Ok(true)
    }

    /// The settings of a listener: TLS 1.2 and 1.3, HTTP/2 and HTTP/1.1.
    pub fn server_config(self: &Arc<Self>) -> Result<Arc<rustls::ServerConfig>, String> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?
            .with_no_client_auth()
            .with_cert_resolver(self.clone());
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }
}

impl ResolvesServerCert for Certificate {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current.read().0.clone())
    }
}

fn newest_change(files: &Tls) -> Option<SystemTime> {
    let changed = |path: &Path| std::fs::metadata(path).and_then(|metadata| metadata.modified()).ok();
    changed(&files.cert).max(changed(&files.key))
}

fn read(files: &Tls) -> Result<CertifiedKey, String> {
    let unusable =
        |path: &Path, error: &dyn std::fmt::Display| format!("cannot use {}: {error}", path.display());
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_file_iter(&files.cert)
        .and_then(Iterator::collect)
        .map_err(|error| unusable(&files.cert, &error))?;
    if chain.is_empty() {
        return Err(unusable(&files.cert, &"it has no certificate in it"));
    }
    let key = PrivateKeyDer::from_pem_file(&files.key).map_err(|error| unusable(&files.key, &error))?;
    CertifiedKey::from_der(chain, key, &rustls::crypto::ring::default_provider()).map_err(|error| {
        unusable(&files.key, &format_args!("{error} (with the certificate in {})", files.cert.display()))
    })
}
