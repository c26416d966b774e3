//! The recorder from outside: what its callers count on, crashes and bad files included.

use aether_core::{
    id::NodeId,
    observation::{Aggregation, EventInput, Input, MetricInput},
    subject::SubjectRef,
    telemetry::{Batch, DiscreteEvent, Sample, SeriesKey, SeriesSamples},
    time::Time,
};
use aether_recorder::{Appended, RangeQuery, Recorder, Rejected, Safe, Settings, local_store};
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
};

const NOW: Time = Time(1_795_226_400_000);
const CPU: &str = "system.cpu.utilization";

fn key(subject: SubjectRef, metric: &str) -> SeriesKey {
    SeriesKey { subject, metric: metric.to_owned(), unit: "1".to_owned(), attributes: BTreeMap::new() }
}

/// One sample of the node's CPU, one second per sequence.
fn batch(origin: &str, sequence: u64) -> Batch {
    let at = NOW.plus_ms(sequence * 1_000);
    #[expect(clippy::cast_precision_loss, reason = "small numbers")]
    let value = sequence as f64;
    Batch {
        origin: NodeId::new(origin),
        epoch: 9,
        sequence,
        series: vec![SeriesSamples {
            key: key(SubjectRef::node(origin), CPU).into(),
            samples: [Sample { at, value }].into(),
        }]
        .into(),
        events: Vec::new(),
    }
}

fn event(subject: &SubjectRef, name: &str, at: Time) -> DiscreteEvent {
    DiscreteEvent { subject: subject.clone(), name: name.to_owned(), at, attributes: BTreeMap::new() }
}

async fn open(folder: &Path) -> Recorder {
    open_with(folder, Settings::default()).await
}

async fn open_with(folder: &Path, settings: Settings) -> Recorder {
    Recorder::open(settings, local_store(folder).expect("a folder"), NOW.plus_ms(20_000)).await.expect("opens")
}

fn safe(recorder: &Recorder, origin: &str) -> Option<u64> {
    recorder.safe(&NodeId::new(origin)).borrow().as_ref().map(|safe| safe.sequence)
}

fn values(recorder: &Recorder, origin: &str) -> Vec<f64> {
    let query = RangeQuery {
        subject: SubjectRef::node(origin),
        metric: CPU.to_owned(),
        from: NOW,
        to: NOW.plus_ms(10_000_000),
        max_points: 10_000,
    };
    recorder.range(&query).into_iter().flat_map(|s| s.buckets).map(|b| b.mean).collect()
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in std::fs::read_dir(next).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() { folders.push(path) } else { found.push(path) }
        }
    }
    found.sort();
    found
}

#[tokio::test]
async fn a_crash_loses_and_doubles_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let now = NOW.plus_ms(20_000);
    let first = open(folder.path()).await;
    for n in 1..=5 {
        assert_eq!(first.append(batch("node-a", n), now), Ok(Appended::New));
    }
    assert_eq!(safe(&first, "node-a"), None, "nothing is safe before it is sealed");
    let mut watch = first.safe(&NodeId::new("node-a"));
    let sealed = first.seal(now).await.expect("seals");
    assert_eq!((sealed.batches, sealed.samples), (5, 5));
    assert_eq!(*watch.borrow_and_update(), Some(Safe { epoch: 9, sequence: 5, beyond: vec![] }));
    for n in 6..=8 {
        assert_eq!(first.append(batch("node-a", n), now), Ok(Appended::New));
    }
    assert_eq!(values(&first, "node-a").len(), 8, "the unsealed is visible at once");
    // No shutdown, no seal: as after kill -9.
    drop(first);

    let second = open(folder.path()).await;
    assert_eq!(safe(&second, "node-a"), Some(5));
    assert_eq!(values(&second, "node-a"), [1.0, 2.0, 3.0, 4.0, 5.0], "the sealed is in the hot window again");
    let outcome: Vec<_> = (4..=8).map(|n| second.append(batch("node-a", n), now).expect("taken")).collect();
    assert_eq!(outcome, [Appended::Duplicate, Appended::Duplicate, Appended::New, Appended::New, Appended::New]);
    second.seal(now).await.expect("seals");
    drop(second);

    let third = open(folder.path()).await;
    assert_eq!(safe(&third, "node-a"), Some(8));
    assert_eq!(values(&third, "node-a"), [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0]);
    assert_eq!(third.status().unreadable_segments, 0);
}

#[tokio::test]
async fn positions_of_silent_origins_outlive_many_segments() {
    let folder = tempfile::tempdir().expect("a folder");
    let now = NOW.plus_ms(20_000);
    let recorder = open(folder.path()).await;
    recorder.append(batch("silent", 1), now).expect("taken");
    for n in 1..=150 {
        recorder.append(batch("node-a", n), now).expect("taken");
        recorder.seal(now).await.expect("seals");
    }
    drop(recorder);
    let again = open(folder.path()).await;
    assert_eq!(again.append(batch("silent", 1), now), Ok(Appended::Duplicate));
    assert_eq!(safe(&again, "node-a"), Some(150));
}

#[tokio::test]
async fn a_failed_seal_keeps_everything_and_backpressure_follows() {
    let folder = tempfile::tempdir().expect("a folder");
    let now = NOW.plus_ms(20_000);
    let settings = Settings { seal_bytes: 64 << 10, unsealed_bytes_limit: 64 << 10, ..Settings::default() };
    let recorder = open_with(folder.path(), settings).await;
    recorder.append(batch("node-a", 1), now).expect("taken");
    // A file where the folder should be: no segment can be written.
    let blocker = folder.path().join("segments");
    std::fs::write(&blocker, b"in the way").expect("writes");
    recorder.seal(now).await.expect_err("cannot be written");
    let status = recorder.status();
    assert!(status.seal_error.is_some_and(|e| e.contains("stays unsealed")));
    assert_eq!(status.unsealed_batches, 1);
    let mut n = 2;
    let rejected = loop {
        match recorder.append(batch("node-a", n), now) {
            Ok(outcome) => assert_eq!(outcome, Appended::New),
            Err(rejected) => break rejected,
        }
        n += 1;
        assert!(n < 10_000, "the bound never held");
    };
    assert!(matches!(rejected, Rejected::Full { .. }) && rejected.is_retryable());
    recorder.seal_wanted().await;
    std::fs::remove_file(&blocker).expect("removes");
    let sealed = recorder.seal(now).await.expect("seals now");
    assert_eq!(u64::try_from(sealed.batches).expect("small"), n - 1);
    assert_eq!(recorder.status().seal_error, None);
    assert_eq!(recorder.append(batch("node-a", n), now), Ok(Appended::New), "what was told Full can come again");
    recorder.seal(now).await.expect("seals");
    assert_eq!(safe(&recorder, "node-a"), Some(n));
}

#[tokio::test]
async fn bad_files_are_left_out_and_counted() {
    let folder = tempfile::tempdir().expect("a folder");
    let now = NOW.plus_ms(20_000);
    let recorder = open(folder.path()).await;
    for n in 1..=3 {
        recorder.append(batch("node-a", n), now).expect("taken");
        recorder.seal(now).await.expect("seals");
    }
    drop(recorder);
    let all = files(folder.path());
    assert_eq!(all.len(), 3);
    // The second is cut off in the middle; beside them a stranger, and a Parquet file that only has a good name.
    let bytes = std::fs::read(&all[1]).expect("reads");
    std::fs::write(&all[1], &bytes[..bytes.len() / 2]).expect("writes");
    std::fs::write(folder.path().join("segments/notes.txt"), b"hello").expect("writes");
    let named = all[2].with_file_name("1795226403000-1795226403000-0000000009.parquet");
    std::fs::write(&named, b"PAR1 not really PAR1").expect("writes");

    let again = open(folder.path()).await;
    assert_eq!(values(&again, "node-a"), [1.0, 3.0], "what is whole is there");
    assert_eq!(safe(&again, "node-a"), Some(3));
    assert!(again.status().unreadable_segments >= 3);
    again.append(batch("node-a", 4), now).expect("taken");
    let sealed = again.seal(now).await.expect("seals");
    assert!(sealed.path.is_some_and(|p| p.ends_with("-0000000010.parquet")), "no number is used twice");
    assert!(named.exists() && folder.path().join("segments/notes.txt").exists(), "nothing of others is removed");
}

#[tokio::test]
async fn a_malformed_batch_is_refused_once_and_does_not_hold_up_the_next() {
    let folder = tempfile::tempdir().expect("a folder");
    let now = NOW.plus_ms(20_000);
    let settings = Settings { origin_series_limit: 3, ..Settings::default() };
    let recorder = open_with(folder.path(), settings).await;
    recorder.append(batch("node-a", 1), now).expect("taken");
    let mut bad = batch("node-a", 2);
    let mut rows = bad.series.rows();
    Arc::make_mut(&mut rows[0].key).metric = "no spaces please".to_owned();
    bad.series = rows.into();
    assert_eq!(recorder.append(bad, now).map_err(|r| r.code()), Err("telemetry.name"));
    let mut wide = batch("node-a", 3);
    wide.series = (0..4)
        .map(|n| SeriesSamples {
            key: key(SubjectRef::node("node-a"), &format!("m{n}")).into(),
            ..wide.series.rows()[0].clone()
        })
        .collect();
    assert_eq!(recorder.append(wide, now).map_err(|r| r.code()), Err("telemetry.too_many_series"));
    recorder.append(batch("node-a", 4), now).expect("taken");
    recorder.seal(now).await.expect("seals");
    assert_eq!(safe(&recorder, "node-a"), Some(4));
    assert_eq!(recorder.status().rejected_batches, 2);
    assert_eq!(values(&recorder, "node-a").len(), 2);
}

#[tokio::test]
async fn what_a_sender_lost_is_counted_and_passed_over() {
    let folder = tempfile::tempdir().expect("a folder");
    let now = NOW.plus_ms(20_000);
    let recorder = open(folder.path()).await;
    let origin = NodeId::new("node-a");
    assert_eq!(recorder.sender_holds_from(&origin, 9, 1), 0);
    recorder.append(batch("node-a", 1), now).expect("taken");
    recorder.append(batch("node-a", 5), now).expect("taken");
    recorder.seal(now).await.expect("seals");
    assert_eq!(safe(&recorder, "node-a"), Some(1));
    assert_eq!(recorder.sender_lost(&origin, 9, 3, 4), 2);
    assert_eq!(safe(&recorder, "node-a"), Some(1), "2 may still come");
    assert_eq!(recorder.sender_holds_from(&origin, 9, 5), 1);
    assert_eq!(safe(&recorder, "node-a"), Some(5));
    assert_eq!(recorder.status().lost_batches, 3);
}

#[tokio::test]
async fn columns_and_events_follow_the_declaration() {
    let folder = tempfile::tempdir().expect("a folder");
    let recorder = open(folder.path()).await;
    let node = SubjectRef::node("node-a");
    let now = NOW.plus_ms(20_000);
    let mut first = batch("node-a", 1);
    let counter = |device: &str, factor: f64| {
        let mut key = key(node.clone(), "system.disk.io");
        key.unit = "By".to_owned();
        key.attributes.insert("system.device".to_owned(), device.to_owned());
        let samples = (0..=10u32)
            .map(|s| Sample { at: NOW.plus_ms(u64::from(s) * 1_000), value: f64::from(s) * factor })
            .collect();
        SeriesSamples { key: key.into(), samples }
    };
    first.series = first.series.rows().into_iter().chain([counter("sdb", 200.0), counter("sda", 100.0)]).collect();
    first.events = (0..5).map(|s| event(&node, "gpu.xid", NOW.plus_ms(s * 1_000))).collect();
    first.events.push(event(&node, "other", NOW));
    recorder.append(first, now).expect("taken");
    let metric = |name: &str, unit: &str, aggregation| {
        Input::Metric(MetricInput {
            name: name.to_owned(),
            unit: unit.to_owned(),
            window_ms: 4_000,
            step_ms: 2_000,
            aggregation,
        })
    };
    let inputs = [
        metric("system.disk.io", "By", Aggregation::Rate),
        Input::Events(EventInput { name: "gpu.xid".to_owned(), window_ms: 4_000, at_most: 2 }),
        metric("system.disk.io", "KiBy", Aggregation::Last),
        metric(CPU, "1", Aggregation::Last),
    ];
    let columns = recorder.columns(&node, &inputs, NOW.plus_ms(4_500));
    let seen: Vec<_> = columns
        .iter()
        .map(|c| (c.input, c.attributes.get("system.device").map(String::as_str), c.start, c.values.clone()))
        .collect();
    let start = NOW.plus_ms(2_000);
    assert_eq!(seen[..2], [(0, Some("sda"), start, vec![100.0, 100.0]), (0, Some("sdb"), start, vec![200.0, 200.0])]);
    assert_eq!((seen.len(), seen[2].0, seen[2].3[0]), (3, 3, 1.0));
    assert_eq!(columns, recorder.columns(&node, &inputs, NOW.plus_ms(5_999)), "the same data gives the same columns");
    let events = recorder.events(&node, &inputs, NOW.plus_ms(3_500));
    assert_eq!(
        events.iter().map(|e| (e.input, e.at)).collect::<Vec<_>>(),
        [(1, NOW.plus_ms(2_000)), (1, NOW.plus_ms(3_000))]
    );
    assert_eq!(
        recorder.latest(&node, "system.disk.io").iter().map(|(_, s)| s.value).collect::<Vec<_>>(),
        [1_000.0, 2_000.0]
    );
    assert_eq!(recorder.series(Some(&node)).len(), 3);
    assert_eq!(recorder.recent_events(None, NOW.plus_ms(3_000)).len(), 2);
}

#[tokio::test]
async fn history_beyond_the_hot_window_is_read_from_segments() {
    let folder = tempfile::tempdir().expect("a folder");
    let settings = Settings { hot_window_ms: 60_000, ..Settings::default() };
    let recorder = open_with(folder.path(), settings.clone()).await;
    for n in 1..=300 {
        recorder.append(batch("node-a", n), NOW.plus_ms(n * 1_000)).expect("taken");
        if n % 50 == 0 {
            recorder.seal(NOW.plus_ms(n * 1_000)).await.expect("seals");
        }
    }
    let query = RangeQuery {
        subject: SubjectRef::node("node-a"),
        metric: CPU.to_owned(),
        from: NOW.plus_ms(100_000),
        to: NOW.plus_ms(400_000),
        max_points: 10_000,
    };
    let hot: u32 = recorder.range(&query).iter().flat_map(|s| &s.buckets).map(|b| b.samples).sum();
    assert!(hot < 120, "{hot}");
    let answer = recorder.range_deep(&query).await.expect("reads");
    let seen: Vec<_> = answer.series[0].buckets.iter().map(|b| b.mean).collect();
    assert_eq!(seen, (100..=300).map(f64::from).collect::<Vec<_>>());
    assert!(!answer.cut && answer.unreadable == 0);
    drop(recorder);
    let again = Recorder::open(settings, local_store(folder.path()).expect("a folder"), NOW.plus_ms(310_000))
        .await
        .expect("opens");
    assert_eq!(again.range_deep(&query).await.expect("reads"), answer, "and after a restart");
}

#[tokio::test]
async fn retention_removes_the_oldest_and_keeps_the_positions() {
    let folder = tempfile::tempdir().expect("a folder");
    let settings = Settings { retain_bytes: 1 << 20, retain_ms: 3_600_000, ..Settings::default() };
    let recorder = open_with(folder.path(), settings.clone()).await;
    recorder.append(batch("silent", 1), NOW).expect("taken");
    let mut now = NOW;
    for n in 1..=20 {
        now = NOW.plus_ms(n * 600_000);
        let mut of_now = batch("node-a", n);
        let mut rows = of_now.series.rows();
        rows[0].samples[0].at = now;
        of_now.series = rows.into();
        recorder.append(of_now, now).expect("taken");
        recorder.seal(now).await.expect("seals");
        recorder.enforce_retention(now).await.expect("retains");
    }
    // An hour is six segments; one more interval may pass before positions are written anew.
    let left = files(folder.path()).len();
    assert!((6..=9).contains(&left), "{left}");
    assert_eq!(recorder.status().segments, left);
    drop(recorder);
    let again = Recorder::open(settings, local_store(folder.path()).expect("a folder"), now).await.expect("opens");
    assert_eq!(
        again.append(batch("silent", 1), NOW),
        Ok(Appended::Duplicate),
        "its segment is gone, its position is not"
    );
}

#[tokio::test]
async fn seals_and_appends_at_the_same_time_settle_everything() {
    let folder = tempfile::tempdir().expect("a folder");
    let now = NOW.plus_ms(20_000);
    let recorder = open(folder.path()).await;
    let senders: Vec<_> = ["node-a", "node-b", "node-c"]
        .map(|origin| {
            let recorder = recorder.clone();
            std::thread::spawn(move || {
                for n in 1..=500 {
                    assert_eq!(recorder.append(batch(origin, n), now), Ok(Appended::New));
                }
            })
        })
        .into();
    while senders.iter().any(|s| !s.is_finished()) {
        recorder.seal(now).await.expect("seals");
    }
    senders.into_iter().for_each(|s| s.join().expect("sends"));
    recorder.seal(now).await.expect("seals");
    assert_eq!(["node-a", "node-b", "node-c"].map(|o| safe(&recorder, o)), [Some(500); 3]);
    let status = recorder.status();
    assert_eq!((status.unsealed_batches, status.unsealed_bytes), (0, 0));
    drop(recorder);
    let again = open(folder.path()).await;
    assert_eq!(values(&again, "node-b").len(), 500);
}
