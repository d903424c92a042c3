//! The keys of a ring as they are now, and what is signed with them.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use axum::http::{HeaderMap, HeaderValue};

use super::Role;
use super::key_file::{Key, KeyFile, KeyFileError, Keys, in_full};
use super::signature::{CALL_STATUS, REPLY, Signature, Signed, is_reply_of};

/// How long what stands in files is used before it is looked whether they have changed.
pub(super) const FRESH: Duration = Duration::from_secs(1);

/// The keys of a secret file, which is read again when it changes. One that cannot be used then is told in the log, and the
/// keys stay.
#[derive(Debug)]
pub struct KeyRing {
    path: PathBuf,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    keys: Arc<Keys>,
    /// What the file looked like when it was read.
    look: Option<Look>,
    at: Instant,
}

/// By what a change of a file is noticed: its inode, its length, and when it was changed.
pub(super) type Look = (u64, u64, i64, i64);

pub(super) fn look(path: &Path) -> Option<Look> {
    let about = fs::metadata(path).ok()?;
    Some((about.ino(), about.len(), about.ctime(), about.ctime_nsec()))
}

/// A request that is about to be sent, signed.
#[derive(Debug)]
pub struct Sent {
    /// Its Authorization header.
    pub authorization: HeaderValue,
    /// Tells whether an answer is one to it.
    pub awaited: Awaited,
}

/// A request that waits for its answer.
#[derive(Debug)]
pub struct Awaited {
    key: Arc<Key>,
    nonce: [u8; 16],
}

/// An answer does not come from somebody who has the key that the request was signed with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{}", NotSigned::REASON)]
pub struct NotSigned;

impl NotSigned {
    /// What there is to say of it.
    pub(crate) const REASON: &str =
        "its answer is not signed with the ring's secret; if its ring is open, leave --secret-file out";
}

impl KeyRing {
    /// Reads a secret file, which nobody but its owner may have rights on.
    pub fn open(path: &Path) -> Result<KeyRing, KeyFileError> {
        let path = in_full(path);
        // Before it is read: a change in between is then noticed the next time.
        let look = look(&path);
        let keys = Arc::new(read(&path)?);
        Ok(KeyRing { path, state: Mutex::new(State { keys, look, at: Instant::now() }) })
    }

    /// Where the file is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The role of the key that signs.
    pub fn role(&self) -> Role {
        self.keys().signing().map_or(Role::Reader, |key| key.role)
    }

    /// Signs a request. `host` is the `host:port` that is called, `target` the path with its query. Whoever sends it again
    /// signs it again: it is taken once.
    pub fn sign(&self, method: &str, host: &str, target: &str, headers: &HeaderMap, body: &[u8]) -> Sent {
        let keys = self.keys();
        let host = host.to_ascii_lowercase();
        let request = Signed { method, host: &host, target, headers };
        // A file without any key is not read.
        let key = keys.signing().expect("there is a key");
        let signature = Signature::new(key, &request, now(), rand::random(), body);
        // Ids and hex digits are always a header.
        let authorization = HeaderValue::try_from(signature.to_string()).expect("it is a header");
        Sent { authorization, awaited: Awaited { key: Arc::clone(key), nonce: signature.nonce } }
    }

    /// The keys as they are now.
    pub(crate) fn keys(&self) -> Arc<Keys> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.at.elapsed() >= FRESH {
            self.refresh(&mut state);
        }
        Arc::clone(&state.keys)
    }

    fn refresh(&self, state: &mut State) {
        state.at = Instant::now();
        let look = look(&self.path);
        if look == state.look {
            return;
        }
        state.look = look;
        match read(&self.path) {
            Ok(keys) => {
                let ids: Vec<&str> = keys.ids().collect();
                tracing::info!(keys = ids.join(" "), "the secret file has changed");
                state.keys = Arc::new(keys);
            }
            Err(error) => {
                tracing::warn!(%error, "the secret file has changed and cannot be used; the keys stay as they were")
            }
        }
    }
}

impl Awaited {
    /// Whether an answer comes from somebody who has the key, and belongs to the request.
    pub fn check(&self, status: u16, headers: &HeaderMap, body: &[u8]) -> Result<(), NotSigned> {
        let given = headers.get(REPLY).and_then(|value| hex::decode(value).ok()).ok_or(NotSigned)?;
        if is_reply_of(&self.key, &self.nonce, status, headers, body, &given) { Ok(()) } else { Err(NotSigned) }
    }

    /// The same for a call on a connection of its own, whose answer has no headers.
    pub(crate) fn check_call(&self, body: &[u8], mac: &[u8; 32]) -> Result<(), NotSigned> {
        let is_signed = is_reply_of(&self.key, &self.nonce, CALL_STATUS, &HeaderMap::new(), body, mac);
        if is_signed { Ok(()) } else { Err(NotSigned) }
    }
}

fn read(path: &Path) -> Result<Keys, KeyFileError> {
    let unusable = |reason| KeyFileError::Unusable { path: path.display().to_string(), reason };
    Keys::of(&KeyFile::read(path)?).map_err(unusable)
}

/// Milliseconds since 1970.
pub(crate) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}
