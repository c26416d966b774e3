//! The eBPF sources, loaded into the kernel of this machine for real: each sees what the test does, in its own time.
//!
//! Where a privilege or a part of the kernel is missing, a test is skipped by name, and fails where it must not be.

#![allow(clippy::unwrap_used, reason = "a test stops at the first thing that is not as it should be")]

mod common;

use aether_agent::{
    act::control::cgroup::{Cgroups, Kind},
    clock,
    collect::{Collector, Pressed, Watched},
    config::Declared,
    process::poll,
    workloads::{Registry, Tcp},
};
use aether_core::{
    id::{NodeId, WorkloadId},
    metric,
    snapshot::{Tier, WorkloadSpec},
    subject::SubjectRef,
    telemetry::{DiscreteEvent, SeriesSamples},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::Write,
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Arc,
    time::Duration,
};

const WAIT: Duration = Duration::from_secs(30);
/// Enough that no source is switched off for what it costs in an unoptimised build on a busy machine.
const BUDGET: f64 = 1.0;

/// A collector of which only some sources are on.
struct Kernel {
    collector: Collector,
    registry: Arc<Registry>,
    folder: tempfile::TempDir,
    off: BTreeSet<String>,
}

/// None if one of them cannot run here, which skips the test.
fn watch(test: &str, sources: &[&str], budget: f64) -> Option<Kernel> {
    let folder = tempfile::tempdir().unwrap();
    let registry = Arc::new(Registry::open(&folder.path().join("workloads.json"), "boot".into()).unwrap());
    let collector = Collector::new(NodeId::new("node-a"), folder.path(), Watched::only(registry.clone()));
    let mut collector = collector.with_bpf(&registry, &Cgroups::probe(), budget);
    // To be named, a source must be asked; those that are off are not loaded.
    let all = collector.standings(&BTreeSet::new()).into_iter().map(|standing| standing.source);
    let off: BTreeSet<String> = all.filter(|name| !sources.contains(&name.as_str())).collect();
    for standing in collector.probe(&off) {
        if let Some(missing) = standing.missing.filter(|_| sources.contains(&standing.source.as_str())) {
            common::skip(test, &format!("`{}`: {missing}", standing.source));
            return None;
        }
    }
    Some(Kernel { collector, registry, folder, off })
}

impl Kernel {
    fn sample(&mut self) -> (Vec<SeriesSamples>, Vec<DiscreteEvent>) {
        self.collector.sample(clock::now(), &self.off, Pressed::default());
        self.collector.take()
    }

    /// Samples until `wanted` finds something.
    fn until<T>(&mut self, wanted: impl Fn(&[SeriesSamples], &[DiscreteEvent]) -> Option<T>) -> T {
        let found = poll(WAIT, || {
            let (series, events) = self.sample();
            wanted(&series, &events)
        });
        found.expect("what the test did was seen")
    }

    /// Why the scheduler's source tells nothing.
    fn standing(&self) -> Option<String> {
        let all = self.collector.standings(&self.off);
        all.into_iter().find(|standing| standing.source == "scheduler")?.missing.map(|missing| missing.to_string())
    }

    /// Has this process under the agent as a workload.
    fn adopt(&self, id: &str, pid: u32) {
        self.begin(Declared { spec: spec(id, &[]), adopt_pid: Some(pid), tcp: Tcp::default() });
    }

    fn begin(&self, declared: Declared) {
        self.registry.begin(&[declared], self.folder.path(), false);
    }
}

fn spec(id: &str, command: &[&str]) -> WorkloadSpec {
    WorkloadSpec {
        id: WorkloadId::new(id),
        name: id.into(),
        tier: Tier::Standard,
        command: command.iter().map(|word| (*word).into()).collect(),
        progress_file: None,
    }
}

/// The value of a series with these attributes and no others.
fn value(series: &[SeriesSamples], subject: &SubjectRef, metric: &str, attributes: &[(&str, &str)]) -> Option<f64> {
    let found = series.iter().find(|series| {
        let key = &series.key;
        let same = attributes.iter().all(|(name, value)| key.attributes.get(*name).is_some_and(|v| v == value));
        key.subject == *subject && key.metric == metric && key.attributes.len() == attributes.len() && same
    });
    found.and_then(|series| Some(series.samples.last()?.value))
}

fn node() -> SubjectRef {
    SubjectRef::node("node-a")
}

/// A process that is killed, and buried, when the test ends.
struct Running(Child);

impl Running {
    fn start(command: &mut Command) -> Self {
        Self(command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A cgroup of this test's alone, gone with it.
struct Group(PathBuf);

impl Group {
    fn make(kind: Kind, test: &str) -> Result<Self, String> {
        let cgroups = Cgroups::probe();
        let (point, _) = cgroups.hierarchy(kind).ok_or("no cgroup hierarchy is mounted")?;
        let folder = point.join(format!("aether-test-{test}-{}", std::process::id()));
        fs::create_dir(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
        Ok(Self(folder))
    }

    fn path(&self) -> String {
        format!("/{}", self.0.file_name().unwrap().to_str().unwrap())
    }

    fn has(&self, file: &str) -> bool {
        self.0.join(file).exists()
    }

    fn write(&self, file: &str, text: &str) {
        fs::write(self.0.join(file), text).unwrap_or_else(|error| panic!("{}/{file}: {error}", self.0.display()));
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // What was in it may take a moment to be gone.
        poll(Duration::from_secs(5), || fs::remove_dir(&self.0).ok());
    }
}

#[test]
fn what_a_process_ended_with_is_told() {
    let test = "what_a_process_ended_with_is_told";
    let Some(mut kernel) = watch(test, &["process_exit"], BUDGET) else { return };
    let before = kernel.until(|series, _| value(series, &node(), metric::PROCESS_EXITS, &[("outcome", "failed")]));

    // One that fails, one that is killed, and one that is a workload's first and ends well.
    let mut failed = Command::new("/bin/sh").args(["-c", "exit 7"]).spawn().unwrap();
    let failed_pid = failed.id().to_string();
    let mut killed = Command::new("/bin/sleep").arg("600").spawn().unwrap();
    let killed_pid = killed.id().to_string();
    let began = clock::now();
    failed.wait().unwrap();
    killed.kill().unwrap();
    killed.wait().unwrap();
    kernel.begin(Declared { spec: spec("job", &["/bin/sleep", "0.5"]), adopt_pid: None, tcp: Tcp::default() });

    let mut seen: Vec<DiscreteEvent> = Vec::new();
    let mut count = before;
    let of = |seen: &[DiscreteEvent], name: &str, text: &str| {
        seen.iter().find(|event| event.attributes.get(name).is_some_and(|value| value == text)).cloned()
    };
    let all = poll(WAIT, || {
        let (series, events) = kernel.sample();
        count = value(&series, &node(), metric::PROCESS_EXITS, &[("outcome", "failed")]).unwrap_or(count);
        seen.extend(events);
        let job = of(&seen, "workload", "job");
        Some((of(&seen, "process.pid", &failed_pid)?, of(&seen, "process.pid", &killed_pid)?, job?))
    });
    let (failed, killed, job) = all.unwrap_or_else(|| panic!("three ends were told: {seen:?}"));
    for event in [&failed, &killed, &job] {
        assert_eq!(event.name, metric::PROCESS_EXIT);
        assert!(event.at >= began.minus_ms(100) && event.at <= clock::now(), "{event:?}");
    }
    assert_eq!(failed.attributes["process.exit.code"], "7");
    assert_eq!(failed.attributes["process.executable.name"], "sh");
    assert_eq!(failed.attributes["process.parent_pid"], std::process::id().to_string());
    assert!([&failed, &killed, &job].iter().all(|event| event.subject == node()));
    assert!(!failed.attributes.contains_key("workload"));
    assert_eq!(killed.attributes["process.exit.signal"], "9");
    assert!(!killed.attributes.contains_key("process.exit.code"));
    assert_eq!(job.attributes["process.exit.code"], "0");
    assert!(count > before, "{count} is more than {before}");
}

#[test]
fn waiting_for_a_processor_is_told_of_the_cgroup_that_waits() {
    let test = "waiting_for_a_processor_is_told_of_the_cgroup_that_waits";
    let Some(mut kernel) = watch(test, &["scheduler"], BUDGET) else { return };
    let group = match Group::make(Kind::Cpu, "wait") {
        Ok(group) => group,
        Err(missing) => return common::skip(test, &missing),
    };
    // Three that want one processor: two of them wait at any time.
    let script = format!("echo $$ > {}/cgroup.procs; while :; do :; done", group.0.display());
    let busy = || Running::start(Command::new("taskset").args(["-c", "0", "/bin/sh", "-c", &script]));
    let all = [busy(), busy(), busy()];
    let pids: Vec<u32> = all.iter().map(|running| running.0.id()).collect();
    let inside = || fs::read_to_string(group.0.join("cgroup.procs")).unwrap_or_default().lines().count() == 3;
    poll(WAIT, || inside().then_some(())).expect("they are in the cgroup");
    kernel.adopt("spinner", pids[0]);

    // As the kernel adds it up for each of them, in /proc.
    let waited_ns = || -> f64 {
        let each = pids.iter().map(|pid| fs::read_to_string(format!("/proc/{pid}/schedstat")).unwrap());
        each.map(|text| text.split_whitespace().nth(1).unwrap().parse::<f64>().unwrap()).sum()
    };
    let path = group.path();
    let of_group = [("process.linux.cgroup", path.as_str())];
    let workload = SubjectRef::workload("spinner");
    let (p99, of_workload, time, told) = kernel.until(|series, _| {
        let p99 = value(series, &node(), metric::RUN_QUEUE_P99, &of_group)?;
        let of_workload = value(series, &workload, metric::RUN_QUEUE_P99, &[])?;
        let time = value(series, &node(), metric::RUN_QUEUE_TIME, &of_group)?;
        // Until there is enough of it that the moment of the reading does not matter.
        (time > 2.0).then(|| (p99, of_workload, time, waited_ns() / 1e9))
    });
    assert!((0.5e-3..1.0).contains(&p99), "p99 {p99} s is what a time slice or two take");
    assert_eq!(of_workload, p99, "the cgroup is the workload's");
    assert!((time / told - 1.0).abs() < 0.2, "{time} s is not what /proc tells: {told} s");
    let (series, _) = kernel.sample();
    assert!(value(&series, &node(), metric::RUN_QUEUE_TIME, &[]).unwrap() >= time);
}

#[test]
fn being_off_the_processor_is_told() {
    let Some(mut kernel) = watch("being_off_the_processor_is_told", &["scheduler"], BUDGET) else { return };
    let of = |series: &[SeriesSamples], name| value(series, &node(), name, &[]);
    let told = |series: &[SeriesSamples]| Some((of(series, metric::OFF_CPU_COUNT)?, of(series, metric::OFF_CPU_TIME)?));
    let (count_before, time_before) = kernel.until(|series, _| told(series));
    // One of eight threads in a row is one of those that are told of.
    let sleepers: Vec<_> =
        (0..16).map(|_| std::thread::spawn(|| std::thread::sleep(Duration::from_millis(200)))).collect();
    sleepers.into_iter().for_each(|sleeper| sleeper.join().unwrap());
    let (count, time) = kernel.until(|series, _| told(series).filter(|(_, time)| *time >= time_before + 0.15));
    assert!(count > count_before, "{count} after {count_before}, {time} s");
}

#[test]
fn requests_to_a_disk_are_told_with_their_latency() {
    let test = "requests_to_a_disk_are_told_with_their_latency";
    let Some(mut kernel) = watch(test, &["block_latency"], BUDGET) else { return };
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let file = fs::File::create(folder.path().join("written")).unwrap();
    let Some(disk) = disk_of(&file) else {
        return common::skip(test, "the build folder is on no disk of this machine");
    };
    let mut file = file;
    let attributes = [("system.device", disk.as_str()), ("disk.io.direction", "write")];
    let write = |file: &mut fs::File| {
        file.write_all(&[7; 8_192]).unwrap();
        file.sync_all().unwrap();
    };
    write(&mut file);
    let before = kernel.until(|series, _| value(series, &node(), metric::BLOCK_REQUESTS, &attributes));
    for _ in 0..20 {
        write(&mut file);
    }
    let (series, _) = kernel.sample();
    let requests = value(&series, &node(), metric::BLOCK_REQUESTS, &attributes).unwrap();
    assert!(requests >= before + 20.0, "{requests} after {before}: each write was synced");
    let [p50, p99] =
        [metric::BLOCK_P50, metric::BLOCK_P99].map(|name| value(&series, &node(), name, &attributes).unwrap());
    assert!(1e-6 < p50 && p50 <= p99 && p99 < 60.0, "p50 {p50} s, p99 {p99} s");
    assert!(value(&series, &node(), metric::BLOCK_REQUESTS, &[]).unwrap() >= requests);
}

/// The name of the disk that a file is on; of a partition, the disk that it is of.
fn disk_of(file: &fs::File) -> Option<String> {
    use std::os::unix::fs::MetadataExt;
    let number = file.metadata().unwrap().dev();
    let link = format!("/sys/dev/block/{}:{}", rustix::fs::major(number), rustix::fs::minor(number));
    let place = fs::canonicalize(link).ok()?;
    let disk: &Path = if place.join("partition").exists() { place.parent()? } else { &place };
    Some(disk.file_name()?.to_str()?.to_owned())
}

#[test]
fn connections_are_told_with_how_long_they_took_to_be_made() {
    let test = "connections_are_told_with_how_long_they_took_to_be_made";
    let Some(mut kernel) = watch(test, &["tcp_connect"], BUDGET) else { return };
    let told = |kernel: &mut Kernel| {
        let (series, _) = kernel.sample();
        [metric::TCP_CONNECTS, metric::TCP_CONNECT_FAILURES].map(|name| value(&series, &node(), name, &[]).unwrap())
    };
    let [made_before, failed_before] = told(&mut kernel);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    for _ in 0..20 {
        TcpStream::connect(address).unwrap();
    }
    drop(listener);
    TcpStream::connect(address).expect_err("nobody listens any more");
    let (made, failed, p50) = kernel.until(|series, _| {
        let of = |name| value(series, &node(), name, &[]);
        let made = of(metric::TCP_CONNECTS)?;
        // The percentile is of what came since the last sample.
        (made >= made_before + 20.0).then_some((made, of(metric::TCP_CONNECT_FAILURES)?, of(metric::TCP_CONNECT_P50)))
    });
    assert!(made >= made_before + 20.0);
    assert!(failed > failed_before, "{failed} after {failed_before}");
    let p50 = p50.expect("some were made since the last sample");
    assert!((1e-6..1.0).contains(&p50), "{p50} s on loopback");
}

#[test]
fn what_was_sent_again_is_counted() {
    let test = "what_was_sent_again_is_counted";
    let Some(mut kernel) = watch(test, &["tcp_connect"], BUDGET) else { return };
    // Two ends of a cable, one of which answers nobody: what is sent to it is lost.
    let space = format!("aether-test-{}", std::process::id());
    let ip = |words: &str| {
        let output = Command::new("ip").args(words.split(' ')).output();
        output.is_ok_and(|output| output.status.success())
    };
    struct Gone(String);
    impl Drop for Gone {
        fn drop(&mut self) {
            let _ = Command::new("ip").args(["netns", "del", &self.0]).output();
        }
    }
    if !ip(&format!("netns add {space}")) {
        return common::skip(test, "network namespaces cannot be made here (package iproute2, CAP_SYS_ADMIN)");
    }
    let _gone = Gone(space.clone());
    for words in [
        "link add near type veth peer name far",
        "addr add 10.9.9.1/24 dev near",
        "link set near up",
        "link set far up",
        "neigh add 10.9.9.2 lladdr 02:00:00:00:00:02 dev near",
    ] {
        assert!(ip(&format!("-n {space} {words}")), "ip {words}");
    }
    let of = |series: &[SeriesSamples]| value(series, &node(), metric::TCP_RETRANSMITS, &[]);
    let before = kernel.until(|series, _| of(series));
    let script = "exec 3<>/dev/tcp/10.9.9.2/80";
    let _asking = Running::start(Command::new("ip").args(["netns", "exec", &space, "bash", "-c", script]));
    let after = kernel.until(|series, _| of(series).filter(|count| *count > before));
    assert!(after > before);
}

#[test]
fn a_process_that_is_killed_for_want_of_memory_is_told() {
    let test = "a_process_that_is_killed_for_want_of_memory_is_told";
    let Some(mut kernel) = watch(test, &["oom_kill"], BUDGET) else { return };
    let group = match Group::make(Kind::Memory, "oom") {
        Ok(group) if group.has("memory.max") || group.has("memory.limit_in_bytes") => group,
        Ok(_) => return common::skip(test, "the memory controller is not enabled for new cgroups"),
        Err(missing) => return common::skip(test, &missing),
    };
    let limit = (16 << 20).to_string();
    if group.has("memory.max") {
        group.write("memory.max", &limit);
        group.write("memory.swap.max", "0");
    } else {
        group.write("memory.limit_in_bytes", &limit);
        group.write("memory.swappiness", "0");
    }
    // Without a line's end, tail keeps all that it reads.
    let script = format!("echo $$ > {}/cgroup.procs; exec tail /dev/zero", group.0.display());
    let mut greedy = Running::start(Command::new("/bin/sh").args(["-c", &script]));
    let pid = greedy.0.id().to_string();
    let victim = kernel.until(|_, events| {
        let mine = |event: &&DiscreteEvent| event.attributes.get("process.pid") == Some(&pid);
        events.iter().find(mine).cloned()
    });
    assert_eq!(victim.name, metric::PROCESS_OOM_KILL);
    assert_eq!(victim.attributes["process.executable.name"], "tail");
    assert_eq!(victim.attributes["process.linux.cgroup"], group.path());
    assert!(victim.attributes["process.memory.virtual"].parse::<u64>().unwrap() > 16 << 20);
    assert!(!greedy.0.wait().unwrap().success());
    let (series, _) = kernel.sample();
    assert!(value(&series, &node(), metric::OOM_KILLS, &[]).unwrap() >= 1.0);
}

#[test]
fn what_costs_more_than_the_budget_is_switched_off_and_says_so() {
    let test = "what_costs_more_than_the_budget_is_switched_off_and_says_so";
    // A budget that nothing keeps, not even what costs less than can be measured.
    let Some(mut kernel) = watch(test, &["scheduler", "bpf_cost"], -1.0) else { return };
    let mut at = clock::now();
    let mut shares = Vec::new();
    // Time passes as the agent would count it; the programs run for real meanwhile.
    for _ in 0..60 {
        at = at.plus_ms(1_000);
        poll(Duration::from_millis(20), || None::<()>);
        kernel.collector.sample(at, &kernel.off, Pressed::default());
        let (series, _) = kernel.collector.take();
        shares.extend(value(&series, &node(), metric::BPF_COST, &[("source", "scheduler")]));
        let tells = series.iter().any(|series| series.key.metric == metric::RUN_QUEUE_WAITS);
        if !tells && shares.len() == 2 {
            break;
        }
    }
    assert_eq!(shares.len(), 2, "it took two windows: {shares:?}");
    assert!(shares.iter().all(|share| (0.0..1.0).contains(share)), "{shares:?}");
    let standing = kernel.standing().expect("it is missing now");
    assert!(standing.contains("switched off for its cost") && standing.contains("`pressure`"), "{standing}");
    // An hour later it is tried again.
    kernel.collector.sample(at.plus_ms(3_700_000), &kernel.off, Pressed::default());
    let standing = kernel.standing().unwrap_or_default();
    assert!(!standing.contains("switched off"), "{standing}");
}

#[test]
fn beyond_the_budget_a_source_looks_now_and_then_and_below_it_always() {
    let test = "beyond_the_budget_a_source_looks_now_and_then_and_below_it_always";
    let Some(mut kernel) = watch(test, &["scheduler", "bpf_cost"], 1e-9) else { return };
    let mut at = clock::now();
    let mut waits = 0.0;
    // Samples after a second as the agent would count it, in which this thread has waited for its processor; gives back
    // how many waits were seen meanwhile, and what share of the time is said to be looked at.
    let mut pass = |kernel: &mut Kernel| {
        at = at.plus_ms(1_000);
        for _ in 0..20 {
            std::thread::yield_now();
            poll(Duration::from_millis(1), || None::<()>);
        }
        kernel.collector.sample(at, &kernel.off, Pressed::default());
        let (series, _) = kernel.collector.take();
        let all = value(&series, &node(), metric::RUN_QUEUE_WAITS, &[]).unwrap();
        (
            all - std::mem::replace(&mut waits, all),
            value(&series, &node(), metric::BPF_DUTY, &[("source", "scheduler")]),
        )
    };
    let duty = (0..20).find_map(|_| pass(&mut kernel).1);
    assert_eq!(duty, Some(1.0 / 16.0));
    let seen: Vec<f64> = (0..4).map(|_| pass(&mut kernel).0).collect();
    assert!(seen.contains(&0.0), "while it rests it sees nothing: {seen:?}");
    let standing = kernel.standing().expect("it says so");
    assert!(standing.contains("now and then") && standing.contains("bpf_budget_permille"), "{standing}");

    kernel.collector.follow(&BTreeMap::new(), 1.0);
    let duty = (0..40).find_map(|_| pass(&mut kernel).1);
    assert_eq!(duty, Some(1.0));
    pass(&mut kernel);
    let seen: Vec<f64> = (0..4).map(|_| pass(&mut kernel).0).collect();
    assert!(seen.iter().all(|seen| *seen > 0.0), "{seen:?}");
    assert_eq!(kernel.standing(), None);
}

#[test]
fn what_is_switched_off_leaves_nothing_in_the_kernel() {
    // Of this process, which is this test's alone under nextest.
    let test = "what_is_switched_off_leaves_nothing_in_the_kernel";
    let Some(mut kernel) = watch(test, &["oom_kill"], BUDGET) else { return };
    let programs = || {
        let links = fs::read_dir("/proc/self/fd").unwrap().flatten().filter_map(|fd| fs::read_link(fd.path()).ok());
        links.filter(|link| link.to_string_lossy().contains("bpf-prog")).count()
    };
    assert!(programs() > 0);
    kernel.off.insert("oom_kill".into());
    kernel.sample();
    assert_eq!(programs(), 0);
    kernel.off.remove("oom_kill");
    let kills = kernel.until(|series, _| value(series, &node(), metric::OOM_KILLS, &[]));
    assert!(kills >= 0.0 && programs() > 0, "it is back");
}

#[test]
fn doctor_names_the_capabilities_that_are_lacking() {
    let doctor = Command::new("setpriv")
        .args(["--bounding-set=-bpf,-perfmon,-sys_admin", "--inh-caps=-all", env!("CARGO_BIN_EXE_aether-agent")])
        .args(["doctor", "--json"])
        .output();
    let said = match doctor {
        Ok(output) if output.status.success() => output.stdout,
        Ok(output) => {
            let why = String::from_utf8_lossy(&output.stderr).into_owned();
            return common::skip("doctor_names_the_capabilities_that_are_lacking", &format!("setpriv: {why}"));
        }
        Err(error) => {
            return common::skip("doctor_names_the_capabilities_that_are_lacking", &format!("setpriv: {error}"));
        }
    };
    let said: serde_json::Value = serde_json::from_slice(&said).unwrap();
    let of = |name: &str| {
        let all = said["capabilities"].as_array().unwrap();
        all.iter().find(|finding| finding["name"] == name).unwrap_or_else(|| panic!("{name}")).clone()
    };
    for source in ["scheduler", "block_latency", "tcp_connect", "process_exit", "oom_kill"] {
        let finding = of(&format!("telemetry.{source}"));
        let reason = finding["reason"].as_str().unwrap();
        assert_eq!(finding["available"], false);
        let named = reason.contains("CAP_BPF and CAP_PERFMON") || reason.contains("/sys/kernel/btf/vmlinux");
        assert!(named && finding["fallback"].as_str().unwrap().starts_with('`'), "{finding}");
    }
}
