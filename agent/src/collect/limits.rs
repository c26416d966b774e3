//! What a machine runs out of though it has processors and memory left: files, threads, and connections that the firewall
//! follows. From `/proc/sys`, with the limits, where there is one that can be reached.

use super::{
    Missing, Sink, Source,
    file::{Kept, numbers},
};
use aether_core::metric;
use std::{path::Path, time::Duration};

const EVERY: Duration = Duration::from_secs(5);
/// What the kernel says where it has no limit is near the largest number that there is.
const LIMIT_MAXIMUM: u64 = 1 << 53;

pub(super) struct Limits {
    files: Kept,
    threads: [Kept; 2],
    connections: Kept,
    connections_limit: Kept,
}

impl Default for Limits {
    fn default() -> Self {
        Self::at(Path::new("/proc/sys"))
    }
}

impl Limits {
    fn at(sys: &Path) -> Self {
        let kept = |path: &str| Kept::at(sys.join(path));
        Self {
            files: kept("fs/file-nr"),
            threads: [kept("kernel/threads-max"), kept("kernel/pid_max")],
            connections: kept("net/netfilter/nf_conntrack_count"),
            connections_limit: kept("net/netfilter/nf_conntrack_max"),
        }
    }
}

fn first(file: &mut Kept) -> Option<u64> {
    file.read().ok().and_then(|text| numbers(text).next())
}

impl Source for Limits {
    fn name(&self) -> &'static str {
        "limits"
    }

    fn interval(&self) -> Option<Duration> {
        Some(EVERY)
    }

    fn sample(&mut self, into: &mut Sink<'_>) -> Result<(), Missing> {
        // Those in use, those that are kept for the next, and how many there may be.
        let mut files = numbers(self.files.text()?);
        let (open, spare, limit) = (files.next().unwrap_or_default(), files.next().unwrap_or_default(), files.next());
        into.node(metric::FILES, "{file_descriptor}", &[], open.saturating_sub(spare) as f64);
        if let Some(limit) = limit.filter(|limit| *limit < LIMIT_MAXIMUM) {
            into.node(metric::FILES_LIMIT, "{file_descriptor}", &[], limit as f64);
        }
        // Each has a number, too.
        if let Some(limit) = self.threads.iter_mut().filter_map(first).min() {
            into.node(metric::THREADS_LIMIT, "{thread}", &[], limit as f64);
        }
        // Without the firewall's module there is no such file.
        if let Some(count) = first(&mut self.connections) {
            into.node(metric::CONNTRACK, "{connection}", &[], count as f64);
            if let Some(limit) = first(&mut self.connections_limit) {
                into.node(metric::CONNTRACK_LIMIT, "{connection}", &[], limit as f64);
            }
        }
        Ok(())
    }

    fn rest(&mut self) {
        let Self { files, threads, connections, connections_limit } = self;
        threads.iter_mut().chain([files, connections, connections_limit]).for_each(Kept::close);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collect::source::Readings;
    use aether_core::{id::NodeId, time::Time};
    use std::{collections::BTreeMap, fs};

    fn told(sys: &Path) -> (BTreeMap<String, f64>, Result<(), Missing>) {
        let (mut readings, node) = (Readings::default(), NodeId::new("node-a"));
        let result = Limits::at(sys).sample(&mut Sink { node: &node, at: Time(1), readings: &mut readings });
        (readings.sorted().into_iter().map(|(key, samples)| (key.metric, samples[0].value)).collect(), result)
    }

    #[test]
    fn what_may_run_out_is_told_with_its_limit_where_there_is_one() {
        let sys = tempfile::tempdir().unwrap();
        assert!(told(sys.path()).1.unwrap_err().reason.contains("file-nr"));
        for folder in ["fs", "kernel", "net/netfilter"] {
            fs::create_dir_all(sys.path().join(folder)).unwrap();
        }
        let write = |path: &str, text: &str| fs::write(sys.path().join(path), text).unwrap();
        write("fs/file-nr", "640\t12\t9223372036854775807\n");
        write("kernel/threads-max", "64000\n");
        write("kernel/pid_max", "32768\n");
        let (first, result) = told(sys.path());
        assert_eq!(result, Ok(()));
        assert_eq!(first, BTreeMap::from([(metric::FILES.into(), 628.0), (metric::THREADS_LIMIT.into(), 32_768.0)]));
        write("fs/file-nr", "640\t0\t1000\n");
        write("net/netfilter/nf_conntrack_count", "5\n");
        write("net/netfilter/nf_conntrack_max", "262144\n");
        let (second, _) = told(sys.path());
        assert_eq!(second[metric::FILES_LIMIT], 1_000.0);
        assert_eq!((second[metric::CONNTRACK], second[metric::CONNTRACK_LIMIT]), (5.0, 262_144.0));
    }
}
