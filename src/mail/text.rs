//! Text from outside made fit for one line of a file, a field, a reply or the log.

/// The most characters of a text that came from outside and goes on into a report or a record.
pub const MAX_REMARK: usize = 900;

/// The first `most` characters of `text`, each that is not printable ASCII as `?`: nothing in it
/// ends a line or steers a terminal.
pub fn one_line(text: &str, most: usize) -> String {
    let printable = |c: char| if c.is_ascii_graphic() || c == ' ' { c } else { '?' };
    text.chars().take(most).map(printable).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_ends_the_line() {
        assert_eq!(one_line("a b\r\nc\0\u{e9}\u{2028}\x1b[1m~", 80), "a b??c????[1m~");
        assert_eq!(one_line("\u{e9}bcd", 3), "?bc");
    }
}
