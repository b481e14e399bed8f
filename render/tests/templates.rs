//! Templates: what they can do, what they cannot, and that nothing of them comes out in an error.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "in tests they are the report of a failure"
)]

use std::collections::BTreeMap;
use std::error::Error as _;

use proptest::prelude::*;
use sealedenv_crds::{RenderedFile, SealedEnvSpec};
use sealedenv_render::{Fault, MAX_FILE, MAX_TEMPLATE, Values, check, render};
use sealedenv_seal::Plain;

/// Stands in every value, and in every template that is to fail.
const CANARY: &str = "hunter2canary";

fn template(text: &str) -> RenderedFile {
    RenderedFile { template: Some(text.to_owned()), ..RenderedFile::default() }
}

fn with(text: &str, keys: &[(&str, Option<&[u8]>)]) -> Result<String, Fault> {
    let plains: Vec<_> =
        keys.iter().map(|(key, value)| (*key, value.map(|v| Plain::from(v.to_vec())))).collect();
    let values = Values::new(plains.iter().map(|(key, value)| (*key, value.as_ref())));
    render(&template(text), &values).map(|plain| String::from_utf8(plain.expose().to_vec()).expect("UTF-8"))
}

/// With keys of several kinds.
fn made(text: &str) -> Result<String, Fault> {
    with(
        text,
        &[
            ("USER", Some(b"app")),
            ("PASSWORD", Some(b"p@ss 'w\"rd/\n")),
            ("EMPTY", Some(b"")),
            ("tls.crt", Some(b"-----BEGIN-----\n")),
            ("BINARY", Some(b"\xff\x00hunter2canary")),
            ("CLOSED", None),
        ],
    )
}

/// The same, as it is known without any value.
fn checked(text: &str) -> Option<Fault> {
    let spec = spec(&["USER", "PASSWORD", "EMPTY", "tls.crt", "BINARY", "CLOSED"], text);
    check(&spec).pop().map(|problem| problem.fault)
}

fn spec(keys: &[&str], text: &str) -> SealedEnvSpec {
    SealedEnvSpec {
        data: keys.iter().map(|key| ((*key).to_owned(), String::new())).collect(),
        files: BTreeMap::from([("file".to_owned(), template(text))]),
        ..SealedEnvSpec::default()
    }
}

#[test]
fn a_template_makes_the_text_that_it_says() {
    for (text, wanted) in [
        ("", ""),
        ("no tag\n\n", "no tag\n\n"),
        ("{{ USER }}", "app"),
        ("{{ keys.USER }}{{ keys['tls.crt'] }}", "app-----BEGIN-----\n"),
        ("{{ keys[\"tls.crt\"]|trim }}", "-----BEGIN-----"),
        ("a{# a comment #}b", "ab"),
        ("{% raw %}{{ USER }}{% endraw %}", "{{ USER }}"),
        ("{% if EMPTY %}a{% elif USER == 'app' %}b{% else %}c{% endif %}", "b"),
        ("{% if USER and not EMPTY %}\nyes\n{% endif %}\n", "yes\n"),
        ("{{ 'a' if EMPTY else 'b' }}", "b"),
        ("{% if 'X' in keys %}a{% endif %}{% if 'USER' in keys %}b{% endif %}", "b"),
        (
            "{% for name in ['USER', 'EMPTY'] %}\n  {{ loop.index }} {{ name }}={{ keys[name] }}{{ '' if loop.last else ',' }}\n{% endfor %}",
            "  1 USER=app,\n  2 EMPTY=\n",
        ),
        ("{% for name in keys if name == 'tls.crt' %}{{ name }}{% endfor %}", "tls.crt"),
        ("{% for name in [] %}a{% else %}none{% endfor %}", "none"),
        ("{% set pair = USER ~ ':' ~ EMPTY %}{{ pair|b64encode }}", "YXBwOg=="),
        ("{{ (USER ~ ':')|b64encode }}{{ USER|append(':', 1)|b64encode }}", "YXBwOg==YXBwOjE="),
        ("{{ BINARY|b64encode }}", "/wBodW50ZXIyY2FuYXJ5"),
        ("{% if BINARY %}there{% endif %}", "there"),
        ("{{ PASSWORD|json }}", "\"p@ss 'w\\\"rd/\\n\""),
        ("{{ PASSWORD|yaml }}", "\"p@ss 'w\\\"rd/\\n\""),
        ("{{ PASSWORD|dotenv }}", "\"p@ss 'w\\\"rd/\\n\""),
        ("{{ PASSWORD|shell }}", "'p@ss '\\''w\"rd/\n'"),
        ("{{ PASSWORD|properties }}", "p@ss 'w\"rd/\\n"),
        ("{{ PASSWORD|urlencode }}", "p%40ss%20%27w%22rd%2F%0A"),
        ("{{ '<&>' }}{{ \"'\" }}", "<&>'"),
        ("windows\r\n{{ USER }}\r\n", "windows\r\napp\r\n"),
    ] {
        assert_eq!(made(text).as_deref(), Ok(wanted), "{text}");
        assert_eq!(checked(text), None, "{text}");
    }
}

/// Each is refused with this reason in this line, when it is made; and without a value as well, where that can be known.
#[test]
fn what_a_template_cannot_do_is_refused_by_line_and_never_repeated() {
    let when_checked = [
        ("{{", "TemplateSyntax", Some(1)),
        ("\n{{ hunter2canary hunter2canary }}", "TemplateSyntax", Some(2)),
        ("{{ 'hunter2canary }}", "TemplateSyntax", Some(1)),
        ("{{ 'hunter2canary\\u12' }}", "TemplateSyntax", Some(1)),
        ("{% if USER %}hunter2canary", "TemplateSyntax", Some(1)),
        ("{% endif %}", "TemplateSyntax", Some(1)),
        ("{{ hunter2canary }}", "UnknownKey", Some(1)),
        ("\n\n{{ USER ~ hunter2canary }}", "UnknownKey", Some(3)),
        ("{{ keys['hunter2canary'] }}", "UnknownKey", Some(1)),
        ("{{ keys.hunter2canary }}", "UnknownKey", Some(1)),
        ("{% if hunter2canary %}{% endif %}", "UnknownKey", Some(1)),
        ("{% for a in ['x'] %}{{ hunter2canary }}{% endfor %}", "UnknownKey", Some(1)),
        ("{% include 'hunter2canary' %}", "TemplateUnsupported", Some(1)),
        ("{% import 'hunter2canary' as x %}", "TemplateUnsupported", Some(1)),
        ("{% extends 'hunter2canary' %}", "TemplateUnsupported", Some(1)),
        ("{% block hunter2canary %}{% endblock %}", "TemplateUnsupported", Some(1)),
        ("{% macro hunter2canary() %}{% endmacro %}", "TemplateUnsupported", Some(1)),
        ("{% do hunter2canary() %}", "TemplateUnsupported", Some(1)),
        ("{% with a = USER %}{% endwith %}", "TemplateUnsupported", Some(1)),
        ("{% filter json %}{% endfilter %}", "TemplateUnsupported", Some(1)),
        ("{% autoescape true %}{% endautoescape %}", "TemplateUnsupported", Some(1)),
        ("{% set x %}a{% endset %}", "TemplateUnsupported", Some(1)),
        ("\n{{ range(9) }}", "TemplateUnsupported", Some(2)),
        ("{{ env('HOME') }}", "TemplateUnsupported", Some(1)),
        ("{{ USER.hunter2canary() }}", "TemplateUnsupported", Some(1)),
        ("{{ USER.hunter2canary }}", "TemplateUnsupported", Some(1)),
        ("{{ USER[0] }}", "TemplateUnsupported", Some(1)),
        ("{{ USER[1:] }}", "TemplateUnsupported", Some(1)),
        ("{{ USER|hunter2canary }}", "TemplateUnsupported", Some(1)),
        ("{{ USER|json(1) }}", "TemplateUnsupported", Some(1)),
        ("{{ USER|append }}", "TemplateUnsupported", Some(1)),
        ("{{ USER|append(*keys) }}", "TemplateUnsupported", Some(1)),
        ("{{ USER is hunter2canary }}", "TemplateUnsupported", Some(1)),
        ("{{ USER * 1000000000 }}", "TemplateUnsupported", Some(1)),
        ("{{ 9 ** 9 }}", "TemplateUnsupported", Some(1)),
        ("{{ -1 }}", "TemplateUnsupported", Some(1)),
        ("{{ [USER] }}", "TemplateUnsupported", Some(1)),
        ("{{ [1, 2] }}", "TemplateUnsupported", Some(1)),
        ("{{ {'a': USER} }}", "TemplateUnsupported", Some(1)),
        ("{{ (USER, USER) }}", "TemplateUnsupported", Some(1)),
        ("{{ keys }}", "TemplateUnsupported", Some(1)),
        ("{{ keys|json }}", "TemplateUnsupported", Some(1)),
        ("{{ keys == keys }}", "TemplateUnsupported", Some(1)),
        ("{{ loop.index }}", "TemplateUnsupported", Some(1)),
        ("{% for a in keys %}{{ loop }}{% endfor %}", "TemplateUnsupported", Some(1)),
        ("{% for a in keys %}{{ loop.cycle }}{% endfor %}", "TemplateUnsupported", Some(1)),
        ("{% for a in keys recursive %}{% endfor %}", "TemplateUnsupported", Some(1)),
        ("{% for a in USER %}{% endfor %}", "TemplateUnsupported", Some(1)),
        ("{% for a, b in keys %}{% endfor %}", "TemplateUnsupported", Some(1)),
        ("{% set keys = USER %}", "TemplateUnsupported", Some(1)),
        ("{% for a in [[1]] %}{% endfor %}", "TemplateUnsupported", Some(1)),
        ("{{ 'a' if USER }}", "TemplateUnsupported", Some(1)),
        ("{% if 'hunter2canary' in USER %}{% endif %}", "TemplateUnsupported", Some(1)),
        ("{{ 'a' if USER == PASSWORD else 'b' }}", "TemplateUnsupported", Some(1)),
        ("{{ 'a' if 'a' < USER < 'b' else 'b' }}", "TemplateUnsupported", Some(1)),
    ];
    let when_made = [
        ("\n{{ CLOSED }}", "KeyNotOpened", None),
        ("{% for name in keys %}{{ keys[name] ~ 'hunter2canary' }}{% endfor %}", "KeyNotOpened", None),
        ("{{ BINARY }}", "NotText", Some(1)),
        ("\n{{ BINARY|json }}", "NotText", Some(2)),
        ("\n{{ USER|append(BINARY) }}", "NotText", Some(2)),
        ("{{ BINARY ~ 'hunter2canary' }}", "NotText", None),
        ("{{ none }}", "NotText", Some(1)),
        ("\n{{ keys[USER] }}", "UnknownKey", Some(2)),
        ("{% if keys[USER] %}{% endif %}", "UnknownKey", Some(1)),
        ("{{ keys[USER] == 'hunter2canary' }}", "UnknownKey", Some(1)),
        ("{% if EMPTY %}{% set a = USER %}{% endif %}{{ a }}", "UnknownKey", Some(1)),
    ];
    for (text, reason, line) in when_checked {
        let fault = checked(text).unwrap_or_else(|| panic!("taken: {text}"));
        assert_eq!((fault.reason(), fault.line()), (reason, line), "{text}: {fault}");
        assert_eq!(made(text), Err(fault), "{text}");
    }
    for (text, reason, line) in when_made {
        assert_eq!(checked(text), None, "{text}");
        let fault = made(text).expect_err(text);
        assert_eq!((fault.reason(), fault.line()), (reason, line), "{text}: {fault}");
    }
    for (text, ..) in when_checked.iter().chain(&when_made) {
        let fault = made(text).expect_err(text);
        for said in [fault.to_string(), format!("{fault:?}"), format!("{fault:#?}")] {
            assert!(!said.contains(CANARY), "{text}: {said}");
        }
        assert!(fault.source().is_none(), "{text}: a chain leads to the engine's own words");
    }
}

#[test]
fn a_key_that_does_not_open_spoils_only_what_needs_it() {
    assert_eq!(made("{{ CLOSED }}").unwrap_err().to_string(), "needs CLOSED, which does not open");
    assert_eq!(made("{% if EMPTY %}{{ CLOSED }}{% endif %}{{ USER }}").as_deref(), Ok("app"));
    assert_eq!(made("{% if 'CLOSED' in keys %}{{ USER }}{% endif %}").as_deref(), Ok("app"));
    assert_eq!(
        made("{% for name in keys %}{{ name }} {% endfor %}").as_deref(),
        Ok("BINARY CLOSED EMPTY PASSWORD USER tls.crt ")
    );
}

#[test]
fn work_and_output_are_bounded() {
    let value = vec![b'x'; 600 << 10];
    let with_value = |text: &str| with(text, &[("A", Some(&value))]);
    assert_eq!(with_value("{{ A }}{{ A }}").unwrap_err(), Fault::TooLarge);
    assert_eq!(with_value("{{ A }}").map(|text| text.len()), Ok(value.len()));
    let doubling = "{% set a = a ~ a %}".repeat(40);
    let nested = "{% for a in keys %}".repeat(16) + &"{% endfor %}".repeat(16);
    let keys: Vec<_> = (0..9).map(|n| (format!("K{n}"), Some(b"v".as_slice()))).collect();
    let keys: Vec<_> = keys.iter().map(|(name, value)| (name.as_str(), *value)).collect();
    for (text, keys) in [
        (format!("{{% set a = A %}}{doubling}"), &[("A", Some(value.as_slice()))][..]),
        (format!("{{% set a = 'x' %}}{doubling}"), &keys),
        (nested, &keys),
    ] {
        assert_eq!(with(&text, keys).unwrap_err(), Fault::TooMuchWork);
    }
    let longest = format!("{{{{ A }}}}{}", "x".repeat(MAX_TEMPLATE - 7));
    assert!(with(&longest, &[("A", Some(b"v"))]).is_ok());
    assert_eq!(with(&(longest + "x"), &[("A", Some(b"v"))]).unwrap_err(), Fault::LongTemplate);
}

/// Each would overflow the parser's stack if it were parsed, which ends the process.
#[test]
fn a_template_that_is_too_deep_never_reaches_the_parser() {
    let many = |part: &str| part.repeat(MAX_TEMPLATE / part.len() / 2);
    for text in [
        format!("{{{{ {} USER }}}}", many("not ")),
        format!("{{{{ {} 1 }}}}", many("-")),
        format!("{{{{ {} }}}}", many("(")),
        format!("{{{{ {} }}}}", many("[")),
        format!("{{{{ USER{} }}}}", many("|trim")),
        format!("{{{{ USER{} }}}}", many("~USER")),
        format!("{{{{ USER{} }}}}", many(".a")),
        format!("{{{{ USER{} }}}}", many(" if USER else USER")),
        format!("{{% if USER %}}{}{{% endif %}}", many("{% elif USER %}")),
        format!("{}{}", many("{% if USER %}"), "x"),
        format!("{{% if {} USER %}}", many("not ")),
    ] {
        let fault = checked(&text).expect("refused");
        assert_eq!(fault.reason(), "TemplateUnsupported", "{fault}");
    }
    // The deepest that is taken, on as small a stack as any thread has here.
    let deepest = format!(
        "{}{{{{ {}USER{} }}}}{}",
        "{% if USER %}".repeat(16),
        "not (".repeat(16),
        ")".repeat(16) + &" ~ USER".repeat(38),
        "{% endif %}".repeat(16),
    );
    let elifs = format!("{{% if EMPTY %}}{}{{% endif %}}", "{% elif EMPTY %}".repeat(64));
    let run = move || (made(&deepest).map(drop), made(&elifs).map(drop));
    let thread = std::thread::Builder::new().stack_size(1 << 20).spawn(run).expect("a thread");
    assert_eq!(thread.join().expect("no overflow"), (Ok(()), Ok(())));
}

/// Pieces from which a template is likely to parse.
fn pieces() -> impl Strategy<Value = String> {
    let piece = prop::sample::select(vec![
        "{{ ",
        " }}",
        "{% if ",
        "{% elif ",
        "{% else %}",
        "{% endif %}",
        "{% for ",
        " in ",
        "{% endfor %}",
        "{% set ",
        " = ",
        " %}",
        "{%- ",
        " -%}",
        "{# ",
        " #}",
        "{% raw %}",
        "{% endraw %}",
        "A",
        "keys",
        "loop",
        ".index",
        "[",
        "]",
        "'A'",
        "(",
        ")",
        "|json",
        "|append(",
        ",",
        " ~ ",
        " and ",
        " not ",
        " == ",
        "1",
        "none",
        "\n",
        "\r\n",
        "x",
        "ä",
        "\0",
        "-",
        "{",
        "}",
        "%",
    ]);
    prop::collection::vec(piece, 0..60).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn no_template_panics_or_leaves_its_bounds(text in prop_oneof![pieces(), "(?s:.{0,200})"], value in any::<Vec<u8>>()) {
        let judged = check(&spec(&["A", "CLOSED"], &text)).pop().map(|problem| problem.fault);
        match (with(&text, &[("A", Some(&value)), ("CLOSED", None)]), judged) {
            (Ok(made), judged) => {
                prop_assert!(made.len() <= MAX_FILE);
                prop_assert_eq!(judged, None);
            }
            (Err(fault), Some(judged)) => prop_assert_eq!(fault, judged),
            // What is taken without values is never refused for its text later.
            (Err(fault), None) => {
                let of_text = ["TemplateSyntax", "TemplateUnsupported", "TemplateFailed"];
                prop_assert!(!of_text.contains(&fault.reason()), "{:?}", fault);
                prop_assert!(fault.line().is_none_or(|line| line <= text.lines().count() + 1));
            }
        }
    }
}
