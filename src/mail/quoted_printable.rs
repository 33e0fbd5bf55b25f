//! Text that mail may not carry as it stands, in the encoding quoted-printable (RFC 2045 §6.7).

/// The longest line, in octets without its end (RFC 2045 §6.7 (5)).
const MAX_LINE: usize = 76;

/// `text` in quoted-printable, lines ended by CRLF.
pub fn encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len() + text.len() / 8);
    for line in text.lines() {
        encode_line(line, &mut encoded);
        encoded.push_str("\r\n");
    }
    encoded
}

fn encode_line(line: &str, encoded: &mut String) {
    let last = line.len().wrapping_sub(1);
    let mut width = 0;
    for (at, octet) in line.bytes().enumerate() {
        let is_blank = matches!(octet, b' ' | b'\t');
        // A blank at the end of a line may get lost (§6.7 (3)).
        let is_plain = (octet.is_ascii_graphic() && octet != b'=') || (is_blank && at != last);
        let octet_width = if is_plain { 1 } else { 3 };
        // A soft line break takes one octet itself.
        if width + octet_width >= MAX_LINE {
            encoded.push_str("=\r\n");
            width = 0;
        }
        match is_plain {
            true => encoded.push(char::from(octet)),
            false => encoded.push_str(&format!("={octet:02X}")),
        }
        width += octet_width;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_plain_stays() {
        for (text, expected) in [
            ("", ""),
            ("a = b\n", "a =3D b\r\n"),
            ("gr\u{fc}n \n\t\nx", "gr=C3=BCn=20\r\n=09\r\nx\r\n"),
            ("a\r\nb\rc", "a\r\nb=0Dc\r\n"),
        ] {
            assert_eq!(encode(text), expected, "{text:?}");
        }
    }

    fn decode(encoded: &str) -> Vec<u8> {
        let joined = encoded.replace("=\r\n", "").replace("\r\n", "\n");
        let (mut octets, mut rest) = (Vec::new(), joined.as_str());
        while let Some(at) = rest.find('=') {
            octets.extend_from_slice(&rest.as_bytes()[..at]);
            octets.push(u8::from_str_radix(&rest[at + 1..at + 3], 16).unwrap());
            rest = &rest[at + 3..];
        }
        octets.extend_from_slice(rest.as_bytes());
        octets
    }

    proptest! {
        #[test]
        fn it_reads_back_in_short_lines(lines in prop::collection::vec("[^\n\r]{0,200}", 0..4)) {
            let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
            let encoded = encode(&text);
            prop_assert!(encoded.is_ascii() && encoded.lines().all(|line| line.len() <= MAX_LINE));
            prop_assert_eq!(decode(&encoded), text.into_bytes());
        }
    }
}
