use super::*;

fn one(text: &str) -> Node {
    let mut documents = parse(text).expect("YAML");
    assert_eq!(documents.len(), 1);
    documents.remove(0)
}

#[test]
fn spans_are_the_bytes_of_the_node() {
    for (text, key, value) in [
        ("a: b # c\n", "a", "b"),
        ("é: 'ö ö' # c\n", "é", "'ö ö'"),
        ("\"a\":   \"b\"\r\nc: d\r\n", "\"a\"", "\"b\""),
        ("a: !!str b\n", "a", "b"),
        ("a: &x b\n", "a", "b"),
        ("{a: b, c: d}\n", "a", "b"),
        ("\u{feff}a: b\n", "a", "b"),
        ("a: sealed:v1:QUJD+/==\n", "a", "sealed:v1:QUJD+/=="),
    ] {
        let node = one(text);
        let entry = &node.entries()[0];
        assert_eq!(&text[entry.key_span.clone()], key, "{text:?}");
        assert_eq!(&text[entry.value.span.clone()], value, "{text:?}");
        assert_eq!(entry.line, 1);
    }
}

#[test]
fn a_block_scalar_spans_its_lines_and_nothing_spans_nothing() {
    let text = "a: >-\n  b\n  c\nd:\ne: {f: [g, h]}\n";
    let node = one(text);
    let spans: Vec<(&str, bool)> =
        node.entries().iter().map(|e| (&text[e.value.span.clone()], e.value.block)).collect();
    assert_eq!(spans, [("b\n  c\n", true), ("", false), ("{f: [g, h]}", false)]);
    assert_eq!(node.get("a").and_then(Node::text), Some("b c"));
    assert!(node.get("d").is_some_and(Node::is_null));
}

#[test]
fn empty_documents_are_left_out_and_lines_count_through_the_stream() {
    let documents = parse("---\n---\na: b\n---\n# nothing\n---\nc: d\n...\n").expect("YAML");
    let lines: Vec<usize> = documents.iter().map(|document| document.line).collect();
    assert_eq!(lines, [3, 7]);
    assert!(parse("").expect("YAML").is_empty());
}

#[test]
fn what_is_wrong_is_said_with_its_line_and_without_its_text() {
    for (text, line) in [
        ("a: 1\nb: *hunter2\n", 2),
        ("a: 1\nb: @hunter2\n", 2),
        ("a: 1\nb: !hunter2!x y\n", 2),
        ("a: 1\nb: [hunter2", 2),
        ("a: 1\nb: \"hunter2", 2),
        ("a: b\na: hunter2\n", 2),
        ("[hunter2]: b\n", 1),
        ("a: &hunter2 [*hunter2]\n", 1),
        ("a: \"\\hunter2\"\n", 1),
    ] {
        let error = parse(text).err().unwrap_or_else(|| panic!("accepted {text:?}"));
        assert_eq!(error.line(), line, "{text:?}: {error}");
        assert!(!format!("{error} {error:?}").contains("hunter2"), "{text:?}: {error}");
        assert!(!error.to_string().contains('@'), "{error}");
    }
}

#[test]
fn aliases_and_nesting_are_bounded() {
    let mut laughs = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..20 {
        let below = level - 1;
        let ten = vec![format!("*a{below}"); 10].join(",");
        laughs = format!("{laughs}a{level}: &a{level} [{ten}]\n");
    }
    assert!(matches!(parse(&laughs), Err(YamlError::TooLarge { .. })));
    let deep = "[".repeat(200) + &"]".repeat(200);
    assert!(matches!(parse(&deep), Err(YamlError::TooLarge { .. })));
    let mut tower = format!("a0: &a0 {}x{}\n", "[".repeat(60), "]".repeat(60));
    for level in 1..40 {
        let (open, close) = ("[".repeat(60), "]".repeat(60));
        tower = format!("{tower}a{level}: &a{level} {open}*a{}{close}\n", level - 1);
    }
    assert!(matches!(parse(&tower), Err(YamlError::TooLarge { .. })));
    let fine = one("a: &a {x: y}\nb: *a\n");
    assert!(fine.get("a").expect("a").means(fine.get("b").expect("b")));
}

#[test]
fn text_is_told_from_what_only_looks_like_it() {
    let node = one("a: yes\nb: 'yes'\nc: !!str yes\nd: 1\ne: |\n  1\nf: ~\n");
    let texts: Vec<Option<&str>> = node.entries().iter().map(|entry| entry.value.text()).collect();
    assert_eq!(texts, [None, Some("yes"), Some("yes"), None, Some("1\n"), None]);
    assert_eq!(
        node.to_json(),
        serde_json::json!({"a": true, "b": "yes", "c": "yes", "d": 1, "e": "1\n", "f": null})
    );
}
