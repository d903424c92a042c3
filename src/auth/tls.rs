//! Mutual TLS: both ends of a connection show a certificate of the ring's own authority.
//!
//! What the bearer of a certificate may do stands in it, as a URI among its names: `urn:chordal:node`, `urn:chordal:client`
//! or `urn:chordal:reader`. Only certificates of nodes are good for a server. TLS 1.3 alone is spoken.

use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::{self, PemObject as _};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
#[cfg(feature = "discover")]
use sha2::{Digest as _, Sha256};
use tokio_util::sync::CancellationToken;

use super::Role;
use super::key_file::in_full;
use super::key_ring::{FRESH, Look, look};

/// What stands before a role among the names of a certificate.
const ROLE: &str = "urn:chordal:";

/// A certificate with its key, and the authorities that those of others must come from: three files, which are read again when
/// they change.
///
/// What is used from a change on is for new connections, and those that a server has end with the request that is under way. A
/// change that cannot be used is told in the log, and what was read before stays in use.
#[derive(Debug, Clone)]
pub struct Tls(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    files: Files,
    role: Option<Role>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    now: Arc<Certificates>,
    /// What the files looked like when they were read last, and when they were looked at last.
    read: [Option<Look>; 3],
    seen: [Option<Look>; 3],
    at: Instant,
}

#[derive(Debug)]
struct Files {
    cert: PathBuf,
    key: PathBuf,
    authority: PathBuf,
}

/// What has been read from the files.
pub(crate) struct Certificates {
    /// How connections are taken.
    pub(crate) server: Arc<ServerConfig>,
    client: ClientConfig,
    chain: Vec<CertificateDer<'static>>,
    /// The SHA-256 of the certificate of each authority.
    #[cfg(feature = "discover")]
    authorities: Vec<[u8; 32]>,
    verifier: Arc<dyn ClientCertVerifier>,
    /// Cancelled once others have taken their place.
    pub(crate) over: CancellationToken,
}

impl fmt::Debug for Certificates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificates").field("role", &self.role()).finish_non_exhaustive()
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
    /// Reads a certificate, its key and the certificates of the authorities, each a PEM file.
    pub fn open(cert: &Path, key: &Path, authority: &Path) -> Result<Tls, TlsError> {
        let files = Files { cert: in_full(cert), key: in_full(key), authority: in_full(authority) };
        // Before they are read: a change in between is then noticed the next time.
        let look = files.look();
        let now = Arc::new(files.read()?);
        let role = now.role();
        let state = Mutex::new(State { now, read: look, seen: look, at: Instant::now() });
        Ok(Tls(Arc::new(Shared { files, role, state })))
    }

    /// What the bearer of the certificate may do, if it says so. Another role is not taken when the files change.
    pub fn role(&self) -> Option<Role> {
        self.0.role
    }

    /// What stands in the files now.
    pub(crate) fn now(&self) -> Arc<Certificates> {
        let mut state = self.0.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.at.elapsed() >= FRESH {
            self.0.refresh(&mut state);
        }
        Arc::clone(&state.now)
    }

    /// The SHA-256 of the certificate of each authority; there are two while one is replaced by another.
    #[cfg(feature = "discover")]
    pub(crate) fn authorities(&self) -> Vec<[u8; 32]> {
        self.now().authorities.clone()
    }

    /// Looks again and again, also when nobody connects.
    pub(crate) async fn keep_looking(self) {
        loop {
            tokio::time::sleep(FRESH).await;
            self.now();
        }
    }
}

impl Shared {
    fn refresh(&self, state: &mut State) {
        state.at = Instant::now();
        let look = self.files.look();
        // What is being written, or waits for the other files, is left alone until it stands still.
        let stands_still = std::mem::replace(&mut state.seen, look) == look;
        if look == state.read || !stands_still {
            return;
        }
        state.read = look;
        let cert = shown(&self.files.cert);
        match self.files.read().and_then(|certificates| certificates.can_replace(self.role, &cert)) {
            Ok(certificates) => {
                tracing::info!(%cert, "the certificates have changed: new connections are made with them");
                std::mem::replace(&mut state.now, Arc::new(certificates)).over.cancel();
            }
            Err(error) => {
                tracing::warn!(%error, "the certificates have changed and cannot be used; those from before stay in use");
            }
        }
    }
}

impl Files {
    fn look(&self) -> [Option<Look>; 3] {
        [look(&self.cert), look(&self.key), look(&self.authority)]
    }

    fn read(&self) -> Result<Certificates, TlsError> {
        let chain = certificates("a certificate", &self.cert)?;
        let roots = certificates("the certificate of the authority", &self.authority)?;
        let key = private_key(&self.key)?;
        Certificates::of(chain, key, roots).map_err(|error| match error.downcast_ref() {
            Some(rustls::Error::InconsistentKeys(_)) => {
                unusable(&shown(&self.cert), &format!("the key in {} is not its own", shown(&self.key)))
            }
            _ => unusable(&shown(&self.cert), &error),
        })
    }
}

impl Certificates {
    fn of(
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
        roots: Vec<CertificateDer<'static>>,
    ) -> Result<Certificates, Box<dyn StdError>> {
        #[cfg(feature = "discover")]
        let authorities = roots.iter().map(|root| Sha256::digest(root).into()).collect();
        let mut store = RootCertStore::empty();
        for root in roots {
            store.add(root)?;
        }
        let (store, provider) = (Arc::new(store), Arc::new(ring::default_provider()));
        let verifier =
            WebPkiClientVerifier::builder_with_provider(Arc::clone(&store), Arc::clone(&provider)).build()?;
        let mut server = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_client_cert_verifier(Arc::clone(&verifier))
            .with_single_cert(chain.clone(), key.clone_key())?;
        server.alpn_protocols = vec![b"http/1.1".to_vec()];
        let client = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_root_certificates(store)
            .with_client_auth_cert(chain.clone(), key)?;
        Ok(Certificates {
            server: Arc::new(server),
            client,
            chain,
            #[cfg(feature = "discover")]
            authorities,
            verifier,
            over: CancellationToken::new(),
        })
    }

    fn role(&self) -> Option<Role> {
        self.chain.first().and_then(role_of)
    }

    /// Whether others who read the same files would take these, too: what is replaced by something of no use is kept.
    fn can_replace(self, role: Option<Role>, cert: &str) -> Result<Certificates, TlsError> {
        if self.role() != role {
            let named = |role: Option<Role>| role.map_or("nobody".to_owned(), |role| format!("a {role}"));
            let (is, was) = (named(self.role()), named(role));
            return Err(unusable(cert, &format!("it is that of {is}, and was that of {was}")));
        }
        let checked = match self.chain.split_first() {
            Some((end, between)) => self.verifier.verify_client_cert(end, between, UnixTime::now()).map(drop),
            None => Ok(()),
        };
        match checked {
            Ok(()) => Ok(self),
            Err(error) => Err(unusable(cert, &explain(&error).unwrap_or_else(|| error.to_string()))),
        }
    }
}

/// What stands before the address in the URL of a node.
pub(crate) fn scheme(tls: Option<&Tls>) -> &'static str {
    if tls.is_some() { "https" } else { "http" }
}

/// Prepares a client for TLS, or for none.
pub(crate) fn prepare(builder: reqwest::ClientBuilder, tls: Option<&Certificates>) -> reqwest::ClientBuilder {
    // Without a provider no client can be made, even one that never speaks TLS. Who was first stays.
    if CryptoProvider::get_default().is_none() {
        let _ = ring::default_provider().install_default();
    }
    match tls {
        Some(tls) => builder.tls_backend_preconfigured(tls.client.clone()),
        // It speaks no TLS, and has no use for the authorities of the system: to read them takes most of the time.
        None => builder.tls_certs_only([]),
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

/// What went wrong between the two ends of a connection, if that is what the error is about: one speaks TLS and the other does not,
/// or a certificate is not taken. It stays so until options or files have changed.
pub(crate) fn explain_request(error: &reqwest::Error) -> Option<String> {
    explain(error).or_else(|| {
        let is_plain = error.url().is_some_and(|url| url.scheme() == "http");
        let is_no_answer = |cause: &(dyn StdError + 'static)| cause.downcast_ref().is_some_and(hyper::Error::is_parse);
        (is_plain && causes(error).any(is_no_answer)).then(|| {
            format!("what answers there does not speak plain HTTP; a node that speaks TLS is asked with {TLS_OPTIONS}")
        })
    })
}

/// The options with which a program speaks TLS.
const TLS_OPTIONS: &str = "--tls-cert, --tls-key and --tls-ca (`tasks`: --certs)";

/// An error and what it came from.
fn causes<'a>(error: &'a (dyn StdError + 'static)) -> impl Iterator<Item = &'a (dyn StdError + 'static)> {
    std::iter::successors(Some(error), |error: &&'a (dyn StdError + 'static)| (*error).source())
}

/// What went wrong with certificates, if that is what the error is about.
fn explain<'a>(error: &'a (dyn StdError + 'static)) -> Option<String> {
    use rustls::{AlertDescription as Alert, CertificateError as Bad, Error as E};
    let said = causes(error).find_map(said_by)?;
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
        E::InvalidCertificate(Bad::NotValidYet | Bad::NotValidYetContext { .. }) => {
            "its certificate is not valid yet: set the clock of this machine".to_owned()
        }
        E::InvalidCertificate(_) => "its certificate is not that of a node of this ring".to_owned(),
        E::AlertReceived(Alert::UnknownCA | Alert::DecryptError | Alert::BadCertificate) => {
            "it does not take this certificate, which is of another authority than its own".to_owned()
        }
        E::AlertReceived(Alert::CertificateRequired | Alert::CertificateUnknown | Alert::CertificateExpired) => {
            "it does not take this certificate, which must be one of this ring and must not have expired".to_owned()
        }
        E::InvalidMessage(_) => {
            format!("it does not speak TLS: start it with {TLS_OPTIONS}, or ask without them")
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

fn unusable(cert: &str, reason: &dyn fmt::Display) -> TlsError {
    TlsError::Unusable { cert: cert.to_owned(), reason: reason.to_string() }
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}
