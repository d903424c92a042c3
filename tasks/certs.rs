//! `tasks certs`: an authority of a ring's own, and certificates from it.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, ensure};
use chordal::auth::{Role, role_name};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};
use serde_json::json;

use crate::cli;
use crate::output::Report;

/// What the authority is called.
const AUTHORITY: &str = "chordal ring";

/// For how long the authority is good.
const AUTHORITY_DAYS: u16 = 3650;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// Where certificates are of every machine, besides the hosts that were named.
const HERE: [&str; 3] = ["localhost", "127.0.0.1", "::1"];

/// Makes the authority if there is none yet, and a certificate for nodes and one for clients.
pub(crate) fn certs(task: &cli::Certs) -> Result<Report> {
    let dir = &task.dir;
    fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
    let (ca_pem, ca_key) = (dir.join("ca.pem"), dir.join("ca.key"));
    let params = authority();
    ensure!(
        ca_pem.exists() == ca_key.exists(),
        "{} has only one of ca.pem and ca.key: bring the other one back, or take another directory",
        dir.display()
    );
    let is_new = !ca_key.exists();
    let key = if is_new {
        let key = KeyPair::generate().context("no key can be made")?;
        let certificate = params.self_signed(&key).context("the authority cannot be made")?;
        write(&ca_key, &key.serialize_pem(), 0o600)?;
        write(&ca_pem, &certificate.pem(), 0o644)?;
        key
    } else {
        let text = fs::read_to_string(&ca_key).with_context(|| format!("cannot read {}", ca_key.display()))?;
        KeyPair::from_pem(&text).with_context(|| format!("{} has no key of an authority", ca_key.display()))?
    };
    let issuer = Issuer::from_params(&params, key);
    for role in [Role::Node, Role::Client, Role::Reader] {
        let params = bearer(role, &task.host, task.days)?;
        let key = KeyPair::generate().context("no key can be made")?;
        let certificate = params.signed_by(&key, &issuer).context("the certificate cannot be made")?;
        write(&dir.join(format!("{role}.key")), &key.serialize_pem(), 0o600)?;
        write(&dir.join(format!("{role}.pem")), &certificate.pem(), 0o644)?;
    }
    let shown = dir.display();
    let text = format!(
        "{} in {shown}: ca.pem, which all need, and ca.key, which should be kept elsewhere.\n\
         For nodes node.pem and node.key, for clients client.pem and client.key, or reader.pem and reader.key for those who only \
         read; good for {} days.\n\nBegin a ring with them: `tasks boot --certs {shown}`.",
        if is_new { "A new authority" } else { "The authority that was there, and new certificates" },
        task.days
    );
    Report::new(json!({ "dir": dir, "new_authority": is_new, "hosts": hosts(&task.host), "days": task.days }), text)
}

fn authority() -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = named(AUTHORITY);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    last(&mut params, AUTHORITY_DAYS);
    params
}

/// Only nodes are servers; whom a client shows its certificate to, it cannot then speak for.
fn bearer(role: Role, hosts_named: &[String], days: u16) -> Result<CertificateParams> {
    let mut params = CertificateParams::default();
    params.distinguished_name = named(&format!("chordal {role}"));
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    params.use_authority_key_identifier_extension = true;
    last(&mut params, days);
    let role_name = role_name(role).try_into().context("the role is no name")?;
    params.subject_alt_names = vec![SanType::URI(role_name)];
    if role == Role::Node {
        params.extended_key_usages.push(ExtendedKeyUsagePurpose::ServerAuth);
        for host in hosts(hosts_named) {
            params.subject_alt_names.push(match host.parse() {
                Ok(ip) => SanType::IpAddress(ip),
                Err(_) => SanType::DnsName(host.as_str().try_into().with_context(|| format!("{host} is no host"))?),
            });
        }
    }
    Ok(params)
}

fn hosts(named: &[String]) -> Vec<String> {
    let mut hosts: Vec<String> = HERE.iter().map(|host| (*host).to_owned()).collect();
    for host in named {
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        if !hosts.iter().any(|known| known == bare) {
            hosts.push(bare.to_owned());
        }
    }
    hosts
}

fn named(name: &str) -> DistinguishedName {
    let mut distinguished = DistinguishedName::new();
    distinguished.push(DnType::CommonName, name);
    distinguished
}

/// Good for so many days. It begins a day ago: clocks differ.
fn last(params: &mut CertificateParams, days: u16) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    params.not_before = epoch + now.saturating_sub(DAY);
    params.not_after = epoch + now + DAY * u32::from(days);
}

/// Replaces a file at once and whole.
fn write(path: &Path, text: &str, mode: u32) -> Result<()> {
    let beside = path.with_added_extension("new");
    let _ = fs::remove_file(&beside);
    let written = OpenOptions::new().write(true).create_new(true).mode(mode).open(&beside).and_then(|mut file| {
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&beside, path)
    });
    written.with_context(|| format!("cannot write {}", path.display()))
}
