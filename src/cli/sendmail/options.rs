//! The command line of `sendmail`, as Sendmail, Postfix and Exim have made it in forty years. It is
//! read by hand and not by the parser of the other commands: no word in it may lose mail. What
//! is not known is told of and passed over; what is known and means nothing here is passed over
//! with a line for who debugs (RUST_LOG=debug).

use std::ffi::OsString;
use std::str::FromStr;

use crate::cli::output::warn;
use crate::mail::address_list;
use crate::mail::dsn_request::{
    MessageRequest, NotOfTheForm, Notify, RecipientRequest, encode_xtext,
};

/// Options with a value, behind the letter or in the next word, that mean nothing here: it must not
/// become a recipient.
const IGNORED_WITH_VALUE: &str = "ADLMXhp";
/// Options that may have a value right behind the letter, and mean nothing here.
const IGNORED: &str = "EGQTUcdmnsvx";

/// What is to be done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum Mode {
    /// A message on standard input is submitted (`-bm`).
    #[default]
    Submit,
    /// SMTP is spoken on standard input and output (`-bs`).
    Smtp,
    /// The queue is listed (`-bp`).
    ListQueue,
    /// The alias file is checked (`-bi`, `-I`).
    InitAliases,
    /// It is asked whether there are such recipients (`-bv`).
    Verify,
    /// The queue is tried (`-q`).
    RunQueue(Queued),
    /// What this program is not, such as a daemon (`-bd`); the letter.
    Unserved(String),
}

/// The part of the queue that is to be tried.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Queued {
    /// All of it.
    All,
    /// Messages with this text in their id (`-qI`).
    Id(String),
    /// Those with it in a recipient (`-qR`).
    Recipient(String),
    /// Those with it in the sender (`-qS`).
    Sender(String),
}

/// How the caller wants to hear of recipients that are refused (`-e`, `-oe`, `-OErrorMode=`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Errors {
    /// On standard error and by the exit code (`p`).
    #[default]
    Print,
    /// By a report to the sender as well (`m`, and `w`, which wrote to the caller's terminal).
    Mail,
    /// The same, and the exit code says nothing of them (`e`).
    MailAlone,
    /// By the exit code alone (`q`).
    Code,
}

/// What the command line asks for.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Options {
    pub(super) mode: Mode,
    /// `-t`: the recipients stand in the header section, too.
    pub(super) from_header: bool,
    /// `-i`: a line with nothing but a dot is text.
    pub(super) dot_is_text: bool,
    /// `-f` or `-r`, as given.
    pub(super) sender: Option<String>,
    /// `-F`.
    pub(super) full_name: Option<String>,
    /// `-B 8BITMIME`.
    pub(super) is_eight_bit: bool,
    /// The addresses as they were given.
    pub(super) recipients: Vec<String>,
    /// `-R` and `-V`: what is asked about reports on the message.
    pub(super) request: MessageRequest,
    /// `-N`: what is asked about reports on each recipient.
    pub(super) notify: Option<Notify>,
    /// `-e`.
    pub(super) errors: Errors,
    /// `-C`: another configuration.
    pub(super) config: Option<OsString>,
}

impl Options {
    /// Reads the words behind the name of the program.
    pub(super) fn parse(words: impl IntoIterator<Item = OsString>) -> Self {
        let mut options = Self::default();
        let (mut words, mut is_over) = (words.into_iter(), false);
        let mut queued = None;
        while let Some(word) = words.next() {
            match word.to_str() {
                Some("--") if !is_over => is_over = true,
                Some(text) if !is_over && text.starts_with("--") => unknown(text),
                _ if !is_over && word.len() > 1 && word.as_encoded_bytes().starts_with(b"-") => {
                    let letters = word.to_string_lossy()[1..].to_owned();
                    options.take_letters(&letters, &mut words, &mut queued);
                }
                _ => options.recipients.push(word.to_string_lossy().into_owned()),
            }
        }
        // Who gives a message, or says what else is to be done, does not mean the queue.
        if let Some(queued) = queued
            && !options.has_message()
        {
            options.mode = Mode::RunQueue(queued);
        }
        if options.mode == Mode::InitAliases && options.has_recipients() {
            options.mode = Mode::Submit;
        }
        options
    }

    /// What is asked about reports on each recipient.
    pub(super) const fn recipient_request(&self) -> RecipientRequest {
        RecipientRequest { notify: self.notify, original: None }
    }

    /// The addresses as they were given.
    pub(super) fn addresses(&self) -> impl Iterator<Item = &String> {
        self.sender.iter().chain(&self.recipients)
    }

    /// The addresses among the recipients, neither checked nor completed. A backslash before one,
    /// which means in Sendmail that aliases are not asked, cannot go over SMTP and is dropped.
    pub(super) fn specs(&self) -> impl Iterator<Item = String> {
        let given = self.recipients.iter().flat_map(|list| address_list::specs(list.as_bytes()));
        given.map(|spec| match spec.strip_prefix('\\') {
            Some(name) => {
                log::debug!("the backslash in {spec:?} means nothing here");
                name.to_owned()
            }
            None => spec,
        })
    }

    fn has_recipients(&self) -> bool {
        self.from_header || !self.recipients.is_empty()
    }

    fn has_message(&self) -> bool {
        self.mode != Mode::Submit || self.has_recipients()
    }

    /// Takes the options of one word, the last of which may have its value in the next one.
    fn take_letters(
        &mut self,
        letters: &str,
        words: &mut dyn Iterator<Item = OsString>,
        queued: &mut Option<Queued>,
    ) {
        for (at, letter) in letters.char_indices() {
            let behind = &letters[at + letter.len_utf8()..];
            let mut value = || match behind {
                "" => words.next().unwrap_or_default().to_string_lossy().into_owned(),
                behind => behind.to_owned(),
            };
            match letter {
                't' => self.from_header = true,
                'i' => self.dot_is_text = true,
                'I' => self.mode = Mode::InitAliases,
                'q' => return *queued = Some(self::queued(behind)),
                'f' | 'r' if behind.is_empty() => {
                    // An empty word is the null path; none at all is a mistake.
                    return self.sender = words.next().map(|it| it.to_string_lossy().into());
                }
                'f' | 'r' => return self.sender = Some(behind.to_owned()),
                'F' => return self.full_name = Some(value()),
                'B' => return self.set_body(&value()),
                'N' => return self.notify = request('N', &value()),
                'R' => return self.request.ret = request('R', &value()),
                'V' => return self.request.envelope_id = request('V', &encode_xtext(&value())),
                'b' => return self.set_mode(&value()),
                'o' => return self.set_short(&value()),
                'O' => return self.set_long(&value()),
                'C' => return self.config = Some(value().into()),
                'e' => return self.set_errors("-e", &value()),
                letter if IGNORED_WITH_VALUE.contains(letter) => {
                    return ignored(&format!("-{letter}"), &value());
                }
                letter if IGNORED.contains(letter) => {
                    // `-v -i` may be written as `-vi`, and `-d0.1` has a value.
                    let is_flag = behind.starts_with(|next: char| next.is_ascii_alphabetic());
                    ignored(&format!("-{letter}"), if is_flag { "" } else { behind });
                    if !is_flag {
                        return;
                    }
                }
                // What stands behind it may be its value, and no sender called so.
                letter => return unknown(&format!("-{letter}")),
            }
        }
    }

    fn set_body(&mut self, value: &str) {
        match value.to_ascii_uppercase().as_str() {
            "8BITMIME" => self.is_eight_bit = true,
            "7BIT" => self.is_eight_bit = false,
            _ => warn(format_args!("sendmail: option -B does not take {value:?}, ignored")),
        }
    }

    fn set_mode(&mut self, value: &str) {
        self.mode = match value {
            "m" => Mode::Submit,
            "s" => Mode::Smtp,
            "p" => Mode::ListQueue,
            "i" => Mode::InitAliases,
            "v" => Mode::Verify,
            "d" | "D" | "h" | "H" | "P" | "t" => Mode::Unserved(value.to_owned()),
            _ => return unknown(&format!("-b{value}")),
        };
    }

    fn set_errors(&mut self, option: &str, value: &str) {
        self.errors = match value {
            "p" => Errors::Print,
            "m" | "w" => Errors::Mail,
            "e" => Errors::MailAlone,
            "q" => Errors::Code,
            _ => return ignored(option, value),
        }
    }

    /// `-o` with the letter of an option and its value.
    fn set_short(&mut self, value: &str) {
        match (value, value.strip_prefix('e')) {
            ("i", _) => self.dot_is_text = true,
            (_, Some(mode)) => self.set_errors("-oe", mode),
            _ => ignored("-o", value),
        }
    }

    /// `-O` with the name of an option and its value.
    fn set_long(&mut self, value: &str) {
        let (name, setting) = value.split_once('=').unwrap_or((value, "true"));
        let is_set = !setting.starts_with(['f', 'F', 'n', 'N', '0']);
        match name.trim().to_ascii_lowercase().as_str() {
            "ignoredots" => self.dot_is_text = is_set,
            "errormode" => self.set_errors("-OErrorMode=", setting),
            _ => ignored("-O", value),
        }
    }
}

/// What stands behind `-q`: nothing, a pause between runs, or which part is meant.
fn queued(behind: &str) -> Queued {
    let text = |letter: char| behind.strip_prefix(letter).filter(|text| !text.is_empty());
    match (text('I'), text('R'), text('S')) {
        (Some(id), ..) => Queued::Id(id.to_owned()),
        (_, Some(recipient), _) => Queued::Recipient(recipient.to_owned()),
        (_, _, Some(sender)) => Queued::Sender(sender.to_owned()),
        _ => {
            ignored("-q", behind);
            Queued::All
        }
    }
}

/// What an option asks about reports. One that makes no sense never loses mail either.
fn request<T: FromStr<Err = NotOfTheForm>>(letter: char, value: &str) -> Option<T> {
    let parsed = value.parse().ok();
    if parsed.is_none() {
        warn(format_args!("sendmail: option -{letter} does not take {value:?}, ignored"));
    }
    parsed
}

fn ignored(option: &str, value: &str) {
    log::debug!("option {option} {value:?} means nothing here");
}

fn unknown(option: &str) {
    warn(format_args!("sendmail: option {option:?} is unknown, ignored"));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Options {
        // Two quotes are an empty word.
        let word = |word: &str| OsString::from(if word == "''" { "" } else { word });
        Options::parse(line.split_whitespace().map(word))
    }

    /// `t`, `i`, the sender, the name and the recipients, as one text.
    fn told(line: &str) -> String {
        let options = parse(line);
        let flag = |is_set: bool, text: &'static str| if is_set { text } else { "" };
        format!(
            "{}{} {} {} {}",
            flag(options.from_header, "t"),
            flag(options.dot_is_text, "i"),
            options.sender.as_deref().unwrap_or("-"),
            options.full_name.as_deref().unwrap_or("-"),
            options.recipients.join(","),
        )
    }

    #[test]
    fn the_command_lines_of_programs_mean_what_they_say() {
        for (line, expected) in [
            ("-FCronDaemon -i -odi -oem -oi -t -f root", "ti root CronDaemon "),
            ("-i -FCronDaemon -B8BITMIME -oem root", "i - CronDaemon root"),
            ("-FAnacron -odi root", " - Anacron root"),
            ("-t", "t - - "),
            ("-oi -t", "ti - - "),
            ("ann@home.test", " - - ann@home.test"),
            ("-oi -f user@host -t", "ti user@host - "),
            ("-t -i", "ti - - "),
            ("-i ann bob", "i - - ann,bob"),
            ("-ti", "ti - - "),
            ("-it", "ti - - "),
            ("-i -- -t", "i - - -t"),
            ("-i -- -- x", "i - - --,x"),
            ("-fann x", " ann - x"),
            ("-f ann x", " ann - x"),
            ("-rann x", " ann - x"),
            ("-f '' x", "  - x"),
            ("-f <> x", " <> - x"),
            ("-oi -t -f a b", "ti a - b"),
            ("-F CronDaemon x", " - CronDaemon x"),
            ("-B 8BITMIME x", " - - x"),
            ("-oQ/tmp/x -oA/y x", " - - x"),
            ("-o i x", "i - - x"),
            ("-OIgnoreDots=true x", "i - - x"),
            ("-O QueueDirectory=/tmp x", " - - x"),
            ("-G -L tag -h 3 -p SMTP:x -X /tmp/log -A c -M x -d0.1 -v -m -n -U -Q x", " - - x"),
            ("-em -e m -oee -oep -oeq -oew -odb -odq x", " - - x"),
            ("-vi -tv x", "ti - - x"),
            ("-N never -R hdrs -V id x", " - - x"),
            // What is not known takes nothing with it but its own word.
            ("-Zf root", " - - root"),
            ("--nonsense=1 -k -t x", "t - - x"),
            ("x -i y", "i - - x,y"),
            ("- x", " - - -,x"),
            ("-f", " - - "),
        ] {
            assert_eq!(told(line), expected, "{line}");
        }
    }

    #[test]
    fn a_backslash_before_a_recipient_means_nothing() {
        let recipients = ["\\ann, bob,\\carl@x.test", "\\\\dan", "\"\\e\""];
        let options =
            Options { recipients: recipients.map(str::to_owned).into(), ..Options::default() };
        let specs: Vec<_> = options.specs().collect();
        assert_eq!(specs, ["ann", "bob", "carl@x.test", "\\dan", "\"\\e\""]);
    }

    #[test]
    fn the_mode_is_the_last_one_that_makes_sense() {
        let everything = Mode::RunQueue(Queued::All);
        for (line, expected) in [
            ("", Mode::Submit),
            ("-bm x", Mode::Submit),
            ("-bs -odb -oem", Mode::Smtp),
            ("-b s", Mode::Smtp),
            ("-bp", Mode::ListQueue),
            ("-bv x", Mode::Verify),
            ("-bi", Mode::InitAliases),
            ("-I", Mode::InitAliases),
            ("-I x", Mode::Submit),
            ("-bd -q30m", Mode::Unserved("d".to_owned())),
            ("-bz x", Mode::Submit),
            ("-q", everything.clone()),
            ("-q15m", everything.clone()),
            ("-qf", everything),
            ("-qRfar.test", Mode::RunQueue(Queued::Recipient("far.test".to_owned()))),
            ("-qSann", Mode::RunQueue(Queued::Sender("ann".to_owned()))),
            ("-qI1jt5", Mode::RunQueue(Queued::Id("1jt5".to_owned()))),
            ("-q x", Mode::Submit),
            ("-t -q", Mode::Submit),
        ] {
            assert_eq!(parse(line).mode, expected, "{line}");
        }
    }

    #[test]
    fn errors_are_told_as_the_last_option_says() {
        for (line, expected) in [
            ("x", Errors::Print),
            ("-oem x", Errors::Mail),
            ("-em x", Errors::Mail),
            ("-e m x", Errors::Mail),
            ("-oew x", Errors::Mail),
            ("-oee x", Errors::MailAlone),
            ("-O ErrorMode=q x", Errors::Code),
            ("-oeq -oep x", Errors::Print),
            ("-oem -oez -oe x", Errors::Mail),
        ] {
            assert_eq!(parse(line).errors, expected, "{line}");
            assert_eq!(parse(line).recipients, ["x"], "{line}");
        }
    }

    #[test]
    fn what_is_asked_about_reports_is_kept() {
        let options = parse("-N success,delay -R hdrs -V a+b -B8bitmime -C /tmp/x y");
        assert_eq!(options.notify.unwrap().to_string(), "SUCCESS,DELAY");
        assert_eq!(options.request.ret.unwrap().to_string(), "HDRS");
        assert_eq!(options.request.envelope_id.unwrap().decoded(), "a+b");
        assert!(options.is_eight_bit);
        assert_eq!(options.config.unwrap(), "/tmp/x");
        assert_eq!(parse("-N sometimes -R some x").notify, None);
    }
}
