//! Merged segments from outside: nothing lost, nothing twice, whatever breaks and when; and how little is read of them.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod store;

use aether_core::{
    id::NodeId,
    subject::SubjectRef,
    telemetry::{Batch, DiscreteEvent, Sample, SeriesKey, SeriesSamples},
    time::Time,
};
use aether_recorder::{Appended, RangeQuery, Recorder, Settings};
use bytes::Bytes;
use parquet::{
    file::{
        reader::{FileReader, SerializedFileReader},
        serialized_reader::ReadOptionsBuilder,
    },
    record::{Row, RowAccessor},
};
use proptest::prelude::*;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, atomic::Ordering::Relaxed},
};
use store::{Fault, Store};

const NOW: Time = Time(1_795_226_400_000);
const EPOCH: u64 = 9;

fn settings() -> Settings {
    Settings { compact_after: 2, hot_window_ms: 60_000, ..Settings::default() }
}

fn key(subject: SubjectRef, metric: &str) -> SeriesKey {
    let attributes = BTreeMap::from([("device".to_owned(), "sda".to_owned())]);
    SeriesKey { subject, metric: metric.to_owned(), unit: "1".to_owned(), attributes }
}

/// Three samples and an event that are of this batch alone.
fn batch(origin: &str, sequence: u64) -> Batch {
    let at = NOW.plus_ms(sequence * 10_000);
    let series = |metric: &str, from: u64, count: u64| SeriesSamples {
        key: key(SubjectRef::node(origin), metric).into(),
        samples: (0..count)
            .map(|i| Sample { at: at.plus_ms(from + i), value: f64::from(u32::try_from(sequence * 10 + i).unwrap()) })
            .collect(),
    };
    let event = DiscreteEvent {
        subject: SubjectRef::workload("shared"),
        name: "gpu.xid".to_owned(),
        at,
        attributes: BTreeMap::new(),
    };
    Batch {
        origin: NodeId::new(origin),
        epoch: EPOCH,
        sequence,
        series: vec![series("a", 0, 2), series("b", 5, 1)].into(),
        events: vec![event],
    }
}

/// Origin, sequence, name and time of every row in the files, as any reader of Parquet sees them.
async fn rows(store: &Store) -> Vec<(String, u64, String, i64)> {
    let mut all = Vec::new();
    for (path, bytes) in store.files().await.into_iter().filter(|(path, _)| path.starts_with("segments/")) {
        let options = ReadOptionsBuilder::new().with_page_index().build();
        let reader = SerializedFileReader::new_with_options(bytes, options).unwrap();
        let rows: Vec<Row> = reader.get_row_iter(None).unwrap().map(|row| row.unwrap()).collect();
        assert!(rows.len() as i64 == reader.metadata().file_metadata().num_rows(), "{path}");
        let of = |row: &Row| {
            let at = row.get_timestamp_millis(7).unwrap();
            (row.get_string(6).unwrap().clone(), row.get_ulong(9).unwrap(), row.get_string(3).unwrap().clone(), at)
        };
        all.extend(rows.iter().map(of));
    }
    all.sort();
    all
}

/// What must be in the files when these batches are safe.
fn expected(safe: &BTreeMap<&'static str, u64>) -> Vec<(String, u64, String, i64)> {
    let of_batch = |origin: &str, n: u64| {
        let batch = batch(origin, n);
        let samples = batch
            .series
            .iter()
            .flat_map(|series| series.samples().map(move |sample| (series.key.metric.clone(), sample.at.0)));
        let events = batch.events.into_iter().map(|event| (event.name, event.at.0));
        let origin = origin.to_owned();
        samples.chain(events).map(move |(name, at)| (origin.clone(), n, name, at)).collect::<Vec<_>>()
    };
    let mut all: Vec<_> = safe
        .iter()
        .flat_map(|(origin, safe)| (1..=*safe).flat_map(|n| of_batch(origin, n)).collect::<Vec<_>>())
        .collect();
    all.sort();
    all
}

const ORIGINS: [&str; 3] = ["node-a", "node-b", "node-c"];

#[derive(Clone, Debug)]
enum Step {
    /// So many batches of one origin.
    Send(usize, u64),
    Seal,
    Compact,
    /// The so-manieth operation on the store fails, or nothing works from it on and the host starts again after it.
    Fault(Fault),
    /// kill -9, and a start.
    Crash,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let fault = (0u32..12, any::<bool>(), any::<bool>());
    let step = prop_oneof![
        4 => (0..ORIGINS.len(), 1u64..4).prop_map(|(origin, n)| Step::Send(origin, n)),
        4 => Just(Step::Seal),
        4 => Just(Step::Compact),
        2 => fault.prop_map(|(after, performed, stops)| Step::Fault(Fault { after, performed, stops })),
        1 => Just(Step::Crash),
    ];
    proptest::collection::vec(step, 1..60)
}

/// Sends as an agent does: what is not safe is kept, and sent again after a new start of the host.
struct World {
    store: Arc<Store>,
    recorder: Recorder,
    now: Time,
    /// The last batch that was made, and the last that was acknowledged.
    made: BTreeMap<&'static str, u64>,
    safe: BTreeMap<&'static str, u64>,
    /// Whether the process goes on after an error, where the store does.
    patient: bool,
}

impl World {
    async fn start(patient: bool) -> Self {
        let store = Arc::new(Store::default());
        let recorder = Recorder::open(settings(), store.clone(), NOW).await.unwrap();
        let none: BTreeMap<_, _> = ORIGINS.into_iter().map(|origin| (origin, 0)).collect();
        Self { store, recorder, now: NOW, made: none.clone(), safe: none, patient }
    }

    fn acknowledged(&mut self) {
        for origin in ORIGINS {
            if let Some(position) = &*self.recorder.safe(&NodeId::new(origin)).borrow() {
                let safe = self.safe.get_mut(origin).unwrap();
                assert!(position.sequence >= *safe, "what was safe is not any more");
                *safe = position.sequence;
            }
        }
    }

    async fn crash(&mut self) {
        // What the dead process still does must not reach the files of the new one.
        self.store = Store::copy(&self.store);
        self.recorder = Recorder::open(settings(), self.store.clone(), self.now).await.unwrap();
        let before = self.safe.clone();
        self.acknowledged();
        for (origin, safe) in before {
            assert!(self.safe[origin] >= safe);
            for n in 1..=self.safe[origin] {
                assert_eq!(self.recorder.append(batch(origin, n), self.now), Ok(Appended::Duplicate), "{origin} {n}");
            }
            for n in self.safe[origin] + 1..=self.made[origin] {
                assert_eq!(self.recorder.append(batch(origin, n), self.now), Ok(Appended::New), "{origin} {n}");
            }
        }
        assert_eq!(rows(&self.store).await, expected(&self.safe), "in the files right after a start");
    }

    async fn step(&mut self, step: Step) {
        let failed = match step {
            Step::Send(origin, count) => {
                let made = self.made.get_mut(ORIGINS[origin]).unwrap();
                for _ in 0..count {
                    *made += 1;
                    self.now = self.now.max(NOW.plus_ms(*made * 10_000));
                    assert_eq!(self.recorder.append(batch(ORIGINS[origin], *made), self.now), Ok(Appended::New));
                }
                false
            }
            Step::Seal => self.recorder.seal(self.now).await.is_err(),
            Step::Compact => self.recorder.compact(self.now).await.is_err(),
            Step::Fault(fault) => {
                self.store.break_down(Some(fault));
                false
            }
            Step::Crash => {
                self.crash().await;
                false
            }
        };
        self.acknowledged();
        if failed && (!self.patient || self.store.has_stopped()) {
            self.crash().await;
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    /// Seals, merges, failures of single operations of the store (performed or not) and crashes in any order.
    #[test]
    fn nothing_is_lost_and_nothing_is_twice(steps in steps(), patient in any::<bool>()) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let mut world = World::start(patient).await;
            for step in steps {
                world.step(step).await;
            }
            world.store.break_down(None);
            // Once more in the same process, which knows what it left behind.
            world.recorder.seal(world.now).await.unwrap();
            world.acknowledged();
            while world.recorder.compact(world.now).await.unwrap().segments > 0 {}
            prop_assert_eq!(&world.safe, &world.made, "all is safe in the end");
            prop_assert_eq!(rows(&world.store).await, expected(&world.made));
            world.crash().await;
            let query = |origin: &str, metric: &str| RangeQuery {
                subject: SubjectRef::node(origin),
                metric: metric.to_owned(),
                from: NOW,
                to: world.now.plus_ms(60_000),
                max_points: 10_000,
            };
            for origin in ORIGINS {
                for (metric, of_each) in [("a", 2), ("b", 1)] {
                    let answer = world.recorder.range_deep(&query(origin, metric)).await.unwrap();
                    let samples: u32 = answer.series.iter().flat_map(|s| &s.buckets).map(|b| b.samples).sum();
                    prop_assert_eq!(u64::from(samples), world.made[origin] * of_each);
                    prop_assert_eq!((answer.cut, answer.unreadable), (false, 0));
                }
            }
            Ok(())
        })?;
    }
}

/// A fleet's hour, sealed every ten seconds.
async fn fleet(store: &Arc<Store>, settings: Settings, nodes: u32, metrics: u32) -> (Recorder, Time) {
    let recorder = Recorder::open(settings, store.clone(), NOW).await.unwrap();
    let mut now = NOW;
    for n in 1..=360u64 {
        for node in 0..nodes {
            let origin = format!("node-{node:03}");
            let series = (0..metrics).map(|m| SeriesSamples {
                key: key(SubjectRef::node(&origin), &format!("metric.{m:02}")).into(),
                samples: (0..10u64)
                    .map(|i| {
                        let second = (n - 1) * 10 + i;
                        // As sensors are: near to each other, and no two alike.
                        let noise =
                            (second + u64::from(node * 97 + m) * 100_003).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 44;
                        let value = f64::from(m * 100) + f64::from(u32::try_from(noise).unwrap()) / 4_096.0;
                        Sample { at: NOW.plus_ms(second * 1_000), value }
                    })
                    .collect(),
            });
            let batch =
                Batch { origin: NodeId::new(&origin), epoch: 1, sequence: n, series: series.collect(), events: vec![] };
            recorder.append(batch, now).unwrap();
        }
        now = NOW.plus_ms(n * 10_000);
        recorder.seal(now).await.unwrap();
    }
    let later = now.plus_ms(2 * 3_600_000);
    while recorder.compact(later).await.unwrap().segments > 0 {}
    (recorder, later)
}

#[tokio::test]
async fn one_node_s_hour_reads_a_small_part_of_a_large_segment() {
    let store = Arc::new(Store::default());
    let settings = Settings { hot_window_ms: 60_000, ..Settings::default() };
    let (recorder, later) = fleet(&store, settings.clone(), 24, 8).await;
    let files = store.files().await;
    assert_eq!(files.len(), 1, "an hour is one file");
    let all: u64 = files.iter().map(|(_, bytes)| bytes.len() as u64).sum();
    drop(recorder);

    let recorder = Recorder::open(settings, store.clone(), later).await.unwrap();
    let query = |metric: &str, from: u64, to: u64| RangeQuery {
        subject: SubjectRef::node("node-017"),
        metric: metric.to_owned(),
        from: NOW.plus_ms(from * 1_000),
        to: NOW.plus_ms(to * 1_000),
        max_points: 10_000,
    };
    let read = async |metric: &str, from: u64, to: u64| {
        let before = store.read.load(Relaxed);
        let answer = recorder.range_deep(&query(metric, from, to)).await.unwrap();
        let samples: u32 = answer.series.iter().flat_map(|s| &s.buckets).map(|b| b.samples).sum();
        assert_eq!(u64::from(samples), to - from);
        store.read.load(Relaxed) - before
    };
    let first = read("metric.03", 0, 3_600).await;
    let again = read("metric.03", 0, 3_600).await;
    let minute = read("metric.03", 600, 660).await;
    println!("of {all} bytes: {first} with the footer, {again} without, {minute} for a minute");
    assert!(again < first, "the footer is kept");
    assert!(again * 10 < all, "{again} of {all} bytes for one series' hour");
    assert!(first * 5 < all, "{first} of {all} bytes for one series' hour with the footer");
    assert!(minute <= again);
}

#[tokio::test]
async fn a_damaged_page_is_told_and_does_not_hide_the_rest() {
    let store = Arc::new(Store::default());
    let settings = Settings { hot_window_ms: 60_000, ..Settings::default() };
    let (recorder, later) = fleet(&store, settings.clone(), 6, 4).await;
    drop(recorder);
    let (path, bytes) = store.files().await.into_iter().max_by_key(|(_, bytes)| bytes.len()).unwrap();
    // Somewhere within the values of the first row group's second page.
    let options = ReadOptionsBuilder::new().with_page_index().build();
    let reader = SerializedFileReader::new_with_options(bytes.clone(), options).unwrap();
    let pages = reader.metadata().page_index_for_row_group(0).page_locations(10).unwrap().clone();
    let page = &pages[1];
    let lost = pages[2].first_row_index - page.first_row_index;
    let mut damaged = bytes.to_vec();
    let at = usize::try_from(page.offset + i64::from(page.compressed_page_size) - 20).unwrap();
    damaged[at] ^= 0x10;
    store.replace(&path, damaged).await;

    let recorder = Recorder::open(settings, store.clone(), later).await.unwrap();
    let mut seen = 0;
    let mut unreadable = 0;
    for node in 0..6 {
        for metric in 0..4 {
            let query = RangeQuery {
                subject: SubjectRef::node(format!("node-{node:03}")),
                metric: format!("metric.{metric:02}"),
                from: NOW,
                to: NOW.plus_ms(3_600_000),
                max_points: 10_000,
            };
            let answer = recorder.range_deep(&query).await.unwrap();
            seen += answer.series.iter().flat_map(|s| &s.buckets).map(|b| i64::from(b.samples)).sum::<i64>();
            unreadable += answer.unreadable;
        }
    }
    let all = 6 * 4 * 3_600;
    assert!(unreadable > 0, "it is told");
    assert!(seen <= all - lost, "a damaged page's rows are not believed");
    assert!(seen >= all - lost - 8 * 512, "{seen} of {all}, and {lost} were in the page");
    // It is never merged away.
    assert_eq!(recorder.status().segments, store.files().await.len());
}

#[tokio::test]
async fn every_page_has_its_checksum() {
    let store = Arc::new(Store::default());
    let (recorder, _) = fleet(&store, Settings::default(), 2, 3).await;
    drop(recorder);
    let (_, bytes) = store.files().await.into_iter().max_by_key(|(_, bytes)| bytes.len()).unwrap();
    let options = || ReadOptionsBuilder::new().with_page_index().build();
    let reader = SerializedFileReader::new_with_options(bytes.clone(), options()).unwrap();
    let (mut pages, mut caught) = (0, 0);
    for column in 0..11 {
        for page in reader.metadata().page_index_for_row_group(0).page_locations(column).unwrap() {
            pages += 1;
            let mut damaged = bytes.to_vec();
            damaged[usize::try_from(page.offset + i64::from(page.compressed_page_size) - 1).unwrap()] ^= 1;
            let reader = SerializedFileReader::new_with_options(Bytes::from(damaged), options()).unwrap();
            let group = reader.get_row_group(0).unwrap();
            let mut reading = group.get_column_page_reader(column).unwrap();
            let error = loop {
                match reading.get_next_page() {
                    Ok(Some(_)) => {}
                    Ok(None) => break None,
                    Err(error) => break Some(error.to_string()),
                }
            };
            caught += u32::from(error.is_some_and(|error| error.contains("CRC")));
        }
    }
    assert!(pages > 11);
    assert_eq!(caught, pages, "each flipped bit is caught by the checksum");
}

#[tokio::test]
async fn a_merged_segment_takes_the_place_of_its_originals() {
    let store = Arc::new(Store::default());
    let recorder = Recorder::open(settings(), store.clone(), NOW).await.unwrap();
    for n in 1..=4 {
        recorder.append(batch("node-a", n), NOW.plus_ms(n * 10_000)).unwrap();
        recorder.seal(NOW.plus_ms(n * 10_000)).await.unwrap();
    }
    let before: BTreeSet<String> = store.files().await.into_iter().map(|(path, _)| path).collect();
    let later = NOW.plus_ms(10 * 3_600_000);
    assert_eq!(recorder.compact(later).await.unwrap().segments, 4);
    let after: BTreeSet<String> = store.files().await.into_iter().map(|(path, _)| path).collect();
    assert_eq!((before.len(), after.len()), (4, 1));
    assert!(after.is_disjoint(&before));
    assert!(after.first().unwrap().ends_with("-0000000001-0000000004.parquet"));
    let status = recorder.status();
    assert_eq!((status.segments, status.segment_bytes), (1, store.files().await[0].1.len() as u64));
    assert_eq!(recorder.compact(later).await.unwrap().segments, 0);
}
