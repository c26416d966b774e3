//! What the collector tells of GPUs, by the real NVML crate, from a stand-in for the driver's library.
#![allow(clippy::unwrap_used, reason = "what fails here fails a test")]

use aether_agent::{
    act::control::gpu::Gpus,
    clock::{self, Stopwatch},
    collect::{Collector, Pressed, Watched},
    process::poll,
    workloads::Registry,
};
use aether_core::{
    id::NodeId,
    metric,
    telemetry::{DiscreteEvent, SeriesSamples},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
    time::Duration,
};

const WITHIN: Duration = Duration::from_secs(20);

fn uuid(index: u32) -> String {
    format!("GPU-00000000-aaaa-bbbb-cccc-00000000000{index}")
}

/// A collector on a machine with GPUs, as far as it can tell.
struct Scene {
    folder: tempfile::TempDir,
    gpus: Gpus,
    collector: Collector,
    series: Vec<SeriesSamples>,
    events: Vec<DiscreteEvent>,
}

impl Scene {
    fn new(state: &[(&str, u64)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let library = folder.path().join("libnvidia-ml.so.1");
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fake-nvml/nvml.c");
        let flags = ["-shared", "-fPIC", "-Wall", "-Werror", "-o"];
        let built = Command::new("cc").args(flags).arg(&library).arg(source).status().unwrap();
        assert!(built.success(), "the stand-in for NVML was not built");
        let text: String = state.iter().map(|(name, value)| format!("{name} {value}\n")).collect();
        fs::write(state_of(folder.path()), text).unwrap();
        let gpus = Gpus::probe(Some(&library));
        let registry = Arc::new(Registry::open(&folder.path().join("workloads.json"), "boot".into()).unwrap());
        let watched = Watched { gpus: gpus.clone(), ..Watched::only(registry) };
        let collector = Collector::new(NodeId::new("node-a"), folder.path(), watched);
        Self { folder, gpus, collector, series: vec![], events: vec![] }
    }

    /// What happens to the GPUs behind the agent's back.
    fn meddle(&self, name: &str, value: &str) {
        let path = state_of(self.folder.path());
        let text = fs::read_to_string(&path).unwrap();
        let kept = text.lines().filter(|line| !line.starts_with(&format!("{name} ")));
        let beside = path.with_extension("meddled");
        fs::write(&beside, kept.map(|line| format!("{line}\n")).collect::<String>() + &format!("{name} {value}\n"))
            .unwrap();
        fs::rename(&beside, &path).unwrap();
    }

    fn is_open(&self) -> bool {
        let path = state_of(self.folder.path());
        path.with_file_name(format!("libnvidia-ml.so.1.state.open.{}", std::process::id())).exists()
    }

    fn sample(&mut self) {
        self.collector.sample(clock::now(), &BTreeSet::new(), Pressed::default());
        let (series, events) = self.collector.take();
        self.series.extend(series);
        self.events.extend(events);
    }

    /// Samples until this is so.
    fn until<T>(&mut self, what: &str, mut seen: impl FnMut(&Self) -> Option<T>) -> T {
        let found = poll(WITHIN, || {
            self.sample();
            seen(self)
        });
        found.unwrap_or_else(|| panic!("{what}: not seen"))
    }

    /// The last value of each series of this metric, by subject and attribute.
    fn last(&self, metric: &str) -> BTreeMap<(String, String), f64> {
        let of = self.series.iter().filter(|series| series.key.metric == metric);
        of.map(|series| {
            let attributes: Vec<&str> = series.key.attributes.values().map(String::as_str).collect();
            ((series.key.subject.id.clone(), attributes.join(",")), series.samples.last().unwrap().value)
        })
        .collect()
    }

    fn value(&self, index: u32, metric: &str, attribute: &str) -> Option<f64> {
        self.last(metric).get(&(format!("node-a/{}", uuid(index)), attribute.to_string())).copied()
    }

    fn available(&self, index: u32) -> Option<f64> {
        self.last(metric::GPU_AVAILABLE).get(&("node-a".to_string(), uuid(index))).copied()
    }
}

fn state_of(folder: &Path) -> PathBuf {
    folder.join("libnvidia-ml.so.1.state")
}

const STATE: [(&str, u64); 16] = [
    ("gpus", 2),
    ("power_limit", 300_000),
    ("power", 251_500),
    ("temperature", 63),
    ("busy", 87),
    ("memory_busy", 40),
    ("memory_used", 20 << 30),
    ("throttle", 0x4 | 0x1),
    ("ecc_corrected", 7),
    ("ecc_uncorrected", 1),
    ("links", 4),
    ("links_up", 3),
    ("link_errors", 5),
    ("compute_processes", 1),
    ("graphics_processes", 0),
    ("compute_mode", 0),
];

#[test]
fn every_gpu_tells_what_nvml_says_of_it() {
    let mut scene = Scene::new(&STATE);
    scene.meddle("first_pid", &std::process::id().to_string());
    scene.until("both GPUs", |scene| scene.available(1).and(scene.available(2)));
    for index in [1, 2] {
        for (metric, attribute, value) in [
            (metric::GPU_UTILIZATION, "", 0.87),
            (metric::GPU_MEMORY_BANDWIDTH, "", 0.40),
            (metric::GPU_MEMORY_USAGE, "", (20u64 << 30) as f64),
            (metric::GPU_MEMORY_LIMIT, "", (80u64 << 30) as f64),
            (metric::GPU_MEMORY_UTILIZATION, "", 0.25),
            (metric::HW_TEMPERATURE, "", 63.0),
            (metric::HW_POWER, "", 251.5),
            (metric::GPU_POWER_LIMIT, "", 300.0),
            (metric::GPU_CLOCK, "graphics", 1.5e9),
            (metric::GPU_THROTTLED, "", 1.0),
            (metric::GPU_THROTTLED, "power-cap", 1.0),
            (metric::HW_ERRORS, "ecc-corrected", 7.0),
            (metric::HW_ERRORS, "ecc-uncorrected", 1.0),
            (metric::HW_ERRORS, "nvlink", 15.0),
            (metric::HW_ERRORS, "xid", 0.0),
            (metric::GPU_NVLINK_ACTIVE, "", 3.0),
            (metric::GPU_PROCESSES, "", 1.0),
        ] {
            assert_eq!(scene.value(index, metric, attribute), Some(value), "{metric} {attribute} of GPU {index}");
        }
        assert_eq!(scene.available(index), Some(1.0));
    }
    // The stand-in has no counter of replays: what is not supported is left out, and hides nothing else.
    assert_eq!(scene.value(1, metric::HW_ERRORS, "pcie-replay"), None);
    let programs = scene.last(metric::GPU_PROCESS_MEMORY);
    assert!(programs.keys().any(|(_, name)| name.starts_with("gpu_tele")), "{programs:?}");
    // For preconditions: by subject, without attributes.
    let subject = aether_core::subject::SubjectRef {
        kind: aether_core::subject::SubjectKind::Gpu,
        id: format!("node-a/{}", uuid(2)),
    };
    assert_eq!(scene.collector.latest().get(&subject, metric::HW_TEMPERATURE).unwrap().value, 63.0);
}

#[test]
fn an_xid_error_is_an_event_and_counted() {
    let mut scene = Scene::new(&STATE);
    scene.until("the GPUs", |scene| scene.available(1));
    scene.meddle("xid", "79");
    scene.until("the error counted", |scene| scene.value(1, metric::HW_ERRORS, "xid").filter(|count| *count == 1.0));
    let [event] = &scene.events[..] else { panic!("{:?}", scene.events) };
    assert_eq!((event.name.as_str(), event.attributes["xid"].as_str()), (metric::GPU_XID, "79"));
    assert_eq!(event.subject.id, format!("node-a/{}", uuid(1)));
    assert_eq!(scene.value(2, metric::HW_ERRORS, "xid"), Some(0.0));
}

#[test]
fn mig_instances_are_subjects_of_their_own() {
    let mut scene = Scene::new(&STATE);
    scene.meddle("mig", "2");
    let instances = scene.until("the instances", |scene| {
        let memory = scene.last(metric::GPU_MEMORY_LIMIT);
        Some(memory).filter(|memory| memory.keys().any(|(id, _)| id.contains("/MIG-")))
    });
    for index in [1, 2] {
        let id = format!("node-a/MIG-00000000-aaaa-bbbb-cccc-00000000000{index}");
        assert_eq!(instances[&(id, String::new())], (10u64 << 30) as f64);
    }
    assert_eq!(scene.value(1, metric::GPU_MIG_INSTANCES, ""), Some(2.0));
    // NVML tells no utilisation of a GPU in MIG mode; the other GPU is not in it.
    assert_eq!(
        (scene.value(1, metric::GPU_UTILIZATION, ""), scene.value(2, metric::GPU_UTILIZATION, "")),
        (None, Some(0.87))
    );
}

#[test]
fn a_driver_that_hangs_stalls_nobody_and_is_told_once_it_takes_long() {
    let mut scene = Scene::new(&STATE);
    scene.until("the GPUs", |scene| scene.available(1));
    scene.meddle("fail", "hang");
    let standing = |scene: &Scene| {
        let all = scene.collector.standings(&BTreeSet::new());
        all.into_iter().find(|standing| standing.source == "gpu").unwrap().missing
    };
    let longest = {
        let mut longest = Duration::ZERO;
        let why = scene.until("that it hangs", |scene| standing(scene).map(|missing| missing.reason));
        assert!(why.contains("no answer for 5 s"), "{why}");
        scene.series.clear();
        for _ in 0..5 {
            let begun = Stopwatch::start();
            scene.sample();
            longest = longest.max(begun.elapsed());
        }
        longest
    };
    assert!(longest < Duration::from_secs(2), "a sample took {longest:?}");
    assert!(!scene.last(metric::MEMORY_AVAILABLE).is_empty(), "the other sources tell nothing");
    assert_eq!(scene.available(1), None, "a GPU whose driver hangs was told of");
    // And it does not let go: a reset is not begun.
    assert!(scene.gpus.hold().away(Duration::from_millis(50)).is_none());
    scene.meddle("fail", "no");
    scene.until("the GPUs again", |scene| scene.available(1));
    assert_eq!(standing(&scene), None);
}

#[test]
fn nvml_is_held_and_let_go_for_a_reset() {
    let mut scene = Scene::new(&STATE);
    assert!(!scene.is_open(), "it is open before anybody asks");
    scene.until("the GPUs", |scene| scene.available(1));
    assert!(scene.is_open());
    let away = scene.gpus.hold().away(WITHIN).expect("it is let go");
    assert!(!scene.is_open());
    scene.series.clear();
    for _ in 0..3 {
        scene.sample();
    }
    assert!(!scene.is_open(), "it was opened though it is wanted away");
    assert_eq!(scene.available(1), None, "a GPU that is being reset was told of");
    drop(away);
    scene.until("the GPUs again", |scene| scene.available(1));
    assert!(scene.is_open());
    // Switched off, it is closed too.
    scene.collector.sample(clock::now(), &BTreeSet::from(["gpu".to_string()]), Pressed::default());
    assert!(poll(WITHIN, || (!scene.is_open()).then_some(())).is_some());
}

#[test]
fn a_lost_gpu_is_not_available_and_tells_nothing_else() {
    let mut scene = Scene::new(&STATE);
    scene.until("the GPUs", |scene| scene.available(2));
    scene.meddle("fail", "lost");
    scene.until("that it is lost", |scene| scene.available(2).filter(|available| *available == 0.0));
    scene.series.clear();
    scene.until("it once more", |scene| scene.available(2));
    assert_eq!(scene.value(2, metric::HW_TEMPERATURE, ""), None);
    scene.meddle("fail", "no");
    scene.until("that it is back", |scene| scene.available(2).filter(|available| *available == 1.0));
}
