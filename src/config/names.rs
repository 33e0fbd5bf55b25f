//! Holds the names in a file against the reference: an unknown one is a mistake that names
//! the nearest known one, and so is a key that does nothing yet, since silence would let
//! somebody believe that it works.

use super::ini::{Document, Entry, Section as Written};
use super::keys::{self, Key, Kind, Section};
use super::mistake::{Mistakes, shown};
use crate::mail::address::DomainName;

/// The longest NAME in `[listen.NAME]`, in octets.
const MAX_NAME: usize = 32;

/// Notes every section and key that is unknown, misnamed or not built yet.
pub(super) fn check(document: &Document, mistakes: &mut Mistakes) {
    for written in &document.sections {
        match section_of(&written.name) {
            Some(section) => check_section(section, written, mistakes),
            None => mistakes.add(written.line, || why_no_section(&written.name)),
        }
    }
}

/// The section of the reference that `[written]` is one of.
fn section_of(written: &str) -> Option<&'static Section> {
    let (section, own_name) = keys::section_in_file(written)?;
    let is_good = match own_name {
        None => section.example.is_none(),
        Some(own_name) => section.example.is_some() && is_good_name(section, own_name),
    };
    is_good.then_some(section)
}

fn why_no_section(written: &str) -> String {
    match keys::section_in_file(written) {
        None => unknown_section(written),
        Some((section, None)) => {
            format!("[{written}] needs a name of its own; write {}", section.heading())
        }
        Some((section, Some(_))) if section.example.is_none() => {
            format!("unknown section {}; write {}", bracketed(written), section.heading())
        }
        Some((section, Some(_))) => bad_name(section, written),
    }
}

fn is_good_name(section: &Section, own_name: &str) -> bool {
    if section.name == "domain" {
        return own_name.parse::<DomainName>().is_ok();
    }
    (1..=MAX_NAME).contains(&own_name.len()) && !own_name.contains('.')
}

fn bad_name(section: &Section, written: &str) -> String {
    let rule = match section.name {
        "domain" => "a domain".to_owned(),
        _ => format!("1 to {MAX_NAME} letters, digits, `_` or `-`"),
    };
    let (written, heading) = (bracketed(written), section.heading());
    format!("what follows the dot in {written} is no name; give {rule}, as in {heading}")
}

fn unknown_section(written: &str) -> String {
    let (kind, own_name) = written.split_once('.').unwrap_or((written, ""));
    let known = || keys::REFERENCE.iter().map(|section| section.name);
    let written = bracketed(written);
    let Some(section) = keys::nearest(kind, known()).and_then(keys::section) else {
        let known: Vec<_> = known().collect();
        return format!("unknown section {written}; known: {}", known.join(", "));
    };
    match section.example {
        Some(_) if !own_name.is_empty() => {
            format!("unknown section {written}; did you mean [{}.{own_name}]?", section.name)
        }
        _ => format!("unknown section {written}; did you mean {}?", section.heading()),
    }
}

/// `[name]`, shortened like a value.
fn bracketed(name: &str) -> String {
    format!("[{}]", shown(name).trim_matches('`'))
}

fn check_section(section: &'static Section, written: &Written, mistakes: &mut Mistakes) {
    let mut is_complained_of = false;
    for entry in &written.entries {
        match section.key(&entry.key) {
            None => mistakes.add(entry.line, || unknown_key(section, &written.name, &entry.key)),
            Some(key) => {
                if let Some(why) = why_not(section, key, entry) {
                    is_complained_of = true;
                    mistakes.add(entry.line, || format!("[{}] {why}", written.name));
                }
            }
        }
    }
    if let Some(why) = section.later.filter(|_| !is_complained_of) {
        mistakes.add(written.line, || format!("[{}]: {why}; remove the section", written.name));
    }
}

fn unknown_key(section: &Section, written: &str, key: &str) -> String {
    let unknown = format!("[{written}] has no key {}", shown(key));
    if let Some(nearest) = keys::nearest(key, section.keys().map(|key| key.name)) {
        return format!("{unknown}; did you mean `{nearest}`?");
    }
    let elsewhere = keys::REFERENCE.iter().find(|section| section.key(key).is_some());
    if let Some(section) = elsewhere {
        return format!("{unknown}; it belongs in {}", section.heading());
    }
    let known: Vec<_> = section.keys().map(|key| key.name).collect();
    format!("{unknown}; known: {}", known.join(", "))
}

/// Why an entry must not stand there yet. Only a value that is one of a few words is
/// repeated, so that no password gets into a message.
fn why_not(section: &Section, key: &Key, entry: &Entry) -> Option<String> {
    let (why, accepted) = section.later(key)?;
    if accepted.contains(&entry.value.as_str()) {
        return None;
    }
    let name = key.name;
    if let Kind::Choice(choices) = key.kind {
        if !choices.contains(&entry.value.as_str()) {
            return Some(format!(
                "{name}: {} is not known; give {}",
                shown(&entry.value),
                key.kind
            ));
        }
        if let Some(good) = accepted.iter().find(|value| !value.is_empty()) {
            let value = &entry.value;
            return Some(format!(
                "{name} = {value}: {why}; write `{name} = {good}` or remove the line"
            ));
        }
    }
    Some(format!("{name}: {why}; remove the line"))
}
