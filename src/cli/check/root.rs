//! Looks whether anybody reads root's mail, which is where cron and the like tell of trouble.

use std::io;
use std::path::{Path, PathBuf};

use super::findings::Findings;
use crate::config::settings::Settings;
use crate::deliver::place::Place;
use crate::mail::address::{Domain, LocalPart, Mailbox};
use crate::route::addressee::{Addressee, Way};
use crate::route::local::{LocalRouter, Resolution};
use crate::route::users::User;
use crate::sys::disk::Disk;

/// Warns while mail for root goes to root alone.
pub(super) fn look(settings: &Settings, findings: &mut Findings) {
    let Ok(name) = LocalPart::from_unquoted("root") else { return };
    let root = Mailbox::new(name, Domain::Name(settings.server.domains.origin().clone()));
    let what = match LocalRouter::new(settings).resolve(&root) {
        Resolution::Mailbox(user) if !may_forward(&user, &root, settings) => {
            "nobody reads root's mail but who looks into its mailbox"
        }
        Resolution::Expanded(expansion)
            if expansion.into.iter().all(|to| to.way == Way::Mailbox && to.mailbox == root) =>
        {
            "nobody reads root's mail but who looks into its mailbox"
        }
        Resolution::Expanded(expansion) if expansion.into.iter().all(is_nowhere) => {
            "root's mail is thrown away"
        }
        Resolution::Unknown => "mail for root is refused",
        Resolution::Mailbox(_) | Resolution::Expanded(_) | Resolution::Failed(_) => return,
    };
    let file = settings.local.aliases.as_deref().unwrap_or(Path::new("[local] aliases"));
    let text = format!("{what}; add a line such as `root: you@example.org`");
    findings.warning(file, None, text);
}

fn is_nowhere(to: &Addressee) -> bool {
    matches!(&to.way, Way::File(path) if path.as_str() == "/dev/null")
}

/// Whether root has a `.forward`, or whoever looks may not know.
fn may_forward(user: &User, root: &Mailbox, settings: &Settings) -> bool {
    let Some(template) = &settings.local.forward else { return false };
    let path = Place::of(template, user, root.domain()).map(|place| place.path());
    path.is_ok_and(|path: PathBuf| {
        let looked = Disk::host().look_at(&path);
        !looked.is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
    })
}
