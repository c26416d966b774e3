//! What measurements of programs beside each other share.

#![allow(dead_code, reason = "each measurement has this module, and not each needs all of it")]

pub(crate) mod peer;

use std::{path::Path, process::Child, time::Duration};

/// Processor time and memory of a process, from its beginning on.
pub(crate) struct Gauge(procfs::process::Process);

impl Gauge {
    pub(crate) fn of(process: u32) -> Self {
        Self(procfs::process::Process::new(process as i32).unwrap())
    }

    pub(crate) fn processor_s(&self) -> f64 {
        let stat = self.0.stat().unwrap();
        (stat.utime + stat.stime) as f64 / procfs::ticks_per_second() as f64
    }

    pub(crate) fn resident_mib(&self) -> f64 {
        (self.0.stat().unwrap().rss * procfs::page_size()) as f64 / f64::from(1 << 20)
    }
}

/// Ended with the measurement.
pub(crate) struct Started(pub(crate) Child);

impl Started {
    /// Asks it to end, and waits until it has.
    pub(crate) fn end(&mut self) {
        let id = rustix::process::Pid::from_child(&self.0);
        rustix::process::kill_process(id, rustix::process::Signal::TERM).unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub(crate) async fn reaches(what: &str, ready: impl AsyncFn() -> bool) {
    for _ in 0..600 {
        if ready().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("not within a minute: {what}");
}

pub(crate) fn bytes_in(folder: &Path) -> u64 {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap());
    let bytes = |entry: std::fs::DirEntry| match entry.metadata().unwrap() {
        metadata if metadata.is_dir() => bytes_in(&entry.path()),
        metadata => metadata.len(),
    };
    entries.map(bytes).sum()
}

pub(crate) fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

pub(crate) fn program(variable: &str) -> Option<std::path::PathBuf> {
    std::env::var_os(variable).map(Into::into).filter(|path: &std::path::PathBuf| Path::is_file(path))
}
