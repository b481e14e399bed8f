use super::*;

fn wanted(name: &str, held: Option<&str>) -> Wanted {
    Wanted { name: name.to_owned(), held: held.map(str::to_owned) }
}

fn file(path: &str, content: &[u8]) -> wire::File {
    wire::File { path: path.to_owned(), content: content.to_vec(), mode: 0 }
}

fn of(files: Vec<wire::File>, keep: &[&str]) -> wire::Files {
    let keep = keep.iter().map(|path| (*path).to_owned()).collect();
    wire::Files { digest: "d".to_owned(), files, keep, refresh_after_seconds: 60 }
}

fn response(outcome: Option<WireOutcome>) -> wire::FetchResponse {
    let answers = vec![wire::Answer { name: "a".to_owned(), outcome }];
    wire::FetchResponse { answers, authorities: String::new() }
}

fn refused(files: wire::Files) -> Option<&'static str> {
    let taken = from_wire(&[wanted("a", None)], response(Some(WireOutcome::Files(files))));
    taken.err().map(|malformed| malformed.0)
}

#[test]
fn answers_come_back_as_they_went() {
    let path = |text| FilePath::parse(text).unwrap();
    let answers = vec![
        Answer {
            name: "a".to_owned(),
            outcome: Outcome::Files(Files {
                digest: "d".to_owned(),
                files: vec![
                    File { path: path("KEY"), content: Content::new(b"v".to_vec()), mode: None },
                    File { path: path("x/.env"), content: Content::new(Vec::new()), mode: Some(0o600) },
                ],
                keep: vec![path("BAD")],
                refresh_after: Duration::from_mins(1),
            }),
        },
        Answer {
            name: "b".to_owned(),
            outcome: Outcome::Unchanged { refresh_after: Duration::from_secs(5) },
        },
        Answer {
            name: "c".to_owned(),
            outcome: Outcome::Refused(Refused { reason: Reason::NotAllowed, message: "why".to_owned() }),
        },
    ];
    let asked = [wanted("a", None), wanted("b", Some("d")), wanted("c", None)];
    let back = from_wire(&asked, to_wire(Fetched { answers, authorities: None })).unwrap();
    assert!(back.authorities.is_none());
    let back = back.answers;
    let Outcome::Files(files) = &back[0].outcome else { panic!("no files") };
    assert_eq!(files.files[0].content.expose(), b"v");
    assert_eq!((files.files[1].mode, files.files[1].path.as_str()), (Some(0o600), "x/.env"));
    assert!(files.files[1].content.is_empty());
    assert_eq!(files.keep, [path("BAD")]);
    assert_eq!(files.refresh_after, Duration::from_mins(1));
    assert!(matches!(back[1].outcome, Outcome::Unchanged { refresh_after } if refresh_after.as_secs() == 5));
    assert!(
        matches!(&back[2].outcome, Outcome::Refused(refused) if refused.reason == Reason::NotAllowed && refused.message == "why")
    );
}

#[test]
fn an_operator_that_breaks_the_contract_is_not_believed() {
    let path = "a path that leads elsewhere";
    assert_eq!(refused(of(vec![file("KEY", b"v")], &["BAD"])), None);
    assert_eq!(refused(of(vec![file("../KEY", b"v")], &[])), Some(path));
    assert_eq!(refused(of(vec![file("/KEY", b"v")], &[])), Some(path));
    assert_eq!(refused(of(vec![file("..data", b"v")], &[])), Some(path));
    assert_eq!(refused(of(vec![], &["../../x"])), Some(path));
    assert_eq!(refused(of(vec![file("K", b""), file("K", b"")], &[])), Some("a path twice"));
    assert_eq!(refused(of(vec![file("K", b"")], &["K"])), Some("a path twice"));
    let folder = Some("a file that is a folder as well");
    assert_eq!(refused(of(vec![file("a", b""), file("a.b", b""), file("a/b", b"")], &[])), folder);
    assert_eq!(refused(of(vec![file("a/b/c", b"")], &["a"])), folder);
    assert_eq!(refused(of(vec![file("K", &vec![0; MAX_CONTENT + 1])], &[])), Some("too much content"));
    assert_eq!(refused(of(vec![file("K", &vec![0; MAX_CONTENT])], &[])), None);
    let many = (0..=MAX_FILES).map(|n| file(&format!("K{n}"), b"")).collect();
    assert_eq!(refused(of(many, &[])), Some("too many files"));
    let mut mode = file("K", b"");
    mode.mode = 0o4755;
    assert_eq!(refused(of(vec![mode], &[])), Some("a mode beyond permission bits"));
    assert_eq!(
        refused(wire::Files { digest: String::new(), ..of(vec![], &[]) }),
        Some("a digest that is none")
    );
}

#[test]
fn answers_to_something_else_are_refused() {
    let unchanged = || Some(WireOutcome::Unchanged(wire::Unchanged { refresh_after_seconds: 1 }));
    assert!(from_wire(&[wanted("a", Some("d"))], response(unchanged())).is_ok());
    assert!(from_wire(&[wanted("a", None)], response(unchanged())).is_err(), "unchanged, of nothing");
    assert!(from_wire(&[wanted("b", Some("d"))], response(unchanged())).is_err(), "another name");
    assert!(
        from_wire(&[wanted("a", Some("d")), wanted("b", None)], response(unchanged())).is_err(),
        "one missing"
    );
    assert!(from_wire(&[wanted("a", None)], response(None)).is_err(), "no outcome");
}

#[test]
fn a_reason_of_a_later_version_is_worth_another_try() {
    assert_eq!(Reason::from_wire(4711), Reason::Unavailable);
    for number in 1..=9 {
        assert_eq!(i32::from(Reason::from_wire(number).to_wire()), number);
    }
}

#[test]
fn messages_are_cut_and_cannot_break_a_line() {
    let text = shortened(&format!("a\n\u{1b}[31m{}", "ä".repeat(MAX_MESSAGE)));
    assert!(text.len() <= MAX_MESSAGE && text.ends_with('…') && text.starts_with("a  [31m"), "{text}");
}

#[test]
fn authorities_that_are_none_break_the_contract() {
    let mut response = response(Some(WireOutcome::Unchanged(wire::Unchanged::default())));
    response.authorities = "nobody".to_owned();
    assert!(from_wire(&[wanted("a", Some("d"))], response).is_err());
}
