//! By which a reader puts a reply beside its message (RFC 5322 §3.6.4).

use crate::mail::header;

/// The longest identifier that is repeated, in octets: with its field's name it fits into a line
/// (RFC 5322 §2.1.1).
const MAX_ID: usize = 250;
/// The most identifiers in References: the first, which began the thread, and the last ones.
const MAX_REFERENCES: usize = 20;

/// What a message is called, and what it belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Threading {
    /// Its Message-ID.
    pub(super) id: String,
    /// What a reply has in References: those of the message, then itself.
    pub(super) references: Vec<String>,
}

/// Reads the header section that `message` begins with. Without a Message-ID that is one, a reply
/// belongs to nothing.
pub(super) fn read(message: &[u8]) -> Option<Threading> {
    let ids = |name: &str| {
        let field = header::fields(message).find(|field| field.is_named(name));
        field.map(|field| identifiers(field.body)).unwrap_or_default()
    };
    let id = ids("Message-ID").into_iter().next()?;
    let mut references = ids("References");
    if references.is_empty() {
        // More than one would be several parents.
        references = ids("In-Reply-To");
        references.truncate(if references.len() == 1 { 1 } else { 0 });
    }
    references.retain(|reference| *reference != id);
    references.push(id.clone());
    let surplus = references.len().saturating_sub(MAX_REFERENCES);
    references.drain(1..=surplus);
    Some(Threading { id, references })
}

/// The identifiers in a field body, with their angle brackets.
fn identifiers(body: &[u8]) -> Vec<String> {
    let pieces = body.split(|octet| *octet == b'<').skip(1);
    let inside = pieces.filter_map(|piece| piece.get(..memchr::memchr(b'>', piece)?));
    let ids = inside.filter_map(|id| str::from_utf8(id).ok());
    ids.filter(|id| is_identifier(id)).map(|id| format!("<{id}>")).collect()
}

/// `id-left "@" id-right` of RFC 5322 §3.6.4, in any visible characters but those that begin a
/// comment or a quoted string: programs write what they like.
fn is_identifier(text: &str) -> bool {
    let is_part = |text: &str| {
        let is_plain = |octet: u8| octet.is_ascii_graphic() && !b"()\"\\".contains(&octet);
        !text.is_empty() && text.bytes().all(is_plain)
    };
    text.len() <= MAX_ID
        && text.split_once('@').is_some_and(|(left, right)| is_part(left) && is_part(right))
}
