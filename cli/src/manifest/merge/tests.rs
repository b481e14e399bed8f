use super::*;
use crate::failure::chain;
use proptest::prelude::*;
use sealedenv_seal::{Identity, Plain, Scope, seal};

const FILE: &str = "checkout.yaml";

fn sealed(key: &str) -> String {
    let scope = Scope::cluster(key).expect("scope");
    seal(&scope, &[Identity::generate().recipient()], &Plain::from(b"v".to_vec())).expect("seal").to_string()
}

fn change(block: Block, key: &str, text: &str) -> Change {
    Change { block, key: key.to_owned(), replaces: false, text: text.to_owned() }
}

fn data(key: &str, text: &str) -> Change {
    change(Block::Data, key, text)
}

fn public(key: &str, text: &str) -> Change {
    change(Block::Public, key, text)
}

fn merged(text: &str, changes: &[Change]) -> Result<String, String> {
    let target = find(text, FILE, None, None).map_err(|error| chain(&error))?;
    merge(text, FILE, &target, changes).map_err(|error| chain(&error))
}

const HEAD: &str =
    "apiVersion: sealedenv.dev/v1alpha1\nkind: SealedEnv\nmetadata: {name: checkout, namespace: shop}\n";

/// A manifest whose spec is this text.
fn with(spec: &str) -> String {
    format!("{HEAD}{spec}")
}

#[test]
fn only_the_value_of_a_changed_key_changes() {
    let spec = "\
spec: # the values
  # payments
  data:
    # from the dashboard
    A:   sealed:v1:QUFB   # rotate in May
    B: \"sealed:v1:QkJC\"
    'C': 'sealed:v1:Q0ND'
    D: >-
      sealed:v1:RERE
    E: |-   # folded by hand
      sealed:v1:RUVF

    F:
    G: !!str sealed:v1:R0dH # tagged
  public: {MODE: test, REGION: 'eu'} # not secret
  suspend: true
";
    let changed = merged(
        &with(spec),
        &[
            data("A", "sealed:v1:MTEx"),
            data("B", "sealed:v1:MjIy"),
            data("C", "sealed:v1:MzMz"),
            data("D", "sealed:v1:NDQ0"),
            data("E", "sealed:v1:NTU1"),
            data("F", "sealed:v1:NjY2"),
            data("G", "sealed:v1:Nzc3"),
            public("MODE", "live"),
            public("REGION", "yes"),
        ],
    );
    let expected = "\
spec: # the values
  # payments
  data:
    # from the dashboard
    A:   sealed:v1:MTEx   # rotate in May
    B: \"sealed:v1:MjIy\"
    'C': sealed:v1:MzMz
    D: sealed:v1:NDQ0
    E: sealed:v1:NTU1

    F: sealed:v1:NjY2
    G: !!str sealed:v1:Nzc3 # tagged
  public: {MODE: live, REGION: \"yes\"} # not secret
  suspend: true
";
    assert_eq!(changed, Ok(with(expected)));
}

#[test]
fn new_keys_come_at_the_end_or_in_their_place() {
    for (spec, changes, expected) in [
        // Not in order: at the end, before what follows.
        (
            "spec:\n  data:\n    B: sealed:v1:QkJC # b\n    # about a\n    A: sealed:v1:QUFB # a\n\n  # below\n  suspend: true\n",
            vec![data("AA", "sealed:v1:MQ=="), data("C", "sealed:v1:Mg==")],
            "spec:\n  data:\n    B: sealed:v1:QkJC # b\n    # about a\n    A: sealed:v1:QUFB # a\n    AA: sealed:v1:MQ==\n    C: sealed:v1:Mg==\n\n  # below\n  suspend: true\n",
        ),
        // In order: where they belong.
        (
            "spec:\n    data:\n        B: sealed:v1:QkJC\n        # about d\n        D: >-\n            sealed:v1:RERE\n",
            vec![data("E", "sealed:v1:Mw=="), data("C", "sealed:v1:Mg=="), data("A", "sealed:v1:MQ==")],
            "spec:\n    data:\n        A: sealed:v1:MQ==\n        B: sealed:v1:QkJC\n        C: sealed:v1:Mg==\n        # about d\n        D: >-\n            sealed:v1:RERE\n        E: sealed:v1:Mw==\n",
        ),
        // No line break at the end of the file.
        (
            "spec:\n  data:\n    B: sealed:v1:QkJC",
            vec![data("A", "sealed:v1:MQ=="), public("MODE", "on")],
            "spec:\n  data:\n    B: sealed:v1:QkJC\n    A: sealed:v1:MQ==\n  public:\n    MODE: \"on\"",
        ),
        // Line breaks of Windows.
        (
            "spec:\r\n  data:\r\n    B: sealed:v1:QkJC\r\n  suspend: true\r\n",
            vec![data("B", "sealed:v1:MQ=="), data("C", "sealed:v1:Mg=="), public("MODE", "live")],
            "spec:\r\n  data:\r\n    B: sealed:v1:MQ==\r\n    C: sealed:v1:Mg==\r\n  suspend: true\r\n  public:\r\n    MODE: live\r\n",
        ),
        // A block that is there and empty.
        (
            "spec:\n  data: {} # none yet\n  public:\n  suspend: true\n",
            vec![data("A", "sealed:v1:MQ=="), public("MODE", "live")],
            "spec:\n  data: # none yet\n    A: sealed:v1:MQ==\n  public:\n    MODE: live\n  suspend: true\n",
        ),
        // In braces.
        (
            "spec:\n  data: {A: sealed:v1:QUFB} # x\n",
            vec![data("B", "sealed:v1:MQ=="), data("C", "sealed:v1:Mg==")],
            "spec:\n  data: {A: sealed:v1:QUFB, B: sealed:v1:MQ==, C: sealed:v1:Mg==} # x\n",
        ),
        // Below a text that keeps its empty lines.
        (
            "spec:\n  secret:\n    labels:\n      a: |+\n        x\n\n\n",
            vec![public("B", "x")],
            "spec:\n  secret:\n    labels:\n      a: |+\n        x\n\n\n  public:\n    B: x\n",
        ),
        // Below something deeper.
        (
            "spec:\n  public:\n    A: b\n  secret:\n    labels:\n      team: x\n      # last\n# end\n",
            vec![data("A1", "sealed:v1:MQ==")],
            "spec:\n  public:\n    A: b\n  secret:\n    labels:\n      team: x\n  data:\n    A1: sealed:v1:MQ==\n      # last\n# end\n",
        ),
    ] {
        assert_eq!(merged(&with(spec), &changes), Ok(with(expected)), "{spec}");
    }
}

#[test]
fn what_cannot_be_edited_line_by_line_is_refused_and_left() {
    for (spec, changes, says) in [
        (
            "spec:\n  data:\n    A: &x sealed:v1:QUFB\n    B: *x\n",
            vec![data("A", "sealed:v1:MQ==")],
            "checkout.yaml cannot be merged into: the edit would change more than was meant",
        ),
        (
            "spec:\n  data:\n    ? A\n    :\n",
            vec![data("A", "sealed:v1:MQ==")],
            "checkout.yaml cannot be merged into: line 6 is written in a way that cannot be edited in place: \
             its key and its colon stand on different lines",
        ),
        (
            "spec:\n  data: *x\n",
            vec![data("A", "sealed:v1:MQ==")],
            "checkout.yaml, line 5: not valid YAML: while parsing node, found unknown anchor",
        ),
        (
            "spec:\n  public: &x {A: b}\n  data: *x\n",
            vec![data("B", "sealed:v1:MQ==")],
            "checkout.yaml cannot be merged into: the edit would change more than was meant",
        ),
        (
            "spec: {data: {}}\n",
            vec![public("A", "b")],
            "checkout.yaml cannot be merged into: line 4 is written in a way that cannot be edited in place: \
             a mapping in braces; write it as lines first",
        ),
        (
            "spec:\n  data: [a]\n",
            vec![data("A", "sealed:v1:MQ==")],
            "checkout.yaml cannot be merged into: line 5 is written in a way that cannot be edited in place: \
             its value is not a mapping",
        ),
        (
            "spec:\n  data:\n    A: [hunter2]\n",
            vec![data("A", "sealed:v1:MQ==")],
            "checkout.yaml cannot be merged into: line 6 is written in a way that cannot be edited in place: \
             its value is not text",
        ),
        ("", vec![data("A", "sealed:v1:MQ==")], "the SealedEnv in checkout.yaml has no spec to merge into"),
        ("spec: [a\n", vec![], "checkout.yaml, line 4: not valid YAML: unclosed bracket '['"),
    ] {
        assert_eq!(merged(&with(spec), &changes), Err(says.to_owned()), "{spec}");
    }
}

#[test]
fn a_key_on_a_line_of_its_own_keeps_it() {
    let spec = "spec:\n  data:\n    ? A\n    : sealed:v1:QUFB # x\n";
    let expected = spec.replace("QUFB", "MQ==");
    assert_eq!(merged(&with(spec), &[data("A", "sealed:v1:MQ==")]), Ok(with(&expected)));
}

#[test]
fn the_one_that_is_asked_for_is_found_among_others() {
    let of = |name: &str, namespace: &str| {
        format!(
            "apiVersion: sealedenv.dev/v1alpha1\nkind: SealedEnv\nmetadata:\n  name: {name}\n{namespace}spec:\n  data:\n    A: {}\n",
            sealed("A")
        )
    };
    let (one, two) = (of("one", "  namespace: shop\n"), of("two", ""));
    let other = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: one, namespace: shop}\ndata: {A: b}\n";
    let text = format!("# head\n---\n{other}---\n{one}---\n{two}...\n");
    let found = |namespace, name| match find(&text, FILE, namespace, name) {
        Ok(target) => format!("{}/{}", target.namespace.unwrap_or_default(), target.name),
        Err(error) => chain(&error),
    };
    assert_eq!(found(Some("shop"), Some("one")), "shop/one");
    assert_eq!(found(Some("shop"), Some("two")), "/two");
    assert_eq!(found(None, Some("two")), "/two");
    assert_eq!(found(None, None), "checkout.yaml has several SealedEnvs: one, two");
    assert_eq!(found(Some("shop"), None), "checkout.yaml has several SealedEnvs in shop: one, two");
    assert_eq!(found(Some("other"), Some("one")), "checkout.yaml has no SealedEnv other/one");

    let target = find(&text, FILE, None, Some("two")).unwrap_or_else(|error| panic!("{error}"));
    let changed = merge(&text, FILE, &target, &[data("B", "sealed:v1:MQ==")]).expect("merged");
    let two_changed = two + "    B: sealed:v1:MQ==\n";
    assert_eq!(changed, format!("# head\n---\n{other}---\n{one}---\n{two_changed}...\n"));
}

/// One line of a generated block, with what its author put around it.
#[derive(Clone, Debug)]
struct Line {
    key: String,
    quote: &'static str,
    space: usize,
    comment: String,
    above: Vec<String>,
}

fn line() -> impl Strategy<Value = Line> {
    let comment = prop::collection::vec("# [a-z:{}\"' -]{0,12}", 0..3);
    (
        "K[A-Z0-9_]{0,5}",
        prop::sample::select(vec!["", "'", "\""]),
        1..4_usize,
        comment,
        "( # [a-z:\"' ]{0,9})?",
    )
        .prop_map(|(key, quote, space, above, comment)| Line { key, quote, space, comment, above })
}

proptest! {
    /// I7 and V1: what is not changed stays, byte for byte.
    #[test]
    fn every_line_of_an_unchanged_key_is_identical(
        mut lines in prop::collection::vec(line(), 1..8),
        changed in prop::collection::vec(any::<bool>(), 8),
        new in prop::collection::btree_set("K[A-Z0-9_]{0,5}", 0..4),
        order in any::<bool>(),
        crlf in any::<bool>(),
        end in any::<bool>(),
        indent in 1..5_usize,
        before in any::<bool>(),
    ) {
        let mut seen = std::collections::HashSet::new();
        lines.retain(|line| seen.insert(line.key.clone()));
        if order {
            lines.sort_by(|a, b| a.key.cmp(&b.key));
        }
        let newline = if crlf { "\r\n" } else { "\n" };
        let pad = " ".repeat(indent);
        let head = ["# about", "apiVersion: sealedenv.dev/v1alpha1", "kind: SealedEnv", "metadata:", "  name: checkout", "spec:"];
        let mut text: Vec<String> = head.iter().map(|line| (*line).to_owned()).collect();
        if before {
            text.push(format!("{pad}suspend: false # not yet"));
        }
        text.push(format!("{pad}data:"));
        let mut expected = text.clone();
        let (mut changes, mut changed) = (Vec::new(), changed.into_iter());
        for Line { key, quote, space, comment, above } in &lines {
            let above = above.iter().map(|comment| format!("{pad}{pad}{comment}"));
            text.extend(above.clone());
            expected.extend(above);
            let line = |value: &str| format!("{pad}{pad}{key}:{}{value}{comment}", " ".repeat(*space));
            text.push(line(&format!("{quote}sealed:v1:b2xk{quote}")));
            if changed.next() == Some(true) {
                changes.push(data(key, "sealed:v1:bmV3"));
                expected.push(line(if *quote == "\"" { "\"sealed:v1:bmV3\"" } else { "sealed:v1:bmV3" }));
            } else {
                expected.push(line(&format!("{quote}sealed:v1:b2xk{quote}")));
            }
        }
        let tail = format!("{pad}# the end");
        text.push(tail.clone());
        expected.push(tail);
        let added: Vec<&String> = new.iter().filter(|key| !seen.contains(*key)).collect();
        changes.extend(added.iter().map(|key| data(key, "sealed:v1:YWRk")));
        let joined = |lines: &[String]| lines.join(newline) + if end { newline } else { "" };

        let merged = merged(&joined(&text), &changes).map_err(TestCaseError::fail)?;
        // The lines that were added, taken out again, leave the expected text.
        let is_added = |line: &str| {
            line.strip_suffix(": sealed:v1:YWRk").is_some_and(|key| added.iter().any(|new| key == format!("{pad}{pad}{new}")))
        };
        let rest: Vec<String> = merged.split(newline).filter(|line| !is_added(line)).map(str::to_owned).collect();
        prop_assert_eq!(rest.join(newline), joined(&expected));
        prop_assert_eq!(merged.split(newline).filter(|line| is_added(line)).count(), added.len());
        // And without a change, nothing is.
        prop_assert_eq!(super::merge(&merged, FILE, &find(&merged, FILE, None, None).expect("found"), &[]).expect("merged"), merged);
    }
}
