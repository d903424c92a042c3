//! The secret file of a ring: its keys, by role.
//!
//! ```toml
//! [[node]]
//! id = "2026-11"
//! secret = "…64 hex digits…"
//!
//! [[client]]
//! id = "web"
//! secret = "…"
//! ```
//!
//! All keys are accepted. The first of the highest role in the file signs, so that one can be replaced by another while
//! the ring runs.

use std::fmt;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use hmac::{Hmac, KeyInit as _};
use serde::{Deserialize, Serialize};
use sha2::Sha256;

use super::Role;

/// The largest secret file, in bytes.
const LARGEST: u64 = 64 << 10;
/// The most keys of a file: each has replays of its own to be remembered.
const MOST_KEYS: usize = 32;
/// The longest id of a key.
const LONGEST_ID: usize = 64;
/// How many bytes a secret has.
const SECRET: usize = 32;

/// Why a secret file cannot be used. The message never has any of its content.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    /// The system does not give it out.
    #[error("cannot read the secret file {path}: {reason}. `tasks secret new {path}` writes one")]
    Read {
        /// The file.
        path: String,
        /// What the system said.
        reason: io::Error,
    },
    /// Others than its owner may read or change it.
    #[error(
        "others than its owner have rights on the secret file {path} (mode {mode:o}): take them away with chmod 600 {path}"
    )]
    Open {
        /// The file.
        path: String,
        /// Its mode.
        mode: u32,
    },
    /// It is no secret file.
    #[error(
        "the secret file {path} cannot be used: {reason}. `tasks secret new` writes one, and docs/security.md has an example"
    )]
    Unusable {
        /// The file.
        path: String,
        /// What is wrong, and where.
        reason: String,
    },
}

/// A secret file as it is written. `Debug` does not show the secrets.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyFile {
    /// Keys of nodes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub node: Vec<NewKey>,
    /// Keys of clients.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub client: Vec<NewKey>,
    /// Keys of clients that may only read.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub reader: Vec<NewKey>,
}

/// A key as it stands in a secret file.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewKey {
    /// Its name, which is no secret: 1 to 64 letters, digits, `-`, `_` and `.`.
    pub id: String,
    /// 32 random bytes in hex.
    pub secret: String,
}

impl fmt::Debug for NewKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NewKey").field("id", &self.id).finish_non_exhaustive()
    }
}

impl NewKey {
    /// A key with a secret of its own.
    pub fn random(id: impl Into<String>) -> NewKey {
        NewKey { id: id.into(), secret: hex::encode(rand::random::<[u8; SECRET]>()) }
    }
}

impl KeyFile {
    /// Reads a file, which nobody but its owner may have rights on.
    pub fn read(path: &Path) -> Result<KeyFile, KeyFileError> {
        let shown = || path.display().to_string();
        let cannot = |reason| KeyFileError::Read { path: shown(), reason };
        let file = File::open(path).map_err(cannot)?;
        let about = file.metadata().map_err(cannot)?;
        if about.is_dir() {
            return Err(cannot(io::ErrorKind::IsADirectory.into()));
        }
        if about.mode() & 0o077 != 0 {
            return Err(KeyFileError::Open { path: shown(), mode: about.mode() & 0o777 });
        }
        let mut text = String::new();
        let unusable = |reason: String| KeyFileError::Unusable { path: shown(), reason };
        let read = file.take(LARGEST + 1).read_to_string(&mut text).map_err(cannot)?;
        if read as u64 > LARGEST {
            return Err(unusable(format!("it has more than {LARGEST} bytes")));
        }
        let read = KeyFile::parse(&text).map_err(unusable)?;
        Keys::of(&read).map_err(unusable)?;
        Ok(read)
    }

    fn parse(text: &str) -> Result<KeyFile, String> {
        toml::from_str(text).map_err(|error| {
            // The parser's own words may quote the line, and the line may be a secret.
            let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
            let line = before.matches('\n').count() + 1;
            format!("line {line} is not what stands in one: [[node]], [[client]] or [[reader]] with an id and a secret")
        })
    }

    /// All keys, with their roles.
    pub fn keys(&self) -> impl Iterator<Item = (Role, &NewKey)> {
        let by_role = [(Role::Node, &self.node), (Role::Client, &self.client), (Role::Reader, &self.reader)];
        by_role.into_iter().flat_map(|(role, keys)| keys.iter().map(move |key| (role, key)))
    }
}

/// The keys of a ring, ready for use.
pub(crate) struct Keys(Vec<Arc<Key>>);

/// A key, ready for use.
pub(crate) struct Key {
    pub(crate) id: String,
    pub(crate) role: Role,
    /// HMAC with the secret and nothing said yet.
    pub(super) mac: Hmac<Sha256>,
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(&self.0).finish()
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Key").field("id", &self.id).field("role", &self.role).finish_non_exhaustive()
    }
}

impl Keys {
    pub(super) fn of(file: &KeyFile) -> Result<Keys, String> {
        let mut keys: Vec<Arc<Key>> = Vec::new();
        for (role, key) in file.keys() {
            let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
            if !(1..=LONGEST_ID).contains(&key.id.len()) || !key.id.bytes().all(is_name) {
                return Err(format!(
                    "the id of a {role} key is not of 1 to {LONGEST_ID} letters, digits, `-`, `_` and `.`"
                ));
            }
            if keys.iter().any(|other| other.id == key.id) {
                return Err(format!("two keys have the id {}", key.id));
            }
            let secret = hex::decode(&key.secret).ok().filter(|secret| secret.len() == SECRET);
            let secret =
                secret.ok_or_else(|| format!("the secret of the {role} key {} is not of 64 hex digits", key.id))?;
            // HMAC takes keys of any length.
            let mac = Hmac::new_from_slice(&secret).map_err(|error| error.to_string())?;
            keys.push(Arc::new(Key { id: key.id.clone(), role, mac }));
        }
        match keys.len() {
            0 => Err("it has no key".to_owned()),
            1..=MOST_KEYS => Ok(Keys(keys)),
            more => Err(format!("it has {more} keys, and at most {MOST_KEYS} are remembered")),
        }
    }

    /// The key of this id.
    pub(crate) fn find(&self, id: &str) -> Option<&Arc<Key>> {
        self.0.iter().find(|key| key.id == id)
    }

    /// The key that signs: the first of the highest role.
    pub(crate) fn signing(&self) -> Option<&Arc<Key>> {
        // Sorted by role as they are read, the highest first.
        self.0.first()
    }

    /// All keys, the one that signs first.
    #[cfg(feature = "discover")]
    pub(crate) fn all(&self) -> impl Iterator<Item = &Arc<Key>> {
        self.0.iter()
    }

    /// The ids of all keys.
    pub(crate) fn ids(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|key| key.id.as_str())
    }
}

/// Where a secret file is, in full, so that it is found from any directory.
pub(super) fn in_full(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn read(text: &str, mode: u32) -> Result<KeyFile, KeyFileError> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ring.secret");
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        KeyFile::read(&path)
    }

    fn entry(role: &str, id: &str, secret: &str) -> String {
        format!("[[{role}]]\nid = \"{id}\"\nsecret = \"{secret}\"\n")
    }

    #[test]
    fn the_first_key_of_the_highest_role_signs() {
        let secret = "ab".repeat(32);
        let all = [("reader", "r"), ("client", "c"), ("node", "n1"), ("node", "n2")];
        let text: String = all.iter().map(|(role, id)| entry(role, id, &secret)).collect();
        let keys = Keys::of(&read(&text, 0o600).unwrap()).unwrap();
        assert_eq!(keys.signing().unwrap().id, "n1");
        assert_eq!(keys.find("n2").unwrap().role, Role::Node);
        assert_eq!(keys.find("r").unwrap().role, Role::Reader);
        assert!(keys.find("x").is_none());
        let keys = Keys::of(&read(&entry("client", "c", &secret), 0o400).unwrap()).unwrap();
        assert_eq!(keys.signing().unwrap().role, Role::Client);
    }

    #[test]
    fn a_file_that_others_have_rights_on_is_refused() {
        let text = entry("node", "n", &"ab".repeat(32));
        for mode in [0o644, 0o640, 0o604, 0o620, 0o601] {
            let error = read(&text, mode).unwrap_err().to_string();
            assert!(error.contains("chmod 600") && error.contains(&format!("{mode:o}")), "{error}");
        }
    }

    #[test]
    fn what_is_no_secret_file_is_told_without_its_content() {
        let secret = "c0ffee".repeat(10) + "abcd";
        let good = entry("node", "n", &secret);
        for (text, told) in [
            (String::new(), "no key"),
            (secret.clone(), "line 1"),
            (format!("\n\n[[node]]\nid = 5\nsecret = \"{secret}\"\n"), "line 4"),
            (good.replace("secret", "sekret"), "line"),
            (good.clone() + &good, "two keys"),
            (entry("node", "n", &secret[1..]), "64 hex digits"),
            (entry("node", "n", &secret.replace('a', "g")), "64 hex digits"),
            (entry("node", "a b", &secret), "the id"),
            (entry("node", "", &secret), "the id"),
            (entry("king", "n", &secret), "line"),
            ((0..40).map(|i| entry("client", &format!("c{i}"), &secret)).collect(), "at most 32"),
            ("#".repeat(70_000), "more than"),
        ] {
            let error = read(&text, 0o600).unwrap_err().to_string();
            assert!(error.contains(told), "{error}");
            assert!(!error.contains("c0ffee") && !error.contains('\n'), "{error}");
        }
    }

    #[test]
    fn secrets_are_not_shown() {
        let key = NewKey::random("n");
        let file = KeyFile { node: vec![key.clone()], ..KeyFile::default() };
        let shown = format!("{file:?} {:?}", Keys::of(&file).unwrap());
        assert!(shown.contains("\"n\"") && !shown.contains(&key.secret), "{shown}");
    }
}
