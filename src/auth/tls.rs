//! Mutual TLS: both ends of a connection show a certificate of the ring's own authority.
//!
//! What the bearer of a certificate may do stands in it, as a URI among its names: `urn:chordal:node`, `urn:chordal:client`
//! or `urn:chordal:reader`. Only certificates of nodes are good for a server. TLS 1.3 alone is spoken.

use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::Arc;

use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::{self, PemObject as _};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
#[cfg(feature = "discover")]
use sha2::{Digest as _, Sha256};

use super::Role;

/// What stands before a role among the names of a certificate.
const ROLE: &str = "urn:chordal:";

/// A certificate with its key, and the authority that those of others must come from.
#[derive(Clone)]
pub struct Tls {
    pub(crate) server: Arc<ServerConfig>,
    client: ClientConfig,
    role: Option<Role>,
    /// The SHA-256 of the certificate of each authority.
    #[cfg(feature = "discover")]
    authorities: Vec<[u8; 32]>,
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").field("role", &self.role).finish_non_exhaustive()
    }
}

/// Why certificates cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read, or has nothing of what it should have.
    #[error("cannot read {what} from {path}: {reason}. `tasks certs --dir certs` makes all of them")]
    Read {
        /// What should be in it.
        what: &'static str,
        /// The file.
        path: String,
        /// What happened.
        reason: String,
    },
    /// Others than its owner may read or change the key.
    #[error(
        "others than its owner have rights on the key {path} (mode {mode:o}): take them away with chmod 600 {path}"
    )]
    Open {
        /// The file.
        path: String,
        /// Its mode.
        mode: u32,
    },
    /// They do not go together.
    #[error("the certificate {cert} cannot be used: {reason}")]
    Unusable {
        /// The certificate.
        cert: String,
        /// Why.
        reason: String,
    },
}

impl Tls {
    /// Reads a certificate, its key and the certificate of the authority, each a PEM file.
    pub fn open(cert: &Path, key: &Path, authority: &Path) -> Result<Tls, TlsError> {
        let chain = certificates("a certificate", cert)?;
        let roots = certificates("the certificate of the authority", authority)?;
        let key = private_key(key)?;
        let unusable = |reason: &dyn fmt::Display| TlsError::Unusable { cert: shown(cert), reason: reason.to_string() };
        #[cfg(feature = "discover")]
        let authorities = roots.iter().map(|root| Sha256::digest(root).into()).collect();
        let mut store = RootCertStore::empty();
        for root in roots {
            store.add(root).map_err(|error| unusable(&error))?;
        }
        let role = chain.first().and_then(role_of);
        let (store, provider) = (Arc::new(store), Arc::new(ring::default_provider()));
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::clone(&store), Arc::clone(&provider));
        let verifier = verifier.build().map_err(|error| unusable(&error))?;
        let mut server = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(|error| unusable(&error))?
            .with_client_cert_verifier(verifier)
            .with_single_cert(chain.clone(), key.clone_key())
            .map_err(|error| unusable(&error))?;
        server.alpn_protocols = vec![b"http/1.1".to_vec()];
        let client = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(|error| unusable(&error))?
            .with_root_certificates(store)
            .with_client_auth_cert(chain, key)
            .map_err(|error| unusable(&error))?;
        Ok(Tls {
            server: Arc::new(server),
            client,
            role,
            #[cfg(feature = "discover")]
            authorities,
        })
    }

    /// What the bearer of the certificate may do, if it says so.
    pub fn role(&self) -> Option<Role> {
        self.role
    }

    /// The SHA-256 of the certificate of each authority; there are two while one is replaced by another.
    #[cfg(feature = "discover")]
    pub(crate) fn authorities(&self) -> &[[u8; 32]] {
        &self.authorities
    }

    /// How connections to nodes are made.
    pub(crate) fn client(&self) -> ClientConfig {
        self.client.clone()
    }
}

/// What stands before the address in the URL of a node.
pub(crate) fn scheme(tls: Option<&Tls>) -> &'static str {
    if tls.is_some() { "https" } else { "http" }
}

/// Prepares a client for TLS, or for none.
pub(crate) fn prepare(builder: reqwest::ClientBuilder, tls: Option<&Tls>) -> reqwest::ClientBuilder {
    // Without a provider no client can be made, even one that never speaks TLS. Who was first stays.
    if CryptoProvider::get_default().is_none() {
        let _ = ring::default_provider().install_default();
    }
    match tls {
        Some(tls) => builder.tls_backend_preconfigured(tls.client()),
        None => builder,
    }
}

/// What the bearer of a certificate may do, if it says so.
pub(crate) fn role_of(certificate: &CertificateDer<'_>) -> Option<Role> {
    let certificate = webpki::EndEntityCert::try_from(certificate).ok()?;
    let mut roles = certificate.valid_uri_names().filter_map(|uri| uri.strip_prefix(ROLE));
    roles.find_map(|role| [Role::Node, Role::Client, Role::Reader].into_iter().find(|known| known.to_string() == role))
}

/// The name for this role among those of a certificate.
pub fn role_name(role: Role) -> String {
    format!("{ROLE}{role}")
}

/// What went wrong with certificates, if that is what the error is about.
pub(crate) fn explain<'a>(error: &'a (dyn StdError + 'static)) -> Option<String> {
    use rustls::{AlertDescription as Alert, CertificateError as Bad, Error as E};
    let mut causes = std::iter::successors(Some(error), |error: &&'a (dyn StdError + 'static)| (*error).source());
    let said = causes.find_map(said_by)?;
    Some(match said {
        // All authorities of `tasks certs` have one name, so that it may be the signature that is wrong.
        E::InvalidCertificate(Bad::UnknownIssuer | Bad::BadSignature) => {
            "its certificate is of another authority than that of --tls-ca".to_owned()
        }
        E::InvalidCertificate(Bad::NotValidForName | Bad::NotValidForNameContext { .. }) => {
            "its certificate is for other addresses than this one: make one with `tasks certs --host`".to_owned()
        }
        E::InvalidCertificate(Bad::Expired | Bad::ExpiredContext { .. }) => {
            "its certificate has expired: make a new one with `tasks certs`, or set the clock of this machine"
                .to_owned()
        }
        E::InvalidCertificate(other) => format!("its certificate is not that of a node of this ring ({other:?})"),
        E::AlertReceived(Alert::UnknownCA | Alert::DecryptError | Alert::BadCertificate) => {
            "it does not take this certificate, which is of another authority than its own".to_owned()
        }
        E::AlertReceived(Alert::CertificateRequired | Alert::CertificateUnknown | Alert::CertificateExpired) => {
            "it does not take this certificate: is it for clients of this ring, and has it not expired?".to_owned()
        }
        E::InvalidMessage(_) => {
            "it does not speak TLS: is it started with --tls-cert, --tls-key and --tls-ca?".to_owned()
        }
        other => format!("TLS failed: {other}"),
    })
}

/// What rustls has said, where it stands inside of an error of the system, or of one inside of another.
fn said_by<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a rustls::Error> {
    let inner = || error.downcast_ref::<io::Error>()?.get_ref().and_then(|inner| said_by(inner));
    error.downcast_ref().or_else(inner)
}

fn certificates(what: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let cannot = |reason: String| TlsError::Read { what, path: shown(path), reason };
    let found = CertificateDer::pem_file_iter(path).and_then(|found| found.collect::<Result<Vec<_>, pem::Error>>());
    let found = found.map_err(|error| cannot(told(&error)))?;
    if found.is_empty() { Err(cannot("there is none in it".to_owned())) } else { Ok(found) }
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    let cannot = |reason: String| TlsError::Read { what: "a private key", path: shown(path), reason };
    let mode = std::fs::metadata(path).map_err(|error| cannot(error.to_string()))?.mode();
    if mode & 0o077 != 0 {
        return Err(TlsError::Open { path: shown(path), mode: mode & 0o777 });
    }
    PrivateKeyDer::from_pem_file(path).map_err(|error| cannot(told(&error)))
}

fn told(error: &pem::Error) -> String {
    match error {
        pem::Error::NoItemsFound => "there is none in it".to_owned(),
        error => error.to_string(),
    }
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}
