//! What the agent is told by its flags, its environment and its file: parsed once, into typed values, at the start.
//!
//! A flag goes before the environment, the environment before the file, the file before the default. A field that
//! is not known is an error that names it: a setting that was meant and not read is worse than none.

use crate::{
    collect::external::{External, Origin},
    drill, signals,
    workloads::{Moving, Tcp},
};
use aether_core::{
    id::{NodeId, is_name},
    snapshot::{Tier, WorkloadSpec},
};
use serde::Deserialize;
use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};
use thiserror::Error;

/// A commented file with every setting and its default.
pub const EXAMPLE: &str = include_str!("../agent.example.toml");

/// The most labels of a node, and the longest value of one.
const LABELS_MAXIMUM: usize = 32;
const LABEL_BYTES: usize = 63;
/// The longest name of an interface, by the kernel.
const INTERFACE_BYTES: usize = 15;

#[derive(Debug, Error)]
pub enum Error {
    #[error("the configuration {} cannot be read", path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error("{origin}: {problem}")]
    Parse { origin: String, problem: String },
    #[error("`{field}`: {problem}")]
    Invalid { field: String, problem: String },
}

fn invalid(field: impl Into<String>, problem: impl Into<String>) -> Error {
    Error::Invalid { field: field.into(), problem: problem.into() }
}

/// The file's form. Each setting is described in `agent.example.toml`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct File {
    node: Option<String>,
    host: Option<String>,
    host_ca: Option<PathBuf>,
    state: Option<PathBuf>,
    join_token: Option<String>,
    join_token_file: Option<PathBuf>,
    criu: Option<PathBuf>,
    nvml: Option<PathBuf>,
    cuda_checkpoint: Option<PathBuf>,
    simulate: Option<bool>,
    stop_workloads_on_exit: Option<bool>,
    labels: BTreeMap<String, String>,
    collect: Collect,
    spool: SpoolFile,
    act: ActFile,
    power: PowerFile,
    drill: DrillFile,
    external: Vec<ExternalFile>,
    signals: SignalsFile,
    workloads: Vec<WorkloadFile>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Collect {
    sample_interval_ms: u64,
    batch_interval_ms: u64,
    disabled_sources: BTreeSet<String>,
    intervals_ms: BTreeMap<String, u64>,
    bpf_budget_permille: u64,
}
impl Default for Collect {
    fn default() -> Self {
        Self {
            sample_interval_ms: 1_000,
            batch_interval_ms: 1_000,
            disabled_sources: BTreeSet::new(),
            intervals_ms: BTreeMap::new(),
            bpf_budget_permille: 15,
        }
    }
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct SpoolFile {
    limit_bytes: u64,
    limit_age_s: u64,
    memory_batches: usize,
    sync_interval_ms: u64,
}
impl Default for SpoolFile {
    fn default() -> Self {
        Self { limit_bytes: 256 << 20, limit_age_s: 24 * 3_600, memory_batches: 120, sync_interval_ms: 5_000 }
    }
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct ActFile {
    concurrent_maximum: usize,
    images_memory_bytes: u64,
    lazy_restore_bytes: u64,
}
impl Default for ActFile {
    fn default() -> Self {
        Self { concurrent_maximum: 4, images_memory_bytes: 8 << 30, lazy_restore_bytes: 64 << 20 }
    }
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct PowerFile {
    sys: PathBuf,
    wake_port: u16,
}
impl Default for PowerFile {
    fn default() -> Self {
        Self { sys: "/sys".into(), wake_port: 9 }
    }
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct DrillFile {
    allowed: bool,
    nvml_stand_in: Option<PathBuf>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct SignalsFile {
    cloud: Option<signals::Cloud>,
    address: String,
    poll_ms: u64,
    timeout_ms: u64,
}
impl Default for SignalsFile {
    fn default() -> Self {
        Self { cloud: None, address: "169.254.169.254:80".into(), poll_ms: 5_000, timeout_ms: 5_000 }
    }
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ExternalFile {
    name: String,
    #[serde(default)]
    command: Vec<String>,
    url: Option<String>,
    interval_ms: Option<u64>,
    timeout_ms: Option<u64>,
    output_bytes: Option<u64>,
    series_maximum: Option<u64>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct WorkloadFile {
    id: String,
    name: Option<String>,
    tier: Option<Tier>,
    #[serde(default)]
    command: Vec<String>,
    progress_file: Option<PathBuf>,
    adopt_pid: Option<u32>,
    #[serde(default)]
    tcp: TcpFile,
    address: Option<String>,
    interface: Option<String>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum TcpFile {
    #[default]
    Refuse,
    Close,
    Move,
}

/// What flags and their environment variables say; each goes before the file.
#[derive(Clone, Debug, Default)]
pub struct Overrides {
    pub node: Option<String>,
    pub host: Option<String>,
    pub host_ca: Option<PathBuf>,
    pub state: Option<PathBuf>,
    pub join_token: Option<String>,
    pub join_token_file: Option<PathBuf>,
    pub criu: Option<PathBuf>,
    pub nvml: Option<PathBuf>,
    pub cuda_checkpoint: Option<PathBuf>,
    pub simulate: bool,
    pub stop_workloads_on_exit: bool,
}

/// The parsed configuration.
#[derive(Clone, Debug)]
pub struct Config {
    pub node: NodeId,
    pub host: String,
    /// A PEM file with the authority that signed the host's certificate.
    pub host_ca: Option<PathBuf>,
    pub state: PathBuf,
    pub join_token: Option<JoinToken>,
    /// CRIU as it was asked for; none means that it is looked for.
    pub criu: Option<PathBuf>,
    /// NVML as it was asked for; none means that the loader looks for it.
    pub nvml: Option<PathBuf>,
    /// `cuda-checkpoint` as it was asked for; none means that it is looked for.
    pub cuda_checkpoint: Option<PathBuf>,
    pub simulate: bool,
    pub stop_workloads_on_exit: bool,
    /// Where this node stands: its pool, rack and tenant, and what else people want to see of it.
    pub labels: BTreeMap<String, String>,
    pub sample_interval: Duration,
    pub batch_interval: Duration,
    pub disabled_sources: BTreeSet<String>,
    /// Of sources that are not to be sampled at their own pace.
    pub intervals: BTreeMap<String, Duration>,
    /// Share of the time that processors are busy that eBPF programs may take.
    pub bpf_budget: f64,
    pub spool: SpoolLimits,
    pub concurrent_maximum: usize,
    pub images_memory_bytes: u64,
    pub lazy_restore_bytes: u64,
    pub power: Power,
    pub drill: drill::Settings,
    /// Commands and endpoints of this node whose metrics are taken.
    pub externals: Vec<External>,
    pub signals: signals::Settings,
    pub workloads: Vec<Declared>,
}

/// Sleep, and waking others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Power {
    /// Where the kernel's sysfs is.
    pub sys: PathBuf,
    /// The UDP port that magic packets are sent to.
    pub wake_port: u16,
}

impl Default for Power {
    fn default() -> Self {
        let PowerFile { sys, wake_port } = PowerFile::default();
        Self { sys, wake_port }
    }
}

/// A secret; its value is in no log.
#[derive(Clone, PartialEq, Eq)]
pub struct JoinToken(pub String);

impl std::fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("JoinToken(..)")
    }
}

#[derive(Clone, Copy, Debug)]
pub struct SpoolLimits {
    pub bytes: u64,
    pub age: Duration,
    /// Batches kept in memory while the disk takes none.
    pub memory_batches: usize,
    pub sync_interval: Duration,
}

/// A workload that the configuration wants under this agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Declared {
    pub spec: WorkloadSpec,
    pub adopt_pid: Option<u32>,
    /// What becomes of its TCP connections when it moves.
    pub tcp: Tcp,
}

/// Sections whose settings can be overridden by `AETHER_<SECTION>_<SETTING>`.
const SECTIONS: [(&str, &[&str]); 5] = [
    ("collect", &["sample_interval_ms", "batch_interval_ms", "bpf_budget_permille"]),
    ("signals", &["poll_ms", "timeout_ms"]),
    ("spool", &["limit_bytes", "limit_age_s", "memory_batches", "sync_interval_ms"]),
    ("act", &["concurrent_maximum", "images_memory_bytes", "lazy_restore_bytes"]),
    ("power", &["wake_port"]),
];

impl Config {
    /// Reads `file` if one is named. `environment` looks up a variable.
    pub fn load(
        file: Option<&Path>,
        overrides: Overrides,
        environment: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, Error> {
        let text = match file {
            Some(path) => {
                std::fs::read_to_string(path).map_err(|source| Error::Read { path: path.to_owned(), source })?
            }
            None => String::new(),
        };
        let origin = file.map_or_else(|| "the configuration".to_string(), |path| path.display().to_string());
        Self::parse(&text, &origin, overrides, environment)
    }

    fn parse(
        text: &str,
        origin: &str,
        overrides: Overrides,
        environment: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, Error> {
        let parse = |problem: String| Error::Parse { origin: origin.into(), problem };
        // The text itself is parsed first, since then an error can name the line.
        let _: File = toml::from_str(text).map_err(|error| parse(error.to_string().trim_end().to_string()))?;
        let mut table: toml::Table = text.parse().map_err(|error: toml::de::Error| parse(error.to_string()))?;
        for (section, settings) in SECTIONS {
            for setting in settings {
                let variable = format!("AETHER_{section}_{setting}").to_uppercase();
                let Some(value) = environment(&variable) else { continue };
                let number = value.parse::<i64>().map_err(|_| invalid(&variable, format!("`{value}` is no number")))?;
                let entry = table.entry(section).or_insert_with(|| toml::Table::new().into());
                if let Some(entry) = entry.as_table_mut() {
                    entry.insert((*setting).into(), number.into());
                }
            }
        }
        let file: File = table.try_into().map_err(|error: toml::de::Error| parse(error.to_string()))?;
        Self::typed(file, overrides)
    }

    fn typed(file: File, flags: Overrides) -> Result<Self, Error> {
        let File {
            node,
            host,
            host_ca,
            state,
            join_token,
            join_token_file,
            criu,
            nvml,
            cuda_checkpoint,
            simulate,
            stop_workloads_on_exit,
            labels,
            collect,
            spool,
            act,
            power,
            drill,
            external,
            signals,
            workloads,
        } = file;
        let node = flags.node.or(node).ok_or_else(|| invalid("node", "is missing: the name of this node"))?;
        if !is_name(&node) {
            return Err(invalid("node", format!("`{node}` is no name: 1 to 63 of a-z 0-9 - .")));
        }
        let host = flags.host.or(host).unwrap_or_else(|| "http://127.0.0.1:7700".into());
        check_host(&host)?;
        let state =
            flags.state.or(state).ok_or_else(|| invalid("state", "is missing: a folder for this agent alone"))?;
        // A flag or variable of one kind goes before a file's setting of the other.
        let (token, token_file) = match (flags.join_token, flags.join_token_file) {
            (None, None) => (join_token, join_token_file),
            given => given,
        };
        let join_token = match (token, token_file) {
            (Some(token), _) => Some(token),
            (None, Some(path)) => Some(std::fs::read_to_string(&path).map_err(|source| Error::Read { path, source })?),
            (None, None) => None,
        };
        let join_token = join_token.map(|token| token.trim().to_string()).filter(|token| !token.is_empty());
        for (name, value) in &labels {
            if !is_name(name) || value.is_empty() || value.len() > LABEL_BYTES || value.chars().any(char::is_control) {
                let problem = format!("is no label: a name of a-z 0-9 - . and a value of 1 to {LABEL_BYTES} bytes");
                return Err(invalid(format!("labels.{name}"), problem));
            }
        }
        if labels.len() > LABELS_MAXIMUM {
            return Err(invalid("labels", format!("has {}; the most is {LABELS_MAXIMUM}", labels.len())));
        }
        within("collect.sample_interval_ms", collect.sample_interval_ms, 100, 60_000)?;
        within("collect.batch_interval_ms", collect.batch_interval_ms, 100, 60_000)?;
        for (source, interval) in &collect.intervals_ms {
            within(&format!("collect.intervals_ms.{source}"), *interval, 100, 86_400_000)?;
        }
        let intervals = collect.intervals_ms.into_iter().map(|(name, ms)| (name, Duration::from_millis(ms))).collect();
        within("collect.bpf_budget_permille", collect.bpf_budget_permille, 1, 1_000)?;
        within("spool.limit_bytes", spool.limit_bytes, 1 << 20, 1 << 40)?;
        within("spool.limit_age_s", spool.limit_age_s, 60, 30 * 24 * 3_600)?;
        within("spool.memory_batches", spool.memory_batches as u64, 1, 100_000)?;
        within("spool.sync_interval_ms", spool.sync_interval_ms, 0, 600_000)?;
        within("signals.poll_ms", signals.poll_ms, 1_000, 60_000)?;
        within("signals.timeout_ms", signals.timeout_ms, 100, 180_000)?;
        within("act.concurrent_maximum", act.concurrent_maximum as u64, 1, 64)?;
        within("act.images_memory_bytes", act.images_memory_bytes, 0, 1 << 44)?;
        within("act.lazy_restore_bytes", act.lazy_restore_bytes, 0, 1 << 44)?;
        within("power.wake_port", power.wake_port.into(), 1, 65_535)?;
        if !power.sys.is_absolute() {
            return Err(invalid("power.sys", "must be an absolute path"));
        }
        Ok(Self {
            node: NodeId(node),
            host,
            host_ca: flags.host_ca.or(host_ca),
            state,
            join_token: join_token.map(JoinToken),
            criu: flags.criu.or(criu),
            nvml: flags.nvml.or(nvml),
            cuda_checkpoint: flags.cuda_checkpoint.or(cuda_checkpoint),
            simulate: flags.simulate || simulate.unwrap_or(false),
            stop_workloads_on_exit: flags.stop_workloads_on_exit || stop_workloads_on_exit.unwrap_or(false),
            labels,
            sample_interval: Duration::from_millis(collect.sample_interval_ms),
            batch_interval: Duration::from_millis(collect.batch_interval_ms.max(collect.sample_interval_ms)),
            disabled_sources: collect.disabled_sources,
            intervals,
            bpf_budget: collect.bpf_budget_permille as f64 / 1_000.0,
            spool: SpoolLimits {
                bytes: spool.limit_bytes,
                age: Duration::from_secs(spool.limit_age_s),
                memory_batches: spool.memory_batches,
                sync_interval: Duration::from_millis(spool.sync_interval_ms),
            },
            concurrent_maximum: act.concurrent_maximum,
            images_memory_bytes: act.images_memory_bytes,
            lazy_restore_bytes: act.lazy_restore_bytes,
            power: Power { sys: power.sys, wake_port: power.wake_port },
            drill: drill::Settings { allowed: drill.allowed, nvml_stand_in: drill.nvml_stand_in },
            externals: externals(external)?,
            signals: signals::Settings {
                cloud: signals.cloud,
                address: metadata_service(&signals.address)?,
                poll: Duration::from_millis(signals.poll_ms),
                timeout: Duration::from_millis(signals.timeout_ms),
            },
            workloads: declared(workloads)?,
        })
    }
}

fn within(field: &str, value: u64, minimum: u64, maximum: u64) -> Result<(), Error> {
    if (minimum..=maximum).contains(&value) {
        return Ok(());
    }
    Err(invalid(field, format!("{value} is not from {minimum} to {maximum}")))
}

/// A metadata service is on the machine or beside it; what else answers plain HTTP is not for this agent to fetch.
fn metadata_service(address: &str) -> Result<SocketAddr, Error> {
    let wrong = |problem: &str| invalid("signals.address", format!("`{address}` {problem}"));
    let parsed: SocketAddr =
        address.parse().map_err(|_| wrong("is no address and port, such as 169.254.169.254:80"))?;
    let near = match parsed.ip() {
        IpAddr::V4(ip) => ip.is_loopback() || ip.is_link_local(),
        // fd00:ec2::254 is Amazon's.
        IpAddr::V6(ip) => ip.is_loopback() || ip.is_unicast_link_local() || ip.segments()[..2] == [0xfd00, 0x0ec2],
    };
    if near { Ok(parsed) } else { Err(wrong("is neither a loopback nor a link-local address")) }
}

/// Secrets travel to the host, so plain HTTP is for this machine alone.
fn check_host(host: &str) -> Result<(), Error> {
    let uri: tonic::transport::Uri =
        host.parse().map_err(|_| invalid("host", format!("`{host}` is no address such as http://127.0.0.1:7700")))?;
    let name = uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
    let loopback = name == "localhost" || name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
    match uri.scheme_str() {
        Some("https") => Ok(()),
        Some("http") if loopback => Ok(()),
        Some("http") => Err(invalid("host", format!("`{host}` would carry secrets in the open; use https"))),
        _ => Err(invalid("host", format!("`{host}` is no address such as http://127.0.0.1:7700"))),
    }
}

/// Commands and endpoints, and series of each.
const EXTERNALS_MAXIMUM: usize = 16;
const EXTERNAL_SERIES_MAXIMUM: u64 = 2_000;

fn externals(externals: Vec<ExternalFile>) -> Result<Vec<External>, Error> {
    if externals.len() > EXTERNALS_MAXIMUM {
        return Err(invalid("external", format!("has {}; the most is {EXTERNALS_MAXIMUM}", externals.len())));
    }
    let mut seen = BTreeSet::new();
    let typed = externals.into_iter().map(|file| {
        let ExternalFile { name, command, url, interval_ms, timeout_ms, output_bytes, series_maximum } = file;
        let field = |setting: &str| format!("external[{name}].{setting}");
        if !is_name(&name) {
            return Err(invalid("external.name", format!("`{name}` is no name: 1 to 63 of a-z 0-9 - .")));
        }
        if !seen.insert(name.clone()) {
            return Err(invalid("external.name", format!("`{name}` is there twice")));
        }
        let from = match (&command[..], url) {
            ([], None) => return Err(invalid(field("command"), "is missing, and so is `url`")),
            ([_, ..], Some(_)) => return Err(invalid(field("url"), "cannot stand beside `command`")),
            ([program, ..], None) if !Path::new(program).is_absolute() => {
                return Err(invalid(field("command"), "must begin with an absolute path"));
            }
            ([program, arguments @ ..], None) => Origin::Command(program.into(), arguments.to_vec()),
            ([], Some(url)) => {
                let uri: Option<tonic::transport::Uri> = url.parse().ok();
                if !uri.is_some_and(|uri| uri.scheme_str() == Some("http") && uri.host().is_some()) {
                    let problem = format!("`{url}` is no address of this node such as http://127.0.0.1:9100/metrics");
                    return Err(invalid(field("url"), problem));
                }
                Origin::Url(url)
            }
        };
        let (interval, timeout) = (interval_ms.unwrap_or(15_000), timeout_ms.unwrap_or(5_000));
        let (bytes, series) = (output_bytes.unwrap_or(1 << 20), series_maximum.unwrap_or(100));
        within(&field("interval_ms"), interval, 1_000, 86_400_000)?;
        within(&field("timeout_ms"), timeout, 100, 60_000)?;
        within(&field("output_bytes"), bytes, 1 << 10, 16 << 20)?;
        within(&field("series_maximum"), series, 1, EXTERNAL_SERIES_MAXIMUM)?;
        Ok(External {
            from,
            interval: Duration::from_millis(interval),
            timeout: Duration::from_millis(timeout),
            output_bytes: usize::try_from(bytes).unwrap_or(usize::MAX),
            series_maximum: usize::try_from(series).unwrap_or(usize::MAX),
            name,
        })
    });
    typed.collect()
}

fn declared(workloads: Vec<WorkloadFile>) -> Result<Vec<Declared>, Error> {
    let mut seen = BTreeSet::new();
    workloads
        .into_iter()
        .map(|WorkloadFile { id, name, tier, command, progress_file, adopt_pid, tcp, address, interface }| {
            let field = |setting: &str| format!("workloads[{id}].{setting}");
            if !is_name(&id) {
                return Err(invalid("workloads.id", format!("`{id}` is no name: 1 to 63 of a-z 0-9 - .")));
            }
            if !seen.insert(id.clone()) {
                return Err(invalid("workloads.id", format!("`{id}` is declared twice")));
            }
            match (&command[..], adopt_pid) {
                ([], None) => return Err(invalid(field("command"), "is missing, and so is `adopt_pid`")),
                ([_, ..], Some(_)) => return Err(invalid(field("adopt_pid"), "cannot stand beside `command`")),
                ([program, ..], None) if !Path::new(program).is_absolute() => {
                    return Err(invalid(field("command"), "must begin with an absolute path"));
                }
                ([_, ..], None) | ([], Some(_)) => {}
            }
            let tcp = match (tcp, address, interface) {
                (TcpFile::Refuse, None, None) => Tcp::Refuse,
                (TcpFile::Close, None, None) => Tcp::Close,
                (TcpFile::Refuse | TcpFile::Close, _, _) => {
                    let problem = "needs `address` and `interface` if it is \"move\", and takes neither else";
                    return Err(invalid(field("tcp"), problem));
                }
                (TcpFile::Move, address, interface) => Tcp::Move(moving(address, interface, field)?),
            };
            if progress_file.as_deref().is_some_and(|path| !path.is_absolute()) {
                return Err(invalid(field("progress_file"), "must be an absolute path"));
            }
            let spec = WorkloadSpec {
                name: name.unwrap_or_else(|| id.clone()),
                id: aether_core::id::WorkloadId(id),
                tier: tier.unwrap_or(Tier::Standard),
                command,
                progress_file: progress_file.map(|path| path.display().to_string()),
            };
            Ok(Declared { spec, adopt_pid, tcp })
        })
        .collect()
}

/// The address that moves with a workload.
fn moving(address: Option<String>, interface: Option<String>, field: impl Fn(&str) -> String) -> Result<Moving, Error> {
    let address = address.unwrap_or_default();
    let parsed = address.split_once('/').and_then(|(address, prefix)| {
        let address: Ipv4Addr = address.parse().ok()?;
        let usable = !(address.is_loopback() || address.is_unspecified() || address.is_multicast());
        let prefix = prefix.parse().ok().filter(|prefix| (1..=32).contains(prefix))?;
        usable.then_some((address, prefix))
    });
    let Some((address, prefix)) = parsed else {
        let problem = format!("`{address}` is no IPv4 address that can move, with its prefix, such as 10.77.0.5/24");
        return Err(invalid(field("address"), problem));
    };
    let interface = interface.unwrap_or_default();
    let named = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if interface.is_empty()
        || interface.len() > INTERFACE_BYTES
        || interface.starts_with('-')
        || !interface.chars().all(named)
    {
        return Err(invalid(field("interface"), format!("`{interface}` is no name of a network interface")));
    }
    Ok(Moving { address, prefix, interface })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Config, Error> {
        Config::parse(text, "agent.toml", Overrides::default(), |_| None)
    }

    fn complaint(text: &str) -> String {
        parse(text).unwrap_err().to_string()
    }

    #[test]
    fn the_example_parses_and_says_the_defaults() {
        let config = parse(EXAMPLE).unwrap();
        let bare = parse("node = 'node-a'\nstate = '/var/lib/aether-agent'").unwrap();
        assert_eq!(format!("{config:?}"), format!("{bare:?}"));
    }

    #[test]
    fn an_unknown_field_is_named() {
        let complaint = complaint("node = 'a'\nstate = '/x'\n[spool]\nlimit_byte = 1");
        assert!(complaint.contains("limit_byte") && complaint.contains("agent.toml"), "{complaint}");
    }

    #[test]
    fn bad_values_name_their_field() {
        for (text, field) in [
            ("", "node"),
            ("node = 'A B'", "node"),
            ("node = 'a'", "state"),
            ("node = 'a'\nstate = '/x'\nhost = 'http://10.0.0.1:7700'", "https"),
            ("node = 'a'\nstate = '/x'\nhost = 'somewhere'", "host"),
            ("node = 'a'\nstate = '/x'\n[collect]\nsample_interval_ms = 1", "collect.sample_interval_ms"),
            ("node = 'a'\nstate = '/x'\n[collect.intervals_ms]\ncpu = 1", "collect.intervals_ms.cpu"),
            ("node = 'a'\nstate = '/x'\n[[external]]\nname = 'x'", "external[x].command"),
            ("node = 'a'\nstate = '/x'\n[[external]]\nname = 'x'\nurl = 'https://a/'", "external[x].url"),
            ("node = 'a'\nstate = '/x'\n[[external]]\nname = 'x'\ncommand = ['x']", "absolute"),
            (
                "node = 'a'\nstate = '/x'\n[[external]]\nname = 'x'\nurl = 'http://a/'\ntimeout_ms = 1",
                "external[x].timeout_ms",
            ),
            ("node = 'a'\nstate = '/x'\n[signals]\naddress = '8.8.8.8:80'", "signals.address"),
            ("node = 'a'\nstate = '/x'\n[signals]\ncloud = 'home'", "home"),
            ("node = 'a'\nstate = '/x'\n[[workloads]]\nid = 'w'", "workloads[w].command"),
            ("node = 'a'\nstate = '/x'\n[[workloads]]\nid = 'w'\ncommand = ['sh']", "absolute"),
            ("node = 'a'\nstate = '/x'\n[[workloads]]\nid = 'w'\ncommand = ['/bin/sh']\nadopt_pid = 3", "adopt_pid"),
            ("node = 'a'\nstate = '/x'\n[[workloads]]\nid = 'w'\nadopt_pid = 3\ntcp = 'keep'", "refuse"),
            (
                "node = 'a'\nstate = '/x'\n[[workloads]]\nid = 'w'\nadopt_pid = 3\naddress = '10.0.0.5/24'",
                "workloads[w].tcp",
            ),
            ("node = 'a'\nstate = '/x'\n[[workloads]]\nid = 'w'\nadopt_pid = 3\ntcp = 'move'", "workloads[w].address"),
            (
                "node = 'a'\nstate = '/x'\n[[workloads]]\nid = 'w'\nadopt_pid = 3\ntcp = 'move'\naddress = '127.0.0.1/8'\n\
                 interface = 'lo'",
                "workloads[w].address",
            ),
            (
                "node = 'a'\nstate = '/x'\n[[workloads]]\nid = 'w'\nadopt_pid = 3\ntcp = 'move'\naddress = '10.0.0.5/24'\n\
                 interface = '-x'",
                "workloads[w].interface",
            ),
        ] {
            let complaint = complaint(text);
            assert!(complaint.contains(field), "{text}: {complaint}");
        }
    }

    #[test]
    fn an_address_that_moves_is_read() {
        let text = "node = 'a'\nstate = '/x'\n[[workloads]]\nid = 'w'\nadopt_pid = 3\ntcp = 'move'\n\
                    address = '10.77.0.5/24'\ninterface = 'eth0.7'";
        let moving = Moving { address: [10, 77, 0, 5].into(), prefix: 24, interface: "eth0.7".into() };
        assert_eq!(parse(text).unwrap().workloads[0].tcp, Tcp::Move(moving));
    }

    #[test]
    fn flags_go_before_the_environment_and_that_before_the_file() {
        let text = "node = 'a'\nstate = '/x'\n[spool]\nlimit_age_s = 60\nlimit_bytes = 2000000";
        let flags = Overrides { node: Some("b".into()), ..Overrides::default() };
        let environment = |name: &str| (name == "AETHER_SPOOL_LIMIT_AGE_S").then(|| "120".to_string());
        let config = Config::parse(text, "f", flags, environment).unwrap();
        assert_eq!(config.node.as_str(), "b");
        assert_eq!(config.spool.age, Duration::from_secs(120));
        assert_eq!(config.spool.bytes, 2_000_000);
    }

    #[test]
    fn the_token_is_in_no_log() {
        let config = parse("node = 'a'\nstate = '/x'\njoin_token = 'secret'").unwrap();
        assert!(!format!("{config:?}").contains("secret"));
    }
}
