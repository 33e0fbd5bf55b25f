//! Delivery to a command, as aliases(5) and `.forward` name it with a `|` in front.
//!
//! The shell runs it as the account that it belongs to, never as root, with the message as its
//! input and an environment of a dozen variables. Nothing that a sender chose is part of the
//! command: it comes in variables, made harmless for scripts that do not quote them. What its exit
//! means is what sysexits(3) says, but nothing that a person can mend at this host bounces mail.
//! What the sender is told does not name the command, which may have a password in it: the log has
//! it.

use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::Duration;

use crate::deliver::lines::{self, CopyError};
use crate::deliver::outcome::Failure;
use crate::deliver::storage::spool_failure;
use crate::mail::address::{Mailbox, ReversePath};
use crate::mail::status::Status;
use crate::mail::text::{MAX_REMARK, one_line};
use crate::spool::id::QueueId;
use crate::sys::command::{Beyond, Bounds, Ended, run_with_input};
use crate::sys::identity::Identity;
use crate::sys::run_as::RunAs;
use crate::sys::users::Account;

/// What is kept of what a command prints, on each of its two outputs, in octets.
const MAX_OUTPUT: usize = 4 << 10;
/// How much of a command the log shows of one that said something, in characters.
const MAX_SHOWN: usize = 200;
/// Where commands are looked for.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// RFC 3463: other or undefined mail system status.
const LATER: Status = Status::new(4, 3, 0);
/// RFC 3463: system incorrectly configured.
const MISCONFIGURED: Status = Status::new(4, 3, 5);

/// A command and whose it is.
#[derive(Debug)]
pub struct Call<'a> {
    /// What the shell is given.
    pub command: &'a str,
    /// The account that it runs as.
    pub account: &'a Account,
    /// The ids of that account.
    pub identity: &'a Identity,
    /// How long it may run.
    pub timeout: Duration,
}

/// What a command learns of the message besides its content.
#[derive(Debug)]
pub struct Circumstances<'a> {
    /// The message.
    pub id: QueueId,
    /// Who sent it, or owns the list.
    pub reverse_path: &'a ReversePath,
    /// The address whose alias or `.forward` names the command.
    pub recipient: &'a Mailbox,
    /// The address that the sender wrote to, where it says so (RFC 3461 §4.2).
    pub original_recipient: Option<String>,
    /// What stands behind the separator in the recipient.
    pub detail: Option<&'a str>,
}

/// Runs the command with `head`, in lines that end with LF, and then the content as its input.
///
/// # Errors
/// What its exit means; a temporary failure when it cannot be run, does not end in time, or is not
/// there.
pub fn deliver(
    call: &Call<'_>,
    circumstances: &Circumstances<'_>,
    head: Vec<u8>,
    content: &mut dyn Read,
) -> Result<(), Failure> {
    let run_as = RunAs::new(call.identity, &call.account.home).map_err(|error| {
        let is_wrong = error.kind() == ErrorKind::InvalidInput;
        let status = if is_wrong { MISCONFIGURED } else { LATER };
        Failure::new(status, format!("the command cannot be run: {error}"))
    })?;
    let mut unread = None;
    let feed = |to: &mut dyn Write| match lines::copy(head, content, to) {
        Ok(_) => Ok(()),
        Err(CopyError::Write(error)) => Err(error),
        Err(CopyError::Read(error)) => {
            unread = Some(spool_failure(&error));
            Err(io::Error::other("the message cannot be read"))
        }
    };
    let environment = environment(call.account, circumstances);
    let bounds = Bounds { time: call.timeout, octets: MAX_OUTPUT, beyond: Beyond::Ignored };
    let ended = match run_with_input(call.command, &environment, run_as, bounds, feed) {
        Ok(ended) => ended,
        Err(error) => return Err(unread.unwrap_or_else(|| not_run(call, &error))),
    };
    let said = said(&ended);
    match meaning(ended.status) {
        None => {
            if !said.is_empty() {
                let shown = one_line(call.command, MAX_SHOWN);
                log::info!("{}: the command {shown:?} said: {said}", circumstances.id);
            }
            Ok(())
        }
        Some((status, what)) => {
            let said = if said.is_empty() { said } else { format!("; it said: {said}") };
            Err(Failure::new(status, format!("the command {what}{said}")))
        }
    }
}

/// Why a command came to no end of its own.
fn not_run(call: &Call<'_>, error: &io::Error) -> Failure {
    let what = match error.kind() {
        ErrorKind::TimedOut => format!(
            "did not end in {} s and was killed: see what it waits for, or raise [local] \
             command_timeout",
            call.timeout.as_secs()
        ),
        _ => format!("cannot be run as {}: {error}", call.account.name),
    };
    Failure::new(LATER, format!("the command {what}"))
}

/// All that is around the command. What a stranger has a say in is made harmless.
fn environment(
    account: &Account,
    circumstances: &Circumstances<'_>,
) -> Vec<(&'static str, String)> {
    let Circumstances { id, reverse_path, recipient, original_recipient, detail } = circumstances;
    let sender = reverse_path.mailbox().map(ToString::to_string).unwrap_or_default();
    let address = recipient.to_string();
    let original = original_recipient.as_deref().unwrap_or(&address);
    vec![
        ("PATH", PATH.to_owned()),
        ("HOME", account.home.to_string_lossy().into_owned()),
        ("USER", account.name.clone()),
        ("LOGNAME", account.name.clone()),
        ("SHELL", "/bin/sh".to_owned()),
        ("SENDER", harmless(&sender)),
        ("RECIPIENT", harmless(&address)),
        ("ORIGINAL_RECIPIENT", harmless(original)),
        ("LOCAL", harmless(recipient.local_part().as_str())),
        ("DOMAIN", harmless(&recipient.domain().to_string())),
        ("EXTENSION", harmless(detail.unwrap_or_default())),
        ("QUEUE_ID", id.to_string()),
    ]
}

/// A text in which a shell finds nothing to do, and no program an option: every character that
/// could be either is an underscore. `Return-Path` and `Delivered-To` have the true addresses.
fn harmless(text: &str) -> String {
    let is_harmless = |c: char| c.is_ascii_alphanumeric() || "!@%-_=+:,./[]".contains(c);
    let mut harmless: String = text.chars().map(|c| if is_harmless(c) { c } else { '_' }).collect();
    if harmless.starts_with('-') {
        harmless.replace_range(..1, "_");
    }
    harmless
}

/// What it printed, on one line.
fn said(ended: &Ended) -> String {
    let printed = [&ended.complaints, &ended.output].map(|it| String::from_utf8_lossy(it));
    let lines = printed.iter().flat_map(|text| text.lines()).map(str::trim);
    let lines: Vec<_> = lines.filter(|line| !line.is_empty()).collect();
    one_line(&lines.join(" / "), MAX_REMARK)
}

/// What an exit means (sysexits(3), RFC 3463); `None` that all is well.
fn meaning(status: ExitStatus) -> Option<(Status, String)> {
    let Some(code) = status.code() else {
        let signal = status.signal().unwrap_or_default();
        return Some((LATER, format!("was ended by signal {signal}")));
    };
    let (status, what) = match code {
        0 => return None,
        64 => (Status::new(5, 3, 0), "it was called wrongly"),
        65 => (Status::new(5, 6, 0), "the message is wrong"),
        67 => (Status::new(5, 1, 1), "there is no such user"),
        68 => (Status::new(5, 1, 2), "there is no such host"),
        // A disk that is full or away, or a right that is missing: a person can mend it.
        71 | 73 | 74 => (LATER, "the system failed it"),
        75 => (LATER, "try again later"),
        76 => (Status::new(5, 5, 0), "a protocol error"),
        77 => (Status::new(5, 7, 0), "it is not allowed"),
        78 => (Status::new(5, 3, 5), "its configuration is wrong"),
        126 => (MISCONFIGURED, "it may not be executed: see to its rights"),
        127 => (MISCONFIGURED, "it is not there: write its whole path, or install it"),
        // How a shell tells of a signal that ended what it ran.
        129..=192 => (LATER, "a signal ended it"),
        _ => (Status::new(5, 3, 0), "it failed"),
    };
    Some((status, format!("ended with exit code {code}, {what}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn each_exit_has_its_meaning() {
        for (code, expected) in [
            (0, ""),
            (1, "5.3.0"),
            (64, "5.3.0"),
            (65, "5.6.0"),
            (66, "5.3.0"),
            (67, "5.1.1"),
            (68, "5.1.2"),
            (69, "5.3.0"),
            (70, "5.3.0"),
            (71, "4.3.0"),
            (72, "5.3.0"),
            (73, "4.3.0"),
            (74, "4.3.0"),
            (75, "4.3.0"),
            (76, "5.5.0"),
            (77, "5.7.0"),
            (78, "5.3.5"),
            (126, "4.3.5"),
            (127, "4.3.5"),
            (128, "5.3.0"),
            (137, "4.3.0"),
            (255, "5.3.0"),
        ] {
            let meant = meaning(ExitStatus::from_raw(code << 8));
            let status = meant.map(|(status, _)| status.to_string()).unwrap_or_default();
            assert_eq!(status, expected, "{code}");
        }
        let (status, what) = meaning(ExitStatus::from_raw(9)).unwrap();
        assert_eq!((status, what.as_str()), (LATER, "was ended by signal 9"));
    }

    #[test]
    fn what_was_printed_is_one_line() {
        let (output, complaints) = (b"out\n\n".to_vec(), b" a\r\n\x1b[1m\xff".to_vec());
        let ended = Ended { output, complaints, status: ExitStatus::from_raw(0) };
        assert_eq!(said(&ended), "a / ?[1m? / out");
    }

    proptest! {
        #[test]
        fn nothing_in_a_variable_is_for_a_shell(text in any::<String>(), near in "[-ab@;$(){}'\"` ]{0,20}") {
            for text in [text, near] {
                let harmless = harmless(&text);
                prop_assert_eq!(harmless.chars().count(), text.chars().count());
                prop_assert!(!harmless.starts_with('-'));
                let harmful = ";$(){}&|<>*?'\"`\\ \0\n~#";
                prop_assert_eq!(harmless.find(|c| harmful.contains(c)), None);
            }
        }
    }
}
