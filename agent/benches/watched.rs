//! What the watched workload pays: programs that switch, or talk over loopback, as fast as they can, with the agent's
//! sources off and on by turns in one run.
//!
//! `cargo bench --workspace --bench watched [-- SOURCE,... [PROGRAM]]`, as root; sources that are named are off in
//! it, and of the programs only the one that is named runs.
//!
//! A program never stops: while it runs, the sources are switched on and off again, and what it does while they are being
//! switched does not count. Told is how much longer one turn of it takes with the sources on than before and after, as the
//! median over the rounds and as far as that median may be off. `off again` is the same of a stretch without sources,
//! beside those before and after: what is noise.
//!
//! That is with all of them looking always. `as it ships` is by reckoning: of that, the share of the time in which the
//! scheduler's source looks under the budget of an agent that nobody configured, which it finds out beside each program.

#![allow(clippy::unwrap_used, reason = "a bench stops at the first thing that is not as it should be")]
#![allow(clippy::print_stdout, reason = "this is what it is for")]
#![allow(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "counts of a bench are small"
)]

use aether_agent::{
    act::control::cgroup::Cgroups,
    clock::{self, Stopwatch},
    collect::{Collector, Pressed, Watched},
    workloads::Registry,
};
use aether_core::{id::NodeId, metric, telemetry::SeriesSamples};
use std::{
    collections::{BTreeMap, BTreeSet},
    io::{Read, Write, pipe},
    net::{TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU32, Ordering::Relaxed},
        mpsc,
    },
    thread,
    time::Duration,
};

const ROUNDS: usize = 120;
/// How long a program is watched for one figure.
const STRETCH: Duration = Duration::from_millis(200);
/// So long after the sources were switched caches are warm again, and what they do at first is over.
const SETTLES: Duration = Duration::from_millis(150);
/// Of an agent that nobody configured.
const BUDGET: f64 = 0.015;
/// How long until the sources know what they cost: the first look at it comes after five seconds, and takes one.
const LEARNS: Duration = Duration::from_secs(20);
const SAMPLE_EVERY: Duration = Duration::from_secs(1);

/// What a program under way is told, and tells.
#[derive(Default)]
struct Watch {
    /// Turns of the same even number are one figure's; those of an odd one are nobody's.
    stretch: AtomicU32,
    over: AtomicBool,
    /// Nanoseconds of a turn, each the mean of a few of one stretch.
    turns: Mutex<Vec<(u32, f64)>>,
}

/// Turns of a program, until it is to end.
fn turns(watch: &Watch, mut turn: impl FnMut()) {
    const BETWEEN_LOOKS: u32 = 32;
    let mut turns = Vec::new();
    while !watch.over.load(Relaxed) {
        let stretch = watch.stretch.load(Relaxed);
        let stopwatch = Stopwatch::start();
        for _ in 0..BETWEEN_LOOKS {
            turn();
        }
        if stretch.is_multiple_of(2) && watch.stretch.load(Relaxed) == stretch {
            turns.push((stretch, stopwatch.elapsed().as_secs_f64() * 1e9 / f64::from(BETWEEN_LOOKS)));
        }
    }
    *watch.turns.lock().unwrap() = turns;
}

/// From now on this thread, and those that it begins, run on this processor alone.
fn pin(processor: usize) {
    let mut set = rustix::thread::CpuSet::new();
    set.set(processor);
    rustix::thread::sched_setaffinity(None, &set).unwrap();
}

/// Two threads on one processor that wake each other by pipes: each turn is two switches.
fn switches(watch: &Watch) {
    pin(1 % thread::available_parallelism().unwrap().get());
    let (mut there_read, mut there) = pipe().unwrap();
    let (mut back_read, mut back) = pipe().unwrap();
    let other = thread::spawn(move || {
        let mut byte = [0];
        while there_read.read_exact(&mut byte).is_ok() {
            back.write_all(&byte).unwrap();
        }
    });
    let mut byte = [0];
    turns(watch, || {
        there.write_all(&byte).unwrap();
        back_read.read_exact(&mut byte).unwrap();
    });
    drop(there);
    other.join().unwrap();
}

/// A server that answers each 64 bytes with as many.
fn server() -> std::net::SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            stream.set_nodelay(true).unwrap();
            let mut bytes = [0; 64];
            // What asks for the end sends a first byte of one.
            while stream.read_exact(&mut bytes).is_ok() {
                if bytes[0] == 1 {
                    return;
                }
                stream.write_all(&bytes).unwrap();
            }
        }
    });
    address
}

fn call(stream: &mut TcpStream) {
    let mut bytes = [0; 64];
    stream.write_all(&bytes).unwrap();
    stream.read_exact(&mut bytes).unwrap();
}

/// Calls over one connection to a thread on another processor.
fn calls(watch: &Watch) {
    let mut stream = TcpStream::connect(server()).unwrap();
    stream.set_nodelay(true).unwrap();
    turns(watch, || call(&mut stream));
    stream.write_all(&[1; 64]).unwrap();
}

/// A connection for each call.
fn connections(watch: &Watch) {
    let address = server();
    turns(watch, || {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_nodelay(true).unwrap();
        call(&mut stream);
    });
    TcpStream::connect(address).unwrap().write_all(&[1; 64]).unwrap();
}

/// Every source that this machine has, sampled each second on a thread of its own, until it is dropped.
struct Sources {
    switches: Option<mpsc::Sender<(bool, mpsc::Sender<()>)>>,
    sampler: Option<thread::JoinHandle<()>>,
    duty: mpsc::Receiver<f64>,
}

impl Sources {
    fn begin(budget: f64, disabled: &BTreeSet<String>, tell: bool) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let registry = Arc::new(Registry::open(&folder.path().join("workloads.json"), "boot".into()).unwrap());
        let collector = Collector::new(NodeId::new("bench"), folder.path(), Watched::only(registry.clone()));
        let mut collector = collector.with_bpf(&registry, &Cgroups::probe(), budget);
        let standings = collector.probe(disabled);
        for standing in standings.iter().filter(|_| tell) {
            let missing = standing.missing.as_ref();
            println!("  {:<14} {}", standing.source, missing.map_or_else(|| "on".to_owned(), ToString::to_string));
        }
        let off: BTreeSet<String> = standings.into_iter().map(|standing| standing.source).collect();
        let with = disabled.clone();
        let (switches, switched) = mpsc::channel::<(bool, mpsc::Sender<()>)>();
        let (told, duty) = mpsc::channel();
        let sampler = thread::spawn(move || {
            let mut now = with.clone();
            loop {
                let done = match switched.recv_timeout(SAMPLE_EVERY) {
                    Ok((on, done)) => {
                        now = if on { with.clone() } else { off.clone() };
                        Some(done)
                    }
                    Err(mpsc::RecvTimeoutError::Timeout) => None,
                    Err(mpsc::RecvTimeoutError::Disconnected) => break,
                };
                collector.sample(clock::now(), &now, Pressed::default());
                let of_scheduler = |series: &&SeriesSamples| {
                    let source = series.key.attributes.get("source");
                    series.key.metric == metric::BPF_DUTY && source.is_some_and(|source| source == "scheduler")
                };
                for series in collector.take().0.iter().filter(of_scheduler) {
                    let _ = series.samples.iter().try_for_each(|sample| told.send(sample.value));
                }
                drop(done);
            }
            drop(folder);
        });
        Self { switches: Some(switches), sampler: Some(sampler), duty }
    }

    fn switch(&self, on: bool) {
        let (done, is_done) = mpsc::channel();
        self.switches.as_ref().unwrap().send((on, done)).unwrap();
        // It is dropped when they are.
        assert!(is_done.recv().is_err());
    }
}

impl Drop for Sources {
    fn drop(&mut self) {
        self.switches.take();
        if let Some(sampler) = self.sampler.take() {
            sampler.join().unwrap();
        }
    }
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// The median, and the bounds that it is within in 95 of 100 cases: by the ranks of a binomial distribution.
fn within(mut values: Vec<f64>) -> [f64; 3] {
    let middle = median(&mut values);
    let count = values.len() as f64;
    let reach = 0.98 * count.sqrt();
    let at = |rank: f64| values[(rank.max(0.0) as usize).min(values.len() - 1)];
    [at((count / 2.0 - reach).floor()), middle, at((count / 2.0 + reach).ceil())]
}

/// A program under way.
struct Running {
    watch: Arc<Watch>,
    program: thread::JoinHandle<()>,
}

impl Running {
    fn start(program: fn(&Watch)) -> Self {
        let watch = Arc::new(Watch::default());
        watch.stretch.store(1, Relaxed);
        let watched = watch.clone();
        Self { watch, program: thread::spawn(move || program(&watched)) }
    }

    fn stretch(&self) {
        thread::sleep(SETTLES);
        self.watch.stretch.fetch_add(1, Relaxed);
        thread::sleep(STRETCH);
        self.watch.stretch.fetch_add(1, Relaxed);
    }

    /// How long a turn took in each stretch.
    fn end(self) -> Vec<f64> {
        self.watch.over.store(true, Relaxed);
        self.program.join().unwrap();
        let mut each: BTreeMap<u32, Vec<f64>> = BTreeMap::new();
        for (stretch, ns) in self.watch.turns.lock().unwrap().drain(..) {
            each.entry(stretch).or_default().push(ns);
        }
        each.into_values().map(|mut turns| median(&mut turns)).collect()
    }
}

/// How long a turn takes without sources, with them, without them, and so on.
fn alternately(program: fn(&Watch), disabled: &BTreeSet<String>) -> Vec<f64> {
    let running = Running::start(program);
    let sources = Sources::begin(1.0, disabled, false);
    for _ in 0..ROUNDS {
        sources.switch(false);
        running.stretch();
        sources.switch(true);
        running.stretch();
    }
    sources.switch(false);
    running.stretch();
    let figures = running.end();
    assert_eq!(figures.len(), 2 * ROUNDS + 1, "each stretch has turns");
    figures
}

/// Which share of the time the scheduler's source looks beside this program.
fn duty(program: fn(&Watch), disabled: &BTreeSet<String>) -> Option<f64> {
    let running = Running::start(program);
    let sources = Sources::begin(BUDGET, disabled, false);
    let duty = sources.duty.recv_timeout(LEARNS).ok();
    running.end();
    duty
}

fn main() {
    // `cargo bench` gives `--bench`.
    let mut words = std::env::args().skip(1).filter(|word| !word.starts_with("--"));
    let disabled: BTreeSet<String> = words.next().iter().flat_map(|all| all.split(',')).map(str::to_owned).collect();
    let only = words.next();
    println!("sources");
    drop(Sources::begin(1.0, &disabled, true));
    type Program = (&'static str, fn(&Watch));
    let programs: [Program; 3] = [("switches", switches), ("calls", calls), ("connections", connections)];
    println!("{:<12} {:>9} {:>9}   {:<26} {:<26} as it ships", "program", "off ns", "on ns", "slower by", "off again");
    for (name, program) in programs.into_iter().filter(|(name, _)| only.as_deref().is_none_or(|only| only == *name)) {
        let figures = alternately(program, &disabled);
        let beside = |before: f64, it: f64, after: f64| (it / ((before + after) / 2.0) - 1.0) * 100.0;
        let mut off: Vec<f64> = figures.iter().copied().step_by(2).collect();
        let mut on: Vec<f64> = figures.iter().copied().skip(1).step_by(2).collect();
        let slower = within(figures.windows(3).step_by(2).map(|at| beside(at[0], at[1], at[2])).collect());
        let noise = within(off.windows(3).map(|at| beside(at[0], at[1], at[2])).collect());
        let told = |[low, middle, high]: [f64; 3]| format!("{middle:+.1} % ({low:+.1} to {high:+.1})");
        let ships = duty(program, &disabled).map_or("not known".to_owned(), |duty| {
            format!("{:+.1} %, looks at 1 of {:.0}", slower[1] * duty, 1.0 / duty)
        });
        let (off, on) = (median(&mut off), median(&mut on));
        println!("{name:<12} {off:>9.0} {on:>9.0}   {:<26} {:<26} {ships}", told(slower), told(noise));
    }
}
