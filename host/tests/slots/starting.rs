//! How slots begin, and begin again.

use super::*;
use aether_core::slot::Grant;
use std::collections::BTreeSet;

#[tokio::test]
async fn what_was_changed_survives_a_restart_until_the_bundle_says_something_else() {
    let folder = tempfile::tempdir().unwrap();
    write_bundle(folder.path(), &scoring(0.25), "");
    let plant = Plant::open(folder.path()).await;
    assert_eq!(plant.standing(), "test-guest-1:active");
    let digest = plant.slots.digest();
    let active = plant.now().slot().entries[0].id.clone();
    let canary = plant.add(&plant.upload(scoring(0.5)).await, Some(&active)).await;
    plant.promote(&canary, Stage::Canary { percent: 10 }).await;
    let changed = plant.slots.digest();
    assert_ne!(digest, changed, "plans name the policy with its live changes");
    let before = plant.now().slot().clone();
    plant.close().await;

    let plant = Plant::open(folder.path()).await;
    assert_eq!((plant.now().slot(), &plant.slots.digest()), (&before, &changed));
    assert!(plant.now().live(&canary).is_some(), "it can be asked, from the registry");
    plant.close().await;

    // The bundle says something else: it is the word that counts, and what it brought can give its place back.
    std::fs::write(folder.path().join("plugins/test-guest.wasm"), scoring(0.75)).unwrap();
    let plant = Plant::open(folder.path()).await;
    assert_eq!(plant.standing(), "test-guest-4:active");
    let predecessor = plant.now().slot().predecessor(&EntryId::new("test-guest-4")).unwrap().id.clone();
    assert_eq!(predecessor, active);
    let deed = Deed::RollBack { entry: EntryId::new("test-guest-4"), reason: "it is too strict".into() };
    plant.slots.act(&risk(), deed, ann()).await.unwrap();
    assert_eq!(plant.standing(), "test-guest-1:active");
    plant.close().await;

    // Nothing new was said: what failed is not brought back.
    let plant = Plant::open(folder.path()).await;
    assert_eq!(plant.standing(), "test-guest-1:active");
    let history = plant.store.generations(&risk(), None, 10).await.unwrap();
    let changes: Vec<(u64, &str, &str)> =
        history.iter().map(|made| (made.slot.generation, made.change.name(), made.by.as_str())).collect();
    assert_eq!(
        changes,
        [
            (5, "roll_back", "ann"),
            (4, "seed", "aether"),
            (3, "promote", "ann"),
            (2, "add", "ann"),
            (1, "seed", "aether")
        ]
    );
    // Not even when the bundle changes elsewhere.
    plant.close().await;
    write_policy(folder.path(), "budget = { window = 50 }");
    let plant = Plant::open(folder.path()).await;
    assert_eq!((plant.standing().as_str(), plant.now().slot().budget.window), ("test-guest-1:active", 50));
    let told: Vec<&str> = plant.slots.failures().iter().map(|failure| failure.code).collect();
    assert_eq!(told, ["component.quarantine"]);
    plant.close().await;
}

#[tokio::test]
async fn a_broken_component_keeps_no_host_from_starting() {
    // From the first start on.
    let folder = tempfile::tempdir().unwrap();
    write_bundle(folder.path(), b"\0asm\x01\0\0\0", "");
    let plant = Plant::open(folder.path()).await;
    assert_eq!(plant.standing(), "");
    let failures = plant.slots.failures();
    assert_eq!((failures.len(), failures[0].code), (1, "component.core-module"));
    assert_eq!(plant.slots.silent(&plant.now()), failures, "where it were a gate, it would deny");
    plant.close().await;

    // Mended.
    std::fs::write(folder.path().join("plugins/test-guest.wasm"), scoring(0.25)).unwrap();
    let plant = Plant::open(folder.path()).await;
    assert_eq!(plant.standing(), "test-guest-2:active");
    assert!(plant.slots.failures().is_empty());
    plant.close().await;

    // Broken or gone again: what stood there stands in for it, and it is told.
    for (component, code) in [(Some(&b"no component"[..]), "component.not-wasm"), (None, "component.missing")] {
        let file = folder.path().join("plugins/test-guest.wasm");
        match component {
            Some(bytes) => std::fs::write(file, bytes).unwrap(),
            None => std::fs::remove_file(file).unwrap(),
        }
        let plant = Plant::open(folder.path()).await;
        assert_eq!((plant.standing().as_str(), plant.now().number()), ("test-guest-2:active", 2));
        assert!(plant.now().live(&EntryId::new("test-guest-2")).is_some());
        let failures = plant.slots.failures();
        assert_eq!((failures.len(), failures[0].code), (1, code));
        assert!(plant.slots.silent(&plant.now()).is_empty(), "its place is taken");
        plant.close().await;
    }
}

#[tokio::test]
async fn what_the_registry_lost_falls_back_to_the_one_before() {
    let folder = tempfile::tempdir().unwrap();
    write_bundle(folder.path(), &scoring(0.25), "");
    let plant = Plant::open(folder.path()).await;
    let active = plant.now().slot().entries[0].id.clone();
    let digest = plant.upload(scoring(0.75)).await;
    let next = plant.add(&digest, Some(&active)).await;
    plant.promote(&next, Stage::Active).await;
    plant.close().await;
    std::fs::remove_file(folder.path().join(format!("data/components/{digest}.wasm"))).unwrap();
    let plant = Plant::open(folder.path()).await;
    assert_eq!(plant.standing(), format!("{active}:active"));
    let quarantine = plant.now().slot().entry(&next).unwrap().quarantine.clone().unwrap();
    assert!(quarantine.reason.starts_with("it could not be loaded"), "{quarantine:?}");
    assert_eq!(plant.audit().await.last().unwrap(), &format!("aether slot.roll-back slot/risk/{next} Done"));
    plant.close().await;
}

/// Imports that the entry before did not have need an explicit word.
/// WASI shows an entry's assets as files, so a grant of it must not become one of them.
#[tokio::test]
async fn assets_must_be_granted_even_if_nothing_imports_them() {
    let folder = tempfile::tempdir().unwrap();
    write_bundle(folder.path(), &scoring(0.25), "");
    let plant = Plant::open(folder.path()).await;
    let component = plant.upload(scoring(0.5)).await;
    let assets = Some(Digest::of(b"never looked for"));
    let granted = Some(BTreeSet::from([Grant::Log, Grant::Wasi]));
    let new = NewEntry { assets, grants: granted, ..plant.new_entry(&component, None) };
    let refused = plant.slots.act(&risk(), Deed::Add(new), ann()).await;
    assert!(matches!(refused, Err(Error::UngrantedAssets)), "{:?}", refused.err());
    plant.close().await;
}

#[tokio::test]
async fn what_is_imported_beyond_the_one_before_must_be_granted() {
    let folder = tempfile::tempdir().unwrap();
    write_bundle(folder.path(), &scoring(0.25), "");
    let plant = Plant::open(folder.path()).await;
    let active = plant.now().slot().entries[0].id.clone();
    let head = r#"(import "aether:plugin/log@0.1.0" "write" (func $log (param i32 i32 i32)))"#;
    let logging = plant.upload(guest::scorer_with(head, &format!("i32.const {ANSWER}"))).await;
    let new = plant.new_entry(&logging, Some(&active));
    let refused = plant.slots.act(&risk(), Deed::Add(new.clone()), ann()).await;
    let Err(Error::Activate(error)) = refused else { panic!("it was taken") };
    assert_eq!(error.code(), "activate.grants");
    let granted = NewEntry { grants: Some(BTreeSet::from([Grant::Log])), ..new.clone() };
    plant.slots.act(&risk(), Deed::Add(granted), ann()).await.unwrap();
    let audit = plant.audit().await;
    assert_eq!(&audit[1..], ["ann slot.add slot/risk Refused", "ann slot.add slot/risk Done"]);
    plant.close().await;
}
