//! The form of a dialog file.
//!
//! ```text
//! # RFC 5321 §3.3: the rule, which the first comment must name.
//! set server.vrfy = yes        a setting that differs, before the first reply
//! S: 220 mx.test ESMTP *       a line of the server; * stands for anything
//! S*3: 250 2.0.0 Ok            three such lines
//! S: [close]                   the server closes
//! C: NOOP                      a line of the client, with CRLF
//! C*3: NOOP                    three such lines
//! C+ NO                        octets of the client as they stand, without CRLF
//! ```
//!
//! Lines of the client that follow each other go out together. In them `\r`, `\n`, `\0`, `\\`
//! and `\xe4` stand for octets, and `\{70 abc}` for seventy times `abc`.

use crate::home::Change;

/// A dialog.
pub(crate) struct Script {
    pub(crate) changes: Vec<Change>,
    pub(crate) exchanges: Vec<Exchange>,
    /// Whether the server closes at the end.
    pub(crate) closes: bool,
}

/// What the client sends, each line for itself, and what it gets.
#[derive(Default)]
pub(crate) struct Exchange {
    pub(crate) sent: Vec<Vec<u8>>,
    pub(crate) expected: Vec<String>,
}

impl Exchange {
    /// Fails unless these are the lines that were expected.
    pub(crate) fn check(&self, lines: &[String], who: &str) {
        let agrees = lines.len() == self.expected.len()
            && lines.iter().zip(&self.expected).all(|(line, pattern)| matches(pattern, line));
        let sent = String::from_utf8_lossy(&self.sent.concat()).into_owned();
        let expected = self.expected.join("\n  ");
        assert!(
            agrees,
            "{who}\nsent {sent:?}\nexpected\n  {expected}\ngot\n  {}",
            lines.join("\n  ")
        );
    }
}

impl Script {
    /// Reads a dialog file; fails where it has anything that means nothing.
    pub(crate) fn parse(name: &str, text: &str) -> Self {
        assert!(text.starts_with("# RFC "), "{name}: the first line names the rule");
        let mut script = Self { changes: Vec::new(), exchanges: Vec::new(), closes: false };
        // The greeting answers nothing.
        let mut exchange = Exchange::default();
        for (at, line) in text.lines().enumerate() {
            let place = format!("{name}:{}: {line}", at + 1);
            assert!(!script.closes || line.is_empty(), "{place}: behind the end");
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let (mark, rest) = line.split_once(' ').unwrap_or((line, ""));
            let (mark, count) = mark_and_count(mark, &place);
            match mark {
                "set" => {
                    assert!(exchange.expected.is_empty(), "{place}: too late");
                    let (key, value) = rest.split_once(" =").unwrap_or_else(|| panic!("{place}"));
                    assert!(script.changes.iter().all(|(known, _)| known != key), "{place}: twice");
                    script.changes.push((key.to_owned(), value.trim_start().to_owned()));
                }
                "S:" if rest == "[close]" => script.closes = true,
                "S:" => exchange.expected.extend(std::iter::repeat_n(rest.to_owned(), count)),
                "C:" | "C+" => {
                    if !exchange.expected.is_empty() {
                        script.exchanges.push(std::mem::take(&mut exchange));
                    }
                    let mut octets = octets(rest, &place);
                    if mark == "C:" {
                        octets.extend_from_slice(b"\r\n");
                    }
                    exchange.sent.extend(std::iter::repeat_n(octets, count));
                }
                _ => panic!("{place}: means nothing"),
            }
        }
        script.exchanges.push(exchange);
        assert!(script.exchanges[0].sent.is_empty(), "{name}: begins with the greeting");
        assert!(script.exchanges.len() > 1, "{name}: says nothing");
        script
    }
}

/// `S*3:` is `S:`, three times.
fn mark_and_count<'a>(mark: &'a str, place: &str) -> (&'a str, usize) {
    let Some((who, count)) = mark.split_once('*') else { return (mark, 1) };
    let count = count.strip_suffix(':').and_then(|count| count.parse().ok());
    let mark = match who {
        "S" => "S:",
        "C" => "C:",
        _ => panic!("{place}: means nothing"),
    };
    (mark, count.unwrap_or_else(|| panic!("{place}: no number")))
}

fn octets(text: &str, place: &str) -> Vec<u8> {
    let mut octets = Vec::new();
    let mut rest = text;
    while let Some((plain, escape)) = rest.split_once('\\') {
        octets.extend_from_slice(plain.as_bytes());
        let (kind, behind) = escape.split_at(1);
        rest = behind;
        match kind {
            "r" => octets.push(b'\r'),
            "n" => octets.push(b'\n'),
            "0" => octets.push(0),
            "\\" => octets.push(b'\\'),
            "x" => {
                let (digits, behind) = rest.split_at(2);
                octets.push(u8::from_str_radix(digits, 16).unwrap());
                rest = behind;
            }
            "{" => {
                let (inside, behind) = rest.split_once('}').unwrap();
                let (count, repeated) = inside.split_once(' ').unwrap();
                octets.extend(repeated.repeat(count.parse().unwrap()).into_bytes());
                rest = behind;
            }
            _ => panic!("{place}: \\{kind} is no escape"),
        }
    }
    octets.extend_from_slice(rest.as_bytes());
    octets
}

/// Whether the line is as the pattern says, in which one `*` stands for anything.
fn matches(pattern: &str, line: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == line,
        Some((head, tail)) => {
            line.len() >= head.len() + tail.len() && line.starts_with(head) && line.ends_with(tail)
        }
    }
}
