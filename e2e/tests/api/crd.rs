//! The CRD's own rules, with every webhook down: in this tier no webhook runs.

use anyhow::Result;
use sealedenv_e2e::cluster::{Namespace, kubectl_output};

fn apply(ns: &Namespace, spec: &str) -> Result<(bool, String)> {
    let manifest = format!(
        "apiVersion: sealedenv.dev/v1alpha1\nkind: SealedEnv\nmetadata:\n  name: checkout\nspec:\n  {}\n",
        spec.replace('\n', "\n  ")
    );
    let output = kubectl_output(&["-n", ns.name(), "apply", "--server-side", "-f", "-"], &manifest)?;
    Ok((output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned()))
}

#[test]
fn plaintext_in_data_is_refused_and_not_repeated() -> Result<()> {
    let ns = Namespace::new("plaintext")?;
    for value in [
        "hunter2-canary",
        "",
        "SEALED:V1:hunter2-canary",
        " sealed:v1:hunter2-canary",
        "sealed:v2:hunter2-canary",
    ] {
        let (taken, said) = apply(&ns, &format!("data:\n  TOKEN: {value:?}"))?;
        assert!(!taken, "{value:?}");
        assert!(said.contains("must be sealed"), "{said}");
        assert!(!said.contains("hunter2-canary"), "the API server repeats the value: {said}");
    }
    Ok(())
}

#[test]
fn each_rule_refuses_what_it_is_for() -> Result<()> {
    let ns = Namespace::new("crd_rules")?;
    let cases = [
        ("{}", "at least one key"),
        ("data: {}\npublic: {}", "at least one key"),
        ("public: {A: x}\nmeta: {A: {class: secret}}", "class secret"),
        ("public: {A: x}\nsecret: {type: kubernetes.io/service-account-token}", "not allowed"),
        ("public: {A: x}\nsecret: {type: bootstrap.kubernetes.io/token}", "not allowed"),
        ("public: {A: x}\nsecret: {type: helm.sh/release.v1}", "not allowed"),
        ("public: {A: x}\nsecret: {labels: {app.kubernetes.io/name: x}}", "reserved"),
        ("public: {A: x}\nsecret: {annotations: {kubernetes.io/service-account.name: default}}", "reserved"),
        ("public: {A: x}\nsecret: {annotations: {sealedenv.dev/adopt: 'true'}}", "reserved"),
        ("public: {A: x}\nsecret: {name: Not_A_Name}", "should match"),
        ("public: {A: x}\nonKeyError: Explode", "Unsupported value"),
        ("public: {A: x}\ndelivery: Disk", "Unsupported value"),
        ("public: {A: x}\nallow: {serviceAccounts: [a]}", "allow is for delivery Memory"),
        ("public: {A: x}\ndelivery: Memory\nallow: {serviceAccounts: []}", "at least 1"),
        ("public: {A: x}\ndelivery: Memory\nallow: {}", "Required value"),
        ("public: {A: x}\ndeletionPolicy: Maybe", "Unsupported value"),
        ("public: {A: x}\nunknown: field", "unknown"),
    ];
    for (spec, why) in cases {
        let (taken, said) = apply(&ns, spec)?;
        assert!(!taken, "taken: {spec}");
        assert!(said.contains(why), "{spec}: {said}");
    }
    Ok(())
}

#[test]
fn each_rule_about_files_refuses_what_it_is_for() -> Result<()> {
    let ns = Namespace::new("crd_files")?;
    let many: Vec<String> = (0..33).map(|number| format!("f{number}: {{key: A}}")).collect();
    let long = "x".repeat(254);
    let deep = ["a"; 9].join("/");
    let template = "t".repeat(32769);
    let cases = [
        ("files: {f: {}}".to_owned(), "exactly one of key, template and format"),
        ("files: {f: {key: A, template: x}}".to_owned(), "exactly one of key, template and format"),
        ("files: {f: {key: A, format: JSON}}".to_owned(), "exactly one of key, template and format"),
        ("files: {f: {key: A, keys: [A]}}".to_owned(), "keys goes with format"),
        ("files: {f: {format: JSON, keys: []}}".to_owned(), "at least 1"),
        ("files: {f: {format: JSON, keys: [A, A]}}".to_owned(), "duplicate entries"),
        ("files: {f: {format: TOML}}".to_owned(), "Unsupported value"),
        ("files: {A: {key: A}}".to_owned(), "the name of a key"),
        ("delivery: Memory\nfiles: {A/b: {key: A}}".to_owned(), "the name of a key"),
        ("delivery: Memory\nfiles: {a: {key: A}, a/b: {key: A}}".to_owned(), "a folder of another"),
        ("files: {a/b: {key: A}}".to_owned(), "has no '/'"),
        ("files: {f: {key: A, mode: '0400'}}".to_owned(), "mode in files is for delivery Memory"),
        ("delivery: Memory\nfiles: {f: {key: A, mode: '0200'}}".to_owned(), "should match"),
        ("delivery: Memory\nfiles: {f: {key: A, mode: '1777'}}".to_owned(), "should match"),
        (format!("files: {{f: {{template: {template}}}}}"), "Too long"),
        (format!("files: {{{}}}", many.join(", ")), "at most 32"),
    ];
    let paths = [
        "'..'", "'.'", "..data", "/etc/x", "a//b", "a/", "a/../b", "'a b'", "ä", "'a\\b'", "''", &long, &deep,
    ];
    let bad_paths = paths.map(|path| {
        (format!("delivery: Memory\nfiles: {{{path}: {{key: A}}}}"), "a path in files has parts")
    });
    for (spec, why) in cases.into_iter().chain(bad_paths) {
        let (taken, said) = apply(&ns, &format!("public: {{A: x}}\n{spec}"))?;
        assert!(!taken, "taken: {spec}");
        assert!(said.contains(why), "{spec}: {said}");
    }
    let good = "public: {A: x}\ndelivery: Memory\nfiles: {.env: {format: Dotenv}, a.b/c-d_E: {key: A, mode: '0400'}, 1/2/3/4/5/6/7/8: {template: ''}}";
    let (taken, said) = apply(&ns, good)?;
    assert!(taken, "{said}");
    Ok(())
}

#[test]
fn the_sealing_key_has_one_name() -> Result<()> {
    let manifest =
        "apiVersion: sealedenv.dev/v1alpha1\nkind: SealingKey\nmetadata: {name: other}\nspec: {}\n";
    let output = kubectl_output(&["apply", "--server-side", "-f", "-"], manifest)?;
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains("named cluster"), "{said}");
    Ok(())
}
