//! How often a message was handed on: the number of its Received fields, counted while it
//! streams by (RFC 5321 §6.3).

const FIELD: &[u8] = b"received:";

/// Counts the Received fields in a header section given in pieces of any size, whose lines
/// end with CRLF or LF.
#[derive(Debug, Default)]
pub struct HopCounter {
    hops: u32,
    /// The first octets of the line at hand, as many as the field's name has.
    start: Vec<u8>,
    is_past_header: bool,
}

impl HopCounter {
    /// The Received fields seen so far.
    pub const fn hops(&self) -> u32 {
        self.hops
    }

    /// Takes the next piece of the message.
    pub fn feed(&mut self, mut piece: &[u8]) {
        while !self.is_past_header && !piece.is_empty() {
            let line_end = memchr::memchr(b'\n', piece);
            let line = &piece[..line_end.unwrap_or(piece.len())];
            let wanted = FIELD.len() - self.start.len();
            self.start.extend_from_slice(&line[..line.len().min(wanted)]);
            let Some(line_end) = line_end else { return };
            self.end_of_line();
            piece = &piece[line_end + 1..];
        }
    }

    fn end_of_line(&mut self) {
        self.is_past_header = matches!(self.start.as_slice(), b"" | b"\r");
        if self.start.eq_ignore_ascii_case(FIELD) {
            self.hops += 1;
        }
        self.start.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_received_fields_of_the_header_count() {
        let message = b"Received: a\r\n\tReceived: folded\r\nRECEIVED: b\r\nreceived : c\r\n\
            X-Received: d\r\nReceived:\r\nRec\r\n\r\nReceived: body\r\n";
        for size in 1..message.len() {
            let mut counter = HopCounter::default();
            message.chunks(size).for_each(|piece| counter.feed(piece));
            assert_eq!(counter.hops(), 3, "pieces of {size}");
        }
    }
}
