//! What this machine is made of, as facts of the capability report: looked at when the agent starts and rarely after.
//!
//! Facts say what is there, for a person and for placement; what changes from second to second is a metric. A fact that
//! cannot be read is left out.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

/// Between two looks.
pub const EVERY: Duration = Duration::from_secs(600);
/// Disks, interfaces and NUMA nodes that are told, each.
const PARTS_MAXIMUM: usize = 24;
/// Bytes of one fact.
const FACT_BYTES: usize = 256;

/// Where to look.
pub struct Roots {
    pub proc: PathBuf,
    pub sys: PathBuf,
    pub etc: PathBuf,
}

impl Default for Roots {
    fn default() -> Self {
        Self { proc: "/proc".into(), sys: "/sys".into(), etc: "/etc".into() }
    }
}

/// What this machine is made of.
pub fn facts(roots: &Roots) -> BTreeMap<String, String> {
    let mut facts = Facts(BTreeMap::new());
    processors(roots, &mut facts);
    memory(roots, &mut facts);
    disks(&roots.sys, &mut facts);
    interfaces(&roots.sys, &mut facts);
    firmware(&roots.sys, &mut facts);
    let release = text(&roots.etc.join("os-release")).unwrap_or_default();
    let name = release.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="));
    facts.put("os.description", name.map(|name| name.trim_matches('"').to_string()));
    facts.0
}

struct Facts(BTreeMap<String, String>);

impl Facts {
    /// Printable and bounded: what firmware says goes through terminals and pages.
    fn put(&mut self, name: &str, value: Option<String>) {
        let Some(value) = value else { return };
        let mut kept: String = value.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        while kept.len() > FACT_BYTES {
            kept.pop();
        }
        let kept = kept.trim();
        if !kept.is_empty() {
            self.0.insert(name.into(), kept.into());
        }
    }
}

fn text(path: &Path) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    let text = text.trim();
    (!text.is_empty()).then(|| text.to_string())
}

fn number(path: &Path) -> Option<u64> {
    text(path)?.parse().ok()
}

/// The names in a folder that these are, in order.
fn names(folder: &Path, is: impl Fn(&str) -> bool) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut names: Vec<String> =
        entries.filter_map(|entry| entry.file_name().into_string().ok()).filter(|name| is(name)).collect();
    names.sort();
    names.truncate(PARTS_MAXIMUM);
    names
}

fn gibibytes(bytes: u64) -> String {
    format!("{:.1} GiB", bytes as f64 / (1u64 << 30) as f64)
}

fn processors(roots: &Roots, facts: &mut Facts) {
    let info = fs::read_to_string(roots.proc.join("cpuinfo")).unwrap_or_default();
    let values = |name: &str| -> Vec<&str> {
        let pairs = info.lines().filter_map(|line| line.split_once(':'));
        pairs.filter(|(key, _)| key.trim() == name).map(|(_, value)| value.trim()).collect()
    };
    let logical = values("processor").len();
    facts.put("cpu.model", values("model name").first().map(ToString::to_string));
    facts.put("cpu.logical", (logical > 0).then(|| logical.to_string()));
    // Cores are numbered within their package.
    let (packages, cores) = (values("physical id"), values("core id"));
    let count = |mut all: Vec<String>| {
        all.sort();
        all.dedup();
        (!all.is_empty()).then(|| all.len().to_string())
    };
    facts.put(
        "cpu.cores",
        count(packages.iter().zip(&cores).map(|(package, core)| format!("{package}/{core}")).collect()),
    );
    facts.put("cpu.packages", count(packages.iter().map(ToString::to_string).collect()));
    facts.put("cpu.microcode", values("microcode").first().map(ToString::to_string));
    let nodes = roots.sys.join("devices/system/node");
    for node in names(&nodes, |name| name.strip_prefix("node").is_some_and(|id| id.parse::<u32>().is_ok())) {
        let folder = nodes.join(&node);
        let memory = fs::read_to_string(folder.join("meminfo")).unwrap_or_default();
        let total = memory.lines().find_map(|line| line.split_once("MemTotal:")?.1.trim().strip_suffix(" kB"));
        let total = total.and_then(|total| total.trim().parse::<u64>().ok()).map(|total| gibibytes(total * 1_024));
        let told = [text(&folder.join("cpulist")).map(|list| format!("cpus {list}")), total];
        facts.put(&format!("numa.{node}"), Some(told.into_iter().flatten().collect::<Vec<_>>().join(", ")));
    }
}

fn memory(roots: &Roots, facts: &mut Facts) {
    let info = fs::read_to_string(roots.proc.join("meminfo")).unwrap_or_default();
    let of = |name: &str| {
        let line = info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        line.trim().trim_end_matches(" kB").parse::<u64>().ok()
    };
    facts.put("memory.total", of("MemTotal").map(|total| gibibytes(total * 1_024)));
    facts.put("memory.swap", of("SwapTotal").map(|total| gibibytes(total * 1_024)));
    let huge = of("HugePages_Total").filter(|count| *count > 0).zip(of("Hugepagesize"));
    facts.put("memory.huge-pages", huge.map(|(count, size)| format!("{count} of {size} kB")));
}

fn disks(sys: &Path, facts: &mut Facts) {
    let block = sys.join("block");
    let made_up = ["loop", "ram", "zram", "dm-", "md", "sr", "nbd"];
    for disk in names(&block, |name| !made_up.iter().any(|prefix| name.starts_with(prefix))) {
        let folder = block.join(&disk);
        // In sectors of 512 bytes, whatever the disk's own are.
        let size = number(&folder.join("size")).map(|sectors| gibibytes(sectors * 512));
        let kind = number(&folder.join("queue/rotational"))
            .map(|rotates| if rotates == 1 { "rotational" } else { "solid state" });
        let told = [size, kind.map(str::to_string), text(&folder.join("device/model"))];
        facts.put(&format!("disk.{disk}"), Some(told.into_iter().flatten().collect::<Vec<_>>().join(", ")));
    }
}

fn interfaces(sys: &Path, facts: &mut Facts) {
    let net = sys.join("class/net");
    // One with a driver behind it; the others were made up.
    for name in names(&net, |name| net.join(name).join("device").exists()) {
        let folder = net.join(&name);
        let file = |link: &str| {
            let target = fs::read_link(folder.join(link)).ok()?;
            target.file_name().map(|name| name.to_string_lossy().into_owned())
        };
        let speed = text(&folder.join("speed")).and_then(|speed| speed.parse::<i64>().ok()).filter(|speed| *speed > 0);
        let told = [
            file("device/driver"),
            speed.map(|speed| format!("{speed} Mbit/s")),
            file("device").map(|bus| format!("at {bus}")),
        ];
        facts.put(&format!("nic.{name}"), Some(told.into_iter().flatten().collect::<Vec<_>>().join(", ")));
    }
}

/// What the firmware says of the machine. Serial numbers, which are for root, are not told: they name a machine to others.
fn firmware(sys: &Path, facts: &mut Facts) {
    let folder = sys.join("class/dmi/id");
    for (name, file) in [
        ("dmi.vendor", "sys_vendor"),
        ("dmi.product", "product_name"),
        ("dmi.board", "board_name"),
        ("dmi.bios", "bios_version"),
    ] {
        facts.put(name, text(&folder.join(file)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;

    #[test]
    fn a_machine_is_told_part_by_part() {
        let root = tempfile::tempdir().unwrap();
        let at = |path: &str| root.path().join(path);
        for (path, text) in [
            (
                "proc/cpuinfo",
                "processor\t: 0\nmodel name\t: Some CPU @ 2GHz\nphysical id\t: 0\ncore id\t: 0\nmicrocode\t: 0x2b\n\nprocessor\t: 1\nmodel name\t: Some CPU @ 2GHz\nphysical id\t: 0\ncore id\t: 0\n\nprocessor\t: 2\nphysical id\t: 1\ncore id\t: 0\n",
            ),
            (
                "proc/meminfo",
                "MemTotal:       16777216 kB\nSwapTotal:             0 kB\nHugePages_Total:      8\nHugepagesize:       2048 kB\n",
            ),
            ("sys/devices/system/node/node0/cpulist", "0-1\n"),
            ("sys/devices/system/node/node0/meminfo", "Node 0 MemTotal:        8388608 kB\nNode 0 MemFree: 1 kB\n"),
            ("sys/block/nvme0n1/size", "2097152\n"),
            ("sys/block/nvme0n1/queue/rotational", "0\n"),
            ("sys/block/nvme0n1/device/model", "Fast\u{1b} Disk   \n"),
            ("sys/block/loop0/size", "8\n"),
            ("sys/class/net/eth0/speed", "25000\n"),
            ("sys/class/net/eth0/device/vendor", "0x1\n"),
            ("sys/class/net/lo/mtu", "65536\n"),
            ("sys/class/dmi/id/sys_vendor", "Vendor\n"),
            ("sys/class/dmi/id/product_serial", "secret\n"),
            ("etc/os-release", "NAME=Debian\nPRETTY_NAME=\"Debian GNU/Linux 12\"\n"),
        ] {
            let path = at(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let told = facts(&Roots { proc: at("proc"), sys: at("sys"), etc: at("etc") });
        let lines: Vec<String> = told.iter().map(|(name, value)| format!("{name} = {value}")).collect();
        expect![[r#"
            cpu.cores = 2
            cpu.logical = 3
            cpu.microcode = 0x2b
            cpu.model = Some CPU @ 2GHz
            cpu.packages = 2
            disk.nvme0n1 = 1.0 GiB, solid state, Fast  Disk
            dmi.vendor = Vendor
            memory.huge-pages = 8 of 2048 kB
            memory.swap = 0.0 GiB
            memory.total = 16.0 GiB
            nic.eth0 = 25000 Mbit/s
            numa.node0 = cpus 0-1, 8.0 GiB
            os.description = Debian GNU/Linux 12"#]]
        .assert_eq(&lines.join("\n"));
    }

    #[test]
    fn this_machine_is_made_of_something() {
        let told = facts(&Roots::default());
        for name in ["cpu.logical", "memory.total"] {
            assert!(told.contains_key(name), "{told:?}");
        }
        assert!(told.len() <= 4 * PARTS_MAXIMUM + 16);
        assert!(told.values().all(|value| value.len() <= FACT_BYTES && !value.chars().any(char::is_control)));
    }

    #[test]
    fn nothing_is_told_of_nothing() {
        let root = tempfile::tempdir().unwrap();
        let nowhere = || root.path().join("nowhere");
        assert!(facts(&Roots { proc: nowhere(), sys: nowhere(), etc: nowhere() }).is_empty());
    }
}
