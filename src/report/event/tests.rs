//! What is written reads back, and nothing else is read.

use super::*;
use proptest::prelude::*;

fn read(text: &str) -> Option<Event> {
    Event::parse(text)
}

#[test]
fn a_line_reads_back() {
    let id = QueueId::with_number(77);
    let fields = Fields::default()
        .with("to", "<bob@far.example>")
        .with("took", "12ms")
        .with_text("reply", "250 \"ok\" it's \\ in\r\n\u{1b}[1m \u{202e}");
    let line = line(1_795_319_212, Some(id), Station::Relayed, &fields);
    let event = read(&line).unwrap();
    assert_eq!((event.at, event.id, event.station), (1_795_319_212, Some(id), Station::Relayed));
    assert_eq!(event.field("reply"), Some("250 \"ok\" it's \\ in\r\n\u{1b}[1m \u{202e}"));
    assert_eq!(event.addresses("to"), ["bob@far.example"]);
    assert_eq!(event.text(), fields.to_string());
    assert!(line.is_ascii() && !event.was_clock_unset() && event.day().starts_with("2026-11-2"));
}

#[test]
fn an_address_with_quotes_forges_no_field() {
    let hostile = r#"<"a> to=<eve@x> \" in=0000000000001"@far.example>"#;
    let fields = Fields::default().with_list("to", [hostile.to_owned()].into_iter());
    let event = read(&line(0, None, Station::Received, &fields)).unwrap();
    assert_eq!(event.fields().len(), 1);
    assert_eq!(event.link(), None);
    assert_eq!(event.addresses("to"), [hostile.trim_start_matches('<').trim_end_matches('>')]);
    assert!(event.was_clock_unset());
}

#[test]
fn what_is_no_line_is_not_read() {
    let good = "2026-11-22T03:46:52+01:00 0000000000001 received to=<a@b>";
    assert!(read(good).is_some());
    for text in [
        "",
        "2026-11-22T03:46:52+01:00",
        "2026-11-22T03:46:52+01:00 - started",
        "2026-11-22T03:46:52 - started pid=1",
        "2026-11-22T03:46:52+01:00 - exploded pid=1",
        "2026-11-22T03:46:52+01:00 000 started pid=1",
        "2026-11-22T03:46:52+01:00 - started pid",
        "2026-11-22T03:46:52+01:00 - started pid=",
        "2026-11-22T03:46:52+01:00 - started pid=1 ",
        "2026-11-22T03:46:52+01:00 - started  pid=1",
        "2026-11-22T03:46:52+01:00 - started pid=\"1",
        "2026-11-22T03:46:52+01:00 - started pid=\"\\x\"",
        "2026-11-22T03:46:52+01:00 - started pid=\"1\"2",
        "2026-11-22T03:46:52+01:00 - started pid=\"\u{1b}[2J\"",
        "2026-11-22T03:46:52+01:00 - started pid=\"\u{202e}\"",
        "2026-11-22T03:46:52+01:00 - started pid=\0\0\0",
        "2026-99-22T03:46:52+01:00 - started pid=1",
    ] {
        assert_eq!(read(text), None, "{text:?}");
    }
    for end in 0..good.len() - "to=<a@b>".len() {
        assert_eq!(read(&good[..end]), None);
    }
}

#[test]
fn a_list_is_cut_with_a_count() {
    let list = |count, length| {
        let items = (0..count).map(|n| format!("<{n}{}@x>", "y".repeat(length)));
        let fields = Fields::default().with_list("to", items.collect::<Vec<_>>().into_iter());
        read(&line(0, None, Station::Received, &fields)).unwrap()
    };
    assert_eq!(list(3, 0).field("to"), Some("<0@x>,<1@x>,<2@x>"));
    assert!(list(12, 0).field("to").unwrap().ends_with("<9@x>,+2"));
    assert_eq!(list(12, 310).addresses("to").len(), 3);
    assert!(list(12, 310).field("to").unwrap().ends_with(",+9"));
    assert_eq!(list(1, 5000).field("to"), Some("+1"));
}

proptest! {
    #[test]
    fn any_line_reads_back(
        // West of Greenwich there is no first day of 1970.
        seconds in 86_400u64..250_000_000_000,
        number in any::<Option<u64>>(),
        station in 0..Station::NAMES.len(),
        texts in prop::collection::vec(any::<String>(), 0..6),
        word in any::<String>(),
    ) {
        let (id, station) = (number.map(QueueId::with_number), Station::NAMES[station].0);
        let mut fields = Fields::default().with("word", &word);
        for text in &texts {
            fields = fields.with_text("text", text);
        }
        let line = line(seconds, id, station, &fields);
        prop_assert!(line.len() < MAX_LINE && !line.contains(['\n', '\r']));
        let event = read(&line).expect("it reads back");
        prop_assert_eq!((event.at, event.id, event.station), (seconds, id, station));
        let values: Vec<_> = event.fields().iter().map(|(_, value)| value).collect();
        prop_assert_eq!(values, [&word].into_iter().chain(&texts).collect::<Vec<_>>());
    }

}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn long_values_are_cut_and_the_line_still_reads(text in "(\u{1b}|\"|a|\u{e9}){0,3000}") {
        let fields = (0..7).fold(Fields::default(), |fields, _| fields.with("text", &text));
        let line = line(0, None, Station::Started, &fields);
        prop_assert!(line.len() < MAX_LINE);
        let event = read(&line).expect("it reads");
        prop_assert!(text.starts_with(event.field("text").expect("it is there")));
    }
}

proptest! {
    #[test]
    fn nothing_that_is_read_steers_a_terminal(line in any::<String>()) {
        let hostile = format!("2026-11-22T03:46:52+01:00 - started {line}");
        if let Some(event) = read(&hostile) {
            prop_assert!(!event.text().chars().any(char::is_control));
        }
    }
}
