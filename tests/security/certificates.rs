//! Certificates and their authority replaced while the ring runs: nobody is refused meanwhile, and what is taken away is
//! refused after it.

use std::fs;
use std::io::Write as _;
use std::net::TcpStream;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use chordal::auth::{Security, Tls};
use chordal::client::{Client, NodeClient};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};

use crate::common::{Lab, addr_of, eventually};

const PATIENCE: Duration = Duration::from_secs(30);

/// What a node says of a change that it takes, and of one that it does not.
const TAKEN: &str = "the certificates have changed: new connections are made with them";
const NOT_TAKEN: &str = "the certificates have changed and cannot be used; those from before stay in use";

/// Puts a file in the place of another at once and whole, as `mv` does it.
fn put(path: &Path, content: &[u8]) {
    let beside = path.with_added_extension("beside");
    let _ = fs::remove_file(&beside);
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&beside).expect("a file");
    file.write_all(content).expect("it is written");
    fs::rename(&beside, path).expect("it is in place");
}

/// Copies these files from one directory to another.
fn take(from: &Path, to: &Path, names: &[&str]) {
    fs::create_dir_all(to).expect("a directory");
    names.iter().for_each(|name| put(&to.join(name), &fs::read(from.join(name)).expect("a file")));
}

fn security(dir: &Path) -> Security {
    let file = |name: &str| dir.join(name);
    let tls = Tls::open(&file("client.pem"), &file("client.key"), &file("ca.pem")).expect("certificates");
    Security { tls: Some(tls), ..Security::default() }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
}

/// The certificate that a node shows on a new connection.
fn shown(addr: &str, dir: &Path) -> Vec<u8> {
    let pem = |name: &str| CertificateDer::pem_file_iter(dir.join(name)).expect("a file").map(|it| it.expect("PEM"));
    let mut roots = rustls::RootCertStore::empty();
    pem("ca.pem").for_each(|root| roots.add(root).expect("an authority"));
    let key = PrivateKeyDer::from_pem_file(dir.join("client.key")).expect("a key");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("TLS 1.3")
        .with_root_certificates(roots)
        .with_client_auth_cert(pem("client.pem").collect(), key)
        .expect("a client");
    let name = ServerName::try_from("127.0.0.1").expect("a name");
    let mut connection = rustls::ClientConnection::new(Arc::new(config), name).expect("a connection");
    let mut socket = TcpStream::connect(addr).expect("it listens");
    socket.set_read_timeout(Some(PATIENCE)).expect("a socket");
    while connection.is_handshaking() {
        connection.complete_io(&mut socket).expect("TLS");
    }
    connection.peer_certificates().expect("it shows one")[0].to_vec()
}

/// A ring of two whose nodes have their files in `certs`, and a client that stores all the time with those in `mine`.
struct Rolled {
    lab: Lab,
    stop: AtomicBool,
    stored: AtomicUsize,
}

impl Rolled {
    fn logs(&self) -> Vec<String> {
        let read = |node: &serde_json::Value| fs::read_to_string(node["log"].as_str().expect("a log")).expect("a log");
        self.lab.nodes().iter().map(read).collect()
    }

    /// Waits until each node has said this so many times.
    fn all_say(&self, line: &str, times: usize) {
        eventually(&format!("all nodes say {times} times: {line}"), PATIENCE, || {
            self.logs().iter().all(|log| log.matches(line).count() >= times).then_some(())
        });
    }

    fn more_is_stored(&self, busy: &std::thread::ScopedJoinHandle<'_, ()>) {
        let before = self.stored.load(Ordering::Relaxed);
        let grown = || (busy.is_finished() || self.stored.load(Ordering::Relaxed) >= before + 20).then_some(());
        eventually("more is stored", PATIENCE, grown);
        assert!(!busy.is_finished(), "the client was refused");
    }

    fn store(&self, mine: &Path) {
        let client = Client::new(self.lab.addrs()).expect("addresses").with_security(&security(mine));
        let runtime = runtime();
        while !self.stop.load(Ordering::Relaxed) {
            let number = self.stored.fetch_add(1, Ordering::Relaxed);
            runtime.block_on(client.put(format!("key-{number}"), "v")).expect("it is stored");
        }
    }
}

#[test]
fn certificates_and_their_authority_are_replaced_while_the_ring_runs() {
    let lab = Lab::empty();
    lab.ok(&["certs", "--dir", "certs"]);
    lab.ok(&["boot", "--certs", "certs"]);
    let rolled = Rolled { lab, stop: AtomicBool::new(false), stored: AtomicUsize::new(0) };
    let path = |name: &str| rolled.lab.path().join(name);
    let (certs, new, mine, old) = (path("certs"), path("new"), path("mine"), path("old"));
    take(&certs, &mine, &["client.pem", "client.key", "ca.pem"]);
    let addrs: Vec<String> = rolled.lab.nodes().iter().map(addr_of).collect();
    let all_show = |dir: &Path| {
        let expected = CertificateDer::from_pem_file(dir.join("node.pem")).expect("a certificate").to_vec();
        eventually("all nodes show the new certificate", PATIENCE, || {
            addrs.iter().all(|addr| shown(addr, &mine) == expected).then_some(())
        });
    };
    std::thread::scope(|scope| {
        let busy = scope.spawn(|| rolled.store(&mine));
        rolled.more_is_stored(&busy);
        // New ones of the same authority.
        rolled.lab.ok(&["certs", "--dir", "certs"]);
        rolled.all_say(TAKEN, 1);
        all_show(&certs);
        rolled.more_is_stored(&busy);
        // Another authority. First all come to know both.
        rolled.lab.ok(&["certs", "--dir", "new"]);
        let both = [fs::read(certs.join("ca.pem")).unwrap(), fs::read(new.join("ca.pem")).unwrap()].concat();
        put(&certs.join("ca.pem"), &both);
        put(&mine.join("ca.pem"), &both);
        rolled.all_say(TAKEN, 2);
        rolled.more_is_stored(&busy);
        take(&mine, &old, &["client.pem", "client.key", "ca.pem"]);
        // Then all get certificates of the new one.
        take(&new, &certs, &["node.pem", "node.key"]);
        take(&new, &mine, &["client.pem", "client.key"]);
        rolled.all_say(TAKEN, 3);
        all_show(&new);
        rolled.more_is_stored(&busy);
        // A file of which half is there changes nothing.
        fs::write(certs.join("ca.pem"), &both[..both.len() - 100]).expect("it is written");
        rolled.all_say(NOT_TAKEN, 1);
        all_show(&new);
        rolled.more_is_stored(&busy);
        // Who has the old one is known until the old authority is taken away, on a connection that is kept as well.
        let kept = NodeClient::new().with_security(&security(&old));
        let runtime = runtime();
        addrs.iter().for_each(|addr| drop(runtime.block_on(kept.node_info(addr)).expect("it is known")));
        take(&new, &certs, &["ca.pem"]);
        rolled.all_say(TAKEN, 4);
        for addr in &addrs {
            for client in [&kept, &NodeClient::new().with_security(&security(&old))] {
                let error = runtime.block_on(client.node_info(addr)).expect_err("its authority is gone");
                assert!(error.to_string().contains("does not take this certificate"), "{error}");
            }
        }
        rolled.more_is_stored(&busy);
        rolled.stop.store(true, Ordering::Relaxed);
    });
    // The nodes know each other, and new ones are taken.
    rolled.lab.ok(&["add"]);
    rolled.lab.ok(&["doctor", "--wait", "30s"]);
}

#[test]
fn what_cannot_take_the_place_of_certificates_does_not() {
    let lab = Lab::empty();
    lab.ok(&["certs", "--dir", "certs"]);
    lab.ok(&["certs", "--dir", "other"]);
    lab.ok(&["boot", "--certs", "certs"]);
    let (certs, other) = (lab.path().join("certs"), lab.path().join("other"));
    take(&certs, &lab.path().join("kept"), &["node.pem", "node.key", "ca.pem", "client.pem", "client.key"]);
    let kept = lab.path().join("kept");
    let right = CertificateDer::from_pem_file(kept.join("node.pem")).expect("a certificate").to_vec();
    let rolled = Rolled { lab, stop: AtomicBool::new(false), stored: AtomicUsize::new(0) };
    let client = NodeClient::new().with_security(&security(&kept));
    let wrong: [(&str, &dyn Fn()); 4] = [
        ("it is that of a client, and was that of a node", &|| {
            put(&certs.join("node.pem"), &fs::read(kept.join("client.pem")).unwrap());
            put(&certs.join("node.key"), &fs::read(kept.join("client.key")).unwrap());
        }),
        ("of another authority than that of --tls-ca", &|| take(&other, &certs, &["node.pem", "node.key"])),
        ("cannot be used", &|| put(&certs.join("node.key"), &fs::read(other.join("node.key")).unwrap())),
        ("cannot read the certificate of the authority", &|| fs::remove_file(certs.join("ca.pem")).unwrap()),
    ];
    for (says, change) in wrong {
        let refused = rolled.logs().iter().map(|log| log.matches(NOT_TAKEN).count()).min().unwrap_or_default();
        change();
        rolled.all_say(NOT_TAKEN, refused + 1);
        for log in rolled.logs() {
            let line = log.lines().rfind(|line| line.contains(NOT_TAKEN)).expect("a line");
            assert!(line.contains(says), "{says}: {line}");
        }
        for addr in rolled.lab.nodes().iter().map(addr_of) {
            assert_eq!(shown(&addr, &kept), right, "after {says:?}");
            runtime().block_on(client.node_info(&addr)).expect("the node goes on");
        }
        let taken = rolled.logs().iter().map(|log| log.matches(TAKEN).count()).max().unwrap_or_default();
        take(&kept, &certs, &["node.pem", "node.key", "ca.pem"]);
        rolled.all_say(TAKEN, taken + 1);
    }
    rolled.lab.ok(&["doctor", "--wait", "30s"]);
}
