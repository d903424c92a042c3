//! Secret files, and requests signed by hand: with nothing of the code under test, so that both must be right.

use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use sha2::{Digest as _, Sha256};

use crate::common::{Answer, Daemon, sha256};

/// A key that the test knows.
#[derive(Debug, Clone)]
pub(crate) struct Key {
    pub(crate) role: &'static str,
    pub(crate) id: &'static str,
    pub(crate) secret: [u8; 32],
}

pub(crate) const NODE: Key = Key { role: "node", id: "n", secret: [1; 32] };
pub(crate) const CLIENT: Key = Key { role: "client", id: "c", secret: [2; 32] };
pub(crate) const READER: Key = Key { role: "reader", id: "r", secret: [3; 32] };

/// A secret file with these keys.
pub(crate) fn secret_file(dir: &Path, name: &str, keys: &[Key]) -> PathBuf {
    use std::os::unix::fs::OpenOptionsExt as _;
    let entry =
        |key: &Key| format!("[[{}]]\nid = \"{}\"\nsecret = \"{}\"\n", key.role, key.id, hex::encode(key.secret));
    let text: String = keys.iter().map(entry).collect();
    // A new file takes the place of the old one, as `tasks secret` does it.
    let (path, beside) = (dir.join(name), dir.join(format!("{name}.new")));
    let mut file =
        std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&beside).expect("a file");
    std::io::Write::write_all(&mut file, text.as_bytes()).expect("it is written");
    std::fs::rename(beside, &path).expect("it is in place");
    path
}

/// `chordal` with these arguments, to its end: its status, and all that it said.
pub(crate) fn chordal(dir: &Path, args: &[&str]) -> (Option<i32>, String) {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_chordal"));
    command.args(args).current_dir(dir).env_remove("CHORDAL_SECRET_FILE");
    let ran = command.output().expect("it runs");
    (ran.status.code(), String::from_utf8_lossy(&[ran.stdout, ran.stderr].concat()).into_owned())
}

/// Each command that asks a node must be refused with these options at once, in one line that says this.
#[track_caller]
pub(crate) fn refused(dir: &Path, addr: &str, options: &[&str], says: &str) {
    let (_, port) = addr.rsplit_once(':').expect("a port");
    for command in [&["get", "k"][..], &["put", "k", "v"], &["delete", "k"], &["info"]] {
        let (status, said) = chordal(dir, &[command, &["--port", port], options].concat());
        assert_eq!(status, Some(1), "{command:?}: {said}");
        assert!(said.contains(says) && said.lines().count() == 1, "{command:?}: {said}");
        assert!(!said.contains("firewall") && !said.contains("chordal start"), "{said}");
    }
}

/// A ring of one that takes these keys.
pub(crate) fn closed(dir: &Path, keys: &[Key], more: &[&str]) -> Daemon {
    let file = secret_file(dir, "ring.secret", keys);
    let args = [&["--memory", "--secret-file", file.to_str().expect("a path")], more].concat();
    Daemon::start(dir, &args)
}

/// A request as it is signed; what is sent may be changed after that.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub(crate) method: &'static str,
    pub(crate) addr: String,
    pub(crate) path: String,
    pub(crate) headers: Vec<(&'static str, String)>,
    pub(crate) body: Vec<u8>,
}

/// Milliseconds since 1970.
pub(crate) fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("a time").as_millis() as i64
}

impl Request {
    pub(crate) fn new(method: &'static str, addr: &str, path: &str) -> Request {
        Request { method, addr: addr.to_owned(), path: path.to_owned(), headers: Vec::new(), body: Vec::new() }
    }

    pub(crate) fn body(mut self, content_type: &str, body: impl Into<Vec<u8>>) -> Request {
        self.headers.push(("content-type", content_type.to_owned()));
        self.body = body.into();
        self
    }

    /// Signed now.
    pub(crate) fn signed(self, key: &Key) -> Request {
        self.signed_at(key, now())
    }

    /// Signed with this time.
    pub(crate) fn signed_at(mut self, key: &Key, time: i64) -> Request {
        let (nonce, digest) = (hex::encode(rand::random::<[u8; 16]>()), sha256(&self.body));
        let mut lines =
            vec!["chordal-1 request".to_owned(), self.method.to_owned(), self.addr.clone(), self.path.clone()];
        lines.extend([key.id.to_owned(), time.to_string(), nonce.clone(), digest.clone()]);
        for covered in ["content-type", "if-match", "if-none-match", "request-id"] {
            let given = self.headers.iter().filter(|(name, _)| *name == covered);
            lines.extend(given.map(|(name, value)| format!("{name}:{value}")));
        }
        let mac = hex::encode(hmac(&key.secret, &(lines.join("\n") + "\n")));
        let id = key.id;
        let value = format!("Chordal-1 key={id}, time={time}, nonce={nonce}, digest={digest}, mac={mac}");
        self.headers.push(("authorization", value));
        self
    }

    pub(crate) fn send(&self) -> Answer {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let method = reqwest::Method::from_bytes(self.method.as_bytes()).expect("a method");
            let mut request = crate::common::client().request(method, format!("http://{}{}", self.addr, self.path));
            for (name, value) in &self.headers {
                request = request.header(*name, value);
            }
            let response = request.body(self.body.clone()).send().await.expect("an answer");
            let (status, headers) = (response.status().as_u16(), response.headers().clone());
            Answer { status, headers, body: response.text().await.expect("a text") }
        })
    }
}

/// HMAC as RFC 2104 has it.
pub(crate) fn hmac(secret: &[u8; 32], text: &str) -> [u8; 32] {
    let padded = |with: u8| -> Vec<u8> { (0..64).map(|i| secret.get(i).copied().unwrap_or(0) ^ with).collect() };
    let inner = Sha256::new().chain_update(padded(0x36)).chain_update(text).finalize();
    Sha256::new().chain_update(padded(0x5c)).chain_update(inner).finalize().into()
}

/// The answer must be a refusal of a stranger with this word in it.
#[track_caller]
pub(crate) fn stranger(answer: &Answer, says: &str) {
    let problem = answer.problem(401, "stranger");
    assert_eq!(answer.header("www-authenticate"), "Chordal-1");
    let detail = problem["detail"].as_str().expect("a text");
    assert!(detail.contains(says), "{detail}");
}
