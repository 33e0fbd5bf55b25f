//! The code's own form: what the architecture says of itself is true of the files.
#![expect(clippy::unwrap_used, reason = "a test ends where it panics")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The most lines of a source file, its tests included.
const MAX_LINES: usize = 600;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every Rust file below `folder` with its text.
fn sources(folder: &str) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    let mut folders = vec![root().join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                found.push((path, text));
            }
        }
    }
    assert!(!found.is_empty(), "no source in {folder}");
    found
}

/// The lines of a file that are neither comments nor tests.
fn code(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let lines = text.lines().enumerate().map(|(number, line)| (number + 1, line.trim()));
    lines
        .take_while(|(_, line)| *line != "#[cfg(test)]")
        .filter(|(_, line)| !line.starts_with("//"))
}

#[test]
fn the_pure_rooms_name_nothing_of_the_outer_world() {
    const OUTSIDE: [&str; 12] = [
        "std::net::Tcp",
        "std::net::Udp",
        "std::os::",
        "std::fs",
        "std::thread",
        "std::time",
        "std::process",
        "std::env",
        "crossbeam_channel",
        "rustix",
        "log::",
        "crate::sys",
    ];
    for folder in ["src/smtp", "src/mail"] {
        for (path, text) in sources(folder) {
            for (number, line) in code(&text) {
                let found = OUTSIDE.iter().find(|name| line.contains(*name));
                assert_eq!(found, None, "{}:{number}", path.display());
            }
        }
    }
}

#[test]
fn each_crate_is_named_in_its_own_places_only() {
    for (name, places) in [
        ("trust_dns_resolver", &["src/sys/dns"][..]),
        ("tokio", &["src/sys/dns"]),
        ("native_tls", &["src/deliver/tls.rs"]),
        ("icu_normalizer", &["src/smtp/sasl/prepare.rs"]),
        (
            "openssl::",
            &["src/receive/tls/", "src/receive/logins", "src/smtp/sasl/", "src/deliver/"],
        ),
        ("ini::", &["src/config/"]),
        ("env_logger", &["src/report/log_format.rs"]),
        ("signal_hook", &["src/sys/signals.rs"]),
        ("lexopt", &["src/cli/"]),
        ("dialoguer", &["src/cli/setup/prompts.rs"]),
        ("serde_json", &["src/cli/queue/", "src/cli/status", "src/cli/trace"]),
        ("strsim", &["src/config/"]),
        ("socket2", &["src/receive/listener", "src/receive/logins/dovecot.rs"]),
        ("libc::", &["src/sys/"]),
        (
            "base64::",
            &[
                "src/smtp/sasl/",
                "src/smtp/server/login",
                "src/smtp/client/login",
                "src/receive/logins",
                "src/mail/encoded_word.rs",
            ],
        ),
        ("argon2", &["src/receive/logins/hash.rs"]),
        ("bcrypt", &["src/receive/logins/hash.rs"]),
        ("sha_crypt", &["src/receive/logins/hash.rs"]),
        ("yescrypt", &["src/receive/logins/hash.rs"]),
    ] {
        for (path, text) in sources("src") {
            let path = path.strip_prefix(root()).unwrap().display().to_string();
            let names_it = |line: &str| {
                let uses = line.split(name).skip(1).count() > 0;
                // `config::ini::` is a module of ours.
                uses && !line.contains(&format!("::{name}"))
                    && !line.contains(&format!("super::{name}"))
            };
            let is_place = places.iter().any(|place| path.starts_with(place));
            let found = code(&text).find(|(_, line)| !is_place && names_it(line));
            assert_eq!(found, None, "{path} names {name}");
        }
    }
}

#[test]
fn files_are_touched_in_sys_only() {
    // What the spool and the mailboxes do goes through sys/disk/, which the tests can watch;
    // these have files of another kind.
    let exceptions = [
        // Reads the configuration.
        "src/config/load.rs",
        // Replaces its own Unix socket.
        "src/receive/listener.rs",
        // Makes its folder and writes its configuration.
        "src/cli/demo.rs",
    ];
    let mut found = Vec::new();
    for (path, text) in sources("src") {
        let path = path.strip_prefix(root()).unwrap().display().to_string();
        let touches = ["std::fs", "rustix::fs", "os::unix::fs"];
        let names_it = |line: &str| touches.iter().any(|name| line.contains(name));
        let may = path.starts_with("src/sys/") || path.ends_with("/tests.rs");
        if !may && code(&text).any(|(_, line)| names_it(line)) {
            found.push(path);
        }
    }
    found.sort_unstable();
    let mut expected = exceptions.to_vec();
    expected.sort_unstable();
    assert_eq!(found, expected);
}

#[test]
fn unsafe_code_stands_in_sys_only() {
    for (path, text) in sources("src") {
        let is_sys = path.starts_with(root().join("src/sys"));
        for (number, line) in code(&text) {
            let is_unsafe = line.contains("unsafe {") || line.contains("unsafe_code");
            assert!(is_sys || !is_unsafe, "{}:{number}", path.display());
        }
    }
}

#[test]
fn nothing_is_left_over() {
    let words = ["TODO", "FIXME", "XXX", "unimplemented!", "todo!", "dbg!", "#[allow", "#[ignore"];
    for folder in ["src", "tests"] {
        for (path, text) in sources(folder) {
            if path.ends_with("tests/tidy.rs") {
                continue;
            }
            let found = words.iter().find(|word| text.contains(*word));
            assert_eq!(found, None, "{}", path.display());
            let lines = text.lines().count();
            assert!(lines <= MAX_LINES, "{} has {lines} lines", path.display());
        }
    }
}

#[test]
fn every_module_and_test_opens_with_prose() {
    for folder in ["src", "tests"] {
        for (path, text) in sources(folder) {
            let opens = text.starts_with("//!") || text.starts_with("#![doc");
            assert!(opens, "{}", path.display());
        }
    }
}

#[test]
fn the_documents_name_every_command() {
    let help = Command::new(env!("CARGO_BIN_EXE_mailwren")).arg("help").output().unwrap();
    let help = String::from_utf8(help.stdout).unwrap();
    // Each command has a line that begins with two blanks and its name.
    let is_command = |line: &&str| line.starts_with("  ") && !line.starts_with("   ");
    let commands: Vec<_> =
        help.lines().filter(is_command).filter_map(|line| line.split_whitespace().next()).collect();
    assert!(commands.contains(&"serve") && commands.contains(&"sendmail"), "{help}");
    let manual = fs::read_to_string(root().join("etc/man/mailwren.8")).unwrap();
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    for command in commands {
        assert!(manual.contains(&format!(".It Cm {command}\n")), "mailwren.8 lacks {command}");
        assert!(readme.contains(&format!("`{command}")), "README.md lacks {command}");
    }
}
