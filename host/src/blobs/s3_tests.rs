//! The store in a bucket of OpenStack Swift's S3 API, as `make setup` installs it, behind a line that can be cut.

use super::{tests::*, *};
use object_store::{
    aws::AmazonS3Builder,
    signer::{Method, Signer as _},
};
use std::{
    os::unix::fs::PermissionsExt as _,
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
};

const RETRY_MS: u64 = 30_000;
/// Swift's account and user.
const ACCESS_KEY_ID: &str = "tests:host";
const SECRET: &str = "nobody-is-shown-this-word";

/// A line to the server that can be cut, and counts what goes over it.
struct Line {
    port: u16,
    up: watch::Sender<bool>,
    /// Bytes to the server, and from it.
    sent: Arc<AtomicU64>,
    came: Arc<AtomicU64>,
    _running: JoinSet<()>,
}

impl Line {
    async fn to(server: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (up, mut state) = watch::channel(true);
        let (sent, came) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let counts = (sent.clone(), came.clone());
        let mut running = JoinSet::new();
        running.spawn(async move {
            let mut listener = Some(listener);
            loop {
                let Some(open) = &listener else {
                    // Nobody listens: a connection is refused.
                    state.wait_for(|up| *up).await.unwrap();
                    listener = Some(TcpListener::bind(("127.0.0.1", port)).await.unwrap());
                    continue;
                };
                // Connections end with this set when the line is cut.
                let mut connections = JoinSet::new();
                loop {
                    tokio::select! {
                        _ = state.wait_for(|up| !*up) => break,
                        accepted = open.accept() => {
                            connections.spawn(carry(accepted.unwrap().0, server, counts.clone()));
                        }
                    }
                }
                listener = None;
            }
        });
        Self { port, up, sent, came, _running: running }
    }

    fn cut(&self) {
        self.up.send_replace(false);
    }

    fn mend(&self) {
        self.up.send_replace(true);
    }
}

async fn carry(near: TcpStream, server: u16, (sent, came): (Arc<AtomicU64>, Arc<AtomicU64>)) {
    let Ok(far) = TcpStream::connect(("127.0.0.1", server)).await else { return };
    let (near_read, near_write) = near.into_split();
    let (far_read, far_write) = far.into_split();
    tokio::join!(count(near_read, far_write, sent), count(far_read, near_write, came));
}

async fn count(
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
    counted: Arc<AtomicU64>,
) {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let mut buffer = vec![0; 64 << 10];
    while let Ok(n @ 1..) = from.read(&mut buffer).await {
        counted.fetch_add(n as u64, Relaxed);
        if to.write_all(&buffer[..n]).await.is_err() {
            return;
        }
    }
}

/// A server with an empty bucket; ended with the test.
struct Bucket {
    server: Child,
    line: Line,
    folder: tempfile::TempDir,
}

impl Drop for Bucket {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

impl Bucket {
    async fn start(test: &str) -> Option<Self> {
        let Some(python) = std::env::var_os("AETHER_SWIFT_PYTHON") else {
            assert!(!std::env::var("CI").is_ok_and(|ci| ci == "true"), "{test} needs AETHER_SWIFT_PYTHON");
            if let Some(skips) = std::env::var_os("AETHER_SKIPS") {
                use std::io::Write as _;
                let file = std::fs::File::options().append(true).create(true).open(skips);
                file.and_then(|mut file| writeln!(file, "test {test}: no S3 server")).unwrap();
            }
            return None;
        };
        let _ = rustls::crypto::ring::default_provider().install_default();
        let folder = tempfile::tempdir().unwrap();
        let secret = folder.path().join("secret");
        std::fs::write(&secret, SECRET).unwrap();
        std::fs::set_permissions(&secret, std::fs::Permissions::from_mode(0o600)).unwrap();
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let server = Command::new(python)
            .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/s3/server.py"))
            .arg(folder.path().join("server"))
            .args([&port.to_string(), ACCESS_KEY_ID])
            .stdin(std::fs::File::open(&secret).unwrap())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let bucket = Self { server, line: Line::to(port).await, folder };
        let signer = AmazonS3Builder::new()
            .with_bucket_name("snapshots")
            .with_endpoint(format!("http://127.0.0.1:{port}"))
            .with_allow_http(true)
            .with_access_key_id(ACCESS_KEY_ID)
            .with_secret_access_key(SECRET)
            .build()
            .unwrap();
        let made = signer.signed_url(Method::PUT, &"".into(), Duration::from_secs(600)).await.unwrap();
        let client = reqwest::Client::new();
        let mut tries = tokio::time::interval(Duration::from_millis(100));
        for _ in 0..900 {
            tries.tick().await;
            let made = client.put(made.clone()).send().await;
            if made.is_ok_and(|made| made.status().is_success()) {
                return Some(bucket);
            }
        }
        panic!("the S3 server does not answer");
    }

    fn s3(&self, retry_ms: u64) -> S3 {
        S3 {
            bucket: "snapshots".into(),
            prefix: "here".into(),
            region: Some("us-east-1".into()),
            endpoint: Some(format!("http://127.0.0.1:{}", self.line.port)),
            access_key_id: Some(ACCESS_KEY_ID.into()),
            secret_access_key_file: Some(self.folder.path().join("secret")),
            retry_ms,
        }
    }

    async fn open(&self, settings: Settings, retry_ms: u64) -> Blobs {
        let settings = Settings { s3: Some(self.s3(retry_ms)), ..settings };
        Blobs::open(settings, &self.folder.path().join("store")).await.unwrap()
    }
}

fn no_hot() -> Settings {
    Settings { hot_bytes: 0, ..Settings::default() }
}

#[tokio::test]
async fn the_same_in_a_bucket() {
    let Some(bucket) = Bucket::start("the_same_in_a_bucket").await else { return };
    let settings = Settings { snapshots_maximum: 2, ..no_hot() };
    let blobs = bucket.open(settings.clone(), RETRY_MS).await;
    let old = snapshot(&blobs, "w1", 3, &[b"one", b"shared"]).await;
    snapshot(&blobs, "w2", 2, &[b"two", b"shared"]).await;
    let kept = snapshot(&blobs, "w3", 1, &[&[7; 1 << 20]]).await;
    assert!(matches!(blobs.get_chunk(&Digest::of(b"never put")).await, Err(Error::Missing(_))));
    let refused = blobs.put_manifest(sign(&manifest("w4", 0, &[b"never put"]))).await.unwrap_err();
    assert_eq!(refused.code(), "manifest.missing-chunk");
    let done = retain(&blobs, &Needed::default(), crate::clock::now()).await;
    assert_eq!((done.snapshots, done.chunks), (1, 1));
    assert!(matches!(blobs.manifest(&old).await, Err(Error::Missing(_))));
    // Another life of the host finds the same, and nothing was put on the disk.
    let again = bucket.open(settings, RETRY_MS).await;
    assert_eq!(names(&again).await, ["w3", "w2"]);
    assert_eq!(again.bytes(StoreTier::Warm).await.unwrap(), blobs.bytes(StoreTier::Warm).await.unwrap());
    assert_eq!(&again.read_chunk(&Digest::of(b"shared")).await.unwrap()[..], b"shared");
    assert_eq!(again.get_manifest(&kept).await.unwrap().signature, [7; 64]);
    assert!(!bucket.folder.path().join("store").exists());
    let shown = format!("{again:?}");
    assert!(!shown.contains(SECRET), "credentials are shown: {shown}");
}

#[tokio::test]
async fn a_wrong_secret_is_refused_in_the_servers_words() {
    let Some(bucket) = Bucket::start("a_wrong_secret_is_refused").await else { return };
    std::fs::write(bucket.folder.path().join("secret"), "another word").unwrap();
    let blobs = bucket.open(no_hot(), RETRY_MS).await;
    let asked = tokio::time::Instant::now();
    let error = blobs.snapshots().await.unwrap_err();
    assert!(asked.elapsed() < Duration::from_millis(RETRY_MS), "a refusal is not tried again");
    assert_eq!(error.code(), "store.failed");
    let said = std::error::Error::source(&error).unwrap().to_string();
    assert!(said.contains("SignatureDoesNotMatch"), "{said}");
    assert!(!format!("{said} {error:?}").contains("another word"), "{said}");
}

#[tokio::test]
async fn an_outage_is_waited_out_and_one_that_lasts_is_an_error() {
    let Some(bucket) = Bucket::start("an_outage_is_waited_out").await else { return };
    bucket.line.cut();
    // The host starts without it, and says so to whoever asks.
    let blobs = bucket.open(no_hot(), 300).await;
    assert_eq!(blobs.snapshots().await.unwrap_err().code(), "store.failed");
    bucket.line.mend();
    snapshot(&blobs, "w1", 1, &[b"before"]).await;

    // Cut in the middle of an upload: what comes later waits, and all of it arrives.
    let patient = bucket.open(no_hot(), RETRY_MS).await;
    let chunks: Vec<Vec<u8>> = (0..12).map(|seed| noise(seed, 256 << 10)).collect();
    let upload = async {
        for chunk in &chunks {
            put(&patient, chunk).await;
        }
    };
    let outage = async {
        let begun = bucket.line.sent.load(Relaxed);
        let mut look = tokio::time::interval(Duration::from_millis(5));
        while bucket.line.sent.load(Relaxed) < begun + (1 << 20) {
            look.tick().await;
        }
        bucket.line.cut();
        tokio::time::sleep(Duration::from_secs(2)).await;
        bucket.line.mend();
    };
    tokio::join!(upload, outage);
    let slices: Vec<&[u8]> = chunks.iter().map(Vec::as_slice).collect();
    let whole = patient.put_manifest(sign(&manifest("w2", 0, &slices))).await.unwrap().0;
    assert_eq!(patient.verify(&whole).await.unwrap().damaged_count, 0);

    // One that lasts longer than is waited for: an error, and nothing that would count as stored.
    put(&blobs, b"one of two").await;
    bucket.line.cut();
    let failed = blobs.put_chunk(&Digest::of(b"two"), Encoded::Raw(Bytes::from_static(b"two")), 3).await.unwrap_err();
    assert_eq!(failed.code(), "store.failed");
    let incomplete = sign(&manifest("w3", 0, &[b"one of two", b"two"]));
    assert_eq!(blobs.put_manifest(incomplete.clone()).await.unwrap_err().code(), "manifest.missing-chunk");
    let only = sign(&manifest("w4", 0, &[b"one of two"]));
    assert_eq!(blobs.put_manifest(only.clone()).await.unwrap_err().code(), "store.failed");
    bucket.line.mend();
    assert_eq!(names(&bucket.open(no_hot(), RETRY_MS).await).await, ["w2", "w1"]);
    // And once it is back, what failed can be done.
    put(&blobs, b"two").await;
    blobs.put_manifest(incomplete).await.unwrap();
    blobs.put_manifest(only).await.unwrap();
    assert_eq!(names(&bucket.open(no_hot(), RETRY_MS).await).await.len(), 4);
}

#[tokio::test]
async fn what_lies_near_is_not_fetched_and_what_is_old_is_read_from_the_bucket() {
    let Some(bucket) = Bucket::start("what_lies_near_is_not_fetched").await else { return };
    let cold = Cold { after_ms: HOUR_MS, bytes_maximum: 1 << 30, folder: None, s3: Some(bucket.s3(RETRY_MS)) };
    let settings = Settings { hot_bytes: 1 << 20, cold: Some(cold), ..Settings::default() };
    let at = bucket.folder.path().join("store");
    let key_file = bucket.folder.path().join("keys");
    std::fs::write(&key_file, "ab".repeat(32)).unwrap();
    std::fs::set_permissions(&key_file, std::fs::Permissions::from_mode(0o600)).unwrap();
    let settings = Settings { key_file: Some(key_file), ..settings };
    let blobs = Blobs::open(settings.clone(), &at).await.unwrap();
    let chunks: Vec<Vec<u8>> = (0..4).map(|seed| noise(seed, 512 << 10)).collect();
    let slices: Vec<&[u8]> = chunks.iter().map(Vec::as_slice).collect();
    let digest = snapshot(&blobs, "w1", 2, &slices).await;
    assert_eq!(retain(&blobs, &Needed::default(), crate::clock::now()).await.cooled, 1);
    assert_eq!((blobs.bytes(StoreTier::Warm).await.unwrap(), names(&blobs).await.len()), (0, 1));
    let came = || bucket.line.came.load(Relaxed);
    let before = came();
    assert_eq!(blobs.verify(&digest).await.unwrap().damaged_count, 0);
    let all = came() - before;
    assert!(all > 2 << 20, "all of it comes from the bucket: {all}");
    // The last one read lies near now.
    blobs.read_chunk(&Digest::of(&chunks[3])).await.unwrap();
    let before = came();
    blobs.read_chunk(&Digest::of(&chunks[3])).await.unwrap();
    assert_eq!(came(), before, "it was fetched again");
    // Without the bucket what lies near is still read, and what does not says why not.
    bucket.line.cut();
    blobs.read_chunk(&Digest::of(&chunks[3])).await.unwrap();
    bucket.line.mend();
    assert_eq!(Blobs::open(settings, &at).await.unwrap().verify(&digest).await.unwrap().damaged_count, 0);
}
