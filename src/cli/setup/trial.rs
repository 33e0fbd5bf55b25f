//! Trying it, before anything is written: each step told as it comes, and where it stops what to do.

use std::time::Duration;

use super::Failure;
use super::advice::Tried;
use super::plan::{Plan, secret_of};
use crate::cli::output::say;
use crate::config::settings::{HostPort, Settings, Smarthost};
use crate::deliver::conversation::Timeouts;
use crate::deliver::relay::Relay;
use crate::deliver::relay::trial::{Letter, Passed};
use crate::mail::address::{Domain, LocalPart, Mailbox, ReversePath};
use crate::route::rewrite::Rewriter;
use crate::spool::id::QueueId;
use crate::sys::clock;
use crate::sys::process::exit;

/// How long a person waits for each step.
const PATIENCE: Duration = Duration::from_secs(20);

/// Tries what the plan says. Where there is no smarthost, there is nothing to try.
///
/// # Errors
/// What failed and what to do, and the exit code for it.
pub(super) fn run(plan: &Plan) -> Result<(), Failure> {
    let Some(smarthost) = &plan.settings.smarthost else {
        say("no smarthost: mail for other hosts goes straight to their mail exchangers");
        return Ok(());
    };
    let mut smarthost = smarthost.clone();
    if let (Some(login), Some(secret)) = (&mut smarthost.login, secret_of(plan)) {
        login.secret = secret;
    }
    let sender = sender(&plan.settings)?;
    let recipient = plan.recipient();
    let content = recipient.as_ref().map(|to| letter(&plan.settings, &sender, to));
    let letter = recipient.as_ref().zip(content.as_deref()).map(|(recipient, content)| Letter {
        sender: &sender,
        recipient,
        content,
    });
    let relay = Relay::new(&plan.settings).with_timeouts(Timeouts::default().at_most(PATIENCE));
    let mut failures = Vec::new();
    for host in &smarthost.hosts {
        let mut passed = |step| tell(&smarthost, host, letter.as_ref(), step);
        let Err(stopped) = relay.try_out(&smarthost, host, letter.as_ref(), &mut passed) else {
            if letter.is_none() {
                say("no test message: root's mail stays on this host");
            }
            return Ok(());
        };
        let recipient = recipient.as_ref();
        let tried = Tried { smarthost: &smarthost, host, sender: &sender, recipient };
        failures.push(tried.advice(&stopped));
    }
    let code = failures.first().map_or(exit::UNAVAILABLE, |first| first.code);
    let texts: Vec<_> =
        failures.iter().map(|it| format!("{}\nWhat to do: {}", it.what, it.remedy)).collect();
    Err((code, texts.join("\n")))
}

/// Under which address root's mail leaves this host.
fn sender(settings: &Settings) -> Result<Mailbox, Failure> {
    let root =
        LocalPart::from_unquoted("root").map_err(|error| (exit::SOFTWARE, error.to_string()))?;
    let root = Mailbox::new(root, Domain::Name(settings.server.domains.origin().clone()));
    let Some(rewriter) = Rewriter::new(settings) else { return Ok(root) };
    let rules = rewriter.rules().map_err(|failure| (exit::CONFIG, failure.text))?;
    let path = rules.reverse_path(&ReversePath::Mailbox(root.clone()));
    Ok(path.mailbox().cloned().unwrap_or(root))
}

fn tell(smarthost: &Smarthost, host: &HostPort, letter: Option<&Letter<'_>>, step: Passed) {
    match step {
        Passed::Found(addresses) => {
            let addresses: Vec<_> = addresses.iter().map(ToString::to_string).collect();
            if host.host.name().is_some() {
                say(format_args!("{} is at {}", host.host, addresses.join(", ")));
            }
        }
        Passed::Connected(remote) => say(format_args!("connected to {remote}")),
        Passed::Encrypted(version, is_checked) => {
            let version = version.unwrap_or("TLS");
            match is_checked {
                true => say(format_args!("encrypted by {version}, and the certificate is good")),
                false => {
                    say(format_args!("encrypted by {version}; the certificate was not looked at"))
                }
            }
        }
        Passed::InTheClear => say("not encrypted: mail goes in the clear"),
        Passed::LoggedIn => {
            let user = smarthost.login.as_ref().map_or("", |login| login.user.as_str());
            say(format_args!("logged in as {user}"));
        }
        Passed::Taken(reply) => {
            if let Some(Letter { sender, recipient, .. }) = letter {
                say(format_args!("a test message from {sender} to {recipient} was taken: {reply}"));
            }
        }
    }
}

/// The message that says that it works.
fn letter(settings: &Settings, sender: &Mailbox, recipient: &Mailbox) -> String {
    let now = clock::since_1970();
    let micros = u64::try_from(now.as_micros()).unwrap_or(u64::MAX);
    let id = QueueId::generate(micros, u64::from(std::process::id()));
    let host = &settings.server.hostname;
    format!(
        "From: <{sender}>\r\n\
         To: <{recipient}>\r\n\
         Subject: {host} can send mail\r\n\
         Date: {}\r\n\
         Message-ID: <{id}@{host}>\r\n\
         Auto-Submitted: auto-generated\r\n\
         \r\n\
         mailwren on {host} was set up to send root's mail to you. This message\r\n\
         has come by the way that it will take; there is nothing to do.\r\n",
        clock::date_field(now.as_secs())
    )
}
