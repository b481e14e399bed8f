use std::path::Path;

use super::*;
use crate::target::Layout;
use crate::wire::csi::volume_capability::{BlockVolume, MountVolume};

const TARGET: &str = "/k/pods/uid-1/volumes/kubernetes.io~csi/checkout/mount";

fn target() -> Target {
    Layout::new(Path::new("/k")).target(TARGET).unwrap()
}

fn jwt(claims: &str) -> String {
    format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(claims))
}

fn tokens(pod: &str) -> String {
    let token = jwt(&format!(r#"{{"kubernetes.io":{{"pod":{{"name":"p","uid":"{pod}"}}}}}}"#));
    format!(r#"{{"sealedenv.dev":{{"token":"{token}","expirationTimestamp":"2026-11-24T19:00:00Z"}}}}"#)
}

fn mount(mount: MountVolume) -> VolumeCapability {
    VolumeCapability { access_type: Some(AccessType::Mount(mount)), access_mode: None }
}

fn request() -> NodePublishVolumeRequest {
    let attributes = [
        ("sealedenv", "checkout"),
        (POD_NAME, "checkout-0"),
        (POD_NAMESPACE, "shop"),
        (POD_UID, "uid-1"),
        (EPHEMERAL, "true"),
        ("csi.storage.k8s.io/serviceAccount.name", "default"),
        (TOKENS, &tokens("uid-1")),
    ];
    NodePublishVolumeRequest {
        volume_id: "csi-1".to_owned(),
        target_path: TARGET.to_owned(),
        volume_capability: Some(mount(MountVolume::default())),
        volume_context: attributes.map(|(key, value)| (key.to_owned(), value.to_owned())).into(),
        ..NodePublishVolumeRequest::default()
    }
}

fn with(key: &str, value: &str) -> NodePublishVolumeRequest {
    let mut request = request();
    request.volume_context.insert(key.to_owned(), value.to_owned());
    request
}

fn without(key: &str) -> NodePublishVolumeRequest {
    let mut request = request();
    request.volume_context.remove(key);
    request
}

fn refused(request: &NodePublishVolumeRequest) -> RequestError {
    Publish::read(request, &target()).err().expect("accepted")
}

#[test]
fn what_the_kubelet_sends_is_understood() {
    let asked = Publish::read(&request(), &target()).ok().unwrap();
    assert_eq!((asked.pod.as_str(), asked.environment.as_str()), ("shop/checkout-0", "checkout"));
    assert_eq!(asked.ownership, Ownership { uid: None, gid: None, mode: 0o444 });
    assert!(!asked.service_account_directory);
    assert_eq!(pod_of(&asked.token).as_deref(), Some("uid-1"));
}

#[test]
fn owner_mode_and_group_are_honoured() {
    let mut request = with("mode", "0400");
    request.volume_context.insert("owner".to_owned(), "1000".to_owned());
    request.volume_context.insert("serviceAccountDirectory".to_owned(), "true".to_owned());
    let group = MountVolume { volume_mount_group: "2000".to_owned(), ..MountVolume::default() };
    request.volume_capability = Some(mount(group));
    let asked = Publish::read(&request, &target()).ok().unwrap();
    assert_eq!(asked.ownership, Ownership { uid: Some(1000), gid: Some(2000), mode: 0o400 });
    assert!(asked.service_account_directory);
    request.volume_context.remove("mode");
    let asked = Publish::read(&request, &target()).ok().unwrap();
    assert_eq!(asked.ownership.mode, 0o440, "who is in the group can read, and nobody else");
}

#[test]
fn what_cannot_be_carried_out_is_refused_with_its_reason() {
    for mode in ["", "1000", "777777", "-1", "+1", "8", "0x1", "u=r"] {
        assert_eq!(refused(&with("mode", mode)), RequestError::Mode, "{mode}");
    }
    for owner in ["", "root", "-1", "+1", "4294967295", "4294967296"] {
        assert_eq!(refused(&with("owner", owner)), RequestError::Owner, "{owner}");
    }
    assert_eq!(refused(&with("serviceAccountDirectory", "yes")), RequestError::ServiceAccountDirectory);
    for name in ["", "a/b", "..", "A_", "a\n"] {
        assert_eq!(refused(&with("sealedenv", name)), RequestError::Environment, "{name:?}");
    }
    assert_eq!(refused(&without("sealedenv")), RequestError::Environment);
    assert_eq!(refused(&without(EPHEMERAL)), RequestError::NotInline);
    assert_eq!(refused(&with(EPHEMERAL, "false")), RequestError::NotInline);
    for key in [POD_NAME, POD_NAMESPACE, POD_UID] {
        assert_eq!(refused(&without(key)), RequestError::PodInfo, "{key}");
    }
    let typo = refused(&with("seledenv\u{1b}[31m", "x"));
    assert_eq!(typo, RequestError::Attribute(r#""seledenv\u{1b}[31m""#.to_owned()));
    assert!(
        Publish::read(&with("csi.storage.k8s.io/new", "x"), &target()).is_ok(),
        "the kubelet's own may grow"
    );
}

#[test]
fn only_a_file_system_without_options_is_given() {
    let mut request = request();
    for capability in [
        None,
        Some(VolumeCapability::default()),
        Some(VolumeCapability { access_type: Some(AccessType::Block(BlockVolume {})), access_mode: None }),
        Some(mount(MountVolume { fs_type: "ext4".to_owned(), ..MountVolume::default() })),
        Some(mount(MountVolume { mount_flags: vec!["exec".to_owned()], ..MountVolume::default() })),
    ] {
        request.volume_capability = capability;
        assert_eq!(refused(&request), RequestError::Capability);
    }
    request.volume_capability =
        Some(mount(MountVolume { volume_mount_group: "wheel".to_owned(), ..MountVolume::default() }));
    assert_eq!(refused(&request), RequestError::Group);
}

#[test]
fn the_token_is_taken_from_secrets_before_attributes() {
    let mut request = with(TOKENS, "not even json");
    assert_eq!(refused(&request), RequestError::Tokens);
    request.secrets.insert(TOKENS.to_owned(), tokens("uid-1"));
    assert!(Publish::read(&request, &target()).is_ok());
}

#[test]
fn a_token_that_is_missing_or_broken_is_refused_and_not_repeated() {
    assert_eq!(refused(&without(TOKENS)), RequestError::NoToken);
    assert_eq!(refused(&with(TOKENS, "{}")), RequestError::NoToken);
    assert_eq!(refused(&with(TOKENS, r#"{"":{"token":"api-audience"}}"#)), RequestError::NoToken);
    for broken in [
        "",
        "null",
        "[]",
        r#"{"sealedenv.dev":"canary"}"#,
        r#"{"sealedenv.dev":{"token":"canary canary"}}"#,
        r#"{"sealedenv.dev":{"token":""}}"#,
        &format!(r#"{{"sealedenv.dev":{{"token":"{}"}}}}"#, "a".repeat(MAX_TOKENS)),
    ] {
        let error = refused(&with(TOKENS, broken));
        assert_eq!(error, RequestError::Tokens);
        assert!(!format!("{error} {error:?}").contains("canary"));
    }
}

#[test]
fn path_kubelet_and_token_must_name_one_pod() {
    assert_eq!(refused(&with(POD_UID, "uid-2")), RequestError::OtherPod, "the path's is another");
    assert_eq!(refused(&with(TOKENS, &tokens("uid-2"))), RequestError::OtherPod, "the token's is another");
    for claims in ["", "{}", r#"{"kubernetes.io":{}}"#, r#"{"sub":"system:serviceaccount:shop:default"}"#] {
        let tokens = format!(r#"{{"sealedenv.dev":{{"token":"{}"}}}}"#, jwt(claims));
        assert_eq!(refused(&with(TOKENS, &tokens)), RequestError::OtherPod, "bound to no pod: {claims}");
    }
    let opaque = r#"{"sealedenv.dev":{"token":"opaque"}}"#;
    assert_eq!(refused(&with(TOKENS, opaque)), RequestError::OtherPod);
}
