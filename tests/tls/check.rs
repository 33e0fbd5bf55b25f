//! What `mailwren check` says of certificates.

use std::process::Command;

use super::*;

/// The exit code of `mailwren check`, and all that it says but notes, which are no complaints.
fn check(home: &Home) -> (i32, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mailwren"));
    command.arg("--config").arg(home.config()).arg("check").env_remove("MAILWREN_CONFIG");
    let output = command.output().unwrap();
    let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    let is_note = |line: &&str| line.contains(": note: ");
    let said = said.lines().filter(|line| !is_note(line)).map(|line| format!("{line}\n")).collect();
    (output.status.code().unwrap(), said)
}

fn check_of(identity: &Identity) -> (i32, String) {
    let home = home(&[]);
    identity.write(home.path());
    let key = home.path().join("key.pem");
    fs::set_permissions(key, fs::Permissions::from_mode(0o600)).unwrap();
    check(&home)
}

fn expect(identity: &Identity, code: i32, words: &str) {
    let (found, said) = check_of(identity);
    assert!(found == code && said.contains(words), "{code} {words}: {found} {said}");
}

const DAY: i64 = 86_400;

#[test]
fn a_good_one_is_no_news() {
    let (code, said) = check_of(&ordinary());
    assert_eq!(code, 0);
    assert!(said.ends_with(": no mistakes found\n") && said.lines().count() == 1, "{said}");
}

#[test]
fn its_end_is_told() {
    let wish = || Wish::new("mx.test");
    expect(&wish().valid(-2 * DAY, -60).alone(), 78, "cert.pem: it expired on ");
    expect(&wish().valid(-DAY, 13 * DAY).alone(), 0, "cert.pem: warning: it expires on ");
    expect(&wish().valid(DAY, 90 * DAY).alone(), 78, "cert.pem: it is not valid before ");
    let (code, said) = check_of(&wish().valid(-DAY, 15 * DAY).alone());
    assert!(code == 0 && !said.contains("expires"), "{said}");
}

#[test]
fn a_name_that_is_not_the_hosts_is_told() {
    expect(&Wish::new("other.test").alone(), 0, "cert.pem: warning: it is not for mx.test");
    let (_, said) = check_of(&Wish::new("*.test").alone());
    assert!(!said.contains("warning"), "{said}");
}

#[test]
fn a_chain_that_is_missing_is_told() {
    let authority = Authority::new();
    let wish = || Wish::new("mx.test").naming_its_issuer();
    let words = "cert.pem: warning: the certificates of its authority are missing";
    expect(&authority.sign(&wish()).without_chain(), 0, words);
    // One whose authority is known to those who need it says nothing of where it is.
    for good in [authority.sign(&wish()), authority.sign(&Wish::new("mx.test")).without_chain()] {
        let (code, said) = check_of(&good);
        assert!(code == 0 && !said.contains("warning"), "{said}");
    }
}

#[test]
fn what_cannot_be_used_is_told() {
    let home = home(&[]);
    let (code, said) = check(&home);
    assert!(code == 78 && said.contains("cert.pem: No such file"), "{said}");
    ordinary().write_certificate(home.path());
    let (code, said) = check(&home);
    assert!(code == 78 && said.contains("key.pem: No such file"), "{said}");
    ordinary().write_key(home.path());
    let (code, said) = check(&home);
    assert!(code == 78 && said.contains("key.pem: it does not match"), "{said}");
}

#[test]
fn a_key_that_everybody_may_read_is_told() {
    let home = home(&[]);
    ordinary().write(home.path());
    let key = home.path().join("key.pem");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
    let (code, said) = check(&home);
    assert!(code == 0 && said.contains("key.pem: warning: everybody on this host"), "{said}");
}

#[test]
fn one_that_the_server_makes_is_no_news() {
    let (code, said) = check(&home_without_certificate(&[]));
    assert!(code == 0 && said.lines().count() == 1, "{said}");
}
