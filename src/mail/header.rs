//! The header section of a message as octets (RFC 5322 §2.2), read without trusting it: any
//! octet may stand anywhere, and a line that is no field ends the section.

use memchr::memchr;

/// A field of a header section.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field<'a> {
    /// What stands before the colon, without blanks around it.
    pub name: &'a [u8],
    /// What stands behind the colon, as it is: folds, blanks and the last line's end included.
    pub body: &'a [u8],
}

impl Field<'_> {
    /// Whether the field has this name, in any case.
    pub fn is_named(&self, name: &str) -> bool {
        self.name.eq_ignore_ascii_case(name.as_bytes())
    }
}

/// The fields that `message` begins with, up to the empty line, its end, or the first line
/// that is neither a field nor the continuation of one. Lines end with CRLF or LF.
pub fn fields(message: &[u8]) -> Fields<'_> {
    Fields { rest: message, is_over: false }
}

/// Iterates over the fields of a header section.
#[derive(Clone, Debug)]
pub struct Fields<'a> {
    rest: &'a [u8],
    is_over: bool,
}

impl<'a> Fields<'a> {
    /// What follows the fields seen so far: behind the last one, the empty line and the body,
    /// or a line that is no field.
    pub const fn rest(&self) -> &'a [u8] {
        self.rest
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Field<'a>;

    fn next(&mut self) -> Option<Field<'a>> {
        if self.is_over {
            return None;
        }
        let field = &self.rest[..field_end(self.rest)];
        let parsed = memchr(b':', field).and_then(|colon| {
            let name = field[..colon].trim_ascii_end();
            let is_name = !name.is_empty() && name.iter().all(u8::is_ascii_graphic);
            is_name.then(|| Field { name, body: &field[colon + 1..] })
        });
        match parsed {
            Some(_) => self.rest = &self.rest[field.len()..],
            None => self.is_over = true,
        }
        parsed
    }
}

/// Where the first line of `text` and those that continue it end.
fn field_end(text: &[u8]) -> usize {
    let mut end = 0;
    loop {
        let Some(newline) = memchr(b'\n', &text[end..]) else { return text.len() };
        end += newline + 1;
        if !matches!(text.get(end), Some(b' ' | b'\t')) {
            return end;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check(message: &str, expected: &[(&str, &str)]) {
        let found: Vec<_> = fields(message.as_bytes())
            .map(|field| (str::from_utf8(field.name).unwrap(), str::from_utf8(field.body).unwrap()))
            .collect();
        assert_eq!(found, expected, "{message:?}");
    }

    #[test]
    fn fields_end_at_the_empty_line() {
        check("", &[]);
        check("\r\nA: b\r\n", &[]);
        check("A: b\r\nC:d\r\n\r\nE: f\r\n", &[("A", " b\r\n"), ("C", "d\r\n")]);
        check("A: b\nC:d", &[("A", " b\n"), ("C", "d")]);
        check("A : b\r\n c\r\n\td: e\r\nF:\r\n", &[("A", " b\r\n c\r\n\td: e\r\n"), ("F", "\r\n")]);
        check("A: b\r\nno field\r\nC: d\r\n", &[("A", " b\r\n")]);
        check("A: b\r\n: no name\r\nC: d\r\n", &[("A", " b\r\n")]);
        check(" A: b\r\n", &[]);
        check("From ann Sun Nov 22\r\nA: b\r\n", &[]);
    }

    proptest! {
        #[test]
        fn random_octets_never_panic(message in prop::collection::vec(any::<u8>(), 0..200)) {
            let length: usize = fields(&message).map(|f| f.name.len() + f.body.len() + 1).sum();
            prop_assert!(length <= message.len());
        }
    }
}
