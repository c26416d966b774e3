//! What a disturbance itself does: in a process of its own, or on a thread. Each ends by itself: at its time, when the
//! agent that began it is gone, and at its own bound before that.

use crate::clock;
use aether_core::time::Time;
use std::{
    fs::{self, OpenOptions},
    hint::black_box,
    io::{self, Write},
    path::{Path, PathBuf},
    time::Duration,
};

pub const MEMORY: &str = "memory";
pub const PROCESSOR: &str = "processor";

/// How fast and how far memory leaks.
const LEAK_BYTES_A_SECOND: usize = 4 << 20;
const LEAK_BYTES_MAXIMUM: usize = 384 << 20;
const PAGE: usize = 4_096;
/// How fast the file system fills.
const FILL_BYTES: usize = 1 << 20;
const FILL_EVERY: Duration = Duration::from_millis(150);
/// Between two looks at whether it is over.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// Enters `folders` (cgroups) and disturbs until `until`.
pub fn run(what: &str, until: Time, folders: &[PathBuf]) -> io::Result<()> {
    let me = std::process::id().to_string();
    for folder in folders {
        fs::write(folder.join("cgroup.procs"), &me)?;
    }
    let began = std::os::unix::process::parent_id();
    let over = move || clock::now() >= until || std::os::unix::process::parent_id() != began;
    match what {
        MEMORY => leak(over),
        PROCESSOR => burn(over),
        other => return Err(io::Error::other(format!("`{other}` is no disturbance"))),
    }
    Ok(())
}

fn leak(over: impl Fn() -> bool) {
    let mut leaked: Vec<Vec<u8>> = Vec::new();
    let mut ticks = 0u32;
    while !over() {
        let bytes: usize = leaked.iter().map(Vec::len).sum();
        if bytes < LEAK_BYTES_MAXIMUM && ticks.is_multiple_of(4) {
            let mut more = vec![0u8; LEAK_BYTES_A_SECOND];
            // Touched, so that it is there and not only promised.
            more.chunks_mut(PAGE).for_each(|page| page[0] = 1);
            leaked.push(more);
        }
        ticks = ticks.wrapping_add(1);
        std::thread::sleep(LOOK_EVERY);
    }
    black_box(leaked);
}

fn burn(over: impl Fn() -> bool + Copy + Send + 'static) {
    // What it wants counts, not what it gets: the others go first.
    let _ = rustix::process::nice(19);
    let count = std::thread::available_parallelism().map_or(1, usize::from);
    let threads: Vec<_> = (0..count)
        .map(|_| {
            std::thread::spawn(move || {
                let mut sum = 0u64;
                while !over() {
                    for number in 0..2_000_000u64 {
                        sum = black_box(sum.wrapping_add(number));
                    }
                }
            })
        })
        .collect();
    for thread in threads {
        let _ = thread.join();
    }
}

/// Fills the file system at `folder` until it is full, gone, or its time is over.
pub fn fill(folder: &Path, until: Time) {
    let file = OpenOptions::new().create(true).append(true).open(folder.join("filling"));
    let Ok(mut file) = file else { return };
    let block = vec![b'x'; FILL_BYTES];
    while clock::now() < until && file.write_all(&block).is_ok() {
        std::thread::sleep(FILL_EVERY);
    }
}
