//! Who takes the place of an alias in a message's list of recipients, and what of that which was
//! asked about the alias goes on to them (RFC 3461 §5.2.7).

use crate::mail::address::Mailbox;
use crate::mail::dsn_request::RecipientRequest;
use crate::route::addressee::{Addressee, Expansion, Way};
use crate::spool::progress::{Known, RecipientState};

/// How an alias ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AliasEnd {
    /// One of those behind it took its place; the report on that one is the report.
    Replaced,
    /// Several did; the report, where success was asked for, says that it was expanded.
    Several,
    /// It was a list, to which the message is now delivered.
    List,
}

/// Those behind an alias.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Behind {
    pub(super) end: AliasEnd,
    /// Some may be in the message's list already.
    pub(super) recipients: Vec<RecipientState>,
}

/// What takes the place of `alias` in a list in which `known` are.
///
/// - With an owner it is a list (§5.2.7.1). The message is delivered when it is there, and goes on
///   from the owner, about whom nothing was asked. A message from nobody stays one: what tells of
///   a failure must not lead to more (RFC 5321 §4.5.5), and an owner behind its own list would hear
///   of each failure by way of the next one.
/// - A single address gets what was asked about the alias (§5.2.7.2).
/// - So does the alias's own mailbox among others (§5.2.7.3 (b)). Of those others the sender hears
///   as far as it wants to hear of failures, and not under the address that it wrote to.
/// - Several get what was asked but for success; so does one who is in the list anyway
///   (§5.2.7.3 (c)).
pub(super) fn behind(
    alias: &RecipientState,
    expansion: Expansion,
    is_from_null: bool,
    known: &Known,
) -> Behind {
    let Expansion { into, owner } = expansion;
    if let Some(owner) = owner.filter(|_| !is_from_null) {
        let asked = |_: &Addressee| RecipientRequest::default();
        return Behind { end: AliasEnd::List, recipients: pending(into, Some(&owner), asked) };
    }
    let (sender, request) = (alias.sender.as_ref(), &alias.request);
    let is_new = |to: &Addressee| !known.has(&to.mailbox, &to.way);
    let mut own = into.iter().filter(|to| matches!(to.way, Way::User | Way::Mailbox));
    let (first, second) = (own.next().cloned(), own.next());
    let is_single = into.len() == 1 && into.iter().all(is_new);
    let own = first.filter(|own| second.is_none() && is_new(own));
    let (end, recipients) = match own {
        _ if is_single => (AliasEnd::Replaced, pending(into, sender, |_| request.clone())),
        Some(own) => {
            let beside = RecipientRequest { original: None, ..request.behind_list() };
            let asked = |to: &Addressee| if *to == own { request } else { &beside }.clone();
            (AliasEnd::Replaced, pending(into, sender, asked))
        }
        None => (AliasEnd::Several, pending(into, sender, |_| request.behind_list())),
    };
    Behind { end, recipients }
}

fn pending(
    into: Vec<Addressee>,
    sender: Option<&Mailbox>,
    asked: impl Fn(&Addressee) -> RecipientRequest,
) -> Vec<RecipientState> {
    let pending = |to: Addressee| {
        let request = asked(&to);
        RecipientState::pending(to, sender.cloned(), request)
    };
    into.into_iter().map(pending).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mail::address::ReversePath;
    use crate::mail::dsn_request::MessageRequest;
    use crate::spool::envelope::{Body, Envelope};
    use crate::spool::id::QueueId;
    use crate::spool::progress::Progress;

    const ORCPT: &str = "rfc822;all@h";

    fn alias(notify: &str, sender: Option<&str>) -> RecipientState {
        let request =
            RecipientRequest { notify: notify.parse().ok(), original: ORCPT.parse().ok() };
        let to = "all@h".parse::<Mailbox>().unwrap().into();
        RecipientState::pending(to, sender.map(|text| text.parse().unwrap()), request)
    }

    fn addressee(text: &str) -> Addressee {
        let (mailbox, way) = text.split_once(' ').unwrap_or((text, ""));
        Addressee { mailbox: mailbox.parse().unwrap(), way: way.parse().unwrap() }
    }

    fn known(names: &[&str]) -> Known {
        let envelope = Envelope {
            id: QueueId::generate(0, 0),
            received_at: 0,
            client: "local".into(),
            reverse_path: ReversePath::Null,
            recipients: names.iter().map(|name| name.parse::<Mailbox>().unwrap().into()).collect(),
            body: Body::SevenBit,
            request: MessageRequest::default(),
        };
        Progress::new(&envelope).known()
    }

    /// `ADDRESS NOTIFY [ORCPT] [from SENDER]` for each of those behind.
    fn told(behind: &Behind) -> Vec<String> {
        let one = |it: &RecipientState| {
            let notify = it.request.notify.map_or("-".to_owned(), |notify| notify.to_string());
            let original = if it.request.original.is_some() { " ORCPT" } else { "" };
            let from = it.sender.as_ref().map_or(String::new(), |it| format!(" from {it}"));
            format!("{} {notify}{original}{from}", it.mailbox)
        };
        behind.recipients.iter().map(one).collect()
    }

    #[test]
    fn what_was_asked_goes_on_as_the_standard_says() {
        use AliasEnd::{List, Replaced, Several};
        let both = "SUCCESS,FAILURE";
        for (notify, into, owner, end, expected) in [
            (both, &["ann@h"][..], None, Replaced, &["ann@h SUCCESS,FAILURE ORCPT"][..]),
            (both, &["all@h |cmd"], None, Replaced, &["all@h SUCCESS,FAILURE ORCPT"]),
            (both, &["me@h"], None, Several, &["me@h FAILURE ORCPT"]),
            (
                both,
                &["ann@h", "bob@h"],
                None,
                Several,
                &["ann@h FAILURE ORCPT", "bob@h FAILURE ORCPT"],
            ),
            (
                both,
                &["all@h \\", "bob@h"],
                None,
                Replaced,
                &["all@h SUCCESS,FAILURE ORCPT", "bob@h FAILURE"],
            ),
            (
                both,
                &["all@h |vacation", "bob@h", "all@h \\"],
                None,
                Replaced,
                &["all@h FAILURE", "bob@h FAILURE", "all@h SUCCESS,FAILURE ORCPT"],
            ),
            (
                "NEVER",
                &["all@h \\", "bob@h"],
                None,
                Replaced,
                &["all@h NEVER ORCPT", "bob@h NEVER"],
            ),
            (
                "SUCCESS",
                &["all@h \\", "bob@h"],
                None,
                Replaced,
                &["all@h SUCCESS ORCPT", "bob@h NEVER"],
            ),
            ("", &["all@h \\", "bob@h"], None, Replaced, &["all@h - ORCPT", "bob@h -"]),
            (
                both,
                &["ann@h \\", "bob@h \\"],
                None,
                Several,
                &["ann@h FAILURE ORCPT", "bob@h FAILURE ORCPT"],
            ),
            (both, &[], None, Several, &[]),
            (both, &["ann@h"], Some("own@h"), List, &["ann@h - from own@h"]),
            (
                "NEVER",
                &["ann@h", "all@h |x"],
                Some("own@h"),
                List,
                &["ann@h - from own@h", "all@h - from own@h"],
            ),
        ] {
            let into: Vec<_> = into.iter().map(|text| addressee(text)).collect();
            let owner = owner.map(|text| text.parse().unwrap());
            let expansion = Expansion { into: into.clone(), owner };
            let found = behind(&alias(notify, None), expansion, false, &known(&["all@h", "me@h"]));
            assert_eq!(
                (found.end, told(&found)),
                (end, expected.iter().map(|it| (*it).to_owned()).collect()),
                "{notify} {into:?}"
            );
        }
    }

    #[test]
    fn an_owner_is_kept_behind_further_aliases_and_none_is_where_nobody_sends() {
        let two = || vec![addressee("ann@h"), addressee("bob@h")];
        let none = known(&["all@h"]);
        let inner = Expansion { into: two(), owner: None };
        let found = behind(&alias("", Some("own@h")), inner, false, &none);
        assert_eq!(told(&found), ["ann@h - ORCPT from own@h", "bob@h - ORCPT from own@h"]);
        let list = || Expansion { into: two(), owner: "in@h".parse().ok() };
        let found = behind(&alias("", Some("own@h")), list(), false, &none);
        assert_eq!(told(&found), ["ann@h - from in@h", "bob@h - from in@h"]);
        let found = behind(&alias("", None), list(), true, &none);
        assert_eq!((found.end, told(&found)[0].as_str()), (AliasEnd::Several, "ann@h - ORCPT"));
    }
}
