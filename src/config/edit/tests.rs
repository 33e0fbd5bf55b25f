//! What the editor does to files as people and Windows write them.

use super::*;
use crate::config::ini::{self, Document};
use crate::config::mistake::Mistakes;
use crate::config::sample;
use proptest::prelude::*;

fn edited(text: &str, edit: impl FnOnce(&mut Editor)) -> String {
    let mut editor = Editor::new(text);
    edit(&mut editor);
    editor.text()
}

fn set(text: &str, section: &str, key: &str, value: &str) -> String {
    edited(text, |editor| editor.set(section, key, value).unwrap())
}

#[test]
fn a_value_is_replaced_where_it_stands() {
    for (before, after) in [
        ("[s]\na = b\n", "[s]\na = x y\n"),
        ("[s]\na=b", "[s]\na=x y"),
        ("# c\n[ s ]\n  a\t=\tb \n;d\n[t]\na = b\n", "# c\n[ s ]\n  a\t=\tx y\n;d\n[t]\na = b\n"),
        ("[t]\r\na = 1\r\n[s]\r\na =\r\nb = c\r\n", "[t]\r\na = 1\r\n[s]\r\na = x y\r\nb = c\r\n"),
        ("\u{feff}[s]\na = b = c\n", "\u{feff}[s]\na = x y\n"),
    ] {
        assert_eq!(set(before, "s", "a", "x y"), after, "{before:?}");
        assert_eq!(set(after, "s", "a", "x y"), after);
    }
}

#[test]
fn a_new_key_comes_where_its_default_is_shown() {
    for (before, after) in [
        ("", "[s]\na = x\n"),
        ("[t]\nb = c", "[t]\nb = c\n\n[s]\na = x\n"),
        ("[t]\r\nb = c\r\n", "[t]\r\nb = c\r\n\r\n[s]\r\na = x\r\n"),
        ("[s]", "[s]\na = x\n"),
        (
            "[s]\n# about b\nb = c\n\n# about t\n[t]\n",
            "[s]\n# about b\nb = c\na = x\n\n# about t\n[t]\n",
        ),
        ("[s]\n;a =\n\n;b =\nb = 1\n", "[s]\n;a =\na = x\n\n;b =\nb = 1\n"),
        (
            "#     [s]\n#     a = b\n[t]\n;a =\n",
            "#     [s]\n#     a = b\n[t]\n;a =\n\n[s]\na = x\n",
        ),
        (
            "[t]\n;[s]\n# it\n;a = 1\n;[u]\n;a = 2\n",
            "[t]\n[s]\n# it\n;a = 1\na = x\n;[u]\n;a = 2\n",
        ),
        ("[t]\n;[s]\n;a = 1\na = 2\n", "[t]\n;[s]\n;a = 1\na = 2\n\n[s]\na = x\n"),
        ("[s]\n;[u]\n;a =\n", "[s]\na = x\n;[u]\n;a =\n"),
    ] {
        assert_eq!(set(before, "s", "a", "x"), after, "{before:?}");
    }
}

#[test]
fn what_is_taken_out_leaves_the_comments() {
    let text = "[r]\na = 1\n[s]\n# one\na = 1\n;b\nb = 2\n[t]\na = 3\n";
    let without = edited(text, |editor| {
        editor.unset("s", "a");
        editor.unset("s", "none");
        editor.unset("none", "a");
    });
    assert_eq!(without, "[r]\na = 1\n[s]\n# one\n;b\nb = 2\n[t]\na = 3\n");
    let without = edited(text, |editor| editor.remove_section("s"));
    assert_eq!(without, "[r]\na = 1\n# one\n;b\n[t]\na = 3\n");
}

#[test]
fn the_shipped_file_is_filled_in_where_it_shows_the_keys() {
    let text = edited(&sample::render(), |editor| {
        editor.set("smarthost", "host", "smtp.example.com:587").unwrap();
        editor.set("rewrite", "sender", "me@example.com").unwrap();
    });
    assert!(text.contains("\n[smarthost]\n") && !text.contains("\n;[smarthost]"));
    assert!(text.contains("\n;host =\nhost = smtp.example.com:587\n"));
    assert!(text.contains("\n;sender =\nsender = me@example.com\n"));
    let settings = crate::config::parse("x", text.as_bytes(), "home.example").unwrap();
    assert_eq!(settings.smarthost.unwrap().hosts.len(), 1);
}

#[test]
fn a_value_that_would_read_back_as_another_is_refused() {
    for value in ["a\nb", " a", "a ", "a\\", "a\u{7}"] {
        assert!(Editor::new("").set("s", "a", value).is_err(), "{value:?}");
    }
}

fn parsed(text: &str) -> Option<Vec<(String, String, String)>> {
    let mut mistakes = Mistakes::default();
    let Document { sections } = ini::read(text.as_bytes(), &mut mistakes);
    let mut all = Vec::new();
    for section in sections {
        for entry in section.entries {
            all.push((section.name.clone(), entry.key, entry.value));
        }
    }
    mistakes.is_empty().then_some(all)
}

proptest! {
    #[test]
    fn what_is_read_afterwards_differs_only_in_what_was_set(
        lines in prop::collection::vec(
            "(\\[[st]\\]|[ab] ?= ?[xy;#]{0,2}|[;#]\\[[stu]\\]|[;#][ab] =|# a = b|;|)\r?\n?", 0..9),
        section in "[stu]", key in "[abc]", value in "[xy=;#\\[]{0,3}",
    ) {
        let text: String = lines.concat();
        let Some(mut expected) = parsed(&text) else { return Ok(()) };
        let is_it = |(s, k, _): &(String, String, String)| *s == section && *k == key;
        let after = set(&text, &section, &key, &value);
        let mut found = parsed(&after);
        expected.retain(|entry| !is_it(entry));
        let before_unset = expected.clone();
        expected.push((section.clone(), key.clone(), value.clone()));
        expected.sort();
        if let Some(found) = &mut found {
            found.sort();
        }
        prop_assert_eq!(found, Some(expected), "{:?} became {:?}", text, after);
        // Each line that was there is there, but for the one that was changed.
        let lines = |text: &str| text.lines().map(|it| it.trim_end().to_owned()).collect::<Vec<_>>();
        let mut rest = lines(&after);
        let lost = lines(&text).into_iter().filter(|it| {
            let at = rest.iter().position(|other| other == it);
            at.map(|at| rest.remove(at)).is_none()
        });
        prop_assert!(lost.count() <= 1, "{:?} became {:?}", text, after);
        prop_assert_eq!(set(&after, &section, &key, &value), after.clone());
        let unset = edited(&after, |editor| editor.unset(&section, &key));
        prop_assert_eq!(parsed(&unset), Some(before_unset));
    }
}
