//! By what nodes of one ring recognise each other before they have spoken: a tag that everybody may see, and nobody can make or read
//! anything out of who has not the ring's secret.

use hmac::Mac as _;
use sha2::{Digest as _, Sha256};

use super::{Role, Security};

/// What a tag is over, before the name of the ring.
const TEXT: &str = "chordal ring";

/// How many bytes of the digest are shown.
const SHOWN: usize = 16;

impl Security {
    /// The tags of the ring of this name, the one to show first: one for each key of nodes; without any, one for each authority of
    /// its certificates, else one for the name alone.
    pub(crate) fn ring_tags(&self, name: &str) -> Vec<String> {
        let text = format!("{TEXT}\n{name}\n");
        let shown = |digest: &[u8]| hex::encode(&digest[..SHOWN]);
        if let Some(keys) = &self.keys {
            let keys = keys.keys();
            let of_nodes = keys.all().filter(|key| key.role == Role::Node);
            return of_nodes.map(|key| shown(&key.mac.clone().chain_update(&text).finalize().into_bytes())).collect();
        }
        let digest = Sha256::new().chain_update(&text);
        match &self.tls {
            Some(tls) => {
                let with = |authority: &[u8; 32]| shown(&digest.clone().chain_update(authority).finalize());
                tls.authorities().iter().map(with).collect()
            }
            None => vec![shown(&digest.finalize())],
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;
    use std::sync::Arc;

    use super::super::KeyRing;
    use super::*;

    fn with_keys(keys: &[(&str, &str)]) -> Security {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ring.secret");
        let entry = |(id, byte): &(&str, &str)| format!("[[node]]\nid = \"{id}\"\nsecret = \"{}\"\n", byte.repeat(32));
        let client = format!("[[client]]\nid = \"c\"\nsecret = \"{}\"\n", "ee".repeat(32));
        std::fs::write(&path, keys.iter().map(entry).collect::<String>() + &client).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        Security { keys: Some(Arc::new(KeyRing::open(&path).unwrap())), ..Security::default() }
    }

    #[test]
    fn those_who_have_a_key_in_common_recognise_each_other_and_no_others() {
        let (old, both, new) =
            (with_keys(&[("a", "0a")]), with_keys(&[("b", "0b"), ("a", "0a")]), with_keys(&[("b", "0b")]));
        let tags = |security: &Security| security.ring_tags("chordal");
        assert_eq!(tags(&both), [tags(&new), tags(&old)].concat(), "the key that signs first, and none of clients");
        assert!(tags(&old)[0] != tags(&new)[0] && tags(&old) != old.ring_tags("another"));
        let open = Security::default();
        assert!(!tags(&both).contains(&tags(&open)[0]) && open.ring_tags("another") != tags(&open));
        assert!(tags(&both).iter().all(|tag| tag.len() == 2 * SHOWN));
    }

    /// Computed once with another program: `printf 'chordal ring\nchordal\n' | openssl dgst -sha256 -mac HMAC -macopt hexkey:0a…0a`,
    /// and without the key.
    #[test]
    fn what_is_shown_is_fixed() {
        assert_eq!(with_keys(&[("a", "0a")]).ring_tags("chordal"), [KEYED]);
        assert_eq!(Security::default().ring_tags("chordal"), [OPEN]);
    }

    const KEYED: &str = "dd1b72673edf44e17f6f464d86189065";
    const OPEN: &str = "842c0f2c9650d3077623a066275e6245";
}
