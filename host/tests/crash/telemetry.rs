//! kill -9 of the host while a real agent sends: what the agent numbered is in the segments, each once.
//!
//! Counted is in the Parquet files themselves. An agent numbers its batches without gaps, and each row says which batch
//! it came in; so a batch that is missing and a row that is there twice both show.

use super::fleet::Fleet;
use aether_recorder::{Recorder, Settings, local_store};
use parquet::{
    file::reader::{FileReader, SerializedFileReader},
    record::RowAccessor,
};
use std::{
    cell::Cell,
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    time::{Duration, UNIX_EPOCH},
};

const KILLS: u32 = 14;

fn now_ms() -> i64 {
    i64::try_from(UNIX_EPOCH.elapsed().unwrap().as_millis()).unwrap()
}

fn parquet_files(folder: &Path) -> Vec<PathBuf> {
    let (mut found, mut folders) = (vec![], vec![folder.to_owned()]);
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|end| end == "parquet") {
                found.push(path);
            }
        }
    }
    found
}

/// Bytes in the spool of an agent.
fn spooled(fleet: &Fleet, node: &str) -> u64 {
    let files = fs::read_dir(fleet.folder().join(node).join("spool")).unwrap();
    files.map(|file| file.unwrap().metadata().map_or(0, |metadata| metadata.len())).sum()
}

#[derive(Default)]
struct Counted {
    rows: usize,
    twice: Vec<String>,
    /// By origin and epoch.
    sequences: BTreeMap<(String, u64), BTreeSet<u64>>,
    lost: f64,
    oldest: i64,
    newest: i64,
}

fn count(files: &[PathBuf]) -> Counted {
    let mut counted = Counted { oldest: i64::MAX, ..Counted::default() };
    let mut seen = BTreeSet::new();
    for path in files {
        let reader = SerializedFileReader::new(fs::File::open(path).unwrap()).unwrap();
        for row in reader.get_row_iter(None).unwrap() {
            let row = row.unwrap();
            let text = |column| row.get_string(column).unwrap().clone();
            let (origin, epoch, sequence) = (text(6), row.get_ulong(8).unwrap(), row.get_ulong(9).unwrap());
            let at = row.get_timestamp_millis(7).unwrap();
            let key =
                format!("{} {} {} {} {} {origin} {at} {epoch} {sequence}", text(0), text(1), text(3), text(4), text(5));
            if text(3) == "aether.agent.spool.lost" {
                counted.lost += row.get_double(10).unwrap();
            }
            counted.rows += 1;
            counted.oldest = counted.oldest.min(at);
            counted.newest = counted.newest.max(at);
            counted.sequences.entry((origin, epoch)).or_default().insert(sequence);
            // Two events of one kind may come in one moment; two samples of one series may not.
            if text(2) == "sample" && !seen.insert(key.clone()) {
                counted.twice.push(key);
            }
        }
    }
    counted
}

/// The epoch of the one agent, and how many batches there are: all that it numbered, each row once.
fn whole(counted: &Counted) -> (u64, u64) {
    assert!(counted.twice.is_empty(), "{} rows are there twice: {:?}", counted.twice.len(), &counted.twice[..1]);
    assert_eq!(counted.lost, 0.0, "the agent says that it lost something itself");
    let agents: Vec<_> = counted.sequences.iter().filter(|((origin, _), _)| origin == "node-a").collect();
    let [((_, epoch), sequences)] = agents[..] else { panic!("one agent, one epoch: {:?}", counted.sequences.keys()) };
    let (first, last) = (*sequences.first().unwrap(), *sequences.last().unwrap());
    let batches = u64::try_from(sequences.len()).unwrap();
    assert_eq!((first, batches), (1, last), "batches are missing");
    (*epoch, batches)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_killed_again_and_again_loses_and_doubles_no_telemetry() {
    let mut fleet = Fleet::start().await;
    // Seals and merges as often as can be, so that kills meet them.
    let config = fleet.folder().join("aether.toml");
    let text = fs::read_to_string(&config).unwrap();
    let often = "seal_interval_ms = 100\ncompact_interval_ms = 1000\ncompact_after = 2\ncompact_share_percent = 100";
    assert_eq!(text.matches("seal_interval_ms = 1000").count(), 1);
    fs::write(&config, text.replace("seal_interval_ms = 1000", often)).unwrap();
    fleet.kill_host();
    fleet.start_host().await;
    fleet.start_agent("node-a", false).await;
    let began = now_ms();

    let mut dice = 0x2545_f491_4f6c_dd1d_u64;
    for _ in 0..KILLS {
        dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        // This is the moment of the kill: any will do.
        tokio::time::sleep(Duration::from_millis(200 + (dice >> 33) % 2_500)).await;
        fleet.kill_host();
        fleet.start_host().await;
    }
    // What is newer than the last start came after all that was kept meanwhile: an agent that is behind by so little
    // sends in order.
    let since = now_ms();
    fleet
        .until("what the agent kept has come", async |fleet| {
            let series = fleet.get("/api/v1/nodes/node-a/series").await;
            let newest = series.as_array()?.iter().filter_map(|series| series["last"].as_i64()).max()?;
            (newest > since).then_some(())
        })
        .await;
    let come = now_ms();
    fleet
        .until("it is sealed", async |fleet| {
            let status = fleet.get("/api/v1/status").await;
            (status["recorder"]["last_sealed"].as_i64()? > come).then_some(())
        })
        .await;
    fleet.kill_host();
    fleet.kill_agent("node-a");

    // A start removes what was merged and not removed yet; nothing else is changed.
    let telemetry = fleet.data().join("telemetry");
    let recorder =
        Recorder::open(Settings::default(), local_store(&telemetry).unwrap(), aether_core::time::Time(now_ms()));
    let recorder = recorder.await.unwrap();
    let status = recorder.status();
    let files = parquet_files(&telemetry.join("segments"));
    assert_eq!((files.len(), status.unreadable_segments), (status.segments, 0));
    let counted = count(&files);
    assert!(counted.newest > since);
    let (epoch, batches) = whole(&counted);
    let seconds = u64::try_from((since - began) / 1_000).unwrap();
    assert!(batches + 5 >= seconds, "{batches} batches in {seconds} s: one a second is what it should be");
    assert!(
        files.iter().any(|file| file.file_stem().unwrap().to_str().unwrap().split('-').count() == 4),
        "none merged"
    );
    println!(
        "{KILLS} kills in {seconds} s: {batches} batches of epoch {epoch}, {} rows in {} files",
        counted.rows,
        files.len()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_agent_kept_through_an_outage_comes_beside_what_is_new() {
    const KEPT: u64 = 100;
    // Few at a time, so that a short outage is a long one.
    let mut fleet = Fleet::start_with("", "[fabric]\nbatches_in_flight = 8\n").await;
    fleet.settings[0] = "[collect]\nsample_interval_ms = 100\nbatch_interval_ms = 100\n".into();
    fleet.start_agent("node-a", false).await;
    fleet.kill_host();
    let (bytes, grown) = (Cell::new(0), Cell::new(0));
    fleet
        .until("the agent keeps a hundred batches", async |fleet| {
            let now = spooled(fleet, "node-a");
            grown.set(grown.get() + u64::from(bytes.replace(now) < now));
            (grown.get() > KEPT).then_some(())
        })
        .await;
    let since = now_ms();
    fleet.start_host().await;
    fleet
        .until("all of it is safe", async |fleet| {
            let spool = "/api/v1/telemetry/range?subject=node/node-a&metric=aether.agent.spool.age";
            let age = &fleet.get(spool).await["series"][0];
            let newest = |of: &str| age[of].as_array()?.iter().rev().find_map(|value| value.as_f64());
            let node = fleet.get("/api/v1/nodes/node-a").await;
            let all = node["telemetry"]["batches"].as_u64()? > KEPT;
            (all && newest("min")? < 5.0).then_some(())
        })
        .await;
    fleet.kill_host();
    fleet.kill_agent("node-a");
    let mut files = parquet_files(&fleet.data().join("telemetry/segments"));
    whole(&count(&files));
    // In the order in which they were sealed.
    files.sort_by_key(|file| file.metadata().unwrap().modified().unwrap());
    let told: Vec<_> = files.iter().map(|file| count(std::slice::from_ref(file))).collect();
    let new = told.iter().position(|segment| segment.newest > since).unwrap();
    let old = told.iter().rposition(|segment| segment.oldest < since).unwrap();
    assert!(new < old, "what was new came with segment {new} of {}, the last of what was kept with {old}", files.len());
}
