//! GPUs, through NVML (the driver's own library) and, for a reset, `nvidia-smi`, since NVML offers none.
//!
//! NVML is opened for each deed and closed after it: a driver that was loaded anew is met as it is. The collector alone
//! holds it open, and lets go for a reset ([`hold`]), since a client that stays would keep the GPU from it. Bounds come
//! from the device; the catalogue's are only the outermost.

pub mod hold;

use super::{
    Absent,
    settings::{Settings, Values},
};
use crate::{
    act::{check::Task, criu::on_path, hands::Failure, run::Run, verbs::Done},
    process,
};
use aether_core::{
    catalogue::{argument, verb},
    value::Value,
};
use hold::Hold;
use nvml_wrapper::{
    Device, Nvml,
    enum_wrappers::device::{Clock, ComputeMode},
    enums::device::GpuLockedClocksSetting,
    error::NvmlError,
};
use std::{
    ffi::OsStr,
    io::Read,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

const POWER_LIMIT: &str = "power-limit-mw";
const COMPUTE_MODE: &str = "compute-mode";
const MODES: [(&str, ComputeMode); 3] = [
    ("default", ComputeMode::Default),
    ("exclusive-process", ComputeMode::ExclusiveProcess),
    ("prohibited", ComputeMode::Prohibited),
];
/// How long a clock may take to come down to a new bound.
const CLOCK_WITHIN: Duration = Duration::from_secs(5);
/// Bytes of the reset tool's words that are kept.
const WORDS_MAXIMUM: u64 = 4_096;
const RESETTING: &str = "resetting";
/// How long the collector may take to close NVML for a reset.
const LET_GO_WITHIN: Duration = Duration::from_secs(10);
/// How long NVML may take to list the GPUs, when the agent starts.
const LIST_WITHIN: Duration = Duration::from_secs(30);

/// One GPU of this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gpu {
    /// NVML's UUID; its subject is `<node>/<uuid>`.
    pub uuid: String,
    pub model: String,
}

/// The GPUs of this machine, as far as there are any.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gpus {
    library: PathBuf,
    /// The GPUs as they were found, or why there are none.
    pub found: Result<Vec<Gpu>, Absent>,
    smi: Option<PathBuf>,
    hold: Hold,
}

impl Gpus {
    /// `asked` names NVML; otherwise the loader's search path is used.
    pub fn probe(asked: Option<&Path>) -> Self {
        let library = asked.map_or_else(|| PathBuf::from("libnvidia-ml.so.1"), Path::to_owned);
        let smi = on_path("nvidia-smi");
        let found = Self::list_within(&library);
        Self { library, found, smi, hold: Hold::default() }
    }

    /// None, for this reason.
    pub fn absent(reason: String) -> Self {
        let found = Err(Absent::new(reason, "see the agent's log"));
        Self { library: PathBuf::new(), found, smi: None, hold: Hold::default() }
    }

    /// Who holds NVML open.
    pub fn hold(&self) -> &Hold {
        &self.hold
    }

    /// NVML, for whoever may keep it.
    pub fn open(&self) -> Result<Nvml, NvmlError> {
        open(&self.library)
    }

    /// A driver that hangs must not keep the agent from starting.
    fn list_within(library: &Path) -> Result<Vec<Gpu>, Absent> {
        let (listed, list) = std::sync::mpsc::channel();
        let of = library.to_owned();
        let begun = std::thread::Builder::new().name("nvml-list".into()).spawn(move || {
            // Nobody may be waiting any more.
            let _ = listed.send(Self::list(&of));
        });
        begun.map_err(|error| Absent::new(format!("a thread cannot be started: {error}"), "see the agent's log"))?;
        list.recv_timeout(LIST_WITHIN).unwrap_or_else(|_| {
            let reason = format!("NVML did not list the GPUs within {} s", LIST_WITHIN.as_secs());
            Err(Absent::new(reason, "look at `nvidia-smi` and at `dmesg`, then start the agent again"))
        })
    }

    fn list(library: &Path) -> Result<Vec<Gpu>, Absent> {
        let absent = |error: NvmlError| {
            let reason = match &error {
                NvmlError::LibloadingError(_) => format!("NVML ({}) is not here: {error}", library.display()),
                NvmlError::DriverNotLoaded => "NVML is here, and the NVIDIA driver is not loaded".to_string(),
                other => format!("NVML does not work: {other}"),
            };
            Absent::new(reason, "install the NVIDIA driver, or name its NVML with `--nvml`")
        };
        let nvml = open(library).map_err(absent)?;
        let count = nvml.device_count().map_err(absent)?;
        let gpus: Result<Vec<Gpu>, NvmlError> = (0..count)
            .map(|index| {
                let device = nvml.device_by_index(index)?;
                Ok(Gpu { uuid: device.uuid()?, model: device.name()? })
            })
            .collect();
        match gpus.map_err(absent)? {
            gpus if gpus.is_empty() => {
                Err(Absent::new("NVML works and finds no GPU", "look at `nvidia-smi` and at `dmesg`"))
            }
            gpus => Ok(gpus),
        }
    }

    pub fn can_control(&self) -> Result<(), Absent> {
        self.found.as_ref().map(|_| ()).map_err(Clone::clone)?;
        if !rustix::process::geteuid().is_root() {
            return Err(Absent::new(
                "GPUs are set by root, and the agent does not run as root",
                "run the agent as root",
            ));
        }
        Ok(())
    }

    pub fn can_reset(&self) -> Result<(), Absent> {
        self.can_control()?;
        match &self.smi {
            Some(_) => Ok(()),
            None => Err(Absent::new(
                "`nvidia-smi` is not on the PATH, and NVML itself cannot reset a GPU",
                "install the driver's tools",
            )),
        }
    }

    fn with<T>(&self, uuid: &str, deed: impl FnOnce(&mut Device<'_>) -> Result<T, Failure>) -> Result<T, Failure> {
        let nvml = open(&self.library).map_err(failure)?;
        let mut device = nvml.device_by_uuid(uuid).map_err(failure)?;
        deed(&mut device)
    }

    pub fn settings(&self, uuid: &str) -> GpuSettings {
        GpuSettings { gpus: self.clone(), uuid: uuid.into() }
    }

    /// What a verb's arguments mean for this GPU, within the device's own bounds.
    pub fn wanted(&self, uuid: &str, task: &Task) -> Result<Values, Failure> {
        match task.verb.as_str() {
            verb::POWER_LIMIT => {
                let watts = task.arguments.get(argument::WATTS).and_then(Value::as_f64).unwrap_or_default();
                let bounds = self.with(uuid, |device| device.power_management_limit_constraints().map_err(failure))?;
                let (low, high) = (f64::from(bounds.min_limit), f64::from(bounds.max_limit));
                let limit = (watts * 1_000.0).round();
                if !(low..=high).contains(&limit) {
                    let message =
                        format!("{watts} W is not within {} to {} W, which this GPU takes", low / 1e3, high / 1e3);
                    return Err(Failure::new("gpu.bounds", message));
                }
                Ok(Values::from([(POWER_LIMIT.into(), format!("{limit}"))]))
            }
            verb::COMPUTE_MODE => {
                let mode = task.arguments.get(argument::MODE).and_then(Value::as_text).unwrap_or_default();
                self.with(uuid, |device| device.compute_mode().map_err(failure))?;
                Ok(Values::from([(COMPUTE_MODE.into(), mode.into())]))
            }
            other => Err(Failure::new("order.verb", format!("`{other}` has no settings"))),
        }
    }

    /// The bounds of a lock, as the order says and the device takes.
    fn clocks(&self, uuid: &str, task: &Task) -> Result<(u32, u32), Failure> {
        let mhz = |name: &str| match task.arguments.get(name) {
            Some(Value::Integer(mhz)) => u32::try_from(*mhz).unwrap_or(u32::MAX),
            _ => u32::MAX,
        };
        let (low, high) = (mhz(argument::MIN_MHZ), mhz(argument::MAX_MHZ));
        let highest = self.with(uuid, |device| device.max_clock_info(Clock::Graphics).map_err(failure))?;
        if low > high || high > highest {
            let message =
                format!("{low} to {high} MHz is no lock for this GPU, whose highest graphics clock is {highest} MHz");
            return Err(Failure::new("gpu.bounds", message));
        }
        Ok((low, high))
    }

    /// What must hold right before a deed that is no setting.
    pub fn ready(&self, uuid: &str, task: &Task) -> Result<(), Failure> {
        match task.verb.as_str() {
            verb::LOCK_CLOCKS => self.clocks(uuid, task).map(|_| ()),
            verb::RESET_GPU => self.unused(uuid),
            _ => self.with(uuid, |_| Ok(())),
        }
    }

    fn unused(&self, uuid: &str) -> Result<(), Failure> {
        let pids = self.with(uuid, |device| {
            let mut all = device.running_compute_processes().map_err(failure)?;
            all.extend(device.running_graphics_processes().map_err(failure)?);
            Ok(all.into_iter().map(|process| process.pid.to_string()).collect::<Vec<_>>())
        })?;
        if pids.is_empty() {
            return Ok(());
        }
        let message =
            format!("the processes {} have contexts on the GPU, and a reset would end their work", pids.join(", "));
        Err(Failure::new("gpu.in-use", message))
    }

    pub fn lock_clocks(&self, run: &Run, uuid: &str) -> Done {
        let locked = self.clocks(uuid, run.task()).and_then(|(low, high)| {
            run.phase("locking").map_err(|error| Failure::new("agent.journal", error.to_string()))?;
            let setting = GpuLockedClocksSetting::Numeric { min_clock_mhz: low, max_clock_mhz: high };
            self.with(uuid, |device| device.set_gpu_locked_clocks(setting).map_err(failure))?;
            Ok((low, high))
        });
        let (low, high) = match locked {
            Ok(bounds) => bounds,
            Err(failure) => return Done::failed(failure.code, format!("{}; nothing was done", failure.message)),
        };
        let seen = process::poll(CLOCK_WITHIN, || {
            let now = self.with(uuid, |device| device.clock_info(Clock::Graphics).map_err(failure)).ok()?;
            (now <= high).then_some(now)
        });
        match seen {
            Some(now) => Done::ok(format!("the graphics clock is held between {low} and {high} MHz; it is {now} MHz"))
                .evidence("graphics-mhz", Value::Integer(i64::from(now))),
            None => {
                let why = format!("NVML took the lock, and yet the clock is not seen at or below {high} MHz");
                match self.with(uuid, |device| device.reset_gpu_locked_clocks().map_err(failure)) {
                    Ok(()) => Done::failed("setting.not-kept", format!("{why}. It was given back to the driver")),
                    Err(left) => Done::unknown("setting.not-kept", format!("{why}. And then: {left}")),
                }
            }
        }
    }

    pub fn reset_clocks(&self, uuid: &str) -> Done {
        match self.with(uuid, |device| device.reset_gpu_locked_clocks().map_err(failure)) {
            Ok(()) => Done::ok("the graphics clock is the driver's again"),
            Err(failure) => Done::failed(failure.code, format!("{}; nothing was done", failure.message)),
        }
    }

    pub fn reset(&self, run: &Run, uuid: &str) -> Done {
        let nothing = |code: &str, why: String| Done::failed(code, format!("{why}; nothing was done"));
        if let Err(failure) = self.unused(uuid) {
            return nothing(&failure.code, failure.message);
        }
        let Some(smi) = &self.smi else {
            return nothing("capability.missing", "`nvidia-smi` is not on the PATH".into());
        };
        let Some(_away) = self.hold.away(LET_GO_WITHIN) else {
            let why = format!(
                "the agent's own collector holds NVML open and did not let go within {} s: the driver hangs",
                LET_GO_WITHIN.as_secs()
            );
            return nothing("gpu.held", why);
        };
        if let Err(error) = run.phase(RESETTING) {
            return nothing("agent.journal", error.to_string());
        }
        let mut command = Command::new(smi);
        command.args(["--gpu-reset", "-i", uuid]).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = match command.spawn() {
            Ok(child) => child,
            Err(error) => return nothing("gpu.reset", format!("`nvidia-smi` cannot be run: {error}")),
        };
        let ended = run.poll(|| child.try_wait().transpose());
        let status = match ended {
            Ok(Ok(status)) => status,
            Ok(Err(error)) => return Done::unknown("gpu.reset", error.to_string()),
            Err(interrupted) => {
                let _ = child.kill();
                let _ = child.wait();
                return Done::unknown(
                    interrupted.code(),
                    "the reset was cut short, and what became of the GPU is not known",
                );
            }
        };
        let mut words = String::new();
        if let Some(out) = child.stdout.take() {
            let _ = out.take(WORDS_MAXIMUM).read_to_string(&mut words);
        }
        let words = words.trim();
        if !status.success() {
            return Done::failed("gpu.reset", format!("`nvidia-smi` did not reset it: {words}"));
        }
        match self.with(uuid, |device| device.uuid().map_err(failure)) {
            Ok(_) => Done::ok("reset, and the GPU answers again"),
            Err(failure) => {
                Done::unknown(failure.code, format!("`nvidia-smi` reports success, and then: {}", failure.message))
            }
        }
    }

    /// After a crash: a lock cannot be read, and neither can a reset.
    pub fn settle(phase: Option<&str>) -> Done {
        match phase {
            None => Done::failed("agent.restarted", "the agent was restarted before the GPU was touched"),
            Some(phase) => Done::unknown(
                "agent.restarted",
                format!("the agent was restarted while {phase}, and whether the GPU took it cannot be read"),
            ),
        }
    }
}

/// The settings of one GPU that can be read.
pub struct GpuSettings {
    gpus: Gpus,
    uuid: String,
}

impl Settings for GpuSettings {
    fn read(&self, name: &str) -> Result<String, Failure> {
        self.gpus.with(&self.uuid, |device| match name {
            POWER_LIMIT => Ok(device.power_management_limit().map_err(failure)?.to_string()),
            _ => {
                let mode = device.compute_mode().map_err(failure)?;
                let named = MODES.iter().find(|(_, known)| *known == mode);
                Ok(named.map_or_else(|| format!("{mode:?}"), |(name, _)| (*name).to_string()))
            }
        })
    }

    fn write(&self, name: &str, value: &str) -> Result<(), Failure> {
        let unusable = || Failure::new("gpu.value", format!("`{value}` cannot be set as {name}"));
        self.gpus.with(&self.uuid, |device| match name {
            POWER_LIMIT => {
                let limit = value.parse().map_err(|_| unusable())?;
                device.set_power_management_limit(limit).map_err(failure)
            }
            _ => {
                let (_, mode) = MODES.iter().find(|(name, _)| *name == value).ok_or_else(unusable)?;
                device.set_compute_mode(*mode).map_err(failure)
            }
        })
    }
}

fn open(library: &Path) -> Result<Nvml, NvmlError> {
    Nvml::builder().lib_path(OsStr::new(library)).init()
}

fn failure(error: NvmlError) -> Failure {
    let (code, message) = match error {
        NvmlError::NoPermission => (
            "gpu.permission",
            "the driver does not permit it to this agent (run it as root, outside of a container that forbids it)"
                .into(),
        ),
        NvmlError::NotSupported => ("gpu.unsupported", "this GPU does not support it".into()),
        NvmlError::GpuLost => ("gpu.lost", "the GPU has fallen off the bus, or is otherwise out of reach".into()),
        NvmlError::NotFound => ("target.missing", "no GPU here has this UUID".into()),
        NvmlError::InvalidArg => ("gpu.refused", "the driver calls the value invalid".into()),
        other => ("gpu.nvml", format!("NVML: {other}")),
    };
    Failure::new(code, message)
}
