//! Chunks and manifests: stored whole, read whole, refused otherwise, kept within bounds, sealed, moved and read back.

use super::*;
use aether_core::snapshot::{ChunkRef, SnapshotFile, Tier, WorkloadSpec};
use std::os::unix::fs::PermissionsExt as _;

pub(super) const HOUR_MS: u64 = 3_600_000;

pub(super) async fn put(blobs: &Blobs, plain: &[u8]) -> Digest {
    let digest = Digest::of(plain);
    blobs.put_chunk(&digest, Encoded::Raw(plain.to_vec().into()), plain.len()).await.unwrap();
    digest
}

pub(super) fn sign(manifest: &Manifest) -> Signed {
    Signed { manifest: aether_core::plan::canonical(manifest).into(), signature: [7; 64] }
}

/// A manifest of one file of these chunks, taken `hours` ago.
pub(super) fn manifest(name: &str, hours: u64, chunks: &[&[u8]]) -> Manifest {
    let chunk = |plain: &&[u8]| ChunkRef { digest: Digest::of(plain), size_bytes: u32::try_from(plain.len()).unwrap() };
    let chunks: Vec<_> = chunks.iter().map(chunk).collect();
    let size = chunks.iter().map(|chunk| u64::from(chunk.size_bytes)).sum();
    Manifest {
        schema_version: Manifest::SCHEMA_VERSION,
        snapshot: SnapshotId::new(name),
        workload: WorkloadSpec {
            // `w1` is of the workload `w`.
            id: WorkloadId::new(name.trim_end_matches(char::is_numeric)),
            name: "w".into(),
            tier: Tier::Standard,
            command: vec![],
            progress_file: None,
        },
        generation: 1,
        source: NodeId::new("node-a"),
        taken_at: crate::clock::now().minus_ms(hours * HOUR_MS),
        progress: None,
        criu_version: "4".into(),
        kernel_release: "6".into(),
        architecture: "x86_64".into(),
        files: vec![SnapshotFile { name: "pages".into(), size_bytes: size, chunks }],
        total_bytes: size,
    }
}

pub(super) async fn snapshot(blobs: &Blobs, name: &str, hours: u64, chunks: &[&[u8]]) -> Digest {
    for chunk in chunks {
        put(blobs, chunk).await;
    }
    blobs.put_manifest(sign(&manifest(name, hours, chunks))).await.unwrap().0
}

pub(super) async fn names(blobs: &Blobs) -> Vec<String> {
    blobs.snapshots().await.unwrap().into_iter().map(|view| view.snapshot.0).collect()
}

pub(super) async fn retain(blobs: &Blobs, needed: &Needed, now: Time) -> Retained {
    let mark = blobs.mark().await.unwrap();
    blobs.retain(mark, needed, now).await.unwrap()
}

/// What no compression makes smaller.
pub(super) fn noise(seed: u64, bytes: usize) -> Vec<u8> {
    let mut out = vec![0; bytes];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut out);
    out
}

async fn objects(store: &Arc<dyn ObjectStore>) -> Vec<String> {
    store.list(None).map_ok(|meta| meta.location.to_string()).try_collect().await.unwrap()
}

fn keys(folder: &Path, lines: &[char]) -> PathBuf {
    let path = folder.join("snapshot.keys");
    let text: String = lines.iter().map(|digit| format!("{}\n", digit.to_string().repeat(64))).collect();
    std::fs::write(&path, text).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    path
}

#[tokio::test]
async fn the_oldest_snapshots_go_first_and_what_is_needed_stays() {
    let folder = tempfile::tempdir().unwrap();
    let settings = Settings { snapshots_maximum: 2, ..Settings::default() };
    let blobs = Blobs::open(settings.clone(), folder.path()).await.unwrap();
    let needed = snapshot(&blobs, "w1", 4, &[b"one", b"shared"]).await;
    let old = snapshot(&blobs, "w2", 3, &[b"two", b"shared"]).await;
    snapshot(&blobs, "w3", 2, &[b"three"]).await;
    snapshot(&blobs, "w4", 1, &[b"four"]).await;
    let waiting = put(&blobs, b"its manifest is still to come").await;
    let now = crate::clock::now();
    let of_manifest = Needed { manifests: BTreeSet::from([needed]), ..Needed::default() };
    let done = retain(&blobs, &of_manifest, now).await;
    assert_eq!((done.snapshots, done.chunks), (1, 1), "snapshot 2 and its chunk `two`");
    assert!(matches!(blobs.manifest(&old).await, Err(Error::Missing(_))));
    assert_eq!(&blobs.read_chunk(&Digest::of(b"shared")).await.unwrap()[..], b"shared");
    assert!(blobs.has_chunk(&waiting).await.unwrap());
    assert_eq!(names(&blobs).await, ["w4", "w3", "w1"]);
    // Much later its manifest has still not come; and by its id a snapshot stays as well.
    let of_id = Needed { snapshots: BTreeSet::from([SnapshotId::new("w1")]), ..Needed::default() };
    let done = retain(&blobs, &of_id, now.plus_ms(2 * settings.orphan_ms)).await;
    assert_eq!((done.snapshots, done.chunks), (0, 1));
    let again = Blobs::open(settings, folder.path()).await.unwrap();
    assert_eq!(again.bytes(StoreTier::Warm).await.unwrap(), blobs.bytes(StoreTier::Warm).await.unwrap());
    assert_eq!(names(&again).await, ["w4", "w3", "w1"]);
}

#[tokio::test]
async fn a_workload_keeps_its_newest_and_what_is_old_goes() {
    let folder = tempfile::tempdir().unwrap();
    let settings = Settings { workload_maximum: 2, age_ms: 10 * HOUR_MS, ..Settings::default() };
    let blobs = Blobs::open(settings, folder.path()).await.unwrap();
    for (name, hours) in [("w1", 4), ("w2", 3), ("w3", 2), ("w4", 1), ("v1", 5), ("u1", 11)] {
        snapshot(&blobs, name, hours, &[name.as_bytes()]).await;
    }
    let needed = Needed { snapshots: BTreeSet::from([SnapshotId::new("u1")]), ..Needed::default() };
    retain(&blobs, &needed, crate::clock::now()).await;
    assert_eq!(names(&blobs).await, ["w4", "w3", "v1", "u1"]);
    retain(&blobs, &Needed::default(), crate::clock::now()).await;
    assert_eq!(names(&blobs).await, ["w4", "w3", "v1"]);
    let done = retain(&blobs, &Needed::default(), crate::clock::now().plus_ms(9 * HOUR_MS)).await;
    assert_eq!((names(&blobs).await, done.snapshots), (vec![], 3));
    assert_eq!(objects(&blobs.inner.warm).await, Vec::<String>::new(), "nothing of them is left");
}

#[tokio::test]
async fn a_full_store_refuses_by_name_until_there_is_room() {
    let folder = tempfile::tempdir().unwrap();
    let settings = Settings { bytes_maximum: 16 << 20, ..Settings::default() };
    let blobs = Blobs::open(settings.clone(), folder.path()).await.unwrap();
    let mib = |seed| noise(seed, 1 << 20);
    for seed in 0..15 {
        snapshot(&blobs, &format!("w{seed}"), 20 - seed, &[&mib(seed)]).await;
    }
    let more = mib(100);
    let refused = blobs.put_chunk(&Digest::of(&more), Encoded::Raw(more.clone().into()), 1 << 20).await.unwrap_err();
    assert_eq!(refused.code(), "store.full");
    // Another limit was lowered meanwhile: the oldest go but for what is needed, and there is room.
    let lower = Settings { snapshots_maximum: 5, ..settings };
    let blobs = Blobs::open(lower, folder.path()).await.unwrap();
    let needed = Needed { snapshots: BTreeSet::from([SnapshotId::new("w0")]), ..Needed::default() };
    retain(&blobs, &needed, crate::clock::now()).await;
    assert_eq!(names(&blobs).await, ["w14", "w13", "w12", "w11", "w10", "w0"]);
    put(&blobs, &more).await;
}

#[tokio::test]
async fn in_total_bytes_the_oldest_go_first() {
    let folder = tempfile::tempdir().unwrap();
    let wide = Blobs::open(Settings::default(), folder.path()).await.unwrap();
    for seed in 0..18 {
        snapshot(&wide, &format!("w{seed}"), 20 - seed, &[&noise(seed, 1 << 20)]).await;
    }
    let settings = Settings { bytes_maximum: 16 << 20, ..Settings::default() };
    let blobs = Blobs::open(Settings { workload_maximum: 64, ..settings }, folder.path()).await.unwrap();
    let needed = Needed { snapshots: BTreeSet::from([SnapshotId::new("w0")]), ..Needed::default() };
    let done = retain(&blobs, &needed, crate::clock::now()).await;
    let left = names(&blobs).await;
    assert_eq!((done.snapshots, left.len(), left.last().map(String::as_str)), (3, 15, Some("w0")));
    assert!(!left.contains(&"w1".into()) && left.contains(&"w4".into()));
    assert!(blobs.bytes(StoreTier::Warm).await.unwrap() <= 16 << 20);
}

#[tokio::test]
async fn a_chunk_that_was_damaged_on_the_disk_is_noticed_and_mended() {
    let folder = tempfile::tempdir().unwrap();
    let blobs = Blobs::open(Settings::default(), folder.path()).await.unwrap();
    let manifest = snapshot(&blobs, "w1", 1, &[b"good", b"other"]).await;
    let digest = Digest::of(b"good");
    let file = folder.path().join(chunk_at(None, &digest).unwrap());
    std::fs::write(&file, zstd::bulk::compress(b"evil", 1).unwrap()).unwrap();
    assert!(matches!(blobs.get_chunk(&digest).await, Err(Error::Mismatch(_))));
    let found = blobs.verify(&manifest).await.unwrap();
    assert_eq!((found.chunks, found.damaged_count, found.damaged), (2, 1, vec![digest.clone()]));
    put(&blobs, b"good").await;
    assert_eq!(&blobs.read_chunk(&digest).await.unwrap()[..], b"good");
    assert_eq!(blobs.verify(&manifest).await.unwrap().damaged_count, 0);
    // One that is gone is seen at the next start, and what it was part of says so.
    std::fs::remove_file(&file).unwrap();
    let again = Blobs::open(Settings::default(), folder.path()).await.unwrap();
    assert_eq!(again.snapshot(&manifest).await.unwrap().unwrap().missing_chunks, 1);
    assert_eq!(again.verify(&manifest).await.unwrap().damaged, [digest]);
}

#[tokio::test]
async fn a_manifest_that_was_changed_or_takes_anothers_place_is_none() {
    let folder = tempfile::tempdir().unwrap();
    let key_file = Some(keys(folder.path(), &['a']));
    for settings in [Settings::default(), Settings { key_file, ..Settings::default() }] {
        let at = folder.path().join(if settings.key_file.is_some() { "sealed" } else { "open" });
        let blobs = Blobs::open(settings.clone(), &at).await.unwrap();
        let (one, two) = (snapshot(&blobs, "w1", 1, &[b"x"]).await, snapshot(&blobs, "w2", 2, &[b"x"]).await);
        let place = |digest| at.join(manifest_at(blobs.inner.keys.sealing(), digest).unwrap());
        let (first, second) = (std::fs::read(place(&one)).unwrap(), std::fs::read(place(&two)).unwrap());
        let mut changed = first.clone();
        *changed.last_mut().unwrap() ^= 1;
        for wrong in [second.clone(), changed, vec![], first[..first.len() - 1].to_vec()] {
            std::fs::write(place(&one), wrong).unwrap();
            assert!(matches!(blobs.get_manifest(&one).await, Err(Error::Manifest(_))));
            let again = Blobs::open(settings.clone(), &at).await.unwrap();
            assert_eq!(names(&again).await, ["w2"]);
        }
        std::fs::write(place(&one), first).unwrap();
        assert_eq!(blobs.get_manifest(&one).await.unwrap().signature, [7; 64]);
    }
}

#[tokio::test]
async fn no_chunk_goes_under_an_upload_that_may_name_it() {
    let folder = tempfile::tempdir().unwrap();
    let blobs = Blobs::open(Settings::default(), folder.path()).await.unwrap();
    let before = crate::clock::now();
    let old = snapshot(&blobs, "w1", 1, &[b"shared"]).await;
    // An upload claims what the old snapshot alone names; then that goes.
    put(&blobs, b"shared").await;
    blobs.delete_snapshot(&old).await.unwrap();
    let under_way = Needed { uploads_since: Some(before), ..Needed::default() };
    assert_eq!(retain(&blobs, &under_way, crate::clock::now()).await.chunks, 0);
    // The same where the claim comes between the look at what is needed and the removal.
    let mark = blobs.mark().await.unwrap();
    put(&blobs, b"shared").await;
    assert_eq!(blobs.retain(mark, &Needed::default(), crate::clock::now()).await.unwrap().chunks, 0);
    // After a restart nobody knows of claims, but the checkpoint is still known to be under way.
    let again = Blobs::open(Settings::default(), folder.path()).await.unwrap();
    let late = crate::clock::now().plus_ms(48 * HOUR_MS);
    assert_eq!(retain(&again, &under_way, late).await.chunks, 0);
    again.put_manifest(sign(&manifest("w2", 0, &[b"shared"]))).await.unwrap();
    assert_eq!(retain(&again, &Needed::default(), late).await.chunks, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn uploads_and_removals_at_the_same_time_lose_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let settings = Settings { snapshots_maximum: 1, ..Settings::default() };
    let blobs = Blobs::open(settings.clone(), folder.path()).await.unwrap();
    let mut uploads = tokio::task::JoinSet::new();
    for upload in 0..4u64 {
        let blobs = blobs.clone();
        uploads.spawn(async move {
            for round in 0..12u64 {
                // All share some chunks, and have some of their own.
                let chunks: Vec<Vec<u8>> =
                    (0..6).map(|n| noise(if n < 3 { n } else { upload * 1_000 + round * 10 + n }, 4_096)).collect();
                let slices: Vec<&[u8]> = chunks.iter().map(Vec::as_slice).collect();
                let name = format!("w{}", 100 * upload + round);
                let digest = snapshot(&blobs, &name, 0, &slices).await;
                // Another upload's snapshot may be the newest, and this one be gone already; else it is whole.
                match blobs.verify(&digest).await {
                    Ok(found) => assert_eq!(found.damaged_count, 0),
                    Err(Error::Missing(_)) => {}
                    Err(error) => panic!("{error}"),
                }
            }
        });
    }
    let since = crate::clock::now();
    let removals = async {
        let under_way = Needed { uploads_since: Some(since), ..Needed::default() };
        for _ in 0..40 {
            retain(&blobs, &under_way, crate::clock::now()).await;
            tokio::task::yield_now().await;
        }
    };
    tokio::join!(uploads.join_all(), removals);
    let done = retain(&blobs, &Needed::default(), crate::clock::now()).await;
    assert!(done.chunks > 0);
    let left = blobs.snapshots().await.unwrap();
    assert_eq!(left.len(), 1);
    assert_eq!(blobs.verify(&left[0].manifest).await.unwrap().damaged_count, 0);
    assert_eq!(objects(&blobs.inner.warm).await.len(), 7, "six chunks and a manifest");
    let again = Blobs::open(settings, folder.path()).await.unwrap();
    assert_eq!(again.bytes(StoreTier::Warm).await.unwrap(), blobs.bytes(StoreTier::Warm).await.unwrap());
}

#[tokio::test]
async fn what_is_sealed_says_nothing_and_keys_are_replaced_one_after_another() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path().join("store");
    let open = async |lines: &[char]| {
        let key_file = (!lines.is_empty()).then(|| keys(folder.path(), lines));
        Blobs::open(Settings { key_file, ..Settings::default() }, &at).await.unwrap()
    };
    let secret = b"a word that nobody should find";
    let (plain, sealed) = (open(&[]).await, async || open(&['a']).await);
    let first = snapshot(&plain, "w1", 3, &[b"kept as it is", b"both"]).await;
    let blobs = sealed().await;
    let second = snapshot(&blobs, "w2", 2, &[secret, b"both"]).await;
    assert_eq!(blobs.manifest(&first).await.unwrap().snapshot, SnapshotId::new("w1"), "what was there is still read");
    let below = at.join("sealed");
    let written = |below: &Path| -> Vec<(String, Vec<u8>)> {
        let mut found = Vec::new();
        let mut folders = vec![below.to_owned()];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap().flatten() {
                match entry.path() {
                    path if path.is_dir() => folders.push(path),
                    path => found.push((path.display().to_string(), std::fs::read(path).unwrap())),
                }
            }
        }
        found
    };
    let objects = written(&below);
    assert_eq!(objects.len(), 3, "two chunks, of which none is shared with what is kept open, and a manifest");
    let tells = |word: &[u8]| {
        objects.iter().any(|(name, bytes)| {
            bytes.windows(word.len()).any(|part| part == word)
                || name.as_bytes().windows(word.len()).any(|part| part == word)
        })
    };
    for word in [&secret[..], b"node-a", b"x86_64", Digest::of(secret).0.as_bytes(), second.0.as_bytes()] {
        assert!(!tells(word), "{}", String::from_utf8_lossy(word));
    }
    // A new key seals, the old one still opens; without it nothing is lost, and it is said what to do.
    let blobs = open(&['b', 'a']).await;
    assert_eq!(&blobs.read_chunk(&Digest::of(secret)).await.unwrap()[..], secret);
    let third = snapshot(&blobs, "w3", 1, &[secret]).await;
    assert_eq!(blobs.verify(&second).await.unwrap().damaged_count, 0);
    let blobs = open(&['b']).await;
    assert_eq!(names(&blobs).await, ["w3", "w1"]);
    let locked = blobs.locked().await.unwrap();
    assert_eq!((locked.len(), locked[0].snapshots), (1, 1));
    assert!(Error::Locked(locked[0].key.clone()).to_string().contains("snapshots.key_file"));
    let late = crate::clock::now().plus_ms(48 * HOUR_MS);
    retain(&blobs, &Needed::default(), late).await;
    assert_eq!(blobs.verify(&third).await.unwrap().damaged_count, 0);
    let blobs = open(&['b', 'a']).await;
    assert_eq!(blobs.verify(&second).await.unwrap().damaged_count, 0, "nothing of it was taken for an orphan");
    assert_eq!(&sealed().await.get_manifest(&second).await.unwrap().signature, &[7; 64]);
    // Under a wrong key nothing opens, and a file that others can read is not taken.
    std::fs::set_permissions(folder.path().join("snapshot.keys"), std::fs::Permissions::from_mode(0o644)).unwrap();
    let key_file = Some(folder.path().join("snapshot.keys"));
    let open = Blobs::open(Settings { key_file, ..Settings::default() }, &at).await.unwrap_err();
    assert!(matches!(open, Error::Open { .. }) && open.to_string().contains("chmod 600"), "{open}");
}

#[tokio::test]
async fn what_is_old_goes_to_the_cold_store_and_is_read_back() {
    let folder = tempfile::tempdir().unwrap();
    let cold =
        Cold { after_ms: 24 * HOUR_MS, bytes_maximum: 16 << 20, folder: Some(folder.path().join("cold")), s3: None };
    let settings = Settings { cold: Some(cold), hot_bytes: 3_000, ..Settings::default() };
    let at = folder.path().join("store");
    let blobs = Blobs::open(settings.clone(), &at).await.unwrap();
    let (own, shared) = (noise(1, 1_000), noise(2, 1_000));
    let old = snapshot(&blobs, "w1", 30, &[&own, &shared]).await;
    let young = snapshot(&blobs, "w2", 1, &[&shared, b"young"]).await;
    let needed = Needed { snapshots: BTreeSet::from([SnapshotId::new("w1")]), ..Needed::default() };
    assert_eq!(retain(&blobs, &needed, crate::clock::now()).await.cooled, 0, "what is needed stays near");
    assert_eq!(retain(&blobs, &Needed::default(), crate::clock::now()).await.cooled, 1);
    let tier = async |blobs: &Blobs, digest| blobs.snapshot(digest).await.unwrap().unwrap().tier;
    assert_eq!((tier(&blobs, &old).await, tier(&blobs, &young).await), (StoreTier::Cold, StoreTier::Warm));
    let cold_store = blobs.inner.cold.clone().unwrap();
    assert_eq!(objects(&cold_store).await, [chunk_at(None, &Digest::of(&own)).unwrap()], "the shared one is warm");
    for digest in [&old, &young] {
        assert_eq!(blobs.verify(digest).await.unwrap().damaged_count, 0);
    }
    // The hot tier is bounded, and what is in it is verified like anything else.
    let hot = blobs.inner.hot.as_ref().unwrap();
    assert!(hot.bytes() > 0 && hot.bytes() <= 3_000);
    let location = chunk_at(None, &Digest::of(&own)).unwrap();
    blobs.read_chunk(&Digest::of(&own)).await.unwrap();
    std::fs::write(folder.path().join("store.hot").join(&location), b"something else").unwrap();
    assert_eq!(&blobs.read_chunk(&Digest::of(&own)).await.unwrap()[..], own);

    // The next life finds it where it is; when the young one has aged too, the shared chunk follows.
    let blobs = Blobs::open(settings.clone(), &at).await.unwrap();
    assert_eq!(tier(&blobs, &old).await, StoreTier::Warm, "a chunk of it is warm, so it is looked at again");
    let later = crate::clock::now().plus_ms(30 * HOUR_MS);
    assert_eq!(retain(&blobs, &Needed::default(), later).await.cooled, 2);
    assert_eq!((objects(&cold_store).await.len(), blobs.bytes(StoreTier::Warm).await.unwrap()), (3, 0));
    let blobs = Blobs::open(settings, &at).await.unwrap();
    assert_eq!((tier(&blobs, &old).await, tier(&blobs, &young).await), (StoreTier::Cold, StoreTier::Cold));
    assert_eq!(blobs.verify(&young).await.unwrap().damaged_count, 0);
    // A new snapshot brings what it needs near again, and what is removed is gone from both.
    let newest = snapshot(&blobs, "w3", 0, &[&shared]).await;
    assert_eq!(tier(&blobs, &newest).await, StoreTier::Warm);
    for digest in [&old, &young, &newest] {
        blobs.delete_snapshot(digest).await.unwrap();
    }
    assert_eq!(retain(&blobs, &Needed::default(), crate::clock::now()).await.chunks, 3);
    assert_eq!(objects(&cold_store).await.len() + objects(&blobs.inner.warm).await.len(), 0);
}
