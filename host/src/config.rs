//! The one configuration file: TOML, parsed once into typed values, every setting with a default.
//!
//! `aether config example` prints it with all settings, what each does and what goes wrong at the extremes. The same
//! names work as environment variables: `AETHER_<SECTION>_<KEY>`, such as `AETHER_SERVER_LISTEN`; they go before the
//! file. A name that is not known is an error in both, so that a typing mistake never passes for a setting.

use crate::{blobs, cli::COMPILE_COMPONENT, control, fabric, forward, ingest, plugins::registry, signals};
use aether_core::{breaker, finding::Hysteresis, guard::GuardLimits, policy::Posture};
use aether_runtime::{CacheKey, CacheSettings, CompileLimits, Compiler, EngineSettings};
use serde::{Deserialize, Serialize};
use std::{
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};
use thiserror::Error;

/// The commented file with every setting at its default.
pub const EXAMPLE: &str = include_str!("../aether.example.toml");

/// Where the control plane keeps what it must not lose, and what the command line reads its address and token from.
pub const DATA_DIR: &str = ".aether";

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    pub server: Server,
    pub policy: Policy,
    pub posture: Posture,
    pub hysteresis: Hysteresis,
    pub guard: GuardLimits,
    pub breakers: breaker::Limits,
    pub control: control::Settings,
    pub runtime: Runtime,
    pub plugins: registry::Settings,
    pub recorder: Recorder,
    pub fabric: fabric::Settings,
    pub otlp: ingest::Settings,
    pub telemetry: forward::Settings,
    pub signals: signals::Settings,
    pub snapshots: blobs::Settings,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Server {
    pub data_dir: PathBuf,
    pub listen: SocketAddr,
    pub tls_cert: Option<PathBuf>,
    pub tls_key: Option<PathBuf>,
    pub drain_ms: u64,
}

impl Default for Server {
    fn default() -> Self {
        Self {
            data_dir: DATA_DIR.into(),
            listen: SocketAddr::from(([127, 0, 0, 1], 7700)),
            tls_cert: None,
            tls_key: None,
            drain_ms: 10_000,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Policy {
    pub bundle_dir: PathBuf,
    pub plugins_dir: PathBuf,
}

impl Default for Policy {
    fn default() -> Self {
        Self { bundle_dir: "policies/default".into(), plugins_dir: "build/plugins".into() }
    }
}

/// What the plugin runtime gives to components altogether, and to compiling each of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Runtime {
    pub concurrency: u32,
    pub pool_wait_ms: u64,
    pub component_bytes: usize,
    pub stack_bytes: usize,
    pub compiler: Option<PathBuf>,
    pub compile_cpu_s: u64,
    pub compile_wall_s: u64,
    pub compile_memory_bytes: u64,
    pub compile_at_once: u32,
    pub code_cache_bytes: u64,
}

impl Default for Runtime {
    fn default() -> Self {
        let EngineSettings { concurrency, pool_wait, component_bytes, stack_bytes, compiler: _, cache: _ } =
            EngineSettings::default();
        let CompileLimits { cpu_s, wall, memory_bytes, artifact_bytes: _, at_once } = CompileLimits::default();
        Self {
            concurrency,
            pool_wait_ms: u64::try_from(pool_wait.as_millis()).unwrap_or(u64::MAX),
            component_bytes,
            stack_bytes,
            compiler: None,
            compile_cpu_s: cpu_s,
            compile_wall_s: wall.as_secs(),
            compile_memory_bytes: memory_bytes,
            compile_at_once: at_once,
            code_cache_bytes: 1 << 30,
        }
    }
}

impl Runtime {
    /// For an engine that keeps its code in `folder`, sealed with `key`.
    pub fn engine(&self, folder: PathBuf, key: CacheKey) -> EngineSettings {
        // This very program, also where its file was replaced by a newer one since.
        let program = self.compiler.clone().unwrap_or_else(|| "/proc/self/exe".into());
        let arguments = vec![COMPILE_COMPONENT.into()];
        let limits = CompileLimits {
            cpu_s: self.compile_cpu_s,
            wall: Duration::from_secs(self.compile_wall_s),
            memory_bytes: self.compile_memory_bytes,
            at_once: self.compile_at_once,
            ..CompileLimits::default()
        };
        EngineSettings {
            concurrency: self.concurrency,
            pool_wait: Duration::from_millis(self.pool_wait_ms),
            component_bytes: self.component_bytes,
            stack_bytes: self.stack_bytes,
            compiler: Compiler::Child { program, arguments, limits },
            cache: Some(CacheSettings { folder, key, bytes: self.code_cache_bytes }),
        }
    }
}

/// The recorder's settings with names for the file: the recorder itself knows nothing of files.
macro_rules! recorder {
    ($($field:ident: $kind:ty),+ $(,)?) => {
        #[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(default, deny_unknown_fields)]
        pub struct Recorder {
            $(pub $field: $kind,)+
        }

        impl Default for Recorder {
            fn default() -> Self {
                let aether_recorder::Settings { $($field),+ } = aether_recorder::Settings::default();
                Self { $($field),+ }
            }
        }

        impl From<&Recorder> for aether_recorder::Settings {
            fn from(recorder: &Recorder) -> Self {
                let Recorder { $($field),+ } = recorder.clone();
                Self { $($field),+ }
            }
        }
    };
}

recorder! {
    hot_window_ms: u64,
    hot_samples_limit: usize,
    hot_series_limit: usize,
    hot_bytes_limit: usize,
    origin_series_limit: usize,
    hot_events_limit: usize,
    seal_interval_ms: u64,
    seal_bytes: usize,
    unsealed_bytes_limit: usize,
    retain_bytes: u64,
    retain_ms: u64,
    ahead_limit_ms: u64,
    query_bytes_limit: u64,
    footer_cache_bytes: usize,
    compact_interval_ms: u64,
    compact_share_percent: u32,
    compact_after: usize,
    compact_span_ms: u64,
    compact_bytes: u64,
    evidence_bytes: u64,
    evidence_retain_ms: u64,
}

#[derive(Debug, Error)]
pub enum Error {
    #[error("the configuration file {path} cannot be read; nothing was started")]
    Read { path: PathBuf, source: std::io::Error },
    /// The parser's words show the line and name what is wrong in it.
    #[error("the configuration file {path} is not right; nothing was started:\n{reason}")]
    Parse { path: PathBuf, reason: String },
    #[error("the environment variable {name} is not right; nothing was started: {reason}")]
    Variable { name: String, reason: String },
    #[error("{0}; nothing was started")]
    Setting(String),
    #[error(
        "listening on {0} without TLS would show tokens and orders to the network; set `server.tls_cert` and \
         `server.tls_key`, or listen on 127.0.0.1"
    )]
    OpenWithoutTls(SocketAddr),
    #[error("`server.tls_cert` and `server.tls_key` go together; one of them is missing")]
    HalfTls,
}

impl Error {
    /// A stable code; `docs/errors.md` has a section for each.
    pub fn code(&self) -> &'static str {
        match self {
            Error::Read { .. } | Error::Parse { .. } | Error::Variable { .. } | Error::Setting(_) => "AE0040",
            Error::OpenWithoutTls(_) | Error::HalfTls => "AE0041",
        }
    }
}

impl Config {
    /// From the file, if one is named, and the environment. Checked.
    pub fn load(path: Option<&Path>, environment: impl IntoIterator<Item = (String, String)>) -> Result<Self, Error> {
        let config = match path {
            Some(path) => {
                let text = std::fs::read_to_string(path).map_err(|source| Error::Read { path: path.into(), source })?;
                let parsed = toml::from_str(&text);
                parsed.map_err(|error| Error::Parse { path: path.into(), reason: error.to_string() })?
            }
            None => Self::default(),
        };
        let config = config.overridden(environment)?;
        config.check()?;
        Ok(config)
    }

    /// Every value within its range, and nothing that would be dangerous.
    pub fn check(&self) -> Result<(), Error> {
        let said = |error: &dyn std::error::Error| Error::Setting(error.to_string());
        aether_recorder::Settings::from(&self.recorder).check().map_err(|error| said(&error))?;
        self.fabric.check().map_err(|error| said(&error))?;
        self.otlp.check().map_err(|error| said(&error))?;
        self.telemetry.check().map_err(|error| said(&error))?;
        self.signals.check().map_err(|error| said(&error))?;
        self.control.check().map_err(|error| said(&error))?;
        self.snapshots.check().map_err(|error| said(&error))?;
        self.plugins.check().map_err(|error| said(&error))?;
        for (name, value, least, most) in [
            ("server.drain_ms", self.server.drain_ms, 100, 600_000),
            ("hysteresis.raise_after", self.hysteresis.raise_after.into(), 1, 10_000),
            ("hysteresis.clear_after", self.hysteresis.clear_after.into(), 1, 10_000),
            ("guard.concurrent", self.guard.concurrent.into(), 1, 10_000),
            ("guard.attempts", self.guard.attempts.into(), 1, 1_000),
            ("guard.attempt_window_ms", self.guard.attempt_window_ms, 1_000, 30 * 86_400_000),
            ("guard.cooldown_ms", self.guard.cooldown_ms, 0, 86_400_000),
            ("guard.attempts_per_rung", self.guard.attempts_per_rung.into(), 0, 1_000),
            ("breakers.window_ms", self.breakers.window_ms, 1_000, 30 * 86_400_000),
            ("posture.least_confidence_percent", self.posture.least_confidence_percent.into(), 0, 100),
        ] {
            if !(least..=most).contains(&value) {
                return Err(Error::Setting(format!("`{name}` is {value}: it must be between {least} and {most}")));
            }
        }
        match (&self.server.tls_cert, &self.server.tls_key) {
            (Some(_), Some(_)) => Ok(()),
            (None, None) if self.server.listen.ip().is_loopback() => Ok(()),
            (None, None) => Err(Error::OpenWithoutTls(self.server.listen)),
            (Some(_), None) | (None, Some(_)) => Err(Error::HalfTls),
        }
    }

    /// Certificate and key, if TLS is configured.
    pub fn tls(&self) -> Option<(&Path, &Path)> {
        self.server.tls_cert.as_deref().zip(self.server.tls_key.as_deref())
    }

    /// Where a host that listens on `address` is reached from its own machine.
    pub fn url(&self, mut address: SocketAddr) -> String {
        if address.ip().is_unspecified() {
            address.set_ip(if address.is_ipv4() { Ipv4Addr::LOCALHOST.into() } else { Ipv6Addr::LOCALHOST.into() });
        }
        format!("{}://{address}", if self.tls().is_some() { "https" } else { "http" })
    }

    /// With what the environment says. Each value is read as TOML where the setting is a number, a flag or a list.
    fn overridden(self, environment: impl IntoIterator<Item = (String, String)>) -> Result<Self, Error> {
        let mut table = toml::Table::try_from(&self).map_err(|error| Error::Setting(error.to_string()))?;
        let known = known();
        for (name, value) in environment {
            let Some((section, rest)) = sectioned(&name, &known) else { continue };
            let wrong = |reason: String| Error::Variable { name: name.clone(), reason };
            let Some(setting) = known.iter().find(|setting| setting.section == section && setting.key == rest) else {
                let keys: Vec<&str> = known.iter().filter(|s| s.section == section).map(|s| s.key.as_str()).collect();
                return Err(wrong(format!("`{section}` has no setting `{rest}`; it has {}", keys.join(", "))));
            };
            let value = match setting.kind {
                Kind::Text => toml::Value::String(value),
                Kind::Integer => toml::Value::Integer(
                    value
                        .trim()
                        .replace('_', "")
                        .parse()
                        .map_err(|_| wrong(format!("`{value}` is not a whole number")))?,
                ),
                Kind::Flag => toml::Value::Boolean(
                    value.trim().parse().map_err(|_| wrong(format!("`{value}` is neither true nor false")))?,
                ),
                Kind::List => {
                    let read: Result<toml::Table, _> = toml::from_str(&format!("list = {value}"));
                    let list = read
                        .ok()
                        .and_then(|mut table| table.remove("list"))
                        .filter(|value| value.is_array() || value.is_table());
                    list.ok_or_else(|| {
                        wrong(format!("`{value}` is not a list or a table as TOML writes it, such as [\"a\", \"b\"]"))
                    })?
                }
            };
            let Some(toml::Value::Table(section)) = table.get_mut(&setting.section) else { continue };
            section.insert(setting.key.clone(), value);
            // At once, so that the error names this variable.
            let _: Self =
                table.clone().try_into().map_err(|error: toml::de::Error| wrong(error.message().to_owned()))?;
        }
        table.try_into().map_err(|error: toml::de::Error| Error::Setting(error.message().to_owned()))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Text,
    Integer,
    Flag,
    List,
}

#[derive(Debug)]
struct Setting {
    section: String,
    key: String,
    kind: Kind,
}

/// Settings without a default are not in the defaults.
const OPTIONAL: [(&str, &str, Kind); 6] = [
    ("server", "tls_cert", Kind::Text),
    ("server", "tls_key", Kind::Text),
    ("runtime", "compiler", Kind::Text),
    ("snapshots", "key_file", Kind::Text),
    ("snapshots", "s3", Kind::List),
    ("snapshots", "cold", Kind::List),
];

/// Every setting with the kind of its value, from the defaults.
fn known() -> Vec<Setting> {
    let table = toml::Table::try_from(Config::default()).expect("the defaults are tables of plain values");
    let mut known: Vec<Setting> = OPTIONAL
        .iter()
        .map(|(section, key, kind)| Setting { section: (*section).into(), key: (*key).into(), kind: *kind })
        .collect();
    for (section, keys) in table {
        let toml::Value::Table(keys) = keys else { continue };
        for (key, value) in keys {
            let kind = match value {
                toml::Value::Integer(_) => Kind::Integer,
                toml::Value::Boolean(_) => Kind::Flag,
                toml::Value::Array(_) | toml::Value::Table(_) => Kind::List,
                _ => Kind::Text,
            };
            known.push(Setting { section: section.clone(), key, kind });
        }
    }
    known
}

/// `AETHER_SERVER_LISTEN` as `server` and `listen`. None where the variable is not about a section of ours.
fn sectioned(name: &str, known: &[Setting]) -> Option<(String, String)> {
    let (section, key) = name.strip_prefix("AETHER_")?.split_once('_')?;
    let (section, key) = (section.to_ascii_lowercase(), key.to_ascii_lowercase());
    known.iter().any(|setting| setting.section == section).then_some((section, key))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(text: &str) -> Result<Config, Error> {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("aether.toml");
        std::fs::write(&path, text).expect("written");
        Config::load(Some(&path), [])
    }

    fn with(variables: &[(&str, &str)]) -> Result<Config, Error> {
        Config::load(None, variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())))
    }

    /// What the example would say if all its settings were set.
    fn uncommented() -> String {
        let is_setting = |line: &str| {
            line.strip_prefix('#').and_then(|rest| rest.split_once(" = ")).is_some_and(|(key, _)| {
                !key.is_empty() && key.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
            })
        };
        EXAMPLE
            .lines()
            .map(|line| if is_setting(line) { &line[1..] } else { line })
            .fold(String::new(), |text, line| text + line + "\n")
    }

    #[test]
    fn the_example_is_the_default_and_leaves_out_no_setting() {
        assert_eq!(load(EXAMPLE).expect("it parses"), Config::default());
        let text = uncommented();
        let mut config: Config = toml::from_str(&text).expect("it parses with all settings set");
        assert!(config.server.tls_cert.take().is_some() && config.server.tls_key.take().is_some());
        assert!(config.runtime.compiler.take().is_some());
        let snapshots = &mut config.snapshots;
        let places = (snapshots.key_file.take(), snapshots.s3.take(), snapshots.cold.take());
        assert!(matches!(places, (Some(_), Some(_), Some(_))));
        assert_eq!(config, Config::default(), "the example shows other defaults than there are");
        let table: toml::Table = toml::from_str(&text).expect("a table");
        for setting in known() {
            let shown = table.get(&setting.section).and_then(|section| section.get(&setting.key));
            assert!(shown.is_some(), "{}.{} is not in the example", setting.section, setting.key);
        }
    }

    #[test]
    fn an_unknown_field_is_named_with_its_line() {
        let error = load("[server]\nlisten = \"127.0.0.1:1\"\nlistne = 2\n").expect_err("a typing mistake").to_string();
        assert!(error.contains("listne") && error.contains("line 3"), "{error}");
        let error = load("[serve]\n").expect_err("an unknown section").to_string();
        assert!(error.contains("serve") && error.contains("line 1"), "{error}");
        let error = load("[server]\nlisten = 7\n").expect_err("a wrong type").to_string();
        assert!(error.contains("line 2"), "{error}");
    }

    #[test]
    fn the_environment_goes_before_the_file_and_knows_the_same_names() {
        let config = with(&[
            ("AETHER_SERVER_LISTEN", "127.0.0.1:9"),
            ("AETHER_CONTROL_TICK_MS", "2_000"),
            ("AETHER_POSTURE_DRY_RUN", "false"),
            ("AETHER_POSTURE_HIGHEST_LIVE_CLASS", "impactful"),
            ("AETHER_PLUGINS_OCI_INSECURE_HOSTS", "[\"127.0.0.1:5000\"]"),
            ("AETHER_SNAPSHOTS_S3", "{ bucket = \"ours\", region = \"eu-central-1\" }"),
            ("AETHER_SNAPSHOT_KEYS", "not a setting"),
            ("AETHER_URL", "not ours to read"),
            ("HOME", "/"),
        ])
        .expect("it is right");
        assert_eq!(config.server.listen.port(), 9);
        assert_eq!(config.control.tick_ms, 2_000);
        assert!(!config.posture.dry_run);
        assert_eq!(config.plugins.oci_insecure_hosts, ["127.0.0.1:5000"]);
        assert_eq!(config.snapshots.s3.expect("a bucket").bucket, "ours");
        for (name, value, part) in [
            ("AETHER_SERVER_LISTNE", "x", "has no setting `listne`"),
            ("AETHER_CONTROL_TICK_MS", "soon", "not a whole number"),
            ("AETHER_POSTURE_DRY_RUN", "maybe", "neither true nor false"),
            ("AETHER_SERVER_LISTEN", "localhost", "AETHER_SERVER_LISTEN"),
            ("AETHER_PLUGINS_TRUSTED_KEYS", "mine", "not a list"),
        ] {
            let error = with(&[(name, value)]).expect_err(name).to_string();
            assert!(error.contains(name) && error.contains(part), "{error}");
        }
    }

    #[test]
    fn an_open_address_needs_tls() {
        assert!(matches!(with(&[("AETHER_SERVER_LISTEN", "0.0.0.0:7700")]), Err(Error::OpenWithoutTls(_))));
        assert!(matches!(with(&[("AETHER_SERVER_TLS_CERT", "a.pem")]), Err(Error::HalfTls)));
        with(&[
            ("AETHER_SERVER_LISTEN", "0.0.0.0:7700"),
            ("AETHER_SERVER_TLS_CERT", "a.pem"),
            ("AETHER_SERVER_TLS_KEY", "a.key"),
        ])
        .expect("TLS is configured");
    }

    #[test]
    fn a_value_out_of_range_is_named() {
        let error = load("[recorder]\nseal_interval_ms = 1\n").expect_err("too short").to_string();
        assert!(error.contains("seal_interval_ms") && error.contains("100"), "{error}");
        let error = load("[guard]\nattempts = 0\n").expect_err("none").to_string();
        assert!(error.contains("guard.attempts"), "{error}");
    }
}
