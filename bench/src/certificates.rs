//! A certificate authority that lives as long as a run, and the certificate of all servers that it starts: they are all
//! called `localhost`, each with another port.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::error::{Error, Result};

/// The host of every server.
pub const HOST: &str = "localhost";

/// See the module: the files that servers read.
#[derive(Debug, Clone)]
pub struct Certificates {
    /// The authority's certificate.
    pub authority: PathBuf,
    /// The servers' certificate.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
    root: CertificateDer<'static>,
}

/// What the generator itself needs to believe a server.
#[derive(Clone)]
pub struct Trust(TlsConnector);

impl Certificates {
    /// Makes an authority and a certificate, in `folder`.
    pub fn make(folder: &Path) -> Result<Certificates> {
        let unmade =
            |error: rcgen::Error| Error::Implausible(format!("a certificate cannot be made: {error}"));
        let mut of_authority = CertificateParams::new(Vec::new()).map_err(unmade)?;
        of_authority.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        of_authority.distinguished_name.push(DnType::CommonName, "The authority of a measurement");
        let authority_key = KeyPair::generate().map_err(unmade)?;
        let authority = of_authority.self_signed(&authority_key).map_err(unmade)?;
        let issuer = Issuer::new(of_authority, authority_key);
        let names = vec![HOST.to_owned(), "127.0.0.1".to_owned()];
        let key = KeyPair::generate().map_err(unmade)?;
        let mut of_server = CertificateParams::new(names).map_err(unmade)?;
        of_server.use_authority_key_identifier_extension = true;
        of_server.distinguished_name.push(DnType::CommonName, HOST);
        let certificate = of_server.signed_by(&key, &issuer).map_err(unmade)?;
        let write = |name: &str, text: String| {
            let path = folder.join(name);
            fs::write(&path, text).map_err(Error::system(format!("write {}", path.display())))?;
            Ok(path)
        };
        Ok(Certificates {
            authority: write("authority.pem", authority.pem())?,
            certificate: write("certificate.pem", certificate.pem())?,
            key: write("key.pem", key.serialize_pem())?,
            root: authority.der().clone(),
        })
    }

    /// Trust in the authority.
    pub fn trust(&self) -> Result<Trust> {
        let unusable =
            |error: rustls::Error| Error::Implausible(format!("the authority is unusable: {error}"));
        let mut roots = RootCertStore::empty();
        roots.add(self.root.clone()).map_err(unusable)?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(unusable)?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Trust(TlsConnector::from(Arc::new(config))))
    }

    /// What the generator shows where it is a server itself.
    pub fn acceptor(&self) -> Result<TlsAcceptor> {
        let unusable = |error: &dyn std::fmt::Display| {
            Error::Implausible(format!("the servers' certificate is unusable: {error}"))
        };
        let certificate =
            CertificateDer::from_pem_file(&self.certificate).map_err(|error| unusable(&error))?;
        let key = PrivateKeyDer::from_pem_file(&self.key).map_err(|error| unusable(&error))?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| unusable(&error))?
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key)
            .map_err(|error| unusable(&error))?;
        Ok(TlsAcceptor::from(Arc::new(config)))
    }
}

impl Trust {
    /// TLS on a connection to `authority`, a host and port.
    pub async fn connect(&self, authority: &str, stream: TcpStream) -> std::io::Result<TlsStream<TcpStream>> {
        let host = authority.rsplit_once(':').map_or(authority, |(host, _)| host);
        let name = ServerName::try_from(host.to_owned()).map_err(std::io::Error::other)?;
        self.0.connect(name, stream).await
    }
}
