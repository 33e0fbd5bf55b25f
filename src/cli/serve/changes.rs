//! What is different between two configurations, in words for the log.

use crate::config::settings::{ListenAddress, Listener, Settings};

/// One line without secrets: which listeners and which sections are others.
pub(super) fn in_words(before: &Settings, after: &Settings) -> String {
    let mut words = Vec::new();
    listeners(before, after, &mut words);
    domains(before, after, &mut words);
    let changed = changed_sections(before, after);
    if !changed.is_empty() {
        words.push(format!("{} changed", changed.join(", ")));
    }
    match words.is_empty() {
        true => "nothing has changed".to_owned(),
        false => words.join("; "),
    }
}

fn listeners(before: &Settings, after: &Settings, words: &mut Vec<String>) {
    let named = |all: &[Listener], name: &str| all.iter().find(|it| it.name == name).cloned();
    for listener in &after.listeners {
        let (name, address) = (&listener.name, address(listener));
        match named(&before.listeners, name) {
            None => words.push(format!("[listen.{name}] added on {address}")),
            Some(known) if known.address != listener.address => {
                words.push(format!("[listen.{name}] moved to {address}"));
            }
            Some(known) if known != *listener => words.push(format!("[listen.{name}] changed")),
            Some(_) => {}
        }
    }
    for Listener { name, .. } in &before.listeners {
        if named(&after.listeners, name).is_none() {
            words.push(format!("[listen.{name}] removed"));
        }
    }
}

fn address(listener: &Listener) -> String {
    match &listener.address {
        ListenAddress::Tcp(address) => address.to_string(),
        ListenAddress::Unix(path) => format!("unix:{}", path.display()),
        ListenAddress::Systemd(name) => format!("systemd:{name}"),
    }
}

fn domains(before: &Settings, after: &Settings, words: &mut Vec<String>) {
    for domain in &after.domains {
        let name = &domain.name;
        match before.domains.iter().find(|it| it.name == *name) {
            None => words.push(format!("[domain.{name}] added")),
            Some(known) if known != domain => words.push(format!("[domain.{name}] changed")),
            Some(_) => {}
        }
    }
    for domain in &before.domains {
        if !after.domains.iter().any(|it| it.name == domain.name) {
            words.push(format!("[domain.{}] removed", domain.name));
        }
    }
}

fn changed_sections(before: &Settings, after: &Settings) -> Vec<&'static str> {
    // The domains with users of their own have been told of.
    let mut server = after.server.clone();
    server.domains.others.clone_from(&before.server.domains.others);
    let sections = [
        ("[server]", before.server != server),
        ("[relay]", before.relay_networks != after.relay_networks),
        ("[tls]", before.tls != after.tls),
        ("[auth]", before.auth != after.auth),
        ("[local]", before.local != after.local),
        ("[rewrite]", before.rewrite != after.rewrite),
        ("[digest]", before.digest != after.digest),
        ("[smarthost]", before.smarthost != after.smarthost),
        ("[queue]", before.queue != after.queue),
        ("[dns]", before.dns_servers != after.dns_servers),
        ("[log]", before.log_level != after.log_level || before.events_size != after.events_size),
    ];
    sections.into_iter().filter(|(_, is_changed)| *is_changed).map(|(name, _)| name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(text: &str) -> Settings {
        crate::config::parse("x", text.as_bytes(), "mx.test").unwrap()
    }

    #[test]
    fn each_change_is_named_once() {
        let one = "[listen.a]\naddress = 127.0.0.1:25\n[listen.b]\naddress = 127.0.0.1:587\n";
        for (before, after, expected) in [
            ("", "# a comment\n", "nothing has changed"),
            (one, "[listen.b]\naddress = 127.0.0.1:587\n", "[listen.a] removed"),
            ("[listen.a]\naddress = 127.0.0.1:25\n", one, "[listen.b] added on 127.0.0.1:587"),
            (
                "[listen.a]\naddress = 127.0.0.1:25\n",
                "[listen.a]\naddress = unix:/run/a\n",
                "[listen.a] moved to unix:/run/a",
            ),
            (
                "[listen.a]\naddress = 127.0.0.1:25\n",
                "[listen.a]\naddress = 127.0.0.1:25\nnetworks = 127.0.0.1\n",
                "[listen.a] changed",
            ),
            ("", "[queue]\nexpire = 1d\n[log]\nlevel = debug\n", "[queue], [log] changed"),
            (
                "[domain.a.test]\nusers = /a\n[domain.b.test]\nusers = /b\n",
                "[domain.b.test]\nusers = /x\n[domain.c.test]\nusers = /c\n",
                "[domain.b.test] changed; [domain.c.test] added; [domain.a.test] removed",
            ),
            (
                "",
                "[smarthost]\nhost = mx.test\ntls = none\nuser = ann\npassword = sesame\n\
                 auth_without_tls = yes\n",
                "[smarthost] changed",
            ),
        ] {
            assert_eq!(in_words(&settings(before), &settings(after)), expected);
        }
    }
}
