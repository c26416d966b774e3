//! The recorder's files in pandas and DuckDB: segments, merged segments, exports and frozen evidence, as they are.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use aether_core::{
    id::NodeId,
    subject::SubjectRef,
    telemetry::{Batch, DiscreteEvent, Sample, SeriesKey, SeriesSamples},
    time::Time,
};
use aether_recorder::{ExcerptQuery, Export, Recorder, Settings, local_store};
use expect_test::expect;
use serde_json::Value;
use std::{
    collections::{BTreeMap, BTreeSet},
    process::Command,
};

const NOW: Time = Time(1_795_226_400_000);

fn batch(origin: &str, sequence: u64) -> Batch {
    let series = |subject: SubjectRef, metric: &str, unit: &str, attributes: &[(&str, &str)]| SeriesSamples {
        key: SeriesKey {
            subject,
            metric: metric.to_owned(),
            unit: unit.to_owned(),
            attributes: attributes.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(),
        }
        .into(),
        samples: (0..10u32)
            .map(|i| Sample {
                at: NOW.plus_ms(sequence * 10_000 + u64::from(i) * 1_000),
                value: f64::from(i) * 0.125 + f64::from(u32::try_from(sequence).unwrap()),
            })
            .collect(),
    };
    let event = DiscreteEvent {
        subject: SubjectRef::workload("train-1"),
        name: "gpu.xid".to_owned(),
        at: NOW.plus_ms(sequence * 10_000),
        attributes: BTreeMap::from([("code".to_owned(), "79".to_owned())]),
    };
    Batch {
        origin: NodeId::new(origin),
        epoch: u64::MAX,
        sequence,
        series: vec![
            series(SubjectRef::node(origin), "system.cpu.utilization", "1", &[]),
            series(SubjectRef::node(origin), "system.disk.io", "By", &[("device", "sda"), ("direction", "\"read\"")]),
            series(SubjectRef::workload("train-1"), "aether.workload.progress", "1", &[]),
        ]
        .into(),
        events: vec![event],
    }
}

/// What a reader should find.
fn expected(export: &Export) -> Value {
    let text = |(key, origin): &(SeriesKey, NodeId)| {
        let (kind, id) = key.subject.to_string().split_once('/').map(|(a, b)| (a.to_owned(), b.to_owned())).unwrap();
        let attributes = serde_json::to_string(&key.attributes).unwrap();
        [kind, id, key.metric.clone(), key.unit.clone(), attributes, origin.to_string()].join("|")
    };
    let mut first: BTreeMap<&str, i64> = BTreeMap::new();
    for ((key, _), samples) in &export.series {
        let at = samples.first_key_value().unwrap().0.0;
        first.entry(&key.metric).and_modify(|least| *least = at.min(*least)).or_insert(at);
    }
    let samples: usize = export.series.values().map(BTreeMap::len).sum();
    let sums: BTreeMap<String, (usize, f64)> =
        export.series.iter().map(|(key, all)| (text(key), (all.len(), all.values().sum()))).collect();
    serde_json::json!({
        "rows": export.rows(),
        "samples": samples,
        "events": export.events.len(),
        "events_without_value": export.events.len(),
        "sums": sums,
        "first_ms": first,
    })
}

#[tokio::test]
async fn pandas_and_duckdb_read_what_the_recorder_wrote() {
    let Some(python) = std::env::var_os("AETHER_READERS_PYTHON") else {
        assert!(!std::env::var("CI").is_ok_and(|ci| ci == "true"), "this test needs AETHER_READERS_PYTHON");
        if let Some(skips) = std::env::var_os("AETHER_SKIPS") {
            use std::io::Write as _;
            let file = std::fs::File::options().append(true).create(true).open(skips);
            file.and_then(|mut file| writeln!(file, "test pandas_and_duckdb: no Python with pandas and DuckDB"))
                .unwrap();
        }
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let recorder =
        Recorder::open(Settings::default(), local_store(folder.path()).unwrap(), NOW.plus_ms(10_000)).await.unwrap();
    for n in 1..=50 {
        let now = NOW.plus_ms(n * 10_000 + 10_000);
        for origin in ["node-a", "node-b"] {
            recorder.append(batch(origin, n), now).unwrap();
        }
        recorder.seal(now).await.unwrap();
        // Two merged ones, and single ones beside them.
        while recorder.compact(now).await.unwrap().segments > 0 {}
    }
    let all = ExcerptQuery { subjects: None, names: BTreeSet::new(), from: Time(0), to: Time(i64::MAX) };
    let whole = recorder.export(&all).await.unwrap();
    assert_eq!(whole.rows(), 50 * 2 * 31);
    assert_eq!(recorder.status().segments, 12);
    let part = ExcerptQuery {
        subjects: Some(BTreeSet::from([SubjectRef::node("node-a"), SubjectRef::workload("train-1")])),
        names: BTreeSet::from(["system.disk.io".to_owned(), "gpu.xid".to_owned()]),
        from: NOW.plus_ms(95_000),
        to: NOW.plus_ms(300_000),
    };
    let part_of = recorder.export(&part).await.unwrap();
    let exported = folder.path().join("part.parquet");
    std::fs::write(&exported, part_of.parquet(NOW).unwrap()).unwrap();
    let frozen = recorder.freeze("incident-1", &[part], NOW).await.unwrap();
    assert_eq!(frozen.samples + frozen.events, part_of.rows() as u64);
    let evidence = folder.path().join("evidence/incident-1.parquet");

    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/readers.py");
    let arguments = [folder.path().join("segments"), exported, evidence];
    let output = Command::new(python).arg(script).args(arguments).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let mut found: Value = serde_json::from_slice(&output.stdout).unwrap();
    let mut types = BTreeMap::new();
    for set in ["folder", "part.parquet", "incident-1.parquet"] {
        for reader in ["pandas", "duckdb"] {
            let found = found[set][reader].as_object_mut().unwrap();
            let of: BTreeMap<String, String> = serde_json::from_value(found.remove("types").unwrap()).unwrap();
            assert_eq!(types.entry(reader).or_insert_with(|| of.clone()), &of, "{set}");
        }
        let wanted = expected(if set == "folder" { &whole } else { &part_of });
        assert_eq!(found[set]["pandas"], wanted, "{set} in pandas");
        assert_eq!(found[set]["duckdb"], wanted, "{set} in DuckDB");
    }
    expect![[r#"
        {
          "duckdb": {
            "attributes": "VARCHAR",
            "epoch": "UBIGINT",
            "kind": "VARCHAR",
            "name": "VARCHAR",
            "origin": "VARCHAR",
            "sequence": "UBIGINT",
            "subject_id": "VARCHAR",
            "subject_kind": "VARCHAR",
            "timestamp": "TIMESTAMP WITH TIME ZONE",
            "unit": "VARCHAR",
            "value": "DOUBLE"
          },
          "pandas": {
            "attributes": "str",
            "epoch": "uint64",
            "kind": "str",
            "name": "str",
            "origin": "str",
            "sequence": "uint64",
            "subject_id": "str",
            "subject_kind": "str",
            "timestamp": "datetime64[ms, UTC]",
            "unit": "str",
            "value": "float64"
          }
        }"#]]
    .assert_eq(&serde_json::to_string_pretty(&types).unwrap());
}
