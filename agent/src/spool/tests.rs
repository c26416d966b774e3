//! The spool against crashes, corrupt tails, a full disk and its own bounds.

use super::{medium::Medium, *};
use aether_core::{
    subject::SubjectRef,
    telemetry::{Sample, SeriesKey},
};
use proptest::prelude::*;
use std::{
    collections::BTreeMap,
    fs::OpenOptions,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

fn limits() -> SpoolLimits {
    SpoolLimits {
        bytes: 1 << 20,
        age: Duration::from_secs(3_600),
        memory_batches: 3,
        sync_interval: Duration::from_secs(60),
    }
}

fn series(value: f64) -> Vec<SeriesSamples> {
    let key = SeriesKey {
        subject: SubjectRef::node("node-a"),
        metric: "m".into(),
        unit: "1".into(),
        attributes: BTreeMap::new(),
    };
    vec![SeriesSamples { key: key.into(), samples: [Sample { at: Time(1), value }].into() }]
}

fn open(path: &Path) -> Spool {
    open_in(path, "a boot")
}

fn open_in(path: &Path, boot: &str) -> Spool {
    Spool::open(path, NodeId::new("node-a"), boot.into(), limits()).unwrap()
}

fn named(metric: &str, value: f64) -> SeriesSamples {
    let [mut named] = <[_; 1]>::try_from(series(value)).unwrap();
    named.key = Arc::new(SeriesKey { metric: metric.into(), ..(*named.key).clone() });
    named
}

/// Metrics of a batch, and its first value.
fn told(batch: &Batch) -> (Vec<String>, Option<f64>) {
    let metrics = batch.series.layout().keys().map(|key| key.metric.clone()).collect();
    (metrics, batch.series.values().first().copied())
}

fn fill(spool: &Spool, count: usize) {
    for _ in 0..count {
        spool.append(series(1.0), vec![], Time(1_000));
    }
}

fn ack(epoch: u64, sequence: u64, beyond: &[(u64, u64)]) -> v1::TelemetryAck {
    let beyond = beyond.iter().map(|&(first, last)| v1::SequenceRange { first, last }).collect();
    v1::TelemetryAck { epoch, sequence, beyond }
}

/// Sequences from `after` on, each with what was lost before it.
fn drain(spool: &Spool, mut after: u64) -> Vec<(u64, u64)> {
    let mut drained = Vec::new();
    while let Some(next) = spool.next_after(after) {
        after = next.batch.sequence;
        drained.push((after, next.lost_before));
    }
    drained
}

fn segments(path: &Path) -> Vec<PathBuf> {
    let files = std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = files.filter(|path| path.extension().is_some_and(|e| e == "segment")).collect();
    files.sort();
    files
}

#[test]
fn batches_come_out_in_order_and_survive_a_kill() {
    let folder = tempfile::tempdir().unwrap();
    let spool = open(folder.path());
    fill(&spool, 3);
    assert_eq!(drain(&spool, 0), [(1, 0), (2, 0), (3, 0)]);
    spool.acknowledge(&ack(spool.epoch(), 2, &[]));
    assert_eq!(spool.depth().batches, 1);
    let epoch = spool.epoch();
    // A kill runs no destructor.
    std::mem::forget(spool);
    let spool = open(folder.path());
    assert_eq!(spool.epoch(), epoch);
    fill(&spool, 1);
    assert_eq!(drain(&spool, spool.resume(&ack(epoch, 2, &[]))), [(3, 0), (4, 0)]);
}

#[test]
fn what_is_sent_at_once_is_what_the_disk_has() {
    let folder = tempfile::tempdir().unwrap();
    let spool = open(folder.path());
    let told = vec![named("m", 1.0), named("n", f64::NAN)];
    let attributes = [("process.pid".to_owned(), "7".to_owned())].into();
    let event = DiscreteEvent { subject: SubjectRef::node("node-a"), name: "e".into(), at: Time(999), attributes };
    spool.append(told, vec![event], Time(1_000));
    let at_once = format!("{:?}", spool.next_after(0));
    assert!(at_once.contains("NaN"), "{at_once}");
    assert_eq!(format!("{:?}", spool.next_after(0)), at_once, "a stream that broke has it sent again");
}

#[test]
fn numbers_go_on_after_all_was_acknowledged() {
    let folder = tempfile::tempdir().unwrap();
    let spool = open(folder.path());
    fill(&spool, 5);
    spool.acknowledge(&ack(spool.epoch(), 5, &[]));
    drop(spool);
    let spool = open(folder.path());
    fill(&spool, 1);
    assert_eq!(drain(&spool, 5), [(6, 0)]);
}

#[test]
fn after_the_machine_crashed_no_number_is_given_twice() {
    let folder = tempfile::tempdir().unwrap();
    let spool = open_in(folder.path(), "first");
    fill(&spool, 3);
    // They were sent, and the disk has nothing of it.
    std::mem::forget(spool);
    std::fs::write(segments(folder.path()).pop().unwrap(), []).unwrap();
    // An agent that ends before its first batch leaves the same behind.
    std::mem::forget(open_in(folder.path(), "second"));
    let spool = open_in(folder.path(), "second");
    fill(&spool, 2);
    assert_eq!(drain(&spool, spool.resume(&ack(spool.epoch(), 3, &[]))), [(9, 5), (10, 0)]);
    assert_eq!(spool.depth().lost, 0, "of those before, the host has all that were made");
    // A kill, which costs nothing, and a machine that was shut down in order.
    std::mem::forget(spool);
    let spool = open_in(folder.path(), "second");
    spool.close();
    let spool = open_in(folder.path(), "third");
    fill(&spool, 1);
    assert_eq!(drain(&spool, 8), [(9, 0), (10, 0), (11, 0)]);
}

#[test]
fn not_more_is_unsynced_than_numbers_are_left_out() {
    let folder = tempfile::tempdir().unwrap();
    let disk = Watched::at(folder.path());
    let did = disk.did.clone();
    let spool = over(disk);
    fill(&spool, 100);
    let did = did.lock().unwrap();
    let longest = did.split(|did| *did == "sync").map(<[_]>::len).max().unwrap();
    assert_eq!((did.iter().filter(|did| **did == "append").count(), longest), (100, 8));
}

#[test]
fn a_segment_of_a_former_version_is_read() {
    // Each record of it is compressed with a dictionary of its own; frozen, and never refreshed.
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("spool.json"), r#"{"epoch": 77}"#).unwrap();
    let frozen = include_bytes!("golden/segment-of-whole-records.bin");
    std::fs::write(folder.path().join(format!("{:020}.segment", 1)), frozen).unwrap();
    let spool = open(folder.path());
    spool.append(vec![named("d", 10.0)], vec![], Time(4_000));
    let read = |after| spool.next_after(after).map(|next| told(&next.batch)).unwrap();
    let metrics = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    // In any order, and again.
    for after in [2, 0, 1, 3, 0, 2] {
        let (names, value): (&[&str], _) =
            [(&["a", "b"][..], 1.0), (&["b"], 4.0), (&["c", "a"], 6.0), (&["d"], 10.0)][after];
        assert_eq!(read(after as u64), (metrics(names), Some(value)), "{after}");
    }
    let event = &spool.next_after(1).unwrap().batch.events[0];
    assert_eq!((event.name.as_str(), event.attributes["process.pid"].as_str()), ("e", "7"));
    assert_eq!(spool.depth().batches, 4);
}

#[test]
fn what_a_damaged_record_defined_takes_with_it_only_what_builds_on_it() {
    let folder = tempfile::tempdir().unwrap();
    let spool = open(folder.path());
    for metrics in [&["a"][..], &["b"], &["a", "b"], &["b"], &["b"]] {
        spool.append(metrics.iter().map(|metric| named(metric, 1.0)).collect(), vec![], Time(1_000));
    }
    let file = segments(folder.path()).pop().unwrap();
    let mut bytes = std::fs::read(&file).unwrap();
    bytes[30] ^= 1;
    std::fs::write(&file, bytes).unwrap();
    assert_eq!(drain(&spool, 0), [(2, 1), (4, 1), (5, 0)]);
    assert_eq!(spool.depth().lost, 2);
}

#[test]
fn what_could_not_be_read_once_is_looked_for_again() {
    let folder = tempfile::tempdir().unwrap();
    let spool = open(folder.path());
    (0..4).for_each(|_| spool.append(vec![named("a", 1.0)], vec![], Time(1_000)));
    let file = segments(folder.path()).pop().unwrap();
    let away = folder.path().join("away");
    std::fs::rename(&file, &away).unwrap();
    // The newest is in memory until it is read.
    assert_eq!(spool.next_after(1).map(|next| next.batch.sequence), Some(4));
    std::fs::rename(&away, &file).unwrap();
    assert_eq!(spool.next_after(3).map(|next| next.batch.sequence), Some(4), "it builds on the first");
    assert_eq!((drain(&spool, 0), spool.depth().lost), (vec![(1, 0), (4, 2)], 2));
}

#[test]
fn a_segment_defines_no_more_series_than_a_stream_may() {
    let folder = tempfile::tempdir().unwrap();
    let large = SpoolLimits { bytes: 1 << 30, ..limits() };
    let spool = Spool::open(folder.path(), NodeId::new("node-a"), "a boot".into(), large).unwrap();
    let count = SERIES_MAXIMUM / 2 - 1;
    for round in 0..5 {
        let series = (0..count).map(|index| named(&format!("{round}/{index}"), 1.0));
        spool.append(series.collect(), vec![], Time(1_000));
    }
    assert_eq!(segments(folder.path()).len(), 3);
    let counts = (0..5).map(|after| spool.next_after(after).unwrap().batch.series.len());
    assert_eq!(counts.collect::<Vec<_>>(), [count; 5]);
}

#[test]
fn a_torn_tail_is_cut_off() {
    let folder = tempfile::tempdir().unwrap();
    let spool = open(folder.path());
    fill(&spool, 4);
    drop(spool);
    let file = segments(folder.path()).pop().unwrap();
    let length = std::fs::metadata(&file).unwrap().len();
    OpenOptions::new().write(true).open(&file).unwrap().set_len(length - 3).unwrap();
    let spool = open(folder.path());
    fill(&spool, 1);
    assert_eq!(drain(&spool, 0), [(1, 0), (2, 0), (3, 0), (4, 0)]);
}

#[test]
fn a_host_that_is_ahead_moves_the_numbers_on() {
    let folder = tempfile::tempdir().unwrap();
    let spool = open(folder.path());
    fill(&spool, 2);
    let after = spool.resume(&ack(spool.epoch(), 9, &[]));
    fill(&spool, 1);
    assert_eq!(drain(&spool, after), [(10, 0)]);
    assert_eq!(spool.depth().lost, 2);
    // Another epoch says nothing about this one.
    assert_eq!(spool.resume(&ack(1, 100, &[])), 0);
}

#[test]
fn what_the_host_has_beyond_a_gap_is_not_sent_again_and_counts_no_more() {
    let folder = tempfile::tempdir().unwrap();
    let spool = open(folder.path());
    let epoch = spool.epoch();
    for second in 1..=9 {
        spool.append(series(1.0), vec![], Time(second * 1_000));
    }
    assert!(!spool.acknowledge(&ack(1, 9, &[])), "of another spool");
    assert!(spool.acknowledge(&ack(epoch, 2, &[(5, 6), (8, 8)])));
    assert_eq!(drain(&spool, 2), [(3, 0), (4, 0), (7, 2), (9, 1)], "of those before it the host knows which it has");
    let depth = spool.depth();
    assert_eq!((depth.batches, depth.oldest), (4, Some(Time(3_000))));
    // A host that was set back has less; one that is ahead beyond a gap moves the numbers on, and the gap is to be filled.
    assert_eq!(spool.resume(&ack(epoch, 1, &[])), 1);
    assert_eq!(spool.depth().batches, 8);
    drop(spool);
    let spool = open(folder.path());
    fill(&spool, 1);
    assert_eq!(spool.resume(&ack(epoch, 7, &[(9, 11)])), 7);
    fill(&spool, 1);
    assert_eq!(drain(&spool, 7), [(8, 0), (12, 3)]);
    assert_eq!(spool.depth().lost, 1, "10 is another's number at the host");
}

#[test]
fn the_oldest_goes_first_and_the_gap_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let small = SpoolLimits { bytes: 4_000, ..limits() };
    let spool = Spool::open(folder.path(), NodeId::new("node-a"), "a boot".into(), small).unwrap();
    fill(&spool, 200);
    let drained = drain(&spool, 0);
    let (first, lost) = drained[0];
    assert!(first > 1 && lost == first - 1, "{drained:?}");
    assert!(drained[1..].iter().all(|(_, lost)| *lost == 0));
    assert_eq!(drained.last().unwrap().0, 200);
    assert_eq!(spool.depth().lost, lost);
    let bytes: u64 = segments(folder.path()).iter().map(|path| std::fs::metadata(path).unwrap().len()).sum();
    assert!(bytes <= 5_000, "{bytes}");
}

#[test]
fn what_is_too_old_goes() {
    let folder = tempfile::tempdir().unwrap();
    let small = SpoolLimits { bytes: 40_000, age: Duration::from_secs(60), ..limits() };
    let spool = Spool::open(folder.path(), NodeId::new("node-a"), "a boot".into(), small).unwrap();
    fill(&spool, 200);
    spool.append(series(1.0), vec![], Time(100_000));
    let (first, lost) = drain(&spool, 0)[0];
    assert!(first > 1 && lost == first - 1);
}

/// A disk that takes nothing while it is full, and tears what is written at that moment. It says what was done to it.
struct Watched {
    inner: Folder,
    full: Arc<AtomicBool>,
    did: Arc<Mutex<Vec<&'static str>>>,
}

impl Watched {
    fn at(path: &Path) -> Self {
        Self { inner: Folder::at(path), full: Arc::default(), did: Arc::default() }
    }
}

impl Medium for Watched {
    fn list(&self) -> io::Result<Vec<u64>> {
        self.inner.list()
    }
    fn read(&self, segment: u64) -> io::Result<Vec<u8>> {
        self.inner.read(segment)
    }
    fn read_at(&self, segment: u64, offset: u64, length: usize) -> io::Result<Vec<u8>> {
        self.inner.read_at(segment, offset, length)
    }
    fn append(&mut self, segment: u64, bytes: &[u8]) -> io::Result<()> {
        self.did.lock().unwrap().push("append");
        if self.full.load(Ordering::SeqCst) {
            self.inner.append(segment, &bytes[..bytes.len() / 2])?;
            return Err(rustix::io::Errno::NOSPC.into());
        }
        self.inner.append(segment, bytes)
    }
    fn truncate(&mut self, segment: u64, length: u64) -> io::Result<()> {
        self.inner.truncate(segment, length)
    }
    fn sync(&mut self, segment: u64) -> io::Result<()> {
        self.did.lock().unwrap().push("sync");
        self.inner.sync(segment)
    }
    fn remove(&mut self, segment: u64) -> io::Result<()> {
        self.inner.remove(segment)
    }
}

fn over(disk: impl Medium + 'static) -> Spool {
    let mut inner = Inner::new(Box::new(disk), NodeId::new("node-a"), 7, limits());
    inner.recover().unwrap();
    Spool::over(inner, PathBuf::new())
}

#[test]
fn a_full_disk_stops_nothing_and_loses_only_what_memory_cannot_hold() {
    let folder = tempfile::tempdir().unwrap();
    let disk = Watched::at(folder.path());
    let full = disk.full.clone();
    let spool = over(disk);
    fill(&spool, 2);
    full.store(true, Ordering::SeqCst);
    // Of a series that the disk has not heard of, and of one that it has.
    for metric in ["n", "m", "n", "m", "n"] {
        spool.append(vec![named(metric, 1.0)], vec![], Time(1_000));
    }
    let depth = spool.depth();
    assert!(depth.trouble.as_deref().unwrap().contains("No space left"), "{depth:?}");
    assert_eq!((depth.batches, depth.lost), (5, 2));
    // What is in memory is sent meanwhile, and the gap told.
    assert_eq!(drain(&spool, 0), [(1, 0), (2, 0), (5, 2), (6, 0), (7, 0)]);
    full.store(false, Ordering::SeqCst);
    fill(&spool, 1);
    assert_eq!(spool.depth().trouble, None);
    drop(spool);
    let spool = over(Folder::at(folder.path()));
    assert_eq!(drain(&spool, 0), [(1, 0), (2, 0), (5, 2), (6, 0), (7, 0), (8, 0)]);
    let metrics = [0, 4, 5, 6, 7].map(|after| told(&spool.next_after(after).unwrap().batch).0.concat());
    assert_eq!(metrics, ["m", "n", "m", "n", "m"]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    /// Whatever series come and go, over segments and lives, a batch that is read is the one that was put in.
    #[test]
    fn what_is_read_was_put_in(
        batches in proptest::collection::vec((proptest::collection::btree_set(0u8..40, 0..12), any::<bool>()), 1..40),
        looks in proptest::collection::vec(any::<prop::sample::Index>(), 1..40),
    ) {
        let folder = tempfile::tempdir().unwrap();
        let small = SpoolLimits { bytes: 4_000_000, ..limits() };
        let open = || {
            let mut spool = Spool::open(folder.path(), NodeId::new("node-a"), "a boot".into(), small).unwrap();
            // Segments of some batches each, and none that is dropped.
            spool.inner.get_mut().unwrap().segment_bytes = 600;
            spool
        };
        let mut spool = open();
        for (sequence, (metrics, dies)) in batches.iter().enumerate() {
            let series = metrics.iter().map(|metric| named(&format!("m{metric}"), sequence as f64));
            spool.append(series.collect(), vec![], Time(1_000));
            if *dies {
                drop(spool);
                spool = open();
            }
        }
        for look in looks {
            let at = look.index(batches.len());
            let Next { batch, lost_before } = spool.next_after(at as u64).unwrap();
            let metrics: Vec<String> = batches[at].0.iter().map(|metric| format!("m{metric}")).collect();
            let value = (!metrics.is_empty()).then_some(at as f64);
            prop_assert_eq!((batch.sequence, lost_before, told(&batch)), (at as u64 + 1, 0, (metrics, value)));
        }
    }

    /// Whatever happens to the tail, what comes out was put in, in order, and numbers are not given twice.
    #[test]
    fn any_damage_is_survived(count in 1usize..12, cut in 0u64..600, flip in proptest::option::of(0usize..2_000)) {
        let folder = tempfile::tempdir().unwrap();
        let spool = open(folder.path());
        fill(&spool, count);
        drop(spool);
        let file = segments(folder.path()).pop().unwrap();
        let mut bytes = std::fs::read(&file).unwrap();
        bytes.truncate(bytes.len().saturating_sub(usize::try_from(cut).unwrap()));
        if let Some(byte) = flip.and_then(|at| bytes.get_mut(at)) {
            *byte ^= 0x10;
        }
        std::fs::write(&file, bytes).unwrap();
        let spool = open(folder.path());
        let before = drain(&spool, 0);
        prop_assert!(before.len() <= count);
        let whole: Vec<(u64, u64)> = (1..=before.len() as u64).map(|sequence| (sequence, 0)).collect();
        prop_assert_eq!(&before, &whole);
        fill(&spool, 1);
        let after = drain(&spool, 0);
        prop_assert_eq!(after.len(), before.len() + 1);
    }
}
