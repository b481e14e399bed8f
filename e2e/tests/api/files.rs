//! Files of a SealedEnv, from the object to the Secret, with no webhook that would refuse a bad one before.

use anyhow::{Result, bail};
use sealedenv_e2e::cluster::wait;
use sealedenv_e2e::operator::Home;
use serde_json::{Value, json};

const CANARY: &str = "canary-51c9 $x";

/// The Secret's entry, when it is this.
fn wait_entry(home: &Home, entry: &str, content: &str) -> Result<()> {
    wait(&format!("the entry {entry}"), || {
        let found = home.namespace().secret_value("checkout", entry)?;
        if found == content { Ok(Some(())) } else { bail!("it has {} bytes", found.len()) }
    })
}

fn patch(home: &Home, files: &Value) -> Result<()> {
    let patch = json!({"spec": {"files": files}}).to_string();
    home.namespace().kubectl(&["patch", "sealedenv", "checkout", "--type=merge", "-p", &patch]).map(drop)
}

#[test]
fn files_stand_in_the_secret_and_a_bad_one_keeps_its_last_content() -> Result<()> {
    let home = Home::new("files")?;
    let operator = home.start("one", &[])?;
    operator.wait_ready()?;
    home.apply("checkout", CANARY)?;
    patch(
        &home,
        &json!({
            "app.env": {"format": "Dotenv"},
            "copy": {"key": "A"},
            "conf.yaml": {"template": "password: {{ A|yaml }}\n"},
        }),
    )?;
    let yaml = format!("password: \"{CANARY}\"\n");
    wait_entry(&home, "app.env", &format!("A='{CANARY}'\n"))?;
    wait_entry(&home, "copy", CANARY)?;
    wait_entry(&home, "conf.yaml", &yaml)?;
    home.namespace().wait_condition("sealedenv", "checkout", "Ready", "True", "Delivered")?;

    patch(&home, &json!({"conf.yaml": {"template": "\n{{ hunter2 }}"}, "copy": null}))?;
    home.namespace().wait_condition("sealedenv", "checkout", "Ready", "False", "KeysNotOpened")?;
    wait_entry(&home, "conf.yaml", &yaml)?;
    let status = home.namespace().get("sealedenv", "checkout")?["status"].clone();
    let file = |path: &str| {
        let keys = status["keys"].as_array().cloned().unwrap_or_default();
        keys.into_iter().find(|key| key["name"] == path)
    };
    let bad = file("conf.yaml").unwrap_or_default();
    assert_eq!(
        (&bad["state"], &bad["reason"], &bad["source"]),
        (&json!("KeptLast"), &json!("UnknownKey"), &json!("File"))
    );
    assert_eq!(file("copy"), None);
    let data = home.namespace().get("secret", "checkout")?["data"].clone();
    assert!(data["copy"].is_null(), "a removed file leaves the Secret");
    let told = format!("{status} {} {:?}", operator.log(), operator.trail()?);
    for word in [CANARY, "hunter2"] {
        assert!(!told.contains(word), "{word} is in status, log or trail");
    }
    Ok(())
}
