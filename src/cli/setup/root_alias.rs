//! Where the alias file says that root's mail goes, and the file with something else there: all
//! other lines keep every octet.

use crate::route::aliases::{AliasTable, Key};

/// What the file says of root, in one line; `None` where it says nothing.
///
/// # Errors
/// The first line that cannot be read: its number, and why.
pub(super) fn targets(octets: &[u8]) -> Result<Option<String>, String> {
    let table = AliasTable::parse(octets).map_err(|error| error.to_string())?;
    let alias = table.find(&Key::name("root"));
    Ok(alias.map(|alias| {
        let targets: Vec<_> = alias.targets.iter().map(ToString::to_string).collect();
        targets.join(", ")
    }))
}

/// The file with `root: target`; `None` where it says that already. The file has no mistakes.
pub(super) fn with_root(octets: &[u8], target: &str) -> Option<Vec<u8>> {
    let table = AliasTable::parse(octets).ok()?;
    let line = |ending: &[u8]| [b"root: ", target.as_bytes(), ending].concat();
    let ending: &[u8] = if octets.contains(&b'\r') { b"\r\n" } else { b"\n" };
    let Some(alias) = table.find(&Key::name("root")) else {
        let is_open = !octets.is_empty() && !octets.ends_with(b"\n");
        let gap: &[u8] = if is_open { ending } else { b"" };
        return Some([octets, gap, &line(ending)].concat());
    };
    if alias.targets.iter().map(ToString::to_string).collect::<Vec<_>>() == [target] {
        return None;
    }
    let mut changed = Vec::with_capacity(octets.len() + target.len());
    let mut is_root = false;
    for (at, text) in octets.split_inclusive(|&octet| octet == b'\n').enumerate() {
        let is_continued = text.starts_with(b" ") || text.starts_with(b"\t");
        let is_mute = text.trim_ascii().is_empty() || text.trim_ascii().starts_with(b"#");
        if at + 1 == alias.line {
            is_root = true;
            changed.extend(line(ending));
        } else if is_root && is_continued && !is_mute {
            // The rest of what it said.
        } else {
            is_root &= is_mute;
            changed.extend(text);
        }
    }
    Some(changed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn changed(text: &str, target: &str) -> Option<String> {
        with_root(text.as_bytes(), target).map(|octets| String::from_utf8(octets).unwrap())
    }

    #[test]
    fn only_the_lines_of_root_change() {
        for (before, after) in [
            ("", "root: me@x.test\n"),
            ("a: b", "a: b\nroot: me@x.test\n"),
            ("a: b\r\n", "a: b\r\nroot: me@x.test\r\n"),
            ("# c\nROOT : ann\nb: c\n", "# c\nroot: me@x.test\nb: c\n"),
            (
                "root: ann,\n  bob,\n# c\n\n  carl\n# d\nb: c,\n  d\n",
                "root: me@x.test\n# c\n\n# d\nb: c,\n  d\n",
            ),
            ("#root: ann\n\"root\": |cmd", "#root: ann\nroot: me@x.test\n"),
            ("root: a\nroot: b\n", "root: me@x.test\nroot: b\n"),
            ("root@x.test: a\n", "root@x.test: a\nroot: me@x.test\n"),
        ] {
            assert_eq!(changed(before, "me@x.test").as_deref(), Some(after), "{before:?}");
            assert_eq!(changed(after, "me@x.test"), None);
        }
        assert_eq!(targets(b"Root: a,\n b@x.test").unwrap().as_deref(), Some("a, b@x.test"));
        assert!(targets(b"a: b\nroot").unwrap_err().starts_with("line 2: "));
    }

    proptest! {
        #[test]
        fn all_others_are_what_they_were(
            lines in prop::collection::vec("((root|ROOT|a|b) ?: [a-c](, [a-c])?|  [a-c]|# c|)\r?\n?", 0..8),
        ) {
            let text = lines.concat();
            let Ok(before) = AliasTable::parse(text.as_bytes()) else { return Ok(()) };
            let Some(after) = with_root(text.as_bytes(), "me@x.test") else { return Ok(()) };
            let after = AliasTable::parse(&after).unwrap();
            let root = Key::name("root");
            prop_assert_eq!(after.find(&root).unwrap().targets.len(), 1);
            for (key, alias) in before.entries() {
                if *key != root {
                    prop_assert_eq!(&after.find(key).unwrap().targets, &alias.targets);
                }
            }
        }
    }
}
