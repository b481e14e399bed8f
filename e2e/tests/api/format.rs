//! The format is ordinary age: the reference command line opens what we seal, and what it seals is refused.

use std::process::Command;

use anyhow::{Context as _, Result};
use sealedenv_e2e::cluster::run;
use sealedenv_e2e::{seal, setting};

fn values() -> Vec<(&'static str, Vec<u8>)> {
    vec![
        ("one byte", b"v".to_vec()),
        ("empty", Vec::new()),
        ("64 KiB", (0..65536_u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect()),
        ("not UTF-8", vec![0xff, 0xfe, 0x00, 0x80, b'\n']),
    ]
}

fn base64_decode(text: &str) -> Result<Vec<u8>> {
    let mut command = Command::new("base64");
    command.arg("-d");
    let output = run(command, text.as_bytes())?;
    anyhow::ensure!(output.status.success(), "base64 -d");
    Ok(output.stdout)
}

fn keys(folder: &std::path::Path) -> Result<(String, String)> {
    let path = folder.join("key.txt").display().to_string();
    let recipient = String::from_utf8(seal::sealedenv(&["keygen", "-o", &path], b"")?)?.trim().to_owned();
    Ok((path, recipient))
}

#[test]
fn the_reference_age_opens_what_we_seal() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let (identity, recipient) = keys(folder.path())?;
    for (what, value) in values() {
        let args = [
            "value",
            "seal",
            "--scope",
            "strict",
            "--namespace",
            "shop",
            "--name",
            "checkout",
            "--key",
            "A",
            "-r",
            &recipient,
        ];
        let sealed = String::from_utf8(seal::sealedenv(&args, &value)?)?;
        let file = base64_decode(sealed.trim().strip_prefix("sealed:v1:").context("the prefix")?)?;
        let mut age = Command::new(setting::get("SEALEDENV_E2E_AGE")?);
        age.args(["-d", "-i", &identity]);
        let output = run(age, &file)?;
        assert!(output.status.success(), "{what}: {}", String::from_utf8_lossy(&output.stderr));
        assert!(output.stdout == value, "{what}: the bytes differ");

        let args =
            ["value", "open", "--namespace", "shop", "--name", "checkout", "--key", "A", "-i", &identity];
        assert!(seal::sealedenv(&args, sealed.as_bytes())? == value, "{what}: our own open");
        let elsewhere =
            ["value", "open", "--namespace", "other", "--name", "checkout", "--key", "A", "-i", &identity];
        let refused =
            seal::sealedenv(&elsewhere, sealed.as_bytes()).expect_err("another namespace").to_string();
        assert!(refused.contains("error: ") && refused.contains("shop"), "{refused}");
    }
    Ok(())
}

#[test]
fn what_plain_age_seals_is_refused_for_it_has_no_scope() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let (identity, recipient) = keys(folder.path())?;
    let mut age = Command::new(setting::get("SEALEDENV_E2E_AGE")?);
    age.args(["-r", &recipient]);
    let file = run(age, b"v")?.stdout;
    let mut base64 = Command::new("base64");
    base64.arg("-w0");
    let text = format!("sealed:v1:{}", String::from_utf8(run(base64, &file)?.stdout)?);
    let args = ["value", "open", "--namespace", "shop", "--name", "checkout", "--key", "A", "-i", &identity];
    let refused = seal::sealedenv(&args, text.as_bytes()).expect_err("no scope").to_string();
    assert!(refused.contains("scope"), "{refused}");
    Ok(())
}

#[test]
fn a_recipient_of_the_reference_keygen_is_sealed_to() -> Result<()> {
    let keygen = Command::new(setting::get("SEALEDENV_E2E_AGE_KEYGEN")?);
    let made = String::from_utf8(run(keygen, b"")?.stdout)?;
    let recipient = made.lines().find_map(|l| l.strip_prefix("# public key: ")).context("a recipient")?;
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("id");
    std::fs::write(&path, &made)?;
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
    let sealed = seal::strict(recipient, "shop", "checkout", "A", "v")?;
    let args = [
        "value",
        "open",
        "--namespace",
        "shop",
        "--name",
        "checkout",
        "--key",
        "A",
        "-i",
        &path.display().to_string(),
    ];
    assert_eq!(seal::sealedenv(&args, sealed.as_bytes())?, b"v");
    Ok(())
}
