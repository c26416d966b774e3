//! What the watched workload pays: programs that switch, or talk over loopback, as fast as they can, with the agent's
//! sources off and on by turns in one run.
//!
//! `cargo bench -p aether-agent --bench watched [-- ROUNDS]`, as root. Each round runs each program for a second without
//! and a second with the sources, the other way round in every second round, so that a machine that grows slower (or
//! is not ours alone) burdens both alike. Told is how much longer one turn of the program takes with the sources on: the
//! median over the rounds, with the quartiles. `off again` compares two seconds without sources in the same way: what is
//! noise.

#![allow(clippy::unwrap_used, reason = "a bench stops at the first thing that is not as it should be")]
#![allow(clippy::print_stdout, reason = "this is what it is for")]

use aether_agent::{
    act::control::cgroup::Cgroups,
    clock::{self, Stopwatch},
    collect::{Collector, Pressed, Watched},
    workloads::Registry,
};
use aether_core::id::NodeId;
use std::{
    collections::BTreeSet,
    io::{Read, Write, pipe},
    net::{TcpListener, TcpStream},
    sync::{Arc, mpsc},
    thread,
    time::Duration,
};

const ROUNDS: usize = 15;
const TURN: Duration = Duration::from_secs(1);
const SAMPLE_EVERY: Duration = Duration::from_secs(1);

/// Turns of a program in about a second, and how many nanoseconds one took.
fn turns(mut turn: impl FnMut()) -> f64 {
    const BETWEEN_LOOKS: u32 = 256;
    let watch = Stopwatch::start();
    let mut count = 0;
    while watch.elapsed() < TURN {
        for _ in 0..BETWEEN_LOOKS {
            turn();
        }
        count += BETWEEN_LOOKS;
    }
    watch.elapsed().as_secs_f64() * 1e9 / f64::from(count)
}

/// From now on this thread, and those that it begins, run on this processor alone.
fn pin(processor: usize) {
    let mut set = rustix::thread::CpuSet::new();
    set.set(processor);
    rustix::thread::sched_setaffinity(None, &set).unwrap();
}

/// Two threads on one processor that wake each other by pipes: each turn is two switches.
fn switches() -> f64 {
    thread::spawn(|| {
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
        let took = turns(|| {
            there.write_all(&byte).unwrap();
            back_read.read_exact(&mut byte).unwrap();
        });
        drop(there);
        other.join().unwrap();
        took
    })
    .join()
    .unwrap()
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
fn calls() -> f64 {
    let mut stream = TcpStream::connect(server()).unwrap();
    stream.set_nodelay(true).unwrap();
    let took = turns(|| call(&mut stream));
    stream.write_all(&[1; 64]).unwrap();
    took
}

/// A connection for each call.
fn connections() -> f64 {
    let address = server();
    let took = turns(|| {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_nodelay(true).unwrap();
        call(&mut stream);
    });
    TcpStream::connect(address).unwrap().write_all(&[1; 64]).unwrap();
    took
}

/// Every source that this machine has, sampled each second on a thread of its own, until it is dropped.
struct Sources {
    stop: Option<mpsc::Sender<()>>,
    sampler: Option<thread::JoinHandle<()>>,
}

impl Sources {
    fn begin(tell: bool, disabled: &BTreeSet<String>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let registry = Arc::new(Registry::open(&folder.path().join("workloads.json"), "boot".into()).unwrap());
        let collector = Collector::new(NodeId::new("bench"), folder.path(), Watched::only(registry.clone()));
        let mut collector = collector.with_bpf(&registry, &Cgroups::probe(), 1.0);
        for standing in collector.probe(disabled).into_iter().filter(|_| tell) {
            println!(
                "  {:<14} {}",
                standing.source,
                standing.missing.map_or_else(|| "on".to_owned(), |missing| missing.to_string())
            );
        }
        let disabled = disabled.clone();
        let (stop, stopped) = mpsc::channel();
        let sampler = thread::spawn(move || {
            while stopped.recv_timeout(SAMPLE_EVERY) == Err(mpsc::RecvTimeoutError::Timeout) {
                collector.sample(clock::now(), &disabled, Pressed::default());
                collector.take();
            }
            drop(folder);
        });
        Self { stop: Some(stop), sampler: Some(sampler) }
    }
}

impl Drop for Sources {
    fn drop(&mut self) {
        self.stop.take();
        if let Some(sampler) = self.sampler.take() {
            sampler.join().unwrap();
        }
    }
}

/// The median and the quartiles.
fn spread(mut values: Vec<f64>) -> [f64; 3] {
    values.sort_by(f64::total_cmp);
    [1, 2, 3].map(|quarter| values[(values.len() - 1) * quarter / 4])
}

fn main() {
    // `cargo bench` gives `--bench`.
    let mut words = std::env::args().skip(1).filter(|word| !word.starts_with("--"));
    let rounds: usize = words.next().and_then(|word| word.parse().ok()).unwrap_or(ROUNDS);
    let disabled: BTreeSet<String> = words.next().iter().flat_map(|all| all.split(',')).map(str::to_owned).collect();
    println!("sources");
    drop(Sources::begin(true, &disabled));
    type Program = (&'static str, fn() -> f64);
    let programs: [Program; 3] = [("switches", switches), ("calls", calls), ("connections", connections)];
    println!("{:<12} {:>9} {:>9}   {:<26} off again", "program", "off ns", "on ns", "slower by (quartiles)");
    for (name, program) in programs {
        program();
        let (mut offs, mut ons, mut ratios, mut noise) = (vec![], vec![], vec![], vec![]);
        for round in 0..rounds {
            let with = || {
                let _sources = Sources::begin(false, &disabled);
                program()
            };
            let (off, on, again) = match round % 2 {
                0 => {
                    let off = program();
                    let on = with();
                    (off, on, program())
                }
                _ => {
                    let again = program();
                    let on = with();
                    (program(), on, again)
                }
            };
            offs.push(off);
            ons.push(on);
            // Beside what stands on both sides of it.
            ratios.push((on / ((off + again) / 2.0) - 1.0) * 100.0);
            noise.push((again / off - 1.0) * 100.0);
        }
        let ([_, off, _], [_, on, _]) = (spread(offs), spread(ons));
        let ([low, median, high], [noise_low, noise_median, noise_high]) = (spread(ratios), spread(noise));
        let slower = format!("{median:+.1} % ({low:+.1} to {high:+.1})");
        println!(
            "{name:<12} {off:>9.0} {on:>9.0}   {slower:<26} {noise_median:+.1} % ({noise_low:+.1} to {noise_high:+.1})"
        );
    }
}
