use super::*;
use kube::CustomResourceExt as _;
use proptest::prelude::*;
use sealedenv_crds::SealedEnv;
use sealedenv_seal::{Identity, Plain, Recipient, Scope, seal};

/// Searched for in everything that comes out.
const CANARY: &str = "hunter2-canary";

thread_local! {
    static CHECKER: Checker = Checker::new();
}

fn check(bytes: &[u8], options: &Options) -> Checked {
    CHECKER.with(|checker| checker.check(bytes, options))
}

fn options() -> Options {
    Options { recipients: None, namespace: None, strict_secrets: false }
}

fn recipient() -> Recipient {
    Identity::generate().recipient()
}

fn sealed_to(scope: &Scope, to: &[Recipient]) -> String {
    seal(scope, to, &Plain::from(CANARY.as_bytes().to_vec())).expect("seal").to_string()
}

fn strict(namespace: &str, name: &str, key: &str) -> String {
    sealed_to(&Scope::strict(namespace, name, key).expect("scope"), &[recipient()])
}

fn good(key: &str) -> String {
    strict("shop", "checkout", key)
}

fn manifest(spec: &str) -> String {
    format!(
        "apiVersion: sealedenv.dev/v1alpha1\nkind: SealedEnv\nmetadata:\n  name: checkout\n  namespace: shop\nspec:\n{spec}"
    )
}

/// The findings as `line severity rule key: message`, after a look for the canary.
fn found_with(text: &str, options: &Options) -> Vec<String> {
    let checked = check(text.as_bytes(), options);
    let json = serde_json::to_string(&checked.findings).expect("JSON");
    assert!(!json.contains(CANARY), "the canary came out: {json}");
    let line = |finding: &Finding| {
        let key = finding.key.as_ref().map(|key| format!(" {key}")).unwrap_or_default();
        format!("{} {} {}{key}: {}", finding.line, finding.severity.as_str(), finding.rule, finding.message)
    };
    checked.findings.iter().map(line).collect()
}

fn found(text: &str) -> Vec<String> {
    found_with(text, &options())
}

#[test]
fn a_good_manifest_has_no_finding() {
    let text = manifest(&format!(
        "  data:\n    A: {}\n    B: \"{}\"\n  public: {{MODE: live}}\n  meta:\n    A: {{class: secret, owner: payments}}\n  \
         delivery: Secret\n  secret:\n    name: other\n    type: Opaque\n    labels: {{team: payments}}\n  \
         onKeyError: Fail\n  deletionPolicy: Retain\n  suspend: true\n",
        good("A"),
        good("B")
    ));
    assert_eq!(found(&text), [""; 0]);
    // What passes here is what the types take.
    let read: SealedEnv = serde_saphyr::from_str(&text).expect("a SealedEnv");
    assert!(read.spec.suspend);
    let memory =
        format!("  data: {{A: {}}}\n  delivery: Memory\n  allow: {{serviceAccounts: [x]}}\n", good("A"));
    assert_eq!(found(&manifest(&memory)), [""; 0]);
}

#[test]
fn files_that_cannot_be_made_are_found_and_their_text_is_never_shown() {
    let with = |files: &str| {
        let spec = format!(
            "  data: {{A: {}}}\n  public: {{B-b: x}}\n  files:\n    one: {{key: A}}\n{files}",
            good("A")
        );
        found(&manifest(&spec))
    };
    assert_eq!(with("    app.json: {format: JSON}\n    t: {template: '{{ A }}'}\n"), [""; 0]);
    for (file, wanted) in [
        ("{key: C}", "spec.files.f: there is no key C in data or public"),
        ("{format: JSON, keys: [A, C]}", "spec.files.f: there is no key C in data or public"),
        ("{format: YAML, keys: [A, A]}", "spec.files.f: A stands twice in keys"),
        (
            "{format: Dotenv}",
            "spec.files.f: B-b cannot be a variable: choose keys of letters, digits and '_' with keys",
        ),
        ("{template: '{{ hunter2-canary }'}", "spec.files.f: line 1: the template has a syntax error"),
    ] {
        let found = with(&format!("    f: {file}\n"));
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].starts_with("11 error ") && found[0].ends_with(wanted), "{found:?}");
    }
    let block = "    f:\n      template: |\n        {{ A }}\n        {{ hunter2canary }}\n";
    let found = with(block);
    assert_eq!(
        found,
        ["11 error UnknownKey: spec.files.f: line 2: there is no key of that name in data or public"]
    );
    // By the CRD's own rules, once.
    for (files, wanted) in [
        ("    f: {key: A, template: x}\n", "a file needs exactly one of key, template and format"),
        ("    f: {key: A, keys: [A]}\n", "keys goes with format"),
        ("    A: {key: A}\n", "the name of a key"),
        ("    a/b: {key: A}\n", "has no '/'"),
        ("    ..data: {key: A}\n", "a path in files has parts"),
        ("    f: {key: A, mode: '0400'}\n", "mode in files is for delivery Memory"),
        ("    f: {key: A, mode: 0400}\n", "must be text"),
    ] {
        let found = with(files);
        assert!(found.len() == 1 && found[0].contains(wanted), "{files}: {found:?}");
    }
}

#[test]
fn plain_text_in_data_is_found_and_never_shown() {
    for value in [
        CANARY.to_owned(),
        format!("\"{CANARY}\""),
        format!("|\n      {CANARY}\n      x"),
        format!("'sealed:v1:{CANARY}'"),
        format!("sealed:v1:{CANARY}=="),
        format!("sealed:v2:{CANARY}"),
        format!("sealed:{CANARY}"),
        format!("[{CANARY}]"),
        format!("{{{CANARY}: x}}"),
        format!("{{x: {CANARY}}}"),
        format!("!{CANARY} x"),
        format!("&{CANARY} x"),
        format!("*{CANARY}"),
        format!("@{CANARY}"),
        format!("%{CANARY}"),
        format!("\"{CANARY}"),
        format!("\"\\{CANARY}\""),
        format!("{CANARY}: x"),
        "12345678".to_owned(),
        "true".to_owned(),
        String::new(),
    ] {
        let text = manifest(&format!("  data:\n    A: {value}\n"));
        let findings = found(&text);
        assert!(findings.iter().any(|finding| finding.contains(" error ")), "{value}: {findings:?}");
    }
    let text = manifest(&format!("  data:\n    A: {CANARY}\n    B: {}\n    C: {CANARY}\n", good("B")));
    let says = "not a sealed value: it does not start with sealed:v1:";
    assert_eq!(
        found(&text),
        [format!("8 error NotSealed A: {says}"), format!("10 error NotSealed C: {says}")]
    );
}

proptest! {
    /// Whatever somebody pastes in place of a sealed value stays in the file.
    #[test]
    fn no_text_in_data_comes_out(before in "[ -~]{0,12}", after in "[ -~]{0,12}", block in any::<bool>()) {
        let value = format!("{before}{CANARY}{after}");
        let value = if block { format!("|\n      {value}") } else { value };
        let findings = found(&manifest(&format!("  data:\n    A: {value}\n")));
        // One that starts with # is a comment, and leaves no value.
        prop_assert!(!findings.is_empty());
    }
}

#[test]
fn a_value_that_stands_elsewhere_is_found_with_both_places() {
    let at = |namespace: &str, name: &str, text: &str| {
        let head = "apiVersion: sealedenv.dev/v1alpha1\nkind: SealedEnv\n";
        found(&format!("{head}metadata: {{name: {name}{namespace}}}\nspec:\n  data:\n    A: {text}\n"))
    };
    let shop = ", namespace: shop";
    let value = good("A");
    assert_eq!(at(shop, "checkout", &value), [""; 0]);
    assert_eq!(
        at(shop, "dev-checkout", &value),
        ["6 error ScopeMismatch A: sealed for shop/checkout/A, stands at shop/dev-checkout/A"]
    );
    assert_eq!(
        at(", namespace: dev", "checkout", &value),
        ["6 error ScopeMismatch A: sealed for shop/checkout/A, stands at dev/checkout/A"]
    );
    assert_eq!(
        at(shop, "checkout", &good("B")),
        ["6 error ScopeMismatch A: sealed for shop/checkout/B, stands at shop/checkout/A"]
    );
    let wide = sealed_to(&Scope::namespace("shop", "A").expect("scope"), &[recipient()]);
    assert_eq!(at(shop, "dev-checkout", &wide), [""; 0]);
    assert_eq!(
        at(", namespace: dev", "checkout", &wide),
        ["6 error ScopeMismatch A: sealed for namespace shop/A, stands at dev/checkout/A"]
    );
    assert_eq!(
        at(", namespace: dev", "x", &sealed_to(&Scope::cluster("A").expect("scope"), &[recipient()])),
        [""; 0]
    );
}

#[test]
fn an_unknown_namespace_is_a_warning_and_can_be_told() {
    let text = format!(
        "apiVersion: sealedenv.dev/v1alpha1\nkind: SealedEnv\nmetadata: {{name: checkout}}\nspec:\n  data:\n    A: {}\n",
        good("A")
    );
    let says = "metadata.namespace is not set: the namespace that values are sealed for is not checked";
    assert_eq!(found(&text), [format!("6 warning NoNamespace: {says}")]);
    let told =
        |namespace: &str| found_with(&text, &Options { namespace: Some(namespace.to_owned()), ..options() });
    assert_eq!(told("shop"), [""; 0]);
    assert_eq!(
        told("dev"),
        ["6 error ScopeMismatch A: sealed for shop/checkout/A, stands at dev/checkout/A"]
    );
}

#[test]
fn recipients_are_compared_as_sets() {
    let (a, b, c) = (recipient(), recipient(), recipient());
    let scope = Scope::strict("shop", "checkout", "A").expect("scope");
    let against = |to: &[&Recipient], wanted: &[&Recipient]| {
        let to: Vec<Recipient> = to.iter().map(|one| (*one).clone()).collect();
        let wanted = wanted.iter().map(|one| (*one).clone()).collect();
        let options = Options { recipients: Some(wanted), ..options() };
        found_with(&manifest(&format!("  data:\n    A: {}\n", sealed_to(&scope, &to))), &options)
    };
    assert_eq!(against(&[&a, &b], &[&b, &a]), [""; 0]);
    assert_eq!(
        against(&[&a, &c], &[&a, &b]),
        [
            format!(
                "8 error UnknownRecipient A: sealed to recipients that are not among those given: {}",
                c.fingerprint()
            ),
            format!("8 error MissingRecipient A: not sealed to {}", b.fingerprint()),
        ]
    );
}

#[test]
fn the_schema_and_the_rules_of_the_crd_hold() {
    let a = format!("  data: {{A: {}}}\n", good("A"));
    for (spec, says) in [
        (
            "  suspend: false\n".to_owned(),
            "1 error Cel: spec: a SealedEnv needs at least one key in data or public",
        ),
        (
            "  data: {}\n  public: {}\n".to_owned(),
            "1 error Cel: spec: a SealedEnv needs at least one key in data or public",
        ),
        (
            format!("{a}  public: {{B: x}}\n  meta: {{B: {{class: secret}}}}\n"),
            "6 error Cel: spec: a key of class secret must not stand in public: seal it and put it in data",
        ),
        (
            format!("{a}  secret: {{type: kubernetes.io/service-account-token}}\n"),
            "8 error Cel: spec.secret.type: this Secret type is not allowed: use Opaque, kubernetes.io/basic-auth, \
             dockercfg, dockerconfigjson, ssh-auth or tls",
        ),
        (
            format!("{a}  secret:\n    labels: {{App.Kubernetes.IO/name: x}}\n"),
            "9 error Cel: spec.secret.labels: labels of kubernetes.io, k8s.io and sealedenv.dev are reserved",
        ),
        (format!("{a}  delivery: Disk\n"), "8 error Schema: spec.delivery must be one of Secret, Memory"),
        (
            format!("{a}  allow: {{serviceAccounts: [checkout]}}\n"),
            "5 error Cel: spec: allow is for delivery Memory: a Secret can be read by whoever may read Secrets",
        ),
        (
            format!("{a}  onKeyError: keepLast\n"),
            "8 error Schema: spec.onKeyError must be one of KeepLast, Omit, Fail",
        ),
        (format!("{a}  onKeyErr: Omit\n"), "8 error UnknownField: unknown field spec.onKeyErr"),
        (format!("{a}  suspend: 'true'\n"), "8 error Schema: spec.suspend must be true or false"),
        (format!("{a}  secret: {{name: Bad_Name}}\n"), "8 error Schema: spec.secret.name must match"),
        (
            format!("{a}  secret: {{name: ''}}\n"),
            "8 error Schema: spec.secret.name must have at least 1 characters",
        ),
        (format!("{a}  secret: []\n"), "8 error Schema: spec.secret must be a mapping"),
        (
            format!("{a}  public: {{PORT: 80}}\n"),
            "8 error Schema: spec.public.PORT must be text: YAML reads this as a number or as true or false",
        ),
        (format!("{a}  public: {{ON: yes}}\n"), "8 error Schema: spec.public.ON must be text"),
        (format!("{a}  public: {{NONE: }}\n"), "8 error Schema: spec.public.NONE has no value"),
        (
            format!("{a}  meta: {{A: {{klass: secret}}}}\n"),
            "8 error UnknownField: unknown field spec.meta.A.klass",
        ),
    ] {
        let findings = found(&manifest(&spec));
        assert!(
            findings.iter().any(|finding| {
                let (line, rest) = finding.split_once(' ').expect("a line number");
                let (expected, message) = says.split_once(' ').expect("a line number");
                rest.starts_with(message) && (line == expected || message.starts_with("error Cel: spec: "))
            }),
            "{spec}: {findings:?} instead of {says}"
        );
        assert_eq!(findings.len(), 1, "{spec}: {findings:?}");
    }
    // Nulls where none is allowed count as left out, as in the API server.
    assert_eq!(found(&manifest(&format!("{a}  public:\n  secret:\n  onKeyError: null\n"))), [""; 0]);
}

/// A rule that cannot be evaluated would refuse everything or nothing.
#[test]
fn every_rule_of_the_crd_compiles() {
    let crd = serde_json::to_value(SealedEnv::crd()).expect("JSON");
    let text = crd.to_string();
    let compiled = kube::core::cel::compile_schema(&schema::of_sealed_env());
    assert!(!compiled.has_errors(), "{:?}", compiled.compilation_errors());
    assert!(text.matches("x-kubernetes-validations").count() >= 4);
}

#[test]
fn names_keys_and_what_surrounds_a_spec_are_checked() {
    let a = good("A");
    for (text, says) in [
        (
            manifest(&format!("  data: {{\"A b\": {a}}}\n")),
            vec!["7 error KeyName: a key in spec.data cannot be a key of a Secret"],
        ),
        (
            manifest("  public: {..data: x}\n"),
            vec!["7 error KeyName: a key in spec.public cannot be a key of a Secret"],
        ),
        (
            manifest("  public: {A: x}\n").replace("name: checkout", "name: Checkout"),
            vec!["4 error Name: metadata.name is not a name that Kubernetes allows"],
        ),
        (
            manifest("  public: {A: x}\n").replace("name: checkout", "name: 12"),
            vec!["4 error Name: metadata.name is not a name that Kubernetes allows"],
        ),
        (
            manifest("  public: {A: x}\n").replace("namespace: shop", "namespace: sh.op\n  labels: {a: 1}"),
            vec![
                "5 error Name: metadata.namespace is not a name",
                "6 error Schema: metadata.labels.a must be text",
            ],
        ),
        (
            "apiVersion: sealedenv.dev/v1alpha1\nkind: SealedEnv\n".to_owned(),
            vec!["metadata.name", "has no spec"],
        ),
        (
            manifest("  public: {A: x}\n").replace("v1alpha1", "v1"),
            vec![
                "1 error UnknownVersion: apiVersion sealedenv.dev/v1 of SealedEnv is not known: only sealedenv.dev/v1alpha1",
            ],
        ),
        (
            manifest("  public: {A: x}\n").replace("sealedenv.dev", "sealedenv.io"),
            vec!["1 error UnknownVersion: a SealedEnv has the apiVersion sealedenv.dev/v1alpha1"],
        ),
    ] {
        let findings = found(&text);
        assert_eq!(findings.len(), says.len(), "{text}: {findings:?}");
        for (finding, says) in findings.iter().zip(says) {
            assert!(finding.contains(says), "{finding} instead of {says}");
        }
    }
    let text = manifest("  public: {A: x}\nspek: {}\n")
        .replace("  name: checkout", "  name: checkout\n  finalizer: x");
    assert_eq!(
        found(&text),
        [
            "5 error UnknownField: unknown field metadata.finalizer",
            "9 error UnknownField: unknown field spek"
        ]
    );
}

#[test]
fn what_is_likely_not_meant_is_a_warning() {
    let a = good("A");
    assert_eq!(
        found(&manifest(&format!(
            "  data:\n    A: {a}\n  public:\n    A: x\n  meta:\n    B: {{owner: x}}\n"
        ))),
        [
            "10 warning KeyTwice A: the key stands in data and in public: the sealed value in data counts",
            "12 warning MetaWithoutKey B: spec.meta describes a key that is neither in data nor in public",
        ]
    );
}

#[test]
fn secrets_in_public_are_found() {
    let a = good("A");
    assert_eq!(
        found(&manifest(&format!(
            "  public:\n    A: {a}\n    B: |\n      -----BEGIN EC PRIVATE KEY-----\n      {CANARY}\n    C: AGE-SECRET-KEY-1{CANARY}\n"
        ))),
        [
            "8 error SealedInPublic A: a sealed value in public is delivered as it is",
            "9 error PrivateKeyInPublic B: a private key in plain text",
            "12 error PrivateKeyInPublic C: a private key in plain text",
        ]
    );
}

#[test]
fn values_of_plain_age_and_of_other_recipient_types_are_named() {
    // The header of an age file with one stanza, a MAC and a payload of the shortest kind.
    let file = |stanzas: &str| {
        use std::fmt::Write as _;
        let mut file = "age-encryption.org/v1\n".to_owned();
        let _ = write!(file, "{stanzas}--- {}\n{}", "A".repeat(43), "x".repeat(32));
        format!("sealed:v1:{}", base64(file.as_bytes()))
    };
    let body = "C".repeat(42) + "A";
    let x25519 = format!("-> X25519 {body}\n{body}\n");
    let scope = "-> sealedenv.dev/scope v1 strict shop checkout A\n\n";
    let pq = format!("-> mlkem768x25519 {}\n{body}\n", "A".repeat(40));
    let of = |stanzas: &str| found(&manifest(&format!("  data:\n    A: {}\n", file(stanzas))));
    assert_eq!(
        of(&x25519),
        [
            "8 error Unscoped A: the value is not sealed for any scope",
            "8 warning RecipientHint A: the value names 0 recipients and has 1"
        ]
    );
    let findings = of(&format!("{scope}{pq}"));
    assert!(
        findings
            .iter()
            .any(|finding| finding.contains("UnknownRecipientType A") && finding.contains("mlkem768x25519")),
        "{findings:?}"
    );
    let findings = of(&format!("{scope}{scope}{x25519}"));
    assert!(findings[0].contains("ScopeRepeated A"), "{findings:?}");
    let findings = of(&format!("{scope}-> scrypt AAAA 18\n{body}\n"));
    assert!(findings[0].contains("PassphraseRefused A"), "{findings:?}");
}

fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::new();
    for chunk in bytes.chunks(3) {
        let word =
            chunk.iter().chain([&0; 2]).take(3).fold(0_usize, |word, byte| word << 8 | usize::from(*byte));
        for place in 0..4 {
            let letter = ALPHABET[word >> (18 - 6 * place) & 63];
            out.push(if place <= chunk.len() { char::from(letter) } else { '=' });
        }
    }
    out
}

#[test]
fn too_much_for_one_secret_is_found() {
    let half = "x".repeat(MAX_HALF);
    let scope = |key: &str| Scope::strict("shop", "checkout", key).expect("scope");
    let sealed =
        |key: &str| seal(&scope(key), &[recipient()], &Plain::from(half.clone())).expect("seal").to_string();
    let (a, b) = (sealed("A"), sealed("B"));
    assert_eq!(found(&manifest(&format!("  data:\n    A: {a}\n"))), [""; 0]);
    assert_eq!(
        found(&manifest(&format!("  data:\n    A: {a}\n    B: {b}\n"))),
        [format!(
            "1 error TooLarge: the values have {} bytes together, more than the 1048576 that a Secret holds",
            2 * MAX_HALF
        )]
    );
}

const MAX_HALF: usize = (1 << 19) + 1;

#[test]
fn all_documents_are_looked_at_and_others_are_counted() {
    let secret =
        format!("apiVersion: v1\nkind: Secret\nmetadata: {{name: x}}\nstringData: {{A: {CANARY}}}\n");
    let empty_secret = "apiVersion: v1\nkind: Secret\nmetadata: {name: x}\n";
    let env = manifest(&format!("  data: {{A: {CANARY}}}\n"));
    let item = env.replace('\n', "\n    ");
    let list = format!("apiVersion: v1\nkind: List\nitems:\n  - {}\n", item.trim_end());
    let text = format!(
        "# x\n---\n{secret}---\n---\n{empty_secret}---\nkind: ConfigMap\n---\n{env}---\n{list}---\n[]\n---\nx\n"
    );
    let checked = check(text.as_bytes(), &options());
    assert_eq!((checked.sealed_envs, checked.others), (2, 5));
    let rules: Vec<(&str, Severity)> = checked.findings.iter().map(|of| (of.rule, of.severity)).collect();
    assert_eq!(
        rules,
        [("PlainSecret", Severity::Warning), ("NotSealed", Severity::Error), ("NotSealed", Severity::Error)]
    );
    found(&text);
    let strict = found_with(&secret, &Options { strict_secrets: true, ..options() });
    assert_eq!(strict, ["1 error PlainSecret: a plain Secret: whoever reads this text can read its values"]);
}

#[test]
fn what_is_no_yaml_or_no_text_is_a_finding() {
    assert_eq!(found("a: [\n"), ["1 error NotYaml: not valid YAML: unclosed bracket '['"]);
    let checked = check(b"a: b\nc: \xff\n", &options());
    assert_eq!(checked.findings[0].line, 2);
    assert_eq!(checked.findings[0].rule, "NotText");
    let twice = manifest("  public: {A: x, A: y}\n");
    assert_eq!(found(&twice), ["7 error NotYaml: a key stands twice in one mapping"]);
}

proptest! {
    /// Total over any text.
    #[test]
    fn any_text_is_checked_without_a_panic(text in any::<String>(), spec in "[ -~\\n]{0,200}") {
        check(text.as_bytes(), &options());
        check(manifest(&spec).as_bytes(), &options());
    }
}
