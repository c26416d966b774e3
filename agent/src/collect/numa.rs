//! Memory of each NUMA node, and whether it came from where it was wanted, from `/sys/devices/system/node`. A machine with
//! one node has nothing to say here that `memory` does not.

use super::{
    Missing, Sink, Source,
    file::{fields, named},
};
use aether_core::metric;
use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

const EVERY: Duration = Duration::from_secs(5);
const NODES_MAXIMUM: usize = 16;

pub(super) struct Numa {
    root: PathBuf,
}

impl Numa {
    pub(super) fn at(sys: &Path) -> Self {
        Self { root: sys.join("devices/system/node") }
    }

    /// The nodes with their numbers, in order of these.
    fn nodes(&self) -> Vec<(u32, PathBuf)> {
        let entries = fs::read_dir(&self.root).into_iter().flatten().flatten();
        let mut nodes: Vec<(u32, PathBuf)> = entries
            .filter_map(|entry| {
                let number = entry.file_name().to_str()?.strip_prefix("node")?.parse().ok()?;
                Some((number, entry.path()))
            })
            .collect();
        nodes.sort();
        nodes.truncate(NODES_MAXIMUM);
        nodes
    }
}

impl Source for Numa {
    fn name(&self) -> &'static str {
        "numa"
    }

    fn interval(&self) -> Option<Duration> {
        Some(EVERY)
    }

    fn sample(&mut self, into: &mut Sink<'_>) -> Result<(), Missing> {
        let nodes = self.nodes();
        if nodes.len() < 2 {
            return Err(Missing::new(format!("this machine has one NUMA node: {} says so", self.root.display())));
        }
        for (number, path) in nodes {
            let number = number.to_string();
            let node = ("numa.node", number.as_str());
            // `Node 0 MemTotal:  17655580 kB`.
            let meminfo = fs::read_to_string(path.join("meminfo")).unwrap_or_default();
            let prefix = format!("Node {number} ");
            let lines: String = meminfo.split(&prefix).collect();
            let [total, free, file, anonymous] = fields(&lines, ["MemTotal", "MemFree", "FilePages", "AnonPages"]);
            let used = total.zip(free).map(|(total, free)| total.saturating_sub(free));
            for (state, kib) in [("used", used), ("free", free), ("file", file), ("anonymous", anonymous)] {
                if let Some(kib) = kib {
                    into.node(metric::NUMA_MEMORY, "By", &[node, ("state", state)], (kib << 10) as f64);
                }
            }
            for (name, count) in named(&fs::read_to_string(path.join("numastat")).unwrap_or_default()) {
                let kind = match name {
                    "numa_hit" => "hit",
                    "numa_miss" => "miss",
                    "numa_foreign" => "foreign",
                    "other_node" => "other",
                    _ => continue,
                };
                into.node(metric::NUMA_PAGES, "{page}", &[node, ("kind", kind)], count as f64);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collect::source::Readings;
    use aether_core::{id::NodeId, time::Time};
    use std::collections::BTreeMap;

    #[test]
    fn each_node_tells_its_memory_and_where_pages_came_from() {
        let sys = tempfile::tempdir().unwrap();
        let mut numa = Numa::at(sys.path());
        let mut look = || {
            let (mut readings, node) = (Readings::default(), NodeId::new("node-a"));
            let result = numa.sample(&mut Sink { node: &node, at: Time(1), readings: &mut readings });
            let told = readings
                .sorted()
                .into_iter()
                .map(|(key, samples)| (key.attributes.into_values().collect::<Vec<_>>().join(" "), samples[0].value));
            (told.collect::<BTreeMap<_, _>>(), result)
        };
        for (number, free) in [(0, 100), (1, 300)] {
            assert!(look().1.unwrap_err().reason.contains("one NUMA node"));
            let folder = sys.path().join(format!("devices/system/node/node{number}"));
            fs::create_dir_all(&folder).unwrap();
            let meminfo = format!(
                "Node {number} MemTotal:       400 kB\nNode {number} MemFree:  {free} kB\nNode {number} FilePages: 7 kB\n"
            );
            fs::write(folder.join("meminfo"), meminfo).unwrap();
            fs::write(folder.join("numastat"), "numa_hit 5\nnuma_miss 1\ninterleave_hit 9\nother_node 2\n").unwrap();
        }
        let (told, result) = look();
        assert_eq!(result, Ok(()));
        assert_eq!((told["0 used"], told["1 used"]), (300.0 * 1024.0, 100.0 * 1024.0));
        assert_eq!((told["hit 0"], told["miss 1"], told["other 1"], told["0 file"]), (5.0, 1.0, 2.0, 7.0 * 1024.0));
        assert_eq!(told.len(), 2 * 6);
    }
}
