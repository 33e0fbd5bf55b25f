//! Looks at the alias files, and at the lists that they include: which lines cannot be read, and
//! which aliases lead nowhere.

use std::collections::HashSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::findings::Findings;
use super::rights::{self, is_for_root};
use crate::config::settings::Settings;
use crate::mail::address::{Domain, DomainName, LocalPart, Mailbox};
use crate::mail::text::{MAX_REMARK, one_line};
use crate::route::addressee::{Addressee, Way};
use crate::route::aliases::{Alias, AliasTable, Key};
use crate::route::lists::MAX_LIST;
use crate::route::local::{LocalRouter, Resolution};
use crate::route::lookup::Spot;
use crate::route::realm::MAX_ALIAS_FILE;
use crate::route::targets::{Target, list_lines};
use crate::sys::disk::Disk;
use crate::sys::watched::WatchedFile;

/// Looks at the alias file of `[local]` and of each domain. Gives the number of aliases.
pub(in crate::cli) fn look(settings: &Settings, findings: &mut Findings) -> usize {
    let router = LocalRouter::in_spite_of_mistakes(settings);
    let origin = settings.server.domains.origin();
    let local = settings.local.aliases.as_deref().map(|path| (path, origin));
    let others = settings.domains.iter().map(|it| it.aliases.as_deref().zip(Some(&it.name)));
    let mut count = 0;
    for (path, domain) in std::iter::once(local).chain(others).flatten() {
        let is_optional = domain == origin;
        let Some(octets) = read(path, MAX_ALIAS_FILE, is_optional, settings, findings) else {
            continue;
        };
        let (table, errors) = AliasTable::read(&octets);
        for error in errors {
            findings.mistake(path, Some(error.line), error.text);
        }
        let look =
            Look { settings, router: &router, path, domain, lists: HashSet::new(), findings };
        count += look.at(&table);
    }
    count
}

/// The octets of an alias file or a list, after what is wrong with the file was noted.
fn read(
    path: &Path,
    max_octets: u64,
    is_optional: bool,
    settings: &Settings,
    findings: &mut Findings,
) -> Option<Arc<Vec<u8>>> {
    let file = WatchedFile::new(path.to_owned(), max_octets);
    let octets = match file.load(|octets, _| Arc::new(octets.to_vec())) {
        Ok(octets) => octets,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            if !is_optional {
                findings.warning(path, None, "there is no such file; make it, or remove its name");
            }
            return None;
        }
        Err(error) if is_for_root(&error) => {
            let text = "you may not read it, so it is not checked; check as root";
            findings.warning(path, None, text);
            return None;
        }
        Err(error) => {
            findings.mistake(path, None, error.to_string());
            return None;
        }
    };
    if let Some(text) = rights::unreadable(path, settings, "chmod o+r") {
        findings.mistake(path, None, text);
    }
    let status = Disk::host().look_at(path);
    if status.is_ok_and(|it| it.is_writable_for_all() || it.is_group_writable() && it.group() != 0)
    {
        let text = format!(
            "others than its owner can write it, and so say who gets mail; run: chmod go-w {}",
            path.display()
        );
        findings.warning(path, None, text);
    }
    Some(octets)
}

/// A look at one alias file.
struct Look<'a> {
    settings: &'a Settings,
    router: &'a LocalRouter,
    path: &'a Path,
    /// The domain that its names are at.
    domain: &'a DomainName,
    /// The lists that were looked at.
    lists: HashSet<PathBuf>,
    findings: &'a mut Findings,
}

impl Look<'_> {
    fn at(mut self, table: &AliasTable) -> usize {
        for (line, key) in table.repeated() {
            let text = match table.find(key) {
                Some(first) => format!("`{key}` stands on line {} already", first.line),
                None => format!("`{key}` stands here twice"),
            };
            self.warn(
                *line,
                &format!("{text}, and this line means nothing; remove one of the two"),
            );
        }
        let entries = table.entries();
        for (key, alias) in &entries {
            self.look_at_alias(key, alias);
        }
        entries.len()
    }

    fn look_at_alias(&mut self, key: &Key, alias: &Alias) {
        let path = self.path;
        let Some(domain) = self.domain_of(key) else {
            let text = format!("mail for {key} does not come here; see [server] domains");
            return self.warn(alias.line, &text);
        };
        if let Some(name) = key.local_part().and_then(|name| LocalPart::from_unquoted(name).ok()) {
            let mailbox = Mailbox::new(name, Domain::Name(domain));
            if let Resolution::Failed(failure) = self.router.resolve(&mailbox)
                && failure.status.is_permanent()
            {
                self.warn(alias.line, &failure.text);
            }
        }
        for target in &alias.targets {
            let spot = Spot { file: path.to_owned(), line: alias.line };
            self.look_at_target(key, &spot, target);
        }
    }

    /// The domain that a key is about, if mail for it is looked up in this file.
    fn domain_of(&self, key: &Key) -> Option<DomainName> {
        let (Key::Address(_, domain) | Key::Domain(domain)) = key else {
            return Some(self.domain.clone());
        };
        let name: DomainName = domain.parse().ok()?;
        let domains = &self.settings.server.domains;
        let shares_users = |name: &DomainName| domains.shares_users(&Domain::Name(name.clone()));
        let is_here = name == *self.domain || shares_users(self.domain) && shares_users(&name);
        is_here.then_some(name)
    }

    fn look_at_target(&mut self, key: &Key, spot: &Spot, target: &Target) {
        match target {
            Target::Include(path) => return self.look_at_list(key, path),
            Target::Command(command) => {
                if let Some(program) = missing_program(command.as_str()) {
                    let text = format!("there is no {program}; install it, or mend the command");
                    self.findings.warning(&spot.file, Some(spot.line), text);
                }
                return;
            }
            Target::Name(_) | Target::Address(_) | Target::Mailbox(_) | Target::File(_) => {}
        }
        if let Ok(Some(to)) = self.router.meant_by(self.domain, key, target)
            && self.is_unknown(&to)
        {
            let text = format!("{} is not known here; mend the name, or remove it", to.mailbox);
            self.findings.warning(&spot.file, Some(spot.line), text);
        }
    }

    fn is_unknown(&self, to: &Addressee) -> bool {
        if !self.settings.server.domains.contains(to.mailbox.domain()) {
            return false;
        }
        match to.way {
            Way::User | Way::Mailbox => matches!(self.router.user(&to.mailbox), Ok(None)),
            _ => self.router.resolve(&to.mailbox) == Resolution::Unknown,
        }
    }

    /// Looks at a list, and at those that it includes. Each is looked at once.
    fn look_at_list(&mut self, key: &Key, path: &Path) {
        let mut lists = vec![path.to_owned()];
        while let Some(path) = lists.pop() {
            if !self.lists.insert(path.clone()) {
                continue;
            }
            let read = read(&path, MAX_LIST, false, self.settings, self.findings);
            for line in read.iter().flat_map(|octets| list_lines(octets)) {
                let (line, targets) = match line {
                    Ok(read) => read,
                    Err(error) => {
                        self.findings.mistake(&path, Some(error.line), error.text);
                        continue;
                    }
                };
                let spot = Spot { file: path.clone(), line };
                for target in targets {
                    match target {
                        Target::Include(path) => lists.push(path),
                        Target::Command(_) | Target::File(_) => {
                            let text = format!(
                                "{target} is a command or a file, which a list must not name; put it into {}",
                                self.path.display()
                            );
                            self.findings.mistake(&path, Some(line), text);
                        }
                        target => self.look_at_target(key, &spot, &target),
                    }
                }
            }
        }
    }

    fn warn(&mut self, line: usize, text: &str) {
        self.findings.warning(self.path, Some(line), one_line(text, MAX_REMARK));
    }
}

/// The program that a command begins with, if it is a path and nothing is there.
fn missing_program(command: &str) -> Option<&str> {
    let program = command.split_whitespace().next()?;
    let is_path =
        program.starts_with('/') && !program.contains(['$', '*', '?', '`', '\'', '"', ';']);
    let looked = Disk::host().look_at(Path::new(program));
    let is_missing = looked.is_err_and(|error| error.kind() == io::ErrorKind::NotFound);
    (is_path && is_missing).then_some(program)
}
