//! Stands in for `chordal_protocol::invariant` until that is there: the same shapes, and the ideal ring only.

use chordal_protocol::Contact;

/// What a node says of its place in the ring.
pub(crate) struct Member {
    pub(crate) contact: Contact,
    pub(crate) predecessor: Option<Contact>,
    pub(crate) successors: Vec<Contact>,
    pub(crate) joined: bool,
}

/// An invariant and whether it holds.
pub(crate) struct Check {
    pub(crate) name: &'static str,
    pub(crate) source: &'static str,
    pub(crate) verdict: Result<(), String>,
}

/// Checks everything.
pub(crate) fn check_all(members: &[Member], _list_length: usize) -> Vec<Check> {
    let mut ring: Vec<&Member> = members.iter().filter(|member| member.joined).collect();
    ring.sort_by_key(|member| member.contact.id);
    let mut verdict = Ok(());
    for (i, member) in ring.iter().enumerate() {
        let next = &ring[(i + 1) % ring.len()].contact;
        let before = &ring[(i + ring.len() - 1) % ring.len()].contact;
        let alone = ring.len() == 1;
        if !alone && (member.successors.first() != Some(next) || member.predecessor.as_ref() != Some(before)) {
            verdict = Err(format!("{} does not stand between {before} and {next}", member.contact));
        }
    }
    vec![Check { name: "ideal_ring", source: "Zave 2017, section 2", verdict }]
}
