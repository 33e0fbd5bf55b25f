//! What `mailwren aliases`, `check` and `route` say of alias files.

#![expect(clippy::unwrap_used, reason = "a test ends where it panics")]

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

/// A host of home.test with ann and bob, and v.test with a zoe of its own.
struct Host {
    folder: TempDir,
}

impl Host {
    fn new(aliases: &str) -> Self {
        let host = Self { folder: TempDir::new().unwrap() };
        host.write("aliases", aliases);
        host.write("aliases.v", "sales: zoe\n");
        host.write("users", "ann\nbob\nroot\n");
        host.write("users.v", "zoe\n");
        fs::create_dir(host.path("mail")).unwrap();
        let config = "[server]\nhostname = home\ndomains = home.test, b.test\nuser = root\n\
            spool = HOME/spool\nstate = HOME/state\nsocket = HOME/socket\n\
            [listen.smtp]\naddress = 127.0.0.1:0\ntls = none\n\
            [local]\nformat = maildir\npath = HOME/mail/{user}\nusers = HOME/users\n\
            aliases = HOME/aliases\n\
            [domain.v.test]\nusers = HOME/users.v\naliases = HOME/aliases.v\n";
        host.write("mailwren.ini", config);
        host
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes a file in which HOME is the folder.
    fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text.replace("HOME", self.home())).unwrap();
    }

    fn home(&self) -> &str {
        self.folder.path().to_str().unwrap()
    }

    /// The exit code and all that is said, with HOME for the folder.
    fn run(&self, program: &Path, words: &[&str]) -> (i32, String) {
        let mut command = Command::new(program);
        command.args(words).env("MAILWREN_CONFIG", self.path("mailwren.ini"));
        let output = command.output().unwrap();
        let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        (output.status.code().unwrap(), said.replace(self.home(), "HOME"))
    }

    fn mailwren(&self, words: &[&str]) -> (i32, String) {
        self.run(env!("CARGO_BIN_EXE_mailwren").as_ref(), words)
    }
}

#[test]
fn good_aliases_are_counted() {
    let host = Host::new(
        "root: ann\nlist: :include:HOME/list, \\bob\nowner-list: root\n@b.test: carl@far.test\n\
         pipe: \"|/bin/sh -c 'exit 0'\", /dev/null\nbob@b.test: zoe@v.test\nann: ann, root\n",
    );
    host.write("list", "# us\nann\n\nbob, dan@far.test\n");
    assert_eq!(host.mailwren(&["aliases"]), (0, "8 aliases, no mistakes found\n".to_owned()));
    assert_eq!(host.mailwren(&["aliases", "x"]).0, 64);
    let newaliases = host.path("newaliases");
    symlink(env!("CARGO_BIN_EXE_mailwren"), &newaliases).unwrap();
    let said = (0, "8 aliases, no mistakes found\n".to_owned());
    assert_eq!(host.run(&newaliases, &[]), said);
    assert_eq!(host.run(&newaliases, &["-v", "-oA/etc/aliases"]), said);
}

#[test]
fn everything_wrong_is_told_with_its_place() {
    let host = Host::new(
        "root: ann bob\n\
         one: nobody, \\nemo, ann\n\
         two: three\nthree: two\n\
         four: :include:HOME/none\n\
         five: \"|/no/such/program -x\", |exit\n\
         One: ann\n\
         ann@far.test: ann\n\
         six: :include:HOME/list\n\
         j\u{f6}rg: ann\n",
    );
    host.write("list", "ann\nbob ann\n:include:HOME/inner\n:include:HOME/list\n");
    host.write("inner", "gone@b.test\n|cmd\n:include:HOME/fifo\n");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        host.path("fifo"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RUSR,
        0,
    )
    .unwrap();
    fs::set_permissions(host.path("list"), Permissions::from_mode(0o666)).unwrap();
    host.write("aliases.v", "sales: nobody\nsales@b.test: zoe\n");
    let (code, said) = host.mailwren(&["aliases"]);
    assert_eq!(code, 78, "{said}");
    let expected = [
        "HOME/aliases:1: `ann bob` is no address",
        "HOME/aliases:10: `j?rg` cannot stand before the colon",
        "HOME/aliases:7: warning: `one` stands on line 2 already",
        "HOME/aliases:2: warning: nobody@home.test is not known here",
        "HOME/aliases:2: warning: nemo@home.test is not known here",
        "HOME/aliases:3: warning: the alias at HOME/aliases:3 leads only back to itself",
        "HOME/aliases:4: warning: the alias at HOME/aliases:4 leads only back to itself",
        "HOME/none: warning: there is no such file",
        "HOME/aliases:6: warning: there is no /no/such/program",
        "HOME/aliases:8: warning: mail for ann@far.test does not come here",
        "HOME/list: warning: others than its owner can write it",
        "HOME/list:2: `bob ann` is no address",
        "HOME/inner:1: warning: gone@b.test is not known here",
        "HOME/inner:2: \"|cmd\" is a command or a file, which a list must not name",
        "HOME/fifo: it is no regular file",
        "HOME/aliases.v:1: warning: nobody@v.test is not known here",
        "HOME/aliases.v:2: warning: mail for sales@b.test does not come here",
    ];
    let lines: Vec<_> = said.lines().collect();
    assert_eq!(lines.len(), expected.len(), "{said}");
    for (line, expected) in lines.iter().zip(expected) {
        assert!(line.starts_with(expected), "{line}\n{expected}");
    }
    // The same as a part of the whole.
    let (code, said) = host.mailwren(&["check"]);
    assert!(code == 78 && expected.iter().all(|part| said.contains(part)), "{said}");
}

#[test]
fn somebody_has_to_read_the_mail_of_root() {
    let warning = "add a line such as `root: you@example.org`";
    for (aliases, is_read) in [
        ("", false),
        ("root: root\n", false),
        ("root: \\root\n", false),
        ("postmaster: ann\n", false),
        ("root: ann\n", true),
        ("root: root, ann\n", true),
        ("root: |cmd\n", true),
        ("root: /dev/null\n", false),
        ("root: /dev/null, /var/log/root\n", true),
        ("root@home.test: me@far.test\n", true),
    ] {
        let host = Host::new(aliases);
        let (code, said) = host.mailwren(&["check"]);
        assert_eq!((code, said.contains(warning)), (0, !is_read), "{aliases}: {said}");
    }
    let host = Host::new("");
    host.write("users", "ann\n");
    let (_, said) = host.mailwren(&["check"]);
    assert!(said.contains("mail for root is refused"), "{said}");
}

#[test]
fn a_route_is_told_step_by_step() {
    let host = Host::new(
        "root: ann\nlist: ann+x, \\bob, |run it, /var/log/mail, sales@v.test\nowner-list: root\n\
         @b.test: ann\ngone: \\nemo\nloop: loop\n",
    );
    let check = |address: &str, code: i32, lines: &[&str]| {
        let (found, said) = host.mailwren(&["route", address]);
        let expected: String = lines.iter().map(|line| format!("{line}\n")).collect();
        assert_eq!((found, said), (code, expected), "{address}");
    };
    check(
        "List",
        0,
        &[
            "List@home.test: an alias for <ann+x@home.test>, \\<bob@home.test>, \"|run it\", \
             \"/var/log/mail\", <zoe@v.test> (HOME/aliases:2), failures are for owner-list@home.test",
            "ann+x@home.test: the mailbox of ann, HOME/mail/ann",
            "bob@home.test: the mailbox of bob, HOME/mail/bob",
            "List@home.test: the command \"run it\", run as nobody",
            "List@home.test: the file \"/var/log/mail\", written as nobody",
            "zoe@v.test: the mailbox of zoe, a user of v.test, /var/mail/v.test/zoe",
        ],
    );
    check(
        "Sales@V.test",
        0,
        &[
            "Sales@V.test: an alias for <zoe@v.test> (HOME/aliases.v:1)",
            "zoe@v.test: the mailbox of zoe, a user of v.test, /var/mail/v.test/zoe",
        ],
    );
    check(
        "max@b.test",
        0,
        &[
            "max@b.test: an alias for <ann@home.test> (HOME/aliases:4)",
            "ann@home.test: the mailbox of ann, HOME/mail/ann",
        ],
    );
    check(
        "postmaster@v.test",
        0,
        &[
            "postmaster@v.test: an alias for <postmaster@home.test> (the postmaster of this host)",
            "postmaster@home.test: an alias for <ann@home.test> (HOME/aliases:1)",
            "ann@home.test: the mailbox of ann, HOME/mail/ann",
        ],
    );
    check(
        "gone",
        67,
        &[
            "gone@home.test: an alias for \\<nemo@home.test> (HOME/aliases:5)",
            "nemo@home.test: there is no such user, reported with 5.1.1",
        ],
    );
    check(
        "bob@localhost",
        0,
        &[
            "bob@localhost: given to sendmail it is bob@home.test, since localhost is a name of this \
             host; over SMTP it stays, since localhost is not in [server] domains",
            "bob@localhost: relayed to the mail exchangers of localhost, with TLS where a host offers \
             it, whatever its certificate, else in the clear",
            "bob@home.test: the mailbox of bob, HOME/mail/bob",
        ],
    );
    let text = "loop@home.test: 5.4.6 the alias at HOME/aliases:6 leads only back to itself: name a \
                user or an address elsewhere";
    check("loop", 69, &[text]);
    check("ann@v.test", 67, &["ann@v.test: unknown, refused with 550"]);
}
