//! The process table: how many processes there are in which state, and the programs that take most of the processors, of
//! memory, and of the disks.
//!
//! By program and not by process: pids come and go, and each would be a series. On the fast path only `/proc/<pid>/stat`
//! is read; what costs more (`io` of all) is on the slow path, and so are threads of the kernel, which are mostly more than
//! all else and do little; descriptors and `smaps_rollup` of those on top are on slower ones. For `smaps_rollup` the kernel
//! walks every page of a process, and what that one maps or unmaps meanwhile waits: 10 ms for each GiB. So it is asked
//! about few of them at a time. On a thread of its own, since a process that holds its own memory map makes it wait in turn.

use super::{
    file::{fill, once},
    names::{Names, plain},
    source::{Missing, Sink, Source},
};
use aether_core::{metric, subject::SubjectRef, time::Time};
use std::{
    collections::{BTreeMap, HashMap},
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    time::Duration,
};

pub(super) const NAME: &str = "programs";
const EVERY: Duration = Duration::from_secs(5);
/// Between two looks at what costs more.
const SLOW_EVERY_MS: u64 = 15_000;
/// Between two looks at descriptors.
const FILES_EVERY_MS: u64 = 60_000;
/// Between two looks at memory maps: who is looked at waits for it, and what a map comes to moves slowly.
const MAPS_EVERY_MS: u64 = 300_000;
/// Programs on top of each list.
const TOP: usize = 5;
/// Names of programs that may be series at a time.
const NAMES_MAXIMUM: usize = 48;
/// Processes that are looked at; more are only counted.
const PROCESSES_MAXIMUM: usize = 16_384;
/// Processes whose `stat` stays open from one look to the next: the kernel keeps a page and a little more for each.
const OPEN_MAXIMUM: usize = 256;
/// Processes whose memory map and descriptors are looked at in one round.
const MAPS_MAXIMUM: usize = 64;
/// Resident memory that is walked through in one round.
const MAPS_BYTES_MAXIMUM: u64 = 8 << 30;
/// The share of one processor that looking may take: on a machine with very many processes it is done less often.
const COST_MAXIMUM: f64 = 0.005;

/// Threads of the kernel, as one program.
const KERNEL: &str = "kernel";
/// A thread of the kernel.
const PF_KTHREAD: u64 = 0x0020_0000;

pub(super) struct Programs {
    proc: PathBuf,
    names: Names,
    /// By pid.
    before: HashMap<u32, Before>,
    looked: Option<Time>,
    slow: Option<Time>,
    files: Option<Time>,
    maps: Option<Time>,
    /// Processes of which the last slow look was not permitted all.
    denied: u64,
    cost: Duration,
    buffer: Vec<u8>,
}

/// What is known of a process.
#[derive(Debug, Default)]
struct Before {
    stat: Option<File>,
    start: u64,
    ticks: u64,
    io: Option<u64>,
    /// What a thread of the kernel's did when it was last looked at.
    kernel: Option<char>,
    seen: bool,
}

/// What `/proc/<pid>/stat` says.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Stat {
    state: char,
    kernel: bool,
    ticks: u64,
    start: u64,
    resident_pages: u64,
}

/// One program: all processes of that name.
#[derive(Debug, Default)]
struct Program {
    pids: Vec<u32>,
    ticks: u64,
    resident: u64,
    io: u64,
}

impl Default for Programs {
    fn default() -> Self {
        Self::at("/proc")
    }
}

impl Programs {
    fn at(proc: impl Into<PathBuf>) -> Self {
        Self {
            proc: proc.into(),
            names: Names::at_most(NAMES_MAXIMUM),
            before: HashMap::new(),
            looked: None,
            slow: None,
            files: None,
            maps: None,
            denied: 0,
            cost: Duration::ZERO,
            buffer: Vec::new(),
        }
    }

    /// Reads a file into the one buffer.
    fn read(&mut self, path: &Path) -> io::Result<&str> {
        once(path, &mut self.buffer)
    }

    fn pids(&self) -> Result<Vec<u32>, Missing> {
        let entries = fs::read_dir(&self.proc)
            .map_err(|error| Missing::new(format!("{} cannot be listed: {error}", self.proc.display())))?;
        let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        Ok(pids.collect())
    }

    /// The program of a process, what its `stat` says, and the file that said so. None: it has ended.
    ///
    /// A file that stays open is of the process that it was opened of, and of no later one with its number.
    fn stat(&mut self, pid: u32) -> Option<(String, Stat, File)> {
        let kept = self.before.get_mut(&pid).and_then(|known| known.stat.take());
        let kept = kept.and_then(|file| Some((fill(&file, &mut self.buffer).ok()?, file)));
        let (length, file) = match kept {
            Some(read) => read,
            None => {
                let file = File::open(self.proc.join(format!("{pid}/stat"))).ok()?;
                (fill(&file, &mut self.buffer).ok()?, file)
            }
        };
        let text = String::from_utf8_lossy(&self.buffer[..length]);
        let (comm, stat) = parse(&text)?;
        let name = if stat.kernel { KERNEL.into() } else { plain(comm) };
        Some((name, stat, file))
    }

    /// Bytes that a process read from and wrote to disks. None: not for us to know.
    fn io(&mut self, pid: u32) -> io::Result<u64> {
        let path = self.proc.join(format!("{pid}/io"));
        let text = self.read(&path)?;
        let of = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name));
            line.and_then(|value| value.trim().parse::<u64>().ok()).unwrap_or_default()
        };
        Ok(of("read_bytes:") + of("write_bytes:"))
    }

    /// What its memory takes if what is shared is shared out, and what of it is swapped out.
    fn map(&mut self, pid: u32) -> Option<(u64, u64)> {
        let path = self.proc.join(format!("{pid}/smaps_rollup"));
        let text = self.read(&path).ok()?;
        let of = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name))?;
            Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1_024)
        };
        Some((of("Pss:")?, of("SwapPss:").or_else(|| of("Swap:")).unwrap_or_default()))
    }

    fn descriptors(&self, pid: u32) -> Option<u64> {
        let folder = self.proc.join(format!("{pid}/fd"));
        // Since 6.2 the kernel says how many there are without listing them.
        match fs::metadata(&folder).ok()?.len() {
            0 => fs::read_dir(&folder).ok().map(|entries| entries.count() as u64),
            count => Some(count),
        }
    }
}

/// The name, and the rest.
fn parse(text: &str) -> Option<(&str, Stat)> {
    // A name may have any character in it, a bracket too.
    let (open, close) = (text.find('(')?, text.rfind(')')?);
    let comm = text.get(open + 1..close)?;
    let mut fields = text.get(close + 2..)?.split_ascii_whitespace();
    let state = fields.next()?.chars().next()?;
    // What lies between is left out.
    let mut number = |skipped: usize| fields.nth(skipped)?.parse::<u64>().ok();
    let flags = number(5)?;
    let (user, system) = (number(4)?, number(0)?);
    let (start, resident_pages) = (number(6)?, number(1)?);
    let kernel = flags & PF_KTHREAD != 0;
    Some((comm, Stat { state, kernel, ticks: user + system, start, resident_pages }))
}

/// How long this thread has run: what it waited for a processor does not count.
fn ran() -> Duration {
    let text = fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    Duration::from_nanos(text.split_whitespace().next().and_then(|ns| ns.parse().ok()).unwrap_or_default())
}

/// OpenTelemetry's names, and one more for those that wait for a disk and count as load.
fn state(letter: char) -> &'static str {
    match letter {
        'R' => "running",
        'D' => "uninterruptible",
        'T' | 't' => "stopped",
        'Z' | 'X' | 'x' => "defunct",
        _ => "sleeping",
    }
}

/// Those with most of it, and what they have; none that has nothing.
fn top(programs: &BTreeMap<String, Program>, of: impl Fn(&Program) -> u64) -> Vec<(&String, &Program)> {
    let mut all: Vec<_> = programs.iter().filter(|(_, program)| of(program) > 0).collect();
    all.sort_by_key(|(_, program)| std::cmp::Reverse(of(program)));
    all.truncate(TOP);
    all
}

impl Source for Programs {
    fn name(&self) -> &str {
        NAME
    }

    fn interval(&self) -> Option<Duration> {
        Some(EVERY)
    }

    fn sample(&mut self, into: &mut Sink<'_>) -> Result<(), Missing> {
        let at = into.at;
        let since_ms = self.looked.filter(|looked| at > *looked).map(|looked| at.since_ms(looked));
        if since_ms.is_some_and(|ms| self.cost.as_secs_f64() > COST_MAXIMUM * ms as f64 / 1e3) {
            return Ok(());
        }
        let before = ran();
        let is_due = |last: Option<Time>, every| last.is_none_or(|last| at < last || at.since_ms(last) >= every);
        let is_slow = is_due(self.slow, SLOW_EVERY_MS);
        let pids = self.pids()?;
        let mut states: BTreeMap<&str, u64> = BTreeMap::new();
        let mut programs: BTreeMap<String, Program> = BTreeMap::new();
        let mut denied = 0;
        let mut open = self.before.values().filter(|known| known.stat.is_some()).count();
        for pid in pids.iter().copied().take(PROCESSES_MAXIMUM) {
            if !is_slow
                && let Some(known) = self.before.get_mut(&pid)
                && let Some(did) = known.kernel
            {
                known.seen = true;
                *states.entry(state(did)).or_default() += 1;
                continue;
            }
            let was_open = self.before.get(&pid).is_some_and(|known| known.stat.is_some());
            // It may have ended meanwhile.
            let Some((name, stat, file)) = self.stat(pid) else { continue };
            *states.entry(state(stat.state)).or_default() += 1;
            let kernel = stat.kernel.then_some(stat.state);
            let stays_open = !stat.kernel && (was_open || open < OPEN_MAXIMUM);
            open += usize::from(stays_open && !was_open);
            let file = stays_open.then_some(file);
            let mut now = Before { stat: file, start: stat.start, ticks: stat.ticks, io: None, kernel, seen: true };
            if !is_slow && stat.kernel {
                // One that is new: all of them are told of the next time.
                self.before.insert(pid, now);
                continue;
            }
            let program = programs.entry(name).or_default();
            program.pids.push(pid);
            program.resident += stat.resident_pages * procfs::page_size();
            let io = if is_slow && !stat.kernel {
                match self.io(pid) {
                    Ok(io) => Some(io),
                    Err(error) => {
                        denied += u64::from(error.kind() == io::ErrorKind::PermissionDenied);
                        None
                    }
                }
            } else {
                None
            };
            let known = self.before.entry(pid).or_default();
            if known.start == stat.start {
                program.ticks += stat.ticks.saturating_sub(known.ticks);
                program.io += io.zip(known.io).map_or(0, |(now, before)| now.saturating_sub(before));
            }
            now.io = io.or(known.io.filter(|_| known.start == stat.start));
            *known = now;
        }
        self.before.retain(|_, before| std::mem::take(&mut before.seen));

        for (state, count) in states {
            into.node(metric::PROCESS_COUNT, "{process}", &[("process.state", state)], count as f64);
        }
        let mut tell = |names: &mut Names, metric: &str, unit: &str, name: &str, value: f64| {
            let (node, name) = (SubjectRef::node(into.node.as_str()), names.admit(name, at));
            into.add(node, metric, unit, &[("process.executable.name", name)], value);
        };
        let slow_ms = self.slow.filter(|slow| at > *slow).map(|slow| at.since_ms(slow));
        for (name, program) in top(&programs, |program| program.ticks) {
            let Some(ms) = (if name == KERNEL { slow_ms } else { since_ms }) else { continue };
            let ticks = procfs::ticks_per_second() as f64 * ms as f64 / 1e3;
            tell(&mut self.names, metric::PROGRAM_CPU, "{cpu}", name, program.ticks as f64 / ticks);
        }
        let largest = top(&programs, |program| program.resident);
        for (name, program) in &largest {
            tell(&mut self.names, metric::PROGRAM_MEMORY, "By", name, program.resident as f64);
        }
        if is_slow {
            if let Some(ms) = slow_ms {
                for (name, program) in top(&programs, |program| program.io) {
                    let rate = program.io as f64 * 1e3 / ms as f64;
                    tell(&mut self.names, metric::PROGRAM_IO, "By/s", name, rate);
                }
            }
            self.slow = Some(at);
            self.denied = denied;
        }
        if is_due(self.files, FILES_EVERY_MS) {
            let with_maps = is_due(self.maps, MAPS_EVERY_MS);
            let (mut room, mut bytes) = (MAPS_MAXIMUM, MAPS_BYTES_MAXIMUM);
            for (name, program) in &largest {
                // One that is looked at in part would seem to shrink.
                if program.pids.len() > room {
                    continue;
                }
                room -= program.pids.len();
                let files: Vec<u64> = program.pids.iter().filter_map(|pid| self.descriptors(*pid)).collect();
                if !files.is_empty() {
                    let files: u64 = files.iter().sum();
                    tell(&mut self.names, metric::PROGRAM_FILES, "{file_descriptor}", name, files as f64);
                }
                if !with_maps || program.resident > bytes {
                    continue;
                }
                bytes -= program.resident;
                let maps: Vec<(u64, u64)> = program.pids.iter().filter_map(|pid| self.map(*pid)).collect();
                if !maps.is_empty() {
                    let (pss, swap) = maps.iter().fold((0, 0), |sum, map| (sum.0 + map.0, sum.1 + map.1));
                    tell(&mut self.names, metric::PROGRAM_PSS, "By", name, pss as f64);
                    tell(&mut self.names, metric::PROGRAM_SWAP, "By", name, swap as f64);
                }
            }
            self.files = Some(at);
            if with_maps {
                self.maps = Some(at);
            }
        }
        self.looked = Some(at);
        self.cost = ran().saturating_sub(before);
        if self.denied > 0 {
            return Err(Missing::new(format!(
                "I/O, memory maps and descriptors of {} processes of other users need the capability CAP_SYS_PTRACE",
                self.denied
            ))
            .instead("processor time and resident memory of all, and the rest of the agent's own user's"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collect::source::Readings;
    use aether_core::id::NodeId;

    struct Scene {
        proc: tempfile::TempDir,
        programs: Programs,
    }

    impl Scene {
        fn new() -> Self {
            let proc = tempfile::tempdir().unwrap();
            Self { programs: Programs::at(proc.path()), proc }
        }

        fn look(&mut self, at: i64) -> (Readings, Result<(), Missing>) {
            let mut readings = Readings::default();
            let node = NodeId::new("node-a");
            self.programs.cost = Duration::ZERO;
            let result = self.programs.sample(&mut Sink { node: &node, at: Time(at), readings: &mut readings });
            (readings, result)
        }

        /// A thread of the kernel's, that waits.
        fn thread(&self, pid: u32, ticks: u64) {
            let folder = self.proc.path().join(pid.to_string());
            fs::create_dir_all(&folder).unwrap();
            let stat = format!(
                "{pid} (kworker/{pid}) I 2 0 0 0 -1 2129984 0 0 0 0 {ticks} 0 0 0 20 0 1 0 1 0 0 18446744073709551615 0\n"
            );
            fs::write(folder.join("stat"), stat).unwrap();
        }

        /// A process as the kernel tells of it.
        fn process(&self, pid: u32, comm: &str, start: u64, ticks: u64, pages: u64, io: u64) {
            let folder = self.proc.path().join(pid.to_string());
            fs::create_dir_all(folder.join("fd")).unwrap();
            let stat = format!(
                "{pid} ({comm}) S 1 1 1 0 -1 4194560 0 0 0 0 {ticks} 0 0 0 20 0 1 0 {start} 1000 {pages} 18446744073709551615 0\n"
            );
            fs::write(folder.join("stat"), stat).unwrap();
            fs::write(folder.join("io"), format!("rchar: 1\nread_bytes: {io}\nwrite_bytes: 0\n")).unwrap();
            fs::write(
                folder.join("smaps_rollup"),
                "x ---p [rollup]\nRss: 8 kB\nPss: 4 kB\nSwap: 2 kB\nSwapPss: 1 kB\n",
            )
            .unwrap();
        }

        fn sample(&mut self, at: i64) -> BTreeMap<(String, String), f64> {
            let (readings, result) = self.look(at);
            assert_eq!(result, Ok(()));
            let named = readings.sorted().into_iter().map(|(key, samples)| {
                assert_eq!(samples.len(), 1, "{key:?}: a batch with a time that stands twice is refused");
                ((key.metric, key.attributes.into_values().collect::<String>()), samples[0].value)
            });
            named.collect()
        }
    }

    #[test]
    fn threads_of_the_kernel_are_one_program_and_looked_at_each_15_s() {
        let mut scene = Scene::new();
        scene.thread(2, 100);
        scene.thread(3, 100);
        scene.process(10, "trainer", 5, 100, 10, 0);
        let kernel = key(metric::PROGRAM_CPU, KERNEL);
        let counts = key(metric::PROCESS_COUNT, "sleeping");
        let first = scene.sample(0);
        assert_eq!((first.get(&kernel), first[&counts]), (None, 3.0));
        let hertz = procfs::ticks_per_second() as f64;
        for (at, told) in [(5_000, None), (10_000, None), (15_000, Some(90.0 / (hertz * 15.0))), (20_000, None)] {
            scene.thread(2, 100 + u64::try_from(at).unwrap() / 500);
            scene.thread(3, 100 + u64::try_from(at).unwrap() / 250);
            // One that is new is looked at once to know what it is.
            scene.thread(4, 7);
            let now = scene.sample(at);
            assert_eq!((now.get(&kernel).copied(), now[&counts]), (told, 4.0), "{at}");
            assert!(now.contains_key(&key(metric::PROGRAM_MEMORY, "trainer")));
        }
        fs::remove_dir_all(scene.proc.path().join("4")).unwrap();
        assert_eq!(scene.sample(25_000)[&counts], 3.0);
    }

    #[test]
    fn a_file_that_stays_open_is_of_one_process_alone_and_there_are_not_many() {
        let kept = |programs: &Programs| programs.before.values().filter(|known| known.stat.is_some()).count();
        let mut scene = Scene::new();
        let count = u32::try_from(OPEN_MAXIMUM).unwrap() + 44;
        (0..count).for_each(|pid| scene.process(100 + pid, "many", 5, 100, 10, 0));
        let counts = key(metric::PROCESS_COUNT, "sleeping");
        for at in [0, 5_000] {
            assert_eq!(scene.sample(at)[&counts], f64::from(count));
            assert_eq!(kept(&scene.programs), OPEN_MAXIMUM);
        }
        (0..count).for_each(|pid| fs::remove_dir_all(scene.proc.path().join((100 + pid).to_string())).unwrap());
        assert_eq!(scene.sample(10_000).get(&counts), None);
        assert_eq!(kept(&scene.programs), 0);

        let mut programs = Programs::default();
        let mut child = std::process::Command::new("sleep").arg("600").spawn().unwrap();
        let (pid, node) = (child.id(), NodeId::new("node-a"));
        let mut look = |at| {
            programs.sample(&mut Sink { node: &node, at: Time(at), readings: &mut Readings::default() }).ok();
            programs.stat(pid).map(|(name, _, file)| {
                programs.before.get_mut(&pid).unwrap().stat = Some(file);
                name
            })
        };
        assert_eq!([look(0), look(5_000)].map(|name| name.unwrap()), ["sleep", "sleep"]);
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(look(10_000), None);
    }

    #[test]
    fn what_is_not_permitted_is_missing_until_it_is() {
        let mut scene = Scene::new();
        scene.process(10, "trainer", 5, 100, 10, 1_000);
        scene.sample(0);
        scene.programs.denied = 1;
        let results = [5_000, 10_000, 15_000, 20_000].map(|at| scene.look(at).1.is_ok());
        assert_eq!(results, [false, false, true, true], "between two looks at it nothing is news");
    }

    fn key(metric: &str, name: &str) -> (String, String) {
        (metric.into(), name.into())
    }

    #[test]
    fn what_has_no_name_of_its_own_any_more_is_told_as_one() {
        let mut scene = Scene::new();
        let letters: Vec<char> = ('a'..='h').collect();
        let names: Vec<String> = letters.iter().flat_map(|a| letters.iter().map(move |b| format!("{a}{b}"))).collect();
        let programs: Vec<(u32, &String)> = (10..).zip(&names).collect();
        let (named, rest) = programs.split_at(NAMES_MAXIMUM);
        // As many as may have one, a few at a time, since only those on top are told.
        for few in named.chunks(TOP) {
            few.iter().for_each(|(pid, name)| scene.process(*pid, name, 5, 0, 1_000, 0));
            scene.sample(0);
            few.iter().for_each(|(pid, name)| scene.process(*pid, name, 5, 0, 1, 0));
        }
        for ((pid, name), pages) in rest.iter().zip([5_000, 7_000]) {
            scene.process(*pid, name, 6, 0, pages, 0);
        }
        let told = scene.sample(1_000);
        let others = told.get(&key(metric::PROGRAM_MEMORY, "other")).copied();
        assert_eq!(others, Some(12_000.0 * procfs::page_size() as f64), "{told:?}");
    }

    #[test]
    fn processes_of_one_name_are_one_program() {
        let mut scene = Scene::new();
        scene.process(10, "trainer-1", 5, 100, 10, 1_000);
        scene.process(11, "trainer-2", 6, 200, 20, 2_000);
        scene.process(12, "shell (odd) name", 7, 0, 1, 0);
        let first = scene.sample(0);
        assert_eq!(first[&key(metric::PROGRAM_MEMORY, "trainer")], 30.0 * procfs::page_size() as f64);
        assert_eq!(first[&key(metric::PROGRAM_PSS, "trainer")], 8_192.0);
        assert_eq!(first[&key(metric::PROGRAM_SWAP, "trainer")], 2_048.0);
        assert_eq!(first[&key(metric::PROCESS_COUNT, "sleeping")], 3.0);
        // A share needs two readings.
        assert!(!first.contains_key(&key(metric::PROGRAM_CPU, "trainer")));
        scene.process(10, "trainer-1", 5, 150, 10, 16_000);
        scene.process(11, "trainer-2", 6, 300, 20, 2_000);
        let second = scene.sample(15_000);
        let hertz = procfs::ticks_per_second() as f64;
        assert_eq!(second[&key(metric::PROGRAM_CPU, "trainer")], 150.0 / hertz / 15.0);
        assert_eq!(second[&key(metric::PROGRAM_IO, "trainer")], 1_000.0);
    }

    #[test]
    fn maps_are_walked_seldom_and_not_those_of_what_is_very_large() {
        let mut scene = Scene::new();
        let gib = (1 << 30) / procfs::page_size();
        scene.process(10, "vast", 5, 0, 9 * gib, 0);
        scene.process(11, "large", 5, 0, 5 * gib, 0);
        scene.process(12, "also", 5, 0, 4 * gib, 0);
        scene.process(13, "small", 5, 0, gib, 0);
        let with = |told: &BTreeMap<(String, String), f64>, metric| {
            let names = told.keys().filter(|(of, _)| of == metric).map(|(_, name)| name.clone());
            names.collect::<Vec<_>>()
        };
        let first = scene.sample(0);
        assert_eq!(with(&first, metric::PROGRAM_PSS), ["large", "small"], "of 8 GiB in all");
        assert_eq!(with(&first, metric::PROGRAM_FILES), ["also", "large", "small", "vast"]);
        assert_eq!(with(&first, metric::PROGRAM_MEMORY).len(), 4);
        let later: Vec<_> = (1..=5)
            .map(|n| {
                let told = scene.sample(n * 60_000);
                (with(&told, metric::PROGRAM_FILES).len(), with(&told, metric::PROGRAM_PSS).len())
            })
            .collect();
        assert_eq!(later, [(4, 0), (4, 0), (4, 0), (4, 0), (4, 2)]);
    }

    #[test]
    fn a_pid_that_is_used_again_is_another_process() {
        let mut scene = Scene::new();
        scene.process(10, "old", 5, 100, 1, 0);
        scene.sample(0);
        scene.process(10, "new", 900, 5_000, 1, 9_000);
        let second = scene.sample(15_000);
        assert!(!second.contains_key(&key(metric::PROGRAM_CPU, "new")), "{second:?}");
        assert!(!second.contains_key(&key(metric::PROGRAM_IO, "new")), "{second:?}");
    }

    #[test]
    fn however_many_names_there_are_the_series_are_bounded() {
        let mut scene = Scene::new();
        let mut names = std::collections::BTreeSet::new();
        for round in 0..100u32 {
            let fresh: Vec<String> = (0..8).map(|index| format!("r{round}x{index}y")).collect();
            for (index, name) in fresh.iter().enumerate() {
                let pid = 10 + u32::try_from(index).unwrap();
                scene.process(pid, name, u64::from(round), 0, 100 + u64::from(round), 0);
            }
            let told = scene.sample(i64::from(round) * 5_000);
            assert!(told.len() <= 5 * TOP + 5, "{told:?}");
            names.extend(told.into_keys().map(|(_, name)| name));
        }
        assert!(names.len() <= NAMES_MAXIMUM + 2 && names.contains(crate::collect::names::OTHER), "{}", names.len());
    }

    #[test]
    fn what_is_not_a_process_is_left_out() {
        for text in ["", "1", "1 (x", "1 (x) S", "1 (x) S 1 1 1 0 -1 notanumber 0 0 0 0 1 1"] {
            assert_eq!(parse(text), None, "{text}");
        }
        let (_, kernel) = parse("2 (kthreadd) S 0 0 0 0 -1 2129984 0 0 0 0 0 4 0 0 20 0 1 0 9 0 0 0").unwrap();
        assert!(kernel.kernel && kernel.ticks == 4 && kernel.start == 9);
    }

    #[test]
    fn this_machine_tells_of_this_very_program() {
        let mut readings = Readings::default();
        let node = NodeId::new("node-a");
        // As root or not: what is not permitted is told, and the rest is there.
        let _ = Programs::default().sample(&mut Sink { node: &node, at: Time(0), readings: &mut readings });
        let told: Vec<String> = readings.sorted().into_keys().map(|key| key.metric).collect();
        for metric in [metric::PROCESS_COUNT, metric::PROGRAM_MEMORY, metric::PROGRAM_PSS] {
            assert!(told.iter().any(|name| name == metric), "{metric} is not in {told:?}");
        }
    }
}
