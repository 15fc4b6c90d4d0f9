//! Whom outgoing requests trust: the system's certificate authorities, and those that the operator names.

use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};

use crate::config::NamedFile;

/// Errors: a sentence naming the file that cannot be used.
pub fn client_config(files: &[NamedFile]) -> Result<ClientConfig, String> {
    let mut roots = RootCertStore::empty();
    let system = rustls_native_certs::load_native_certs();
    let (known, unknown) = roots.add_parsable_certificates(system.certs);
    if known == 0 {
        // A bare container has none; Mozilla's list is better than trusting nobody.
        roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    }
    tracing::debug!(known, unknown, errors = ?system.errors, "certificate authorities of the system");
    for file in files {
        let certificates: Vec<CertificateDer<'static>> = CertificateDer::pem_file_iter(file)
            .and_then(Iterator::collect)
            .map_err(|error| file.unusable(error))?;
        if certificates.is_empty() {
            return Err(file.unusable("it has no certificate in it"));
        }
        for certificate in certificates {
            roots.add(certificate).map_err(|error| file.unusable(error))?;
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(config)
}
