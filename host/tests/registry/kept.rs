//! What is kept and what goes, on a registry of its own: decisions, slots, quarantine, the bound on bytes, a full disk.

use crate::{component, variant};
use aether_core::{
    id::{DecisionId, Digest, EntryId, PrincipalId, SlotId},
    time::Time,
};
use aether_host::{
    clock,
    plugins::registry::{Error, Provenance, Quarantined, Registry, Settings, Stored, Upload, retention::Why},
    store::Store,
};
use aether_runtime::{Engine, EngineSettings};
use std::{collections::BTreeMap, path::Path, process::Command, sync::Arc};

const DAY: u64 = 86_400_000;

async fn open(data: &Path, settings: Settings) -> (Registry, Store) {
    let store = Store::open(&data.join("aether.db")).await.unwrap();
    let engine = Engine::new(EngineSettings::default()).unwrap();
    (Registry::open(data, store.clone(), engine, settings).await.unwrap(), store)
}

async fn put(registry: &Registry, bytes: Vec<u8>) -> Result<Stored, Error> {
    let upload =
        Upload { provenance: Provenance::Upload { file: None }, signature: None, by: PrincipalId::new("test") };
    registry.put(bytes.into(), upload).await
}

/// As if decisions had been made with them, on the very database.
async fn decided(data: &Path, component: &Digest, assets: Option<&Digest>) {
    let pool = sqlx::SqlitePool::connect(&format!("sqlite://{}", data.join("aether.db").display())).await.unwrap();
    sqlx::query("INSERT INTO decisions (id, slot, component, assets, subject, at, envelope) VALUES (?, 'risk', ?, ?, '', 1, '{}')")
        .bind(clock::id("decision"))
        .bind(&component.0)
        .bind(assets.map(|digest| digest.0.as_str()))
        .execute(&pool)
        .await
        .unwrap();
    pool.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_decision_or_a_slot_refers_to_outlives_every_policy() {
    let data = tempfile::tempdir().unwrap();
    let settings = Settings { keep_ms: DAY, keep_versions: 1, ..Settings::default() };
    let (registry, _store) = open(data.path(), settings).await;
    let mut digests = Vec::new();
    for mark in ["decided", "held", "free", "newest"] {
        let stored = put(&registry, variant("spot-risk", mark)).await.unwrap();
        assert!(stored.is_new);
        digests.push(stored.record.digest);
    }
    let [decides, held, free, _newest] = &digests[..] else { unreachable!() };
    let files = BTreeMap::from([("model.json".to_owned(), Arc::from(&b"{}"[..]))]);
    let (model, _) = registry.put_assets("model", files, PrincipalId::new("test")).await.unwrap();
    decided(data.path(), decides, Some(&model.digest)).await;
    registry.hold("the slot `risk`", [held.clone()]);

    let later = clock::now().plus_ms(2 * DAY);
    let gone = |removed: &[aether_host::plugins::registry::Removed]| -> Vec<(Digest, Why)> {
        removed.iter().map(|one| (one.digest.clone(), one.why)).collect()
    };
    assert_eq!(gone(&registry.collect_garbage(clock::now(), true).await.unwrap()), []);
    let would = registry.collect_garbage(later, true).await.unwrap();
    assert_eq!(gone(&would), [(free.clone(), Why::Old)]);
    assert_eq!(registry.list().await.unwrap().len(), 4, "it only said so");
    assert_eq!(registry.collect_garbage(later, false).await.unwrap(), would);
    assert_eq!(registry.list().await.unwrap().len(), 3);

    for (digest, who) in [(decides, "one recorded decision"), (held, "the slot `risk`")] {
        match registry.remove(digest).await.unwrap_err() {
            Error::InUse { by, .. } => assert_eq!(by, [who]),
            other => panic!("{other}"),
        }
    }
    assert!(matches!(registry.remove_assets(&model.digest).await, Err(Error::InUse { .. })));
    // Needed now, it counts as used now: let go, it has its whole time again.
    registry.hold("the slot `risk`", []);
    let after = later.plus_ms(DAY / 2);
    assert_eq!(gone(&registry.collect_garbage(after, false).await.unwrap()), []);
    assert_eq!(
        gone(&registry.collect_garbage(later.plus_ms(2 * DAY), false).await.unwrap()),
        [(held.clone(), Why::Old)]
    );
    assert!(registry.load(decides).await.is_ok(), "what decided can be run again");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_between_bytes_and_record_leaves_neither_after_the_next_start() {
    let data = tempfile::tempdir().unwrap();
    let (registry, store) = open(data.path(), Settings::default()).await;
    let stored = put(&registry, component("spot-risk")).await.unwrap().record;
    drop(registry);
    store.close().await;
    let orphan = data.path().join("components").join(format!("{}.wasm", "a".repeat(64)));
    std::fs::write(&orphan, b"what a crash left").unwrap();
    let staged = data.path().join("assets/staged-1");
    std::fs::create_dir(&staged).unwrap();
    std::fs::create_dir(data.path().join("assets").join("b".repeat(64))).unwrap();
    let foreign = data.path().join("components/notes.txt");
    std::fs::write(&foreign, b"somebody's").unwrap();

    let (registry, _store) = open(data.path(), Settings::default()).await;
    assert!(!orphan.exists() && !staged.exists() && !data.path().join("assets").join("b".repeat(64)).exists());
    assert!(foreign.exists(), "what is not ours is left alone");
    assert_eq!(registry.load(&stored.digest).await.unwrap().digest(), &stored.digest);
}

#[tokio::test(flavor = "multi_thread")]
async fn quarantine_is_kept_with_its_reproducer_until_it_is_lifted() {
    let data = tempfile::tempdir().unwrap();
    let (registry, store) = open(data.path(), Settings::default()).await;
    let digest = put(&registry, component("spot-risk")).await.unwrap().record.digest;
    let quarantined = Quarantined {
        slot: SlotId::new("risk"),
        entry: EntryId::new("spot-risk-2"),
        at: Time(5),
        reason: "faults".into(),
        reproducer: Some(DecisionId::new("decision-1")),
    };
    registry.quarantine(&digest, &quarantined).await.unwrap();
    drop(registry);
    store.close().await;
    let (registry, _store) = open(data.path(), Settings::default()).await;
    assert_eq!(registry.record(&digest).await.unwrap().quarantine, Some(quarantined.clone()));
    let again = put(&registry, component("spot-risk")).await.unwrap();
    assert_eq!(again.record.quarantine, Some(quarantined), "uploading it again mends nothing");
    registry.lift_quarantine(&digest).await.unwrap();
    assert_eq!(registry.record(&digest).await.unwrap().quarantine, None);
    let nobody = Digest("0".repeat(64));
    assert!(matches!(registry.lift_quarantine(&nobody).await, Err(Error::Unknown { .. })));
}

#[tokio::test(flavor = "multi_thread")]
async fn beyond_the_bound_what_nobody_needs_makes_room_and_else_uploads_are_refused() {
    let data = tempfile::tempdir().unwrap();
    let settings = Settings { bytes_maximum: 1 << 20, ..Settings::default() };
    let (registry, _store) = open(data.path(), settings).await;
    let each = component("default-gate").len() as u64;
    let fit = (1 << 20) / each;
    let mut digests = Vec::new();
    for number in 0..fit {
        let bytes = variant("default-gate", &format!("{number}"));
        digests.push(put(&registry, bytes).await.unwrap().record.digest);
    }
    let one_more = put(&registry, variant("default-gate", "more")).await.unwrap().record.digest;
    let kept: Vec<Digest> = registry.list().await.unwrap().into_iter().map(|record| record.digest).collect();
    assert!(kept.contains(&one_more) && !kept.contains(&digests[0]), "the one needed longest ago went");
    registry.hold("everybody", kept);
    let refused = put(&registry, variant("default-gate", "too many")).await.unwrap_err();
    assert_eq!(refused.code(), "registry.full");
    // The same bytes again need no room.
    assert!(!put(&registry, variant("default-gate", "more")).await.unwrap().is_new);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_set_is_verified_when_it_is_read() {
    let data = tempfile::tempdir().unwrap();
    let (registry, _store) = open(data.path(), Settings::default()).await;
    let files = || BTreeMap::from([("a/model.json".to_owned(), Arc::from(&b"{\"a\":1}"[..]))]);
    let by = || PrincipalId::new("test");
    let (set, is_new) = registry.put_assets("model", files(), by()).await.unwrap();
    assert!(is_new);
    let assets = registry.assets(&set.digest).await.unwrap();
    assert_eq!(
        (assets.digest(), assets.get("a/model.json").map(|bytes| &**bytes)),
        (Some(&set.digest), Some(&b"{\"a\":1}"[..]))
    );
    std::fs::write(data.path().join("assets").join(&set.digest.0).join("a/model.json"), b"{\"a\":2}").unwrap();
    assert!(matches!(registry.assets(&set.digest).await, Err(Error::Damaged(_))));
    assert!(!registry.put_assets("model", files(), by()).await.unwrap().1);
    assert_eq!(registry.assets(&set.digest).await.unwrap().digest(), Some(&set.digest), "sent again, it is mended");
    assert!(matches!(registry.assets(&Digest("../..".into())).await, Err(Error::Unknown { .. })));
}

/// A file system of one megabyte, as long as it lives.
struct Small<'a>(&'a Path);

impl<'a> Small<'a> {
    fn mount(path: &'a Path) -> Option<Self> {
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=1m", "tmpfs"]).arg(path).output();
        mounted.is_ok_and(|output| output.status.success()).then_some(Self(path))
    }
}

impl Drop for Small<'_> {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.0).status();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_is_told_and_nothing_half_written_stays() {
    let data = tempfile::tempdir().unwrap();
    let components = data.path().join("components");
    std::fs::create_dir(&components).unwrap();
    let Some(_small) = Small::mount(&components) else {
        println!("skipped: no small file system can be mounted here (it takes root)");
        return;
    };
    let (registry, _store) = open(data.path(), Settings::default()).await;
    let mut stored = 0;
    let refused = loop {
        match put(&registry, variant("default-gate", &format!("{stored}"))).await {
            Ok(_) => stored += 1,
            Err(error) => break error,
        }
        assert!(stored < 20, "a megabyte holds eight of them");
    };
    assert_eq!(refused.code(), "registry.disk-full", "{refused}");
    assert_eq!(registry.list().await.unwrap().len(), stored);
    assert_eq!(std::fs::read_dir(&components).unwrap().count(), stored, "no staged rest");
    // Room again, and it goes on.
    let first = registry.list().await.unwrap().pop().unwrap();
    registry.remove(&first.digest).await.unwrap();
    assert!(put(&registry, variant("default-gate", "after")).await.unwrap().is_new);
    drop(registry);
}
