//! Who a recipient is, and what becomes of the message for it: a mailbox, a command, a file, or
//! others in its place.
//!
//! What the spool says of a command or a file is a name only. It is run or written if an alias or a
//! `.forward` says so now, as the account that this one belongs to.

use super::{LocalDelivery, Mail, Opened, UNKNOWN_USER, delivered_to, identity_failure};
use crate::config::settings::MailboxFormat;
use crate::deliver::command::{self, Call, Circumstances};
use crate::deliver::file::Destination;
use crate::deliver::job::Recipient;
use crate::deliver::outcome::{Failure, Outcome};
use crate::deliver::place::Target;
use crate::deliver::storage::printable;
use crate::mail::address::Mailbox;
use crate::mail::dsn_request::OriginalRecipient;
use crate::mail::status::Status;
use crate::mail::text::{MAX_REMARK, one_line};
use crate::route::addressee::{Addressee, Expansion, Text, Way};
use crate::route::forward::Unheard;
use crate::route::local::Resolution;
use crate::route::users::{User, split_detail};
use crate::sys::identity::Identity;
use crate::sys::users::Account;

/// RFC 3463: system incorrectly configured.
const MISCONFIGURED: Status = Status::new(4, 3, 5);
/// RFC 3463: other or undefined mail system status.
const LATER: Status = Status::new(4, 3, 0);

impl LocalDelivery {
    /// Tries one recipient.
    pub(super) fn deliver_to(&self, mail: &Mail<'_>, recipient: &Recipient) -> Outcome {
        let tried = match recipient.way {
            Way::Routed => self.deliver_as_routed(mail, &recipient.mailbox),
            Way::User => self.deliver_to_user(mail, &recipient.mailbox),
            Way::Mailbox => self.deliver_into_mailbox(mail, &recipient.mailbox),
            Way::Command(_) | Way::File(_) => self.deliver_as_named(mail, recipient),
        };
        tried.unwrap_or_else(Failure::into_outcome)
    }

    fn deliver_as_routed(&self, mail: &Mail<'_>, mailbox: &Mailbox) -> Result<Outcome, Failure> {
        let user = match self.router.resolve(mailbox) {
            Resolution::Mailbox(user) => user,
            other => return outcome_without_user(other, mailbox),
        };
        if let Some(same) = self.other_name(mail, mailbox, &user)? {
            return Ok(Outcome::Expanded(vec![same].into()));
        }
        let opened = self.open(mailbox, &user)?;
        if !self.forwards.is_there(&user, mailbox.domain())? {
            return self.write_into(opened, mail, mailbox, &user);
        }
        // Its owner may not be the one whose identity reads a `.forward`.
        drop(opened);
        match self.forward_of(mail, &user, mailbox)? {
            Some(expansion) => Ok(Outcome::Expanded(expansion)),
            None => self.write_now(mail, mailbox, &user),
        }
    }

    /// The address by which others behind this one may have the message, too: of a message to one
    /// alone nobody has. None where it is for a namesake of the `user` as well, who differs in case
    /// only: the queue tells names of this host apart by more than that.
    fn other_name(
        &self,
        mail: &Mail<'_>,
        mailbox: &Mailbox,
        user: &User,
    ) -> Result<Option<Mailbox>, Failure> {
        let recipients = &mail.message.envelope().recipients;
        let is_namesake = |to: &Mailbox| {
            let [name, own] = [to, mailbox].map(|it| it.local_part().as_str());
            let user_of = |it| self.router.user(it).ok().flatten().map(|other| other.name);
            name != own
                && name.eq_ignore_ascii_case(own)
                && user_of(to).as_ref() != Some(&user.name)
        };
        // Who took the place of another has the name that counted then. Where another domain is the
        // first one now, it would lead back to whom nobody tries any more.
        let is_named = recipients.iter().any(|to| to.mailbox == *mailbox);
        if recipients.len() < 2 || !is_named || recipients.iter().any(|to| is_namesake(&to.mailbox))
        {
            return Ok(None);
        }
        let same = self.router.canonical(mailbox.clone())?;
        Ok(Some(same).filter(|same| same != mailbox))
    }

    /// Passes to those behind the user that the address names, whatever aliases say.
    fn deliver_to_user(&self, mail: &Mail<'_>, mailbox: &Mailbox) -> Result<Outcome, Failure> {
        match self.router.resolve_user(mailbox) {
            Resolution::Mailbox(user) => {
                let expansion = self.forward_of(mail, &user, mailbox)?;
                Ok(Outcome::Expanded(expansion.unwrap_or_else(|| mailbox_alone(mailbox))))
            }
            other => outcome_without_user(other, mailbox),
        }
    }

    /// Delivers to the user that the address names, whatever aliases and `.forward` say.
    fn deliver_into_mailbox(&self, mail: &Mail<'_>, mailbox: &Mailbox) -> Result<Outcome, Failure> {
        match self.router.user(mailbox)? {
            Some(user) => self.write_now(mail, mailbox, &user),
            None => outcome_without_user(Resolution::Unknown, mailbox),
        }
    }

    fn write_now(
        &self,
        mail: &Mail<'_>,
        mailbox: &Mailbox,
        user: &User,
    ) -> Result<Outcome, Failure> {
        self.write_into(self.open(mailbox, user)?, mail, mailbox, user)
    }

    fn write_into(
        &self,
        opened: Opened<'_>,
        mail: &Mail<'_>,
        mailbox: &Mailbox,
        user: &User,
    ) -> Result<Outcome, Failure> {
        let place = self.write(mail, mailbox, user, &opened)?;
        // A reply goes into the spool, which the user may not touch.
        drop(opened);
        self.answer(mail, mailbox, user);
        Ok(Outcome::Delivered { place })
    }

    /// Delivers to a command or a file, if the alias or the `.forward` of that address still names
    /// it; else puts what it names now in its place.
    fn deliver_as_named(&self, mail: &Mail<'_>, recipient: &Recipient) -> Result<Outcome, Failure> {
        let mailbox = &recipient.mailbox;
        let addressed = |way| Addressee { mailbox: mailbox.clone(), way };
        let named = addressed(recipient.way.clone());
        let resolution = match self.router.resolve(mailbox) {
            // What its alias does not name, the user's own `.forward` may.
            Resolution::Expanded(Expansion { into, .. })
                if !into.contains(&named) && into.contains(&addressed(Way::User)) =>
            {
                self.router.resolve_user(mailbox)
            }
            other => other,
        };
        match resolution {
            Resolution::Expanded(expansion) if expansion.into.contains(&named) => {
                let address = mailbox.clone();
                let detail = split_detail(mailbox.local_part().as_str(), self.local.subaddress);
                let detail = detail.map(|(_, detail)| detail);
                let owner = Owner { account: self.command_account()?, address, detail };
                self.act(mail, recipient, &owner)
            }
            Resolution::Mailbox(user) => match self.forward_of(mail, &user, mailbox)? {
                Some(expansion) if expansion.into.contains(&named) => {
                    let address = delivered_to(&user, mailbox);
                    let detail = user.detail.as_deref();
                    let owner = Owner { account: self.account_of(&user)?, address, detail };
                    self.act(mail, recipient, &owner)
                }
                Some(expansion) => Ok(Outcome::Expanded(expansion)),
                None => Ok(Outcome::Expanded(mailbox_alone(mailbox))),
            },
            other => outcome_without_user(other, mailbox),
        }
    }

    /// What the `.forward` of `user` says, where it says anything. One that is refused does not keep
    /// the mail out of the mailbox.
    fn forward_of(
        &self,
        mail: &Mail<'_>,
        user: &User,
        mailbox: &Mailbox,
    ) -> Result<Option<Expansion>, Failure> {
        match self.forwards.expansion(user, mailbox, &self.router) {
            Ok(expansion) => Ok(expansion),
            Err(Unheard::Away(failure)) => Err(failure),
            Err(Unheard::Refused(what)) => {
                let id = mail.message.envelope().id;
                log::error!("{id}: {what}; the mail goes into the mailbox of {}", user.name);
                Ok(None)
            }
        }
    }

    fn act(
        &self,
        mail: &Mail<'_>,
        recipient: &Recipient,
        owner: &Owner<'_>,
    ) -> Result<Outcome, Failure> {
        mail.check_loop(&owner.address)?;
        let account = &owner.account;
        let identity = self.identities.identity_of(account);
        let identity = identity.map_err(|error| identity_failure(&account.name, &error))?;
        let place = match &recipient.way {
            Way::Command(text) => self.run(mail, recipient, owner, &identity, text)?,
            Way::File(text) => self.write_file(mail, owner, &identity, text)?,
            Way::Routed | Way::User | Way::Mailbox => {
                return self.deliver_into_mailbox(mail, &owner.address);
            }
        };
        Ok(Outcome::Delivered { place })
    }

    fn run(
        &self,
        mail: &Mail<'_>,
        recipient: &Recipient,
        owner: &Owner<'_>,
        identity: &Identity,
        text: &Text,
    ) -> Result<String, Failure> {
        let (command, account) = (text.as_str(), &owner.account);
        let call = Call { command, account, identity, timeout: self.local.command_timeout };
        let original = recipient.request.original.as_ref().map(OriginalRecipient::decoded);
        let original = original.and_then(|it| it.strip_prefix("rfc822;").map(str::to_owned));
        let circumstances = Circumstances {
            id: mail.message.envelope().id,
            reverse_path: mail.reverse_path,
            recipient: &recipient.mailbox,
            original_recipient: original,
            detail: owner.detail,
        };
        let head = mail.added_lines(MailboxFormat::Mbox, &owner.address);
        command::deliver(&call, &circumstances, head, &mut *mail.content())?;
        Ok(one_line(&format!("|{command}"), MAX_REMARK))
    }

    fn write_file(
        &self,
        mail: &Mail<'_>,
        owner: &Owner<'_>,
        identity: &Identity,
        text: &Text,
    ) -> Result<String, Failure> {
        let (place, format) = match Destination::of(text.as_str())? {
            Destination::Nowhere => return Ok(text.as_str().to_owned()),
            Destination::Mailbox(place, format) => (place, format),
        };
        let guard = identity.assume();
        let _guard = guard.map_err(|error| identity_failure(&owner.account.name, &error))?;
        let target = Target { disk: &self.disk, place: &place, owner: Some(identity.uid) };
        self.put(&target, format, None, mail, &owner.address)?;
        Ok(printable(&place.path()))
    }

    /// The account that what `user` names in a `.forward` runs as: the user's own. What root names
    /// does not run as root.
    fn account_of(&self, user: &User) -> Result<Account, Failure> {
        match &user.account {
            Some(account) if account.uid != 0 => Ok(account.clone()),
            _ => self.command_account(),
        }
    }

    /// The account of the commands and files in alias files.
    fn command_account(&self) -> Result<Account, Failure> {
        let name = &self.local.command_user;
        let account = self.accounts.by_name(name).map_err(|error| {
            Failure::new(LATER, format!("the account {name} cannot be looked up: {error}"))
        })?;
        let wrong = |what: &str| {
            let text = format!("[local] command_user = {name} {what}: name an ordinary account");
            Err(Failure::new(MISCONFIGURED, text))
        };
        match account {
            None => wrong("is no account"),
            Some(account) if account.uid == 0 => wrong("is root"),
            Some(account) => Ok(account),
        }
    }
}

/// Whose command or file it is.
struct Owner<'a> {
    /// The account that it runs as.
    account: Account,
    /// The address that `Delivered-To` names.
    address: Mailbox,
    /// What stands behind the separator in the recipient.
    detail: Option<&'a str>,
}

/// The mailbox itself, in place of what leads there: the message may be in it already, which the
/// queue knows.
fn mailbox_alone(mailbox: &Mailbox) -> Expansion {
    let itself = Addressee { mailbox: mailbox.clone(), way: Way::Mailbox };
    Expansion { into: vec![itself], owner: None }
}

/// There is nobody of this name. One with a slash is most likely a file that somebody means in an
/// alias or a `.forward`, such as `$HOME/mail`.
fn no_user(mailbox: &Mailbox) -> Failure {
    let name = mailbox.local_part();
    let hint = match name.as_str().contains('/') {
        true => "; to name a file write its whole path, from / on",
        false => "",
    };
    Failure::new(UNKNOWN_USER, format!("there is no user {name}{hint}"))
}

/// What becomes of an address that is nobody's mailbox.
fn outcome_without_user(resolution: Resolution, mailbox: &Mailbox) -> Result<Outcome, Failure> {
    match resolution {
        Resolution::Expanded(expansion) => Ok(Outcome::Expanded(expansion)),
        Resolution::Failed(failure) => Err(failure),
        Resolution::Unknown | Resolution::Mailbox(_) => Err(no_user(mailbox)),
    }
}
