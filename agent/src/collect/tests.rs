//! All sources of this machine together: what they tell, how they stand, and that docs/metrics.md names each of it.

use super::*;
use aether_core::{metric, telemetry::SeriesKey};

#[test]
fn this_machine_tells_what_the_catalogue_of_metrics_names() {
    let folder = tempfile::tempdir().unwrap();
    let registry = Arc::new(Registry::open(&folder.path().join("workloads.json"), "boot".into()).unwrap());
    let mut collector = Collector::new(NodeId::new("node-a"), folder.path(), Watched::only(registry));
    collector.sample(Time(1_000), &BTreeSet::new(), Pressed::default());
    crate::process::poll(Duration::from_millis(50), || None::<()>);
    collector.sample(Time(2_000), &BTreeSet::from(["load".into()]), Pressed::default());
    let (taken, _) = collector.take();
    let count = |name: &str| taken.iter().filter(|s| s.key.metric == name).map(|s| s.samples.len()).sum::<usize>();
    // A share needs two readings of the counters.
    assert_eq!(count(metric::CPU_UTILIZATION), 1);
    assert_eq!(count(metric::LOAD_1M), 1);
    for name in [metric::MEMORY_UTILIZATION, metric::MEMORY_AVAILABLE, metric::CPU_COUNT, metric::UPTIME] {
        assert_eq!(count(name), 2, "{name}");
    }
    assert_eq!(count(metric::FILESYSTEM_UTILIZATION), 2);
    let shares = [metric::CPU_UTILIZATION, metric::MEMORY_UTILIZATION, metric::FILESYSTEM_UTILIZATION];
    for series in taken.iter().filter(|series| shares.contains(&series.key.metric.as_str())) {
        assert!(series.samples.iter().all(|sample| (0.0..=1.0).contains(&sample.value)), "{series:?}");
    }
    assert!(collector.take().0.is_empty());
}

#[test]
fn what_is_switched_off_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let registry = Arc::new(Registry::open(&folder.path().join("workloads.json"), "boot".into()).unwrap());
    let mut collector = Collector::new(NodeId::new("node-a"), folder.path(), Watched::only(registry));
    let standing = collector.probe(&BTreeSet::from(["cpu".into()]));
    let cpu = standing.iter().find(|standing| standing.source == "cpu").unwrap();
    assert!(cpu.missing.as_ref().unwrap().reason.contains("disabled_sources"));
}

/// The rows of docs/metrics.md: a metric or event, its unit, and the whole row. Behind a first name others may be short:
/// of `a.p50`, `.p99` the second is `a.p99`, and of `a`, `.b` it is `a.b`.
fn documented() -> BTreeMap<String, (&'static str, &'static str)> {
    let text = include_str!("../../../docs/metrics.md");
    let mut rows = BTreeMap::new();
    for row in text.lines().filter(|row| row.starts_with("| `")) {
        let mut cells = row.trim_start_matches("| ").split('|');
        let (Some(names), Some(unit)) = (cells.next(), cells.next()) else { continue };
        let unit = unit.split(',').next().unwrap_or_default().trim();
        let mut names = names.split('`').skip(1).step_by(2);
        let Some(first) = names.next() else { continue };
        rows.insert(first.to_string(), (unit, row));
        let stem = first.rsplit_once('.').map_or(first, |(stem, _)| stem);
        for short in names {
            rows.insert(format!("{stem}{short}"), (unit, row));
            rows.insert(format!("{first}{short}"), (unit, row));
        }
    }
    rows
}

#[test]
fn the_docs_name_every_metric_and_no_other() {
    let docs = include_str!("../../../docs/metrics.md");
    let names = include_str!("../../../host/core/src/metric.rs").lines();
    let names = names.filter(|line| line.starts_with("pub const "));
    let names: BTreeSet<&str> = names.filter_map(|line| line.split('"').nth(1)).collect();
    assert!(names.len() > 70, "{names:?}");
    let documented = documented();
    for name in &names {
        let named = documented.contains_key(*name) || docs.contains(&format!("`{name}`"));
        assert!(named, "docs/metrics.md does not name `{name}`");
    }
    for (name, (_, row)) in &documented {
        let known = names.contains(name.as_str()) || !row.starts_with(&format!("| `{name}`"));
        assert!(known, "docs/metrics.md names `{name}`, which the core does not know");
    }
}

/// A workload that is this very process: it has a group, a tree and waits.
fn watched(folder: &Path) -> Watched {
    let registry = Arc::new(Registry::open(&folder.join("workloads.json"), "boot".into()).unwrap());
    let id = aether_core::id::WorkloadId("w".into());
    let spec = aether_core::snapshot::WorkloadSpec {
        id,
        name: "w".into(),
        tier: aether_core::snapshot::Tier::Standard,
        command: vec![],
        progress_file: None,
    };
    let root = crate::process::ProcessRef::find(std::process::id()).unwrap();
    let body = crate::workloads::Body::Process { root, namespace: None };
    let state = crate::workloads::State::Running;
    let (since, tcp) = (Time(0), crate::workloads::Tcp::default());
    registry.put(crate::workloads::Entry { spec, generation: 1, state, since, body, adopted: true, tcp }).unwrap();
    Watched { cgroups: Cgroups::probe(), ..Watched::only(registry) }
}

/// Two rounds of all sources of this machine, and how they stand.
fn two_rounds(folder: &Path) -> (Vec<SeriesSamples>, Vec<Standing>) {
    let mut collector = Collector::new(NodeId::new("node-a"), folder, watched(folder));
    collector.probe(&BTreeSet::new());
    let mut taken: BTreeMap<SeriesKey, Vec<Sample>> = BTreeMap::new();
    let at = clock::now();
    for round in 0..3 {
        collector.sample(Time(at.0 + round * 60_000), &BTreeSet::new(), Pressed::default());
        // Those on threads of their own have answered by then, or their answers come with the next sample.
        crate::process::poll(Duration::from_secs(10), || {
            collector.sample(Time(at.0 + round * 60_000 + 1), &BTreeSet::from(["nobody".into()]), Pressed::default());
            collector
                .slots
                .iter()
                .all(|slot| !matches!(&slot.place, Place::Apart(apart) if apart.is_fresh(PATIENCE)))
                .then_some(())
        });
        for series in collector.take().0 {
            taken.entry(Arc::unwrap_or_clone(series.key)).or_default().extend(series.samples);
        }
    }
    let taken =
        taken.into_iter().map(|(key, samples)| SeriesSamples { key: key.into(), samples: samples.into() }).collect();
    (taken, collector.standings(&BTreeSet::new()))
}

#[test]
fn what_this_machine_emits_is_documented_and_bounded() {
    let folder = tempfile::tempdir().unwrap();
    let (taken, standings) = two_rounds(folder.path());
    let documented = documented();
    for SeriesSamples { key, .. } in &taken {
        let metric = key.metric.as_str();
        let (unit, row) = documented.get(metric).unwrap_or_else(|| panic!("docs/metrics.md does not name `{metric}`"));
        assert_eq!(*unit, key.unit, "{metric}");
        for attribute in key.attributes.keys() {
            assert!(row.contains(&format!("`{attribute}`")), "docs/metrics.md: {metric} has `{attribute}`, too");
        }
    }
    let sources: BTreeSet<&str> = taken.iter().map(|series| series.key.metric.as_str()).collect();
    for metric in [metric::PROGRAM_MEMORY, metric::NETWORK_CONNECTIONS, metric::CONTEXT_SWITCHES, metric::PROCESS_COUNT]
    {
        assert!(sources.contains(metric), "{metric} is not told: {standings:?}");
    }
    assert!((100..=400).contains(&taken.len()), "{} series", taken.len());
    // Whatever is missing is said in words, and the docs know the source.
    let docs = include_str!("../../../docs/metrics.md");
    for Standing { source, missing } in standings {
        assert!(docs.contains(&source), "docs/metrics.md does not name the source {source}");
        if let Some(missing) = missing {
            assert!(missing.reason.len() > 10, "{source}: {missing}");
        }
    }
}

/// One that fails until it does not.
struct Fickle {
    fails: Arc<Mutex<bool>>,
    asked: Arc<Mutex<u32>>,
}

impl Source for Fickle {
    fn name(&self) -> &str {
        "fickle"
    }
    fn interval(&self) -> Option<Duration> {
        Some(Duration::from_secs(5))
    }
    fn sample(&mut self, _: &mut Sink<'_>) -> Result<(), Missing> {
        *self.asked.lock().unwrap() += 1;
        if *self.fails.lock().unwrap() { Err(Missing::new("it fails")) } else { Ok(()) }
    }
}

/// Tells of one series twice, whenever it is asked.
struct Counting(f64);

impl Source for Counting {
    fn name(&self) -> &str {
        "counting"
    }

    fn sample(&mut self, into: &mut Sink<'_>) -> Result<(), Missing> {
        for _ in 0..2 {
            self.0 += 1.0;
            into.node("count", "1", &[], self.0);
        }
        Ok(())
    }
}

/// The host refuses a batch whole in which samples are not in order of time, and all other sources' with it.
#[test]
fn what_is_taken_is_in_order_whatever_sources_and_the_clock_do() {
    let mut collector = Collector {
        node: NodeId::new("node-a"),
        slots: vec![Slot::here(Box::new(Counting(0.0)))],
        pending: Readings::default(),
        latest: Latest::default(),
        bpf_budget: Budget::default(),
        news: false,
    };
    // The clock is set back, and comes by the same time again.
    for second in [10, 5, 10, 11] {
        collector.sample(Time(second * 1_000), &BTreeSet::new(), Pressed::default());
    }
    let (series, _) = collector.take();
    let told: Vec<(i64, f64)> = series[0].samples.iter().map(|sample| (sample.at.0, sample.value)).collect();
    assert_eq!((series.len(), told), (1, vec![(5_000, 4.0), (10_000, 6.0), (11_000, 8.0)]));
}

#[test]
fn a_source_has_its_own_interval_and_its_failures_are_news_once() {
    let (fails, asked) = (Arc::new(Mutex::new(false)), Arc::new(Mutex::new(0)));
    let source = Fickle { fails: fails.clone(), asked: asked.clone() };
    let mut collector = Collector {
        node: NodeId::new("node-a"),
        slots: vec![Slot::here(Box::new(source))],
        pending: Readings::default(),
        latest: Latest::default(),
        bpf_budget: Budget::default(),
        news: false,
    };
    let mut at = |second: i64, asks: u32, news: bool| {
        collector.sample(Time(second * 1_000), &BTreeSet::new(), Pressed::default());
        assert_eq!((*asked.lock().unwrap(), collector.has_news()), (asks, news), "at {second} s");
    };
    at(100, 1, false);
    at(101, 1, false);
    at(105, 2, false);
    // The clock was set back.
    at(50, 3, false);
    *fails.lock().unwrap() = true;
    at(55, 4, true);
    // One that fails is asked less often, and it is no news that it still does.
    at(60, 4, false);
    at(65, 5, false);
    *fails.lock().unwrap() = false;
    at(75, 6, true);
    at(80, 7, false);
}

#[test]
fn the_host_has_a_source_asked_less_often_but_never_more_often_than_the_node_permits() {
    let mut collector = Collector {
        node: NodeId::new("node-a"),
        slots: vec![Slot::here(Box::new(Asked("load", Arc::default())))],
        pending: Readings::default(),
        latest: Latest::default(),
        bpf_budget: Budget::default(),
        news: false,
    }
    .at_intervals(&BTreeMap::from([("load".into(), Duration::from_secs(5))]));
    let mut follow = |name: &str, seconds: u64| {
        let withheld = collector.follow(&BTreeMap::from([(name.to_owned(), Duration::from_secs(seconds))]), 0.5);
        (collector.slots[0].interval.as_secs(), withheld.join("; "))
    };
    assert_eq!(follow("load", 20), (20, String::new()));
    assert_eq!(follow("load", 1), (5, "load every 1000 ms (it is asked every 5000 ms here)".into()));
    assert_eq!(follow("nobody", 1), (5, "`nobody`, which is no source of this agent".into()));
    assert_eq!(collector.bpf_budget.get(), 0.5);
}

/// One that counts how often it is asked.
struct Asked(&'static str, Arc<Mutex<u32>>);

impl Source for Asked {
    fn name(&self) -> &str {
        self.0
    }
    fn sample(&mut self, _: &mut Sink<'_>) -> Result<(), Missing> {
        *self.1.lock().unwrap() += 1;
        Ok(())
    }
}

#[test]
fn under_pressure_what_is_cheap_to_lose_is_slowed_first_and_what_decisions_need_is_not() {
    let counts = [Arc::new(Mutex::new(0)), Arc::new(Mutex::new(0))];
    let sources = ["memory", "sockets"].into_iter().zip(&counts);
    let mut collector = Collector {
        node: NodeId::new("node-a"),
        slots: sources.map(|(name, count)| Slot::here(Box::new(Asked(name, count.clone())))).collect(),
        pending: Readings::default(),
        latest: Latest::default(),
        bpf_budget: Budget::default(),
        news: false,
    };
    let mut second = 0;
    let mut asked = |percent| {
        for _ in 0..22 {
            second += 1;
            collector.sample(Time(second * 1_000), &BTreeSet::new(), Pressed(percent));
        }
        [std::mem::take(&mut *counts[0].lock().unwrap()), std::mem::take(&mut *counts[1].lock().unwrap())]
    };
    assert_eq!(asked(0), [22, 22]);
    assert_eq!(asked(50), [22, 2]);
    assert_eq!(asked(100), [22, 0]);
    assert_eq!(asked(0), [22, 22]);
}

#[test]
fn what_an_agent_costs_is_measured() {
    let folder = tempfile::tempdir().unwrap();
    let mut collector = Collector::new(NodeId::new("node-a"), folder.path(), watched(folder.path()));
    collector.probe(&BTreeSet::new());
    let used = || {
        let stat = procfs::process::Process::myself().unwrap().stat().unwrap();
        (stat.utime + stat.stime) as f64 / procfs::ticks_per_second() as f64
    };
    let before = used();
    let at = clock::now();
    for round in 0..60 {
        collector.sample(Time(at.0 + round * 1_000), &BTreeSet::new(), Pressed::default());
        collector.take();
    }
    let seconds = used() - before;
    println!(
        "60 samples at 1 Hz of this machine take {:.1} ms each: {:.2} % of a processor",
        seconds / 0.06,
        seconds / 0.6
    );
    // Far above what it is, and far below what would hurt: a debug build on a busy machine.
    assert!(seconds < 6.0, "{seconds} s for 60 samples");
}
