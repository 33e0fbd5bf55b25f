//! What a person does to the queue, with the server up and down: each command does what it
//! says, says what it does, and never races the server.
#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

#[path = "support/home.rs"]
mod home;
#[path = "support/peer.rs"]
#[expect(dead_code, reason = "peers misbehave in more ways than these tests need")]
mod peer;
#[path = "queue_commands/race.rs"]
mod race;
#[path = "queue_commands/scene.rs"]
mod scene;
#[path = "support/server.rs"]
mod server;
#[path = "support/sessions.rs"]
mod sessions;

use mailwren::spool::progress::State;
use peer::{Answer, Peer, say};
use scene::{RECEIVED, Scene, add_behind_list, deferred, partly_done, wait_for, wait_for_log};

const CONTENT: &str = "Subject: hello\r\n\r\n\x1b[2Jbody\r\n";
const SUE: &str = "<sue@mx.test>";

#[test]
fn an_empty_queue_is_said_to_be_empty() {
    let scene = Scene::without_smarthost();
    for (arguments, expected) in [
        (&["queue"][..], "the queue is empty\n"),
        (&["queue", "list"], "the queue is empty\n"),
        (&["queue", "--json"], "[]\n"),
        (&["queue", "list", "--json"], "[]\n"),
        (&["queue", "list", "--to", "far.test"], "no such message in the queue\n"),
        (&["queue", "hold", "--all", "--json"], "[]\n"),
        (&["queue", "hold", "--all"], "0 messages held\n"),
        (&["sendmail", "-bp"], "Mail queue is empty\n"),
    ] {
        let said = scene.run(arguments);
        assert_eq!((said.code, said.out.as_str()), (0, expected), "{arguments:?} {said:?}");
    }
    assert_eq!(scene.mailq(&[]).out, "Mail queue is empty\n");
    assert_eq!(scene.mailq(&["-v"]).out, "Mail queue is empty\n");
    assert_eq!(scene.mailq(&["--json"]).out, "[]\n");
}

#[test]
fn mailq_looks_as_ever() {
    let scene = Scene::without_smarthost();
    let to = ["zoe@far.test", "ann@mx.test"];
    let first = scene.keep_with(SUE, &to, CONTENT, partly_done);
    let second = scene.keep("<>", &["bob@far.test", "carl@far.test"], &"x".repeat(4000));
    assert_eq!(scene.queue(&["hold", &second]).code, 0);
    let reason = format!("{:>78}", "(450 4.2.1 later)");
    let expected = format!(
        "\
-Queue ID-  --Size-- ----Arrival Time---- -Sender/Recipient-------
{first}     28 Wed Nov 18 11:06:40  sue@mx.test
{reason}
                                          zoe@far.test

{second}!  4000 Wed Nov 18 11:06:40  MAILER-DAEMON
                                          bob@far.test
                                          carl@far.test

-- 3 Kbytes in 2 Requests.
"
    );
    assert_eq!(scene.mailq(&[]).out, expected);
    assert_eq!(scene.run(&["sendmail", "-bp"]).out, expected);
    assert!(scene.mailq(&[&first]).out.ends_with("-- 0 Kbytes in 1 Request.\n"));
}

#[test]
fn the_list_says_who_waits_for_what() {
    let scene = Scene::without_smarthost();
    let to = ["zoe@far.test", "ann@mx.test"];
    let first = scene.keep_with(SUE, &to, CONTENT, partly_done);
    let second = scene.keep("<>", &["bob@far.test"], CONTENT);
    assert_eq!(scene.queue(&["hold", &second]).code, 0);
    let out = scene.queue(&[]).out;
    let lines: Vec<_> = out.lines().collect();
    assert!(lines[0].starts_with("ID  ") && lines[0].ends_with("  SENDER"), "{out}");
    assert!(lines[1].starts_with(&first) && lines[1].ends_with("  28 B  sue@mx.test"), "{out}");
    let deferred = "    deferred  zoe@far.test  next try now  mx.far.test[192.0.2.7]:25 said: \
                    450 4.2.1 later";
    assert_eq!(lines[2..4], [deferred, "    done      ann@mx.test"]);
    assert!(lines[4].starts_with(&second) && lines[4].ends_with("  <>"), "{out}");
    assert!(lines[5].starts_with("    held by root for "), "{out}");
    assert_eq!(lines[6..], ["    held      bob@far.test", "2 messages, 56 B"]);
    let rests = scene.keep_with(SUE, &["eve@far.test"], CONTENT, |it| it.next_try = RECEIVED + 60);
    let rested = scene.queue(&["list", &rests]).out;
    assert!(rested.contains("  not tried yet: its host could not be reached for other mail\n"));
}

#[test]
fn a_command_a_file_and_an_owner_are_named_and_steer_no_terminal() {
    let scene = Scene::without_smarthost();
    let id = scene.keep_with(SUE, &["list@mx.test"], CONTENT, |progress| {
        progress.recipients[0].state = State::Done;
        add_behind_list(progress, "ann@mx.test", "|/bin/x \"a\" \u{202e}b");
        add_behind_list(progress, "ann@mx.test", "/var/log/mail");
        add_behind_list(progress, "ann@mx.test", "\\");
        add_behind_list(progress, "bob@far.test", "");
        progress.warned_owners = "owner-list@mx.test".parse().into_iter().collect();
    });
    let command = r#"ann@mx.test "|/bin/x \"a\" \u{202e}b""#;
    let expected = [
        "done      list@mx.test".to_owned(),
        format!("pending   {command}  from owner-list@mx.test"),
        "pending   ann@mx.test \"/var/log/mail\"  from owner-list@mx.test".to_owned(),
        "pending   \\ann@mx.test  from owner-list@mx.test".to_owned(),
        "pending   bob@far.test  from owner-list@mx.test".to_owned(),
    ];
    let (list, shown) = (scene.queue(&[]).out, scene.queue(&["show", "--envelope", &id]).out);
    for line in &expected {
        assert!(list.lines().any(|it| it == format!("    {line}")), "{line}\n{list}");
        assert!(shown.lines().any(|it| it == format!("recipient   {line}")), "{line}\n{shown}");
    }
    assert!(shown.contains("\ndelay       owner-list@mx.test was told\n"), "{shown}");
    assert!(scene.mailq(&[]).out.contains(&format!(" {command}\n")), "{}", scene.mailq(&[]).out);
    let recipients = &scene.list(&[])[0]["recipients"];
    let of = |place: usize| {
        let field = |name: &str| recipients[place][name].as_str().map(str::to_owned);
        (field("way"), field("sender"))
    };
    let owner = || Some("owner-list@mx.test".to_owned());
    assert_eq!(of(0), (None, None));
    assert_eq!(of(1), (Some("|/bin/x \"a\" \u{202e}b".to_owned()), owner()));
    assert_eq!(of(3), (Some("\\".to_owned()), owner()));
    assert_eq!(of(4), (None, owner()));
}

#[test]
fn what_waits_for_others_says_so() {
    let scene = Scene::without_smarthost();
    // Noted by a clock that was right; what has passed meanwhile has passed.
    let until = RECEIVED + 3600;
    let id = scene.keep_with(SUE, &["zoe@far.test", "ann@far.test"], CONTENT, |progress| {
        deferred(progress);
        progress.recipients[1].gathered_until = Some(until);
    });
    let only = scene.keep_with(SUE, &["zoe@far.test"], CONTENT, |progress| {
        progress.recipients[0].gathered_until = Some(until);
        progress.next_try = until;
    });
    let line = "gathered  ann@far.test  gathered until 2026-11-18T12:06:40+00:00, in ";
    let out = scene.queue(&["list", &id]).out;
    assert!(out.lines().any(|it| it.starts_with(&format!("    {line}"))), "{out}");
    let out = scene.queue(&["show", "--envelope", &id]).out;
    assert!(out.lines().any(|it| it.starts_with(&format!("recipient   {line}"))), "{out}");
    let out = scene.queue(&["show", "--envelope", &only]).out;
    assert!(out.starts_with(&format!("id          {only} (gathered)\n")), "{out}");
    assert!(!out.contains("not tried yet") && !out.contains("next try"), "{out}");
    let list = scene.list(&[]);
    let of = |message: usize, to: usize| {
        let to = &list[message]["recipients"][to];
        (to["state"].as_str().unwrap(), to["gathered_until"].as_u64())
    };
    assert_eq!((of(0, 0), of(0, 1)), (("deferred", None), ("gathered", Some(until))));
    assert_eq!(
        (of(1, 0), list[1]["state"].as_str()),
        (("gathered", Some(until)), Some("gathered"))
    );
    assert_eq!(scene.queue(&["hold", &only]).code, 0);
    assert!(scene.queue(&[]).out.contains("    held      zoe@far.test\n"));
}

#[test]
fn programs_read_the_same() {
    let scene = Scene::without_smarthost();
    let to = ["\"a\\\"\\\\b\"@far.test", "ann@mx.test"];
    let first = scene.keep_with(SUE, &to, CONTENT, partly_done);
    let second = scene.keep("<>", &["bob@far.test"], CONTENT);
    assert_eq!(scene.queue(&["hold", &second]).code, 0);
    let list = scene.list(&[]);
    assert_eq!(list.len(), 2);
    let (one, two) = (&list[0], &list[1]);
    assert_eq!((one["id"].as_str(), one["size"].as_u64()), (Some(first.as_str()), Some(28)));
    assert!(one["age"].as_u64().is_some());
    assert_eq!((one["sender"].as_str(), one["held_by"].as_str()), (Some("sue@mx.test"), None));
    let zoe = &one["recipients"][0];
    assert_eq!(zoe["address"].as_str(), Some(to[0]));
    assert_eq!(
        (zoe["state"].as_str(), zoe["next_try"].as_u64()),
        (Some("deferred"), Some(RECEIVED + 60))
    );
    assert_eq!(zoe["last_reply"].as_str(), Some("450 4.2.1 later"));
    let ann = &one["recipients"][1];
    assert_eq!((ann["state"].as_str(), ann["next_try"].as_u64()), (Some("done"), None));
    assert_eq!((two["state"].as_str(), two["sender"].as_str()), (Some("held"), Some("")));
    assert_eq!(two["held_by"].as_str(), Some("root"));
    let shown = scene.queue(&["show", "--json", &first]);
    let shown: serde_json::Value = serde_json::from_str(&shown.out).unwrap();
    assert_eq!(shown[0]["history"][0]["at"].as_u64(), Some(RECEIVED + 1));
    let done = scene.queue(&["delete", "--json", &first, "0123456789abc"]);
    assert_eq!(done.code, 66);
    let done: serde_json::Value = serde_json::from_str(&done.out).unwrap();
    assert_eq!((done[0]["done"].as_bool(), done[1]["done"].as_bool()), (Some(true), Some(false)));
    assert_eq!(done[1]["problem"].as_str(), Some("is not in the queue"));
}

#[test]
fn a_selection_is_by_id_sender_and_who_is_still_waiting() {
    let scene = Scene::without_smarthost();
    let one = scene.keep_with(SUE, &["zoe@far.test", "ann@near.test"], CONTENT, partly_done);
    let two = scene.keep("<>", &["ZOE@FAR.test", "bob@near.test"], CONTENT);
    let three = scene.keep("<sue@elsewhere.test>", &["carl@sub.far.test"], CONTENT);
    for (arguments, expected) in [
        (&["--all"][..], &[&one, &two, &three][..]),
        (&[&two], &[&two]),
        (&["--to", "far.test"], &[&one, &two]),
        (&["--to", "zoe@far.test"], &[&one, &two]),
        (&["--to", "near.test"], &[&two]),
        (&["--to", "sub.far.test", "--to", "near.test"], &[&two, &three]),
        (&["--from", "sue@mx.test"], &[&one]),
        (&["--from", "<>"], &[&two]),
        (&["--from", "mx.test", "--from", "elsewhere.test"], &[&one, &three]),
        (&["--from", "mx.test", "--to", "near.test"], &[]),
        (&["--to", "far.test", &one], &[&one]),
        (&["--to", "far.test", &three], &[]),
    ] {
        assert_eq!(scene.ids(arguments).iter().collect::<Vec<_>>(), expected, "{arguments:?}");
    }
    let said = scene.queue(&["delete", "--to", "near.test"]);
    assert_eq!((said.code, said.out.as_str()), (0, "1 message deleted\n"));
    assert_eq!(scene.ids(&[]), [one, three]);
}

#[test]
fn what_selects_nothing_is_a_mistake() {
    let scene = Scene::without_smarthost();
    let id = scene.keep(SUE, &["zoe@far.test"], CONTENT);
    for verb in ["retry", "hold", "release", "delete", "bounce"] {
        let said = scene.queue(&[verb]);
        assert_eq!(said.code, 64);
        assert!(said.err.contains("--all, --to DOMAIN or --from ADDRESS"), "{}", said.err);
        let said = scene.queue(&[verb, "0123456789abc"]);
        assert_eq!((said.code, said.err.as_str()), (66, "0123456789abc: is not in the queue\n"));
    }
    for (arguments, code) in [
        (&["show"][..], 64),
        (&["show", "../../etc/passwd"], 64),
        (&["show", "0123456789abc"], 66),
        (&["list", "0123456789abc"], 66),
        (&["hold", "--to", "a b"], 64),
        (&["hold", "--frobnicate"], 64),
        (&["frobnicate"], 64),
    ] {
        assert_eq!(scene.queue(arguments).code, code, "{arguments:?}");
    }
    for arguments in [&["help"][..], &["--help"], &["delete", "--help"]] {
        let said = scene.queue(arguments);
        assert_eq!(said.code, 0);
        assert!(said.out.contains("mailwren queue bounce"), "{}", said.out);
    }
    assert_eq!(scene.ids(&[]), [id]);
}

#[test]
fn a_message_is_shown_with_its_past() {
    let scene = Scene::without_smarthost();
    let id = scene.keep_with(SUE, &["zoe@far.test"], CONTENT, deferred);
    let out = scene.queue(&["show", &id]).out;
    for line in [
        &format!("id          {id} (deferred)"),
        "client      192.0.2.1",
        "size        28 B",
        "sender      sue@mx.test",
        "attempts    1",
        "tried       2026-11-18T11:06:41+00:00  zoe@far.test: 4.2.1 mx.far.test[192.0.2.7]:25 \
         said: 450 4.2.1 later",
    ] {
        assert!(out.lines().any(|shown| shown == line), "{line}\n{out}");
    }
    // A file or a pipe gets the message as it is.
    assert!(out.ends_with(&format!("\n\n{CONTENT}")), "{out}");
    let headers = scene.queue(&["show", "--headers", &id]).out;
    assert!(headers.ends_with("\n\nSubject: hello\r\n"), "{headers}");
    let envelope = scene.queue(&["show", "--envelope", &id]).out;
    assert!(!envelope.contains("Subject") && envelope.contains("zoe@far.test"), "{envelope}");
}

#[test]
fn with_the_server_down_changes_wait_for_it() {
    let peer = Peer::polite();
    let scene = Scene::new(&peer.address().to_string());
    let to = |name: &str| format!("{name}@far.test");
    let keep = |name: &str| scene.keep(SUE, &[&to(name)], &format!("Subject: {name}\r\n\r\n"));
    let [held, released, deleted, bounced, retried] =
        ["held", "released", "deleted", "bounced", "retried"].map(keep);
    for (arguments, expected) in [
        (&["hold", &held, &released, &bounced][..], "3 messages held\n"),
        (&["release", &released], "1 message released; tried when the server runs again\n"),
        (&["delete", &deleted], "1 message deleted\n"),
        (&["bounce", &bounced], "1 message bounced when the server runs again\n"),
        (&["retry", &retried], "1 message tried when the server runs again\n"),
        (
            &["retry", "--all"],
            "4 messages tried when the server runs again, but for what is held\n",
        ),
    ] {
        let said = scene.queue(arguments);
        assert_eq!((said.code, said.out.as_str(), said.err.as_str()), (0, expected, ""));
    }
    assert_eq!(scene.list(&[&bounced])[0]["recipients"][0]["state"].as_str(), Some("bouncing"));
    for (arguments, problem) in [
        (&["hold", &held][..], "is held by root already"),
        (&["retry", &held], "is held by root; release it"),
        (&["release", &retried], "is not held"),
        (&["hold", &bounced], "was given up by root"),
        (&["bounce", &bounced], "was given up by root"),
    ] {
        let said = scene.queue(arguments);
        assert_eq!((said.code, said.err), (65, format!("{}: {problem}\n", arguments[1])));
    }
    for (id, decided) in [
        (&held, &["held"][..]),
        (&released, &["held", "released"]),
        (&deleted, &["deleted"]),
        (&bounced, &["held", "given-up"]),
        (&retried, &[]),
    ] {
        let expected: Vec<_> = decided.iter().map(|it| format!("{it} by=root uid=0")).collect();
        assert_eq!(scene.journal(id), expected, "{decided:?}");
    }
    let server = scene.start();
    wait_for("all but the held one to go", || scene.ids(&[]) == [held.clone()]);
    wait_for("the report", || scene.mail("sue").len() == 1);
    assert_eq!(scene.files("spool/wake"), Vec::<String>::new());
    let log = server.stop();
    // The command has told it, and nobody else does.
    assert!(!log.contains(&format!("{held}: ")), "{log}");
    let contents: Vec<_> = peer.sessions().into_iter().flat_map(|it| it.contents).collect();
    assert_eq!(contents.len(), 2, "{contents:?}");
    let report = &scene.mail("sue")[0];
    assert!(report.contains("bounced@far.test") && report.contains("Status: 5.3.0"), "{report}");
    assert!(report.contains("gave it up"), "{report}");
    assert_eq!(scene.progress(&held).held.unwrap().by, "root");
}

#[test]
fn a_journal_that_cannot_be_written_is_told_of_and_stops_nothing() {
    let scene = Scene::without_smarthost();
    let id = scene.keep(SUE, &["zoe@far.test"], CONTENT);
    let state = scene.home.path().join("state");
    let _ = fs::remove_dir_all(&state);
    fs::write(&state, "").unwrap();
    let said = scene.queue(&["hold", &id]);
    assert_eq!((said.code, said.out.as_str()), (0, "1 message held\n"));
    let begin = format!("warning: {}/events: the journal of events cannot be", state.display());
    assert!(said.err.starts_with(&begin) && said.err.lines().count() == 1, "{}", said.err);
    assert_eq!(scene.queue(&["retry", "--all"]).err, "");
}

#[test]
fn with_the_server_up_changes_work_at_once() {
    let is_open = Arc::new(AtomicBool::new(false));
    let opened = Arc::clone(&is_open);
    let peer = Peer::new(move |_, line| {
        let is_refused = line.starts_with("RCPT") && !opened.load(Ordering::SeqCst);
        if is_refused { say("450 4.2.1 later\r\n") } else { None }
    });
    let scene = Scene::new(&peer.address().to_string());
    let keep = |name: &str| scene.keep(SUE, &[&format!("{name}@far.test")], CONTENT);
    let [held, deleted, bounced, retried, removed] =
        ["held", "deleted", "bounced", "retried", "removed"].map(keep);
    let server = scene.start();
    wait_for_log(&server, ": deferred ", 5);
    let settled = || scene.list(&[]).iter().all(|entry| entry["state"] == "deferred");
    wait_for("all of them to wait", settled);
    for (arguments, expected) in [
        (&["hold", &held][..], "1 message held\n"),
        (&["delete", "--to", "deleted@far.test"], "1 message deleted\n"),
        (&["bounce", &bounced], "1 message bounced\n"),
    ] {
        let said = scene.queue(arguments);
        assert_eq!((said.code, said.out.as_str(), said.err.as_str()), (0, expected, ""));
    }
    wait_for_log(&server, &format!("{held}: held by=root uid=0"), 1);
    wait_for_log(&server, &format!("{deleted}: deleted by=root uid=0"), 1);
    for folder in ["queue", "state"] {
        fs::remove_file(scene.spool().join(folder).join(&removed)).unwrap();
    }
    wait_for("the report", || scene.mail("sue").len() == 1);
    is_open.store(true, Ordering::SeqCst);
    assert_eq!(scene.queue(&["retry", &retried]).out, "1 message tried now\n");
    wait_for_log(&server, &format!("{retried}: relayed "), 1);
    wait_for("only the held one", || scene.ids(&[]) == [held.clone()]);
    assert_eq!(scene.queue(&["retry", &held]).code, 65);
    assert_eq!(scene.queue(&["release", "--all"]).out, "1 message released\n");
    wait_for_log(&server, &format!("{held}: relayed "), 1);
    assert_eq!(scene.queue(&["retry", "--all"]).code, 0);
    wait_for_log(&server, &format!("{removed}: was removed from the queue by hand"), 1);
    scene.wait_until_empty();
    let log = server.stop();
    assert_eq!(log.matches("held by").count(), 1, "{log}");
    assert_eq!(log.matches("by hand").count(), 1, "{log}");
    for (id, decided, next) in [
        (&held, "held by=root uid=0", Some("released by=root uid=0")),
        (&held, "released by=root uid=0", Some("relayed to=<held@far.test>")),
        (&deleted, "deleted by=root uid=0", None),
        (&bounced, "given-up by=root uid=0", Some("bounced to=<bounced@far.test>")),
    ] {
        let told = |what: &str| log.find(&format!("{id}: {what}"));
        assert!(told(decided).is_some(), "{decided}: {log}");
        let journal = scene.journal(id);
        let at = journal.iter().position(|event| event == decided);
        let behind = journal.get(at.unwrap() + 1).map(String::as_str);
        assert_eq!(behind.is_some(), next.is_some(), "{journal:?}");
        if let (Some(behind), Some(next)) = (behind, next) {
            assert!(behind.starts_with(next) && told(decided) < told(next), "{journal:?} {log}");
        }
    }
    assert!(!log.contains("ERROR"), "{log}");
    assert!(!log.contains(&format!("{deleted}: relayed")), "{log}");
}

#[test]
fn a_retry_does_not_wait_for_the_rest_of_a_destination() {
    let is_open = Arc::new(AtomicBool::new(false));
    let opened = Arc::clone(&is_open);
    let peer = Peer::new(move |_, line| {
        let is_closed = line == "connect" && !opened.load(Ordering::SeqCst);
        if is_closed { Some(Answer::SayAndHangUp(b"421 no\r\n".to_vec())) } else { None }
    });
    let scene = Scene::new(&peer.address().to_string());
    let ids = ["one", "two"].map(|name| scene.keep(SUE, &[&format!("{name}@far.test")], CONTENT));
    let server = scene.start();
    wait_for_log(&server, ": deferred ", 1);
    wait_for("both to wait", || ids.iter().all(|id| scene.progress(id).next_try > 0));
    is_open.store(true, Ordering::SeqCst);
    for id in &ids {
        assert_eq!(scene.queue(&["retry", id]).code, 0);
        wait_for_log(&server, &format!("{id}: relayed "), 1);
    }
    scene.wait_until_empty();
    server.stop();
}

#[test]
fn what_waits_behind_a_hanging_peer_can_be_changed_and_what_is_on_its_way_cannot() {
    let peer = Peer::new(|_, line| (line == "DATA").then_some(Answer::Silence));
    let scene = Scene::new(&peer.address().to_string());
    for number in 0..40 {
        scene.keep(SUE, &[&format!("m{number}@far.test")], CONTENT);
    }
    let server = scene.start();
    wait_for("a peer that hangs", || {
        peer.sessions().iter().any(|it| it.commands.contains(&"DATA".to_owned()))
    });
    let said = scene.queue(&["delete", "--all"]);
    assert_eq!(said.code, 75, "{said:?}");
    let busy = said.err.lines().count();
    assert!(
        said.err.lines().all(|line| line.ends_with(": is being delivered right now; try again"))
    );
    // Those of the pool and those in its channel at most.
    assert!((1..=15).contains(&busy), "{busy} {said:?}");
    assert_eq!(said.out, format!("{} messages deleted\n", 40 - busy));
    let left = scene.list(&[]);
    assert_eq!(left.len(), busy);
    assert!(left.iter().all(|entry| entry["state"] == "active"), "{left:?}");
    assert_eq!(scene.mailq(&[]).out.matches("* ").count(), busy);
    drop(server);
}

#[test]
fn root_writes_as_the_spool_s_owner_and_others_are_told_who_may() {
    assert!(rustix::process::geteuid().is_root(), "run this test as root: it changes identities");
    let daemon = mailwren::sys::users::by_name("daemon").unwrap().unwrap();
    let nobody = mailwren::sys::users::by_name("nobody").unwrap().unwrap();
    let scene = Scene::without_smarthost();
    let id = scene.keep(SUE, &["zoe@far.test"], CONTENT);
    fs::set_permissions(scene.home.path(), Permissions::from_mode(0o755)).unwrap();
    for path in ["spool", "spool/queue", "spool/state", "spool/corrupt", "spool/lock"]
        .map(str::to_owned)
        .into_iter()
        .chain([format!("spool/queue/{id}")])
    {
        chown(scene.home.path().join(path), Some(daemon.uid), Some(daemon.gid)).unwrap();
    }
    let _ = fs::remove_dir(scene.spool().join("wake"));
    for arguments in [&["list"][..], &["show", &id], &["hold", "--all"], &["delete", &id]] {
        let said = scene.queue_as(nobody.uid, "", arguments);
        assert_eq!(said.code, 77, "{said:?}");
        assert!(said.err.starts_with("cannot work on the queue in "), "{}", said.err);
        let remedy = ": permission denied; run this as root\n";
        assert!(said.err.ends_with(remedy), "{}", said.err);
    }
    assert_eq!(scene.queue_as(0, "ann", &["hold", &id]).code, 0);
    assert_eq!(scene.progress(&id).held.unwrap().by, "root (ann)");
    assert_eq!(scene.queue_as(daemon.uid, "ann", &["release", &id]).code, 0);
    assert_eq!(scene.queue_as(0, "an\nn", &["hold", &id]).code, 0);
    assert_eq!(scene.progress(&id).held.unwrap().by, "root");
    for path in [format!("spool/state/{id}"), "spool/wake".into(), format!("spool/wake/{id}")] {
        let owner = fs::metadata(scene.home.path().join(&path)).unwrap().uid();
        assert_eq!(owner, daemon.uid, "{path}");
    }
    assert_eq!(scene.queue_as(daemon.uid, "", &["delete", &id]).code, 0);
    assert_eq!(scene.files("spool/queue").len() + scene.files("spool/state").len(), 0);
}
