//! Rows about files: a file goes the way of a key.

use super::*;
use sealedenv_crds::{FileFormat, RenderedFile};

const DOTENV: &str = "app.env";

fn template(text: &str) -> RenderedFile {
    RenderedFile { template: Some(text.into()), ..RenderedFile::default() }
}

fn with_files(world: World, files: &[(&str, RenderedFile)]) -> World {
    let files = files.iter().map(|(path, file)| ((*path).to_owned(), file.clone())).collect();
    World { spec: SealedEnvSpec { files, ..world.spec.clone() }, ..world }
}

/// A dotenv file of both keys, and a template of A alone.
fn both() -> Vec<(&'static str, RenderedFile)> {
    let dotenv = RenderedFile { format: Some(FileFormat::Dotenv), ..RenderedFile::default() };
    vec![(DOTENV, dotenv), ("of-a", template("a is {{ A }}"))]
}

fn delivered() -> World {
    let mut world = with_files(World::default(), &both());
    world.carry_out(None, "10");
    world
}

const DELIVERED: [(&str, &str); 4] = [("A", "a"), ("B", "b"), (DOTENV, "A=a\nB=b\n"), ("of-a", "a is a")];

fn reason<'a>(plan: &'a Plan, path: &str) -> Option<&'a str> {
    plan.status.keys.iter().find(|key| key.name == path).expect("in the status").reason.as_deref()
}

#[test]
fn files_stand_in_the_secret_beside_the_keys() {
    let world = with_files(World::default(), &both());
    let plan = world.plan(None);
    assert_eq!(content(applied(&plan).expect("apply")), DELIVERED);
    assert_eq!(ready(&plan), ("True", "Delivered"));
    assert_eq!(plan.status.keys_ready.as_deref(), Some("4/4"));
    let file = plan.status.keys.iter().find(|key| key.name == DOTENV).unwrap();
    assert_eq!((file.source, file.class, file.state), (Source::File, Class::Secret, KeyState::Ready));
    assert_eq!(plan.records[0].keys, ["A", "B", DOTENV, "of-a"]);
    assert!(delivered().settled(Some(ours("10"))), "and then there is nothing to do");
}

#[test]
fn a_file_that_changes_alone_is_a_new_content() {
    let before = delivered();
    let mut world = with_files(World { input: "input2", generation: 2, ..delivered() }, &both());
    world.spec.files.insert("of-a".into(), template("A: {{ A }}"));
    let plan = world.plan(Some(ours("10")));
    assert_eq!(content(applied(&plan).expect("apply"))[3], ("of-a", "A: a"));
    assert_ne!(plan.status.digest, before.status.digest);
    assert_eq!(outcomes(&plan), [(AuditAction::Reconcile, Outcome::Ok, None)]);
}

#[test]
fn a_file_that_needs_a_bad_key_keeps_its_last_content() {
    let mut world = delivered();
    world.values = vec![("A", Ok("a2")), ("B", Err("ScopeMismatch"))];
    (world.generation, world.input) = (2, "input2");
    let plan = world.plan(Some(ours_with("10", &DELIVERED)));
    let written = [("A", "a2"), ("B", "b"), (DOTENV, "A=a\nB=b\n"), ("of-a", "a is a2")];
    assert_eq!(content(applied(&plan).expect("apply")), written);
    assert_eq!((state(&plan, DOTENV), state(&plan, "of-a")), (KeyState::KeptLast, KeyState::Ready));
    assert_eq!((reason(&plan, DOTENV), reason(&plan, "of-a")), (Some("KeyNotOpened"), None));
    assert_eq!(ready(&plan), ("False", "KeysNotOpened"));
    assert!(
        plan.notices.iter().any(|n| n.message.contains("app.env: KeyNotOpened (needs B,")),
        "{:?}",
        plan.notices
    );
}

#[test]
fn a_file_that_cannot_be_made_harms_nothing_else() {
    let mut world = World { generation: 2, input: "input2", ..delivered() };
    world.spec.files.insert("of-a".into(), template("{{ A }}\n{{ hunter2 }}"));
    let plan = world.plan(Some(ours_with("10", &DELIVERED)));
    assert!(applied(&plan).is_none(), "the last good file stays, and nothing else is another");
    assert_eq!((state(&plan, "of-a"), reason(&plan, "of-a")), (KeyState::KeptLast, Some("UnknownKey")));
    assert_eq!(state(&plan, DOTENV), KeyState::Ready);
    assert_eq!(ready(&plan), ("False", "KeysNotOpened"));
    assert!(
        plan.notices[0].message.contains("of-a: UnknownKey (line 2: there is no key"),
        "{:?}",
        plan.notices
    );
    assert_eq!(outcomes(&plan), [(AuditAction::Reconcile, Outcome::Refused, Some("UnknownKey"))]);
    assert!(!format!("{:?} {:?} {:?}", plan.status, plan.records, plan.notices).contains("hunter2"));

    world.spec.on_key_error = OnKeyError::Omit;
    let plan = world.plan(Some(ours("10")));
    assert_eq!(content(applied(&plan).expect("apply")), DELIVERED[..3]);
    assert_eq!(state(&plan, "of-a"), KeyState::Missing);

    world.spec.on_key_error = OnKeyError::Fail;
    let plan = world.plan(Some(ours("10")));
    assert!(plan.steps.is_empty());
    assert_eq!((state(&plan, "A"), state(&plan, "of-a")), (KeyState::NotWritten, KeyState::KeptLast));
}

#[test]
fn a_file_that_needs_no_key_is_no_reason_to_write() {
    let world = World { values: vec![("A", Err("NoIdentity"))], ..World::default() };
    let plan = with_files(world, &[("note", template("text"))]).plan(None);
    assert!(plan.steps.is_empty());
    assert_eq!(ready(&plan), ("False", "NothingOpened"));
}

#[test]
fn files_count_for_the_size_of_the_secret() {
    let half: &'static str = Box::leak("x".repeat(content::MAX_SECRET_SIZE / 2).into_boxed_str());
    let copy = |key: &str| RenderedFile { key: Some(key.into()), ..RenderedFile::default() };
    let world = || World { values: vec![("A", Ok(half))], ..World::default() };
    assert!(applied(&with_files(world(), &[("copy", copy("A"))]).plan(None)).is_some(), "exactly the limit");
    let plan = with_files(world(), &[("copy", copy("A")), ("one-more", template("x"))]).plan(None);
    assert!(plan.steps.is_empty());
    assert_eq!(ready(&plan), ("False", "TooLarge"));
}

#[test]
fn a_file_of_a_forbidden_shape_is_refused_with_the_whole_object() {
    let mode = RenderedFile { mode: Some("0400".into()), ..template("x") };
    let two = RenderedFile { key: Some("A".into()), ..template("x") };
    for (path, file) in [
        ("..data", template("x")),
        ("a/b", template("x")),
        ("PUBLIC", template("x")),
        ("mode", mode),
        ("two", two),
        ("none", RenderedFile::default()),
    ] {
        let mut world = with_files(World::default(), &[(path, file)]);
        world.spec.public.insert("PUBLIC".into(), "x".into());
        let plan = world.plan(None);
        assert!(plan.steps.is_empty());
        assert_eq!(ready(&plan), ("False", "InvalidSpec"), "{path}");
        assert!(plan.notices[0].message.contains(path));
    }
}

#[test]
fn in_memory_a_file_can_have_folders_and_a_mode_that_counts() {
    let mut world = with_files(in_memory(), &[("config/app.env", template("A={{ A }}\n"))]);
    let plan = world.plan(None);
    assert_eq!(ready(&plan), ("True", "Delivered"));
    assert_eq!(plan.status.keys_ready.as_deref(), Some("3/3"));
    world.spec.files.get_mut("config/app.env").unwrap().mode = Some("0400".into());
    let other = world.plan(None);
    assert_ne!(other.status.digest, plan.status.digest, "a pod that holds the other mode is not done");
}
