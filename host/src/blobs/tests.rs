//! Chunks and manifests: stored whole, read whole, refused otherwise, kept within bounds.

use super::*;
use aether_core::snapshot::{ChunkRef, SnapshotFile, Tier, WorkloadSpec};

async fn put(blobs: &Blobs, plain: &[u8]) -> Digest {
    let digest = Digest::of(plain);
    blobs.put_chunk(&digest, Encoded::Raw(plain.to_vec().into()), plain.len()).await.unwrap();
    digest
}

async fn snapshot(blobs: &Blobs, name: &str, taken_at: i64, chunks: &[&[u8]]) -> Digest {
    let mut references = Vec::new();
    for chunk in chunks {
        let digest = put(blobs, chunk).await;
        references.push(ChunkRef { digest, size_bytes: u32::try_from(chunk.len()).unwrap() });
    }
    let size = references.iter().map(|chunk| u64::from(chunk.size_bytes)).sum();
    let manifest = Manifest {
        schema_version: Manifest::SCHEMA_VERSION,
        snapshot: SnapshotId::new(name),
        workload: WorkloadSpec {
            id: WorkloadId::new("w"),
            name: "w".into(),
            tier: Tier::Standard,
            command: vec![],
            progress_file: None,
        },
        generation: 1,
        source: NodeId::new("node-a"),
        taken_at: Time(taken_at),
        progress: None,
        criu_version: "4".into(),
        kernel_release: "6".into(),
        architecture: "x86_64".into(),
        files: vec![SnapshotFile { name: "pages".into(), size_bytes: size, chunks: references }],
        total_bytes: size,
    };
    blobs.put_manifest(aether_core::plan::canonical(&manifest).into()).await.unwrap().0
}

#[tokio::test]
async fn the_oldest_snapshots_go_first_and_what_is_needed_stays() {
    let folder = tempfile::tempdir().unwrap();
    let settings = Settings { snapshots_maximum: 2, ..Settings::default() };
    let blobs = Blobs::open(settings.clone(), folder.path()).await.unwrap();
    let needed = snapshot(&blobs, "1", 1, &[b"one", b"shared"]).await;
    let old = snapshot(&blobs, "2", 2, &[b"two", b"shared"]).await;
    snapshot(&blobs, "3", 3, &[b"three"]).await;
    snapshot(&blobs, "4", 4, &[b"four"]).await;
    let waiting = put(&blobs, b"its manifest is still to come").await;
    let now = crate::clock::now();
    let done = blobs.retain(&BTreeSet::from([needed.clone()]), now).await.unwrap();
    assert_eq!((done.snapshots, done.chunks), (1, 1), "snapshot 2 and its chunk `two`");
    assert!(matches!(blobs.manifest(&old).await, Err(Error::Missing(_))));
    assert_eq!(&blobs.read_chunk(&Digest::of(b"shared")).await.unwrap()[..], b"shared");
    assert!(blobs.has_chunk(&waiting).await.unwrap());
    let names: Vec<_> = blobs.snapshots().await.unwrap().into_iter().map(|view| view.snapshot.0).collect();
    assert_eq!(names, ["4", "3", "1"]);
    // Much later its manifest has still not come.
    let done = blobs.retain(&BTreeSet::from([needed]), now.plus_ms(2 * settings.orphan_ms)).await.unwrap();
    assert_eq!((done.snapshots, done.chunks), (0, 1));
    let again = Blobs::open(settings, folder.path()).await.unwrap();
    assert_eq!(again.bytes(), blobs.bytes());
}

#[tokio::test]
async fn a_full_store_refuses_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let blobs = Blobs::open(Settings { bytes_maximum: 16 << 20, ..Settings::default() }, folder.path()).await.unwrap();
    blobs.inner.bytes.store(16 << 20, Relaxed);
    let digest = Digest::of(b"x");
    let full = blobs.put_chunk(&digest, Encoded::Raw(Bytes::from_static(b"x")), 1).await.unwrap_err();
    assert_eq!(full.code(), "store.full");
    blobs.retain(&BTreeSet::new(), crate::clock::now()).await.unwrap();
    put(&blobs, b"x").await;
}

#[tokio::test]
async fn a_chunk_that_was_damaged_on_the_disk_is_noticed_and_mended() {
    let folder = tempfile::tempdir().unwrap();
    let blobs = Blobs::open(Settings::default(), folder.path()).await.unwrap();
    let digest = put(&blobs, b"good").await;
    let file = folder.path().join(chunk_location(&digest).unwrap().as_ref());
    std::fs::write(&file, zstd::bulk::compress(b"evil", 1).unwrap()).unwrap();
    assert!(matches!(blobs.get_chunk(&digest).await, Err(Error::Mismatch(_))));
    put(&blobs, b"good").await;
    assert_eq!(&blobs.read_chunk(&digest).await.unwrap()[..], b"good");
}
