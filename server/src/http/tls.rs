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
    current: RwLock<(Arc<CertifiedKey>, Changed)>,
}

impl Certificate {
    /// Errors: a sentence naming the file that cannot be used.
    pub fn load(files: &Tls) -> Result<Certificate, String> {
        let changed = last_changes(files);
        Ok(Certificate { files: files.clone(), current: RwLock::new((Arc::new(read(files)?), changed)) })
    }

    /// Takes the files up if they have changed. A pair that does not fit together, such as one of which only half has
    /// been written yet, is tried again next time while the old one stays in use. Returns whether it changed.
    pub fn reload(&self) -> Result<bool, String> {
        let changed = last_changes(&self.files);
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

/// When the certificate and its key were changed. Each by itself: a file that is put in the place of another may keep a time
/// that is long ago.
type Changed = [Option<SystemTime>; 2];

fn last_changes(files: &Tls) -> Changed {
    [&files.cert, &files.key]
        .map(|path| std::fs::metadata(path).and_then(|metadata| metadata.modified()).ok())
}

fn read(files: &Tls) -> Result<CertifiedKey, String> {
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_file_iter(&files.cert)
        .and_then(Iterator::collect)
        .map_err(|error| files.cert.unusable(error))?;
    if chain.is_empty() {
        return Err(files.cert.unusable("it has no certificate in it"));
    }
    let key = PrivateKeyDer::from_pem_file(&files.key).map_err(|error| match is_encrypted(&files.key) {
        true => files.key.unusable(format_args!(
            "the key is encrypted, and nobody is there who could be asked for its password; write it anew without, with \
             `openssl pkey -in {} -out FILE`",
            files.key.display()
        )),
        false => files.key.unusable(error),
    })?;
    CertifiedKey::from_der(chain, key, &rustls::crypto::ring::default_provider()).map_err(|error| {
        files.key.unusable(format_args!("{error} (with the certificate in {})", files.cert.display()))
    })
}

/// Whether a key's file says that the key in it is encrypted, in either of the ways that there are (RFC 5958, RFC 1421).
fn is_encrypted(path: &Path) -> bool {
    let says = |text: String| {
        text.contains("BEGIN ENCRYPTED PRIVATE KEY") || text.contains("Proc-Type: 4,ENCRYPTED")
    };
    std::fs::read_to_string(path).is_ok_and(says)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::NamedFile;
    use crate::config::source::Origin;

    fn named(path: &Path, option: &'static str) -> NamedFile {
        NamedFile::new(path, option, Origin::Flag(option.replace('_', "-")))
    }

    /// Puts a pair of the test certificates into the folder, as of that many seconds after 1970.
    fn put(folder: &Path, cert: &str, key: &str, seconds: u64) -> Tls {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/tls");
        let files = Tls {
            cert: named(&folder.join("cert.pem"), "tls_cert"),
            key: named(&folder.join("key.pem"), "tls_key"),
        };
        for (from, to) in [(cert, &files.cert), (key, &files.key)] {
            std::fs::copy(source.join(from), to).expect("copied");
            let file = std::fs::File::options().write(true).open(to).expect("it is there");
            file.set_modified(SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(seconds)).expect("set");
        }
        files
    }

    #[test]
    fn a_changed_pair_is_taken_up_when_it_fits() {
        let folder = tempfile::tempdir().expect("a folder");
        let files = put(folder.path(), "one.cert.pem", "one.key.pem", 1);
        let certificate = Certificate::load(&files).expect("a good pair");
        let in_use = || certificate.current.read().0.cert.clone();
        let first = in_use();
        assert_eq!(certificate.reload(), Ok(false));
        put(folder.path(), "two.cert.pem", "one.key.pem", 2);
        assert!(certificate.reload().expect_err("half written").contains("key.pem"));
        assert_eq!(in_use(), first);
        put(folder.path(), "two.cert.pem", "two.key.pem", 3);
        assert_eq!(certificate.reload(), Ok(true));
        assert_ne!(in_use(), first);
        // Back to the first, of a time before all others.
        put(folder.path(), "one.cert.pem", "one.key.pem", 0);
        assert_eq!(certificate.reload(), Ok(true));
        assert_eq!(in_use(), first);
    }

    #[test]
    fn a_certificate_that_is_older_than_the_key_is_taken_up() {
        let folder = tempfile::tempdir().expect("a folder");
        let files = put(folder.path(), "one.cert.pem", "one.key.pem", 9);
        let certificate = Certificate::load(&files).expect("a good pair");
        std::fs::File::options()
            .write(true)
            .open(&files.cert)
            .and_then(|file| file.set_modified(SystemTime::UNIX_EPOCH))
            .expect("set");
        assert_eq!(certificate.reload(), Ok(true));
    }

    #[test]
    fn unusable_files_are_named() {
        let folder = tempfile::tempdir().expect("a folder");
        let files = put(folder.path(), "one.key.pem", "one.key.pem", 1);
        let refused = Certificate::load(&files).expect_err("no certificate");
        assert!(refused.starts_with("flag --tls-cert: tls_cert: cannot use "), "{refused}");
        assert!(refused.contains("cert.pem"), "{refused}");
        let absent = Tls { cert: named(&folder.path().join("absent"), "tls_cert"), ..files };
        assert!(Certificate::load(&absent).expect_err("absent").contains("absent"));
    }
}
