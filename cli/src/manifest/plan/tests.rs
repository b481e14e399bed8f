use super::*;
use sealedenv_seal::Identity;

fn request(to: &[Recipient]) -> Request {
    Request {
        namespace: "shop".to_owned(),
        name: "checkout".to_owned(),
        scope: ScopeKind::Strict,
        to: to.to_vec(),
        public: BTreeSet::new(),
        update: Update::Keys(BTreeSet::new()),
    }
}

fn keys(keys: &[&str]) -> BTreeSet<String> {
    keys.iter().map(|key| (*key).to_owned()).collect()
}

fn variables(set: &[(&str, &str)]) -> Vec<(String, Plain)> {
    set.iter().map(|(key, value)| ((*key).to_owned(), Plain::from((*value).to_owned()))).collect()
}

#[allow(clippy::unnecessary_wraps, reason = "what Existing holds")]
fn sealed(scope: &Scope, to: &[Recipient]) -> Option<String> {
    Some(seal(scope, to, &Plain::from(b"old".to_vec())).expect("seal").to_string())
}

fn strict(key: &str) -> Scope {
    Scope::strict("shop", "checkout", key).expect("scope")
}

fn recipient() -> Recipient {
    Identity::generate().recipient()
}

#[test]
fn a_sealed_value_stays_unless_it_is_asked_for_or_does_not_fit() {
    let (a, b) = (recipient(), recipient());
    let elsewhere = Scope::strict("shop", "billing", "MOVED").expect("scope");
    let namespaced = Scope::namespace("shop", "WIDE").expect("scope");
    let existing = Existing {
        data: BTreeMap::from([
            ("SAME".to_owned(), sealed(&strict("SAME"), &[a.clone(), b.clone()])),
            ("ORDER".to_owned(), sealed(&strict("ORDER"), &[b.clone(), a.clone()])),
            ("FEWER".to_owned(), sealed(&strict("FEWER"), std::slice::from_ref(&a))),
            ("OTHER".to_owned(), sealed(&strict("OTHER"), &[a.clone(), recipient()])),
            ("MOVED".to_owned(), sealed(&elsewhere, &[a.clone(), b.clone()])),
            ("WIDE".to_owned(), sealed(&namespaced, &[a.clone(), b.clone()])),
            ("PLAIN".to_owned(), Some("hunter2".to_owned())),
            ("NUMBER".to_owned(), None),
            ("ASKED".to_owned(), sealed(&strict("ASKED"), &[a.clone(), b.clone()])),
            ("GONE".to_owned(), sealed(&strict("GONE"), std::slice::from_ref(&a))),
        ]),
        ..Existing::default()
    };
    let mut request = request(&[a, b]);
    request.update = Update::Keys(keys(&["ASKED"]));
    let set = ["NEW", "SAME", "ORDER", "FEWER", "OTHER", "MOVED", "WIDE", "PLAIN", "NUMBER", "ASKED"];
    let set: Vec<(&str, &str)> = set.iter().map(|key| (*key, "v")).collect();
    let plan = plan(&request, &existing, variables(&set)).unwrap_or_else(|error| panic!("{error}"));
    let steps: Vec<(&str, Step)> = plan.steps().map(|(key, step)| (key, step.clone())).collect();
    assert_eq!(
        steps,
        [
            ("NEW", Step::AddSealed),
            ("SAME", Step::KeepSealed),
            ("ORDER", Step::KeepSealed),
            ("FEWER", Step::Reseal(Why::OtherRecipients)),
            ("OTHER", Step::Reseal(Why::OtherRecipients)),
            ("MOVED", Step::Reseal(Why::OtherScope { was: Some(elsewhere) })),
            ("WIDE", Step::Reseal(Why::OtherScope { was: Some(namespaced) })),
            ("PLAIN", Step::Reseal(Why::NotSealed)),
            ("NUMBER", Step::Reseal(Why::NotSealed)),
            ("ASKED", Step::Reseal(Why::Asked)),
        ]
    );
    let changes = plan.seal(&request).expect("sealed");
    let changed: Vec<(&str, bool)> =
        changes.iter().map(|change| (change.key.as_str(), change.replaces)).collect();
    assert_eq!(changed[..2], [("NEW", false), ("FEWER", true)]);
    assert_eq!(changed.len(), 8);
    for change in &changes {
        let sealed: Sealed = change.text.parse().expect("sealed");
        assert_eq!(sealed.scope(), Some(&strict(&change.key)));
        assert_eq!(sealed.recipients().len(), 2);
    }
}

#[test]
fn public_values_are_compared_and_only_written_for_keys_that_were_named() {
    let mut request = request(&[recipient()]);
    request.public = keys(&["NEW", "SAME", "OTHER", "NUMBER"]);
    let public = [("SAME", Some("x")), ("OTHER", Some("y")), ("NUMBER", None)];
    let existing = Existing {
        public: public.map(|(key, text)| (key.to_owned(), text.map(str::to_owned))).into(),
        ..Existing::default()
    };
    let set = [("NEW", "x"), ("SAME", "x"), ("OTHER", "x"), ("NUMBER", "x")];
    let plan = plan(&request, &existing, variables(&set)).unwrap_or_else(|error| panic!("{error}"));
    let steps: Vec<&Step> = plan.steps().map(|(_, step)| step).collect();
    assert_eq!(steps, [&Step::AddPublic, &Step::KeepPublic, &Step::ChangePublic, &Step::ChangePublic]);
    let texts: Vec<String> =
        plan.seal(&request).expect("plain").into_iter().map(|change| change.text).collect();
    assert_eq!(texts, ["x", "x", "x"]);
}

#[test]
fn what_cannot_be_meant_is_refused_and_names_keys_only() {
    let a = recipient();
    let existing = Existing {
        data: BTreeMap::from([("SECRET".to_owned(), sealed(&strict("SECRET"), std::slice::from_ref(&a)))]),
        public: BTreeMap::from([("MODE".to_owned(), Some("live".to_owned()))]),
        secret_class: keys(&["CLASSED"]),
    };
    let request = |public: &[&str], update: &[&str]| Request {
        public: keys(public),
        update: Update::Keys(keys(update)),
        ..request(std::slice::from_ref(&a))
    };
    let owned = |keys: &[&str]| keys.iter().map(|key| (*key).to_owned()).collect::<Vec<_>>();
    let big = "x".repeat(MAX_VALUE / 2 + 1);
    for (request, set, expected) in [
        (request(&[], &[]), vec![], PlanError::Empty),
        (
            request(&["NO"], &[]),
            vec![("A", "hunter2")],
            PlanError::NotInFile { flag: "--public", keys: owned(&["NO"]) },
        ),
        (
            request(&[], &["NO"]),
            vec![("A", "hunter2")],
            PlanError::NotInFile { flag: "--update", keys: owned(&["NO"]) },
        ),
        (request(&[], &[]), vec![("MODE", "hunter2")], PlanError::StandsInPublic { keys: owned(&["MODE"]) }),
        (
            request(&["SECRET"], &[]),
            vec![("SECRET", "hunter2")],
            PlanError::StandsInData { keys: owned(&["SECRET"]) },
        ),
        (
            request(&["CLASSED"], &[]),
            vec![("CLASSED", "hunter2")],
            PlanError::ClassSecret { keys: owned(&["CLASSED"]) },
        ),
        (request(&[], &[]), vec![("A", "sealed:v1:x")], PlanError::AlreadySealed { keys: owned(&["A"]) }),
        (request(&[], &[]), vec![("A", &big), ("B", &big)], PlanError::TooLarge { bytes: MAX_VALUE + 2 }),
    ] {
        let error = plan(&request, &existing, variables(&set)).err().expect("refused");
        assert!(!format!("{error} {error:?} {:?}", error.hint()).contains("hunter2"));
        assert_eq!(error, expected);
    }
}
