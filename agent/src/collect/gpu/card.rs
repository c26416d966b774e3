//! What is read of one GPU, and of its MIG instances.

use crate::collect::{
    names::{Names, plain},
    source::Sink,
};
use aether_core::metric;
use nvml_wrapper::{
    Device, Nvml,
    bitmasks::device::ThrottleReasons,
    enum_wrappers::{
        device::{Clock, EccCounter, MemoryError, TemperatureSensor},
        nv_link::ErrorCounter,
    },
    enums::device::UsedGpuMemory,
    error::NvmlError,
};
use std::collections::BTreeMap;

/// Links that are asked for; a Blackwell has 18.
const LINKS_MAXIMUM: u32 = 18;
/// MIG instances of one GPU.
const MIG_MAXIMUM: u32 = 8;
/// Programs of one GPU that are told one by one.
const PROGRAMS_MAXIMUM: usize = 3;

/// What holds a GPU's clocks back. Being idle, or set to a clock, does not.
const REASONS: [(ThrottleReasons, &str); 6] = [
    (ThrottleReasons::SW_POWER_CAP, "power-cap"),
    (ThrottleReasons::SW_THERMAL_SLOWDOWN, "thermal"),
    (ThrottleReasons::HW_THERMAL_SLOWDOWN, "hardware-thermal"),
    (ThrottleReasons::HW_POWER_BRAKE_SLOWDOWN, "power-brake"),
    (ThrottleReasons::HW_SLOWDOWN, "hardware"),
    (ThrottleReasons::SYNC_BOOST, "sync-boost"),
];

/// One GPU.
pub(super) struct Card<'n> {
    pub(super) uuid: String,
    /// None: it does not answer by its name.
    pub(super) device: Option<Device<'n>>,
}

impl<'n> Card<'n> {
    pub(super) fn of(uuid: &str) -> Self {
        Self { uuid: uuid.into(), device: None }
    }

    pub(super) fn find(&mut self, nvml: &'n Nvml) {
        if self.device.is_none() {
            self.device = nvml.device_by_uuid(self.uuid.as_str()).ok();
        }
    }
}

/// A look at one GPU.
pub(super) struct Look<'a, 's> {
    pub(super) uuid: &'a str,
    pub(super) sink: &'a mut Sink<'s>,
    /// It answered that it has fallen off the bus.
    pub(super) lost: bool,
}

impl Look<'_, '_> {
    pub(super) fn tell(&mut self, metric: &str, unit: &str, attributes: &[(&str, &str)], value: Option<f64>) {
        if let Some(value) = value {
            let subject = self.sink.gpu(self.uuid);
            self.sink.put(subject, metric, unit, attributes, value);
        }
    }

    /// What the GPU said, unless it does not support the question.
    fn take<T>(&mut self, answer: Result<T, NvmlError>) -> Option<T> {
        self.lost |= matches!(answer, Err(NvmlError::GpuLost | NvmlError::NotFound));
        answer.ok()
    }

    /// What changes from second to second.
    pub(super) fn quick(&mut self, device: &Device<'_>, throttles: &mut u64) {
        // Whether it answers at all: the others may be questions that it does not support.
        let limit = self.take(device.power_management_limit());
        if self.lost {
            return;
        }
        let enforced = self.take(device.enforced_power_limit()).or(limit);
        self.tell(metric::GPU_POWER_LIMIT, "W", &[], enforced.map(|milliwatts| f64::from(milliwatts) / 1e3));
        let power = self.take(device.power_usage());
        self.tell(metric::HW_POWER, "W", &[], power.map(|milliwatts| f64::from(milliwatts) / 1e3));
        if let Some(busy) = self.take(device.utilization_rates()) {
            self.tell(metric::GPU_UTILIZATION, "1", &[], Some(f64::from(busy.gpu) / 100.0));
            self.tell(metric::GPU_MEMORY_BANDWIDTH, "1", &[], Some(f64::from(busy.memory) / 100.0));
        }
        if let Some(memory) = self.take(device.memory_info()) {
            self.memory(memory.used, memory.total);
        }
        let temperature = self.take(device.temperature(TemperatureSensor::Gpu));
        self.tell(metric::HW_TEMPERATURE, "Cel", &[], temperature.map(f64::from));
        for (clock, name) in [(Clock::Graphics, "graphics"), (Clock::Memory, "memory")] {
            let mhz = self.take(device.clock_info(clock));
            self.tell(metric::GPU_CLOCK, "Hz", &[("clock", name)], mhz.map(|mhz| f64::from(mhz) * 1e6));
        }
        if let Some(reasons) = self.take(device.current_throttle_reasons()) {
            let is = |reason| if reasons.intersects(reason) { 1.0 } else { 0.0 };
            let all = REASONS.iter().fold(ThrottleReasons::empty(), |all, (reason, _)| all | *reason);
            self.tell(metric::GPU_THROTTLED, "1", &[], Some(is(all)));
            // A reason that was never seen here needs no series.
            *throttles |= (reasons & all).bits();
            let seen = ThrottleReasons::from_bits_truncate(*throttles);
            for (reason, name) in REASONS.iter().filter(|(reason, _)| seen.intersects(*reason)) {
                self.tell(metric::GPU_THROTTLED, "1", &[("reason", name)], Some(is(*reason)));
            }
        }
    }

    fn memory(&mut self, used: u64, total: u64) {
        self.tell(metric::GPU_MEMORY_USAGE, "By", &[], Some(used as f64));
        self.tell(metric::GPU_MEMORY_LIMIT, "By", &[], Some(total as f64));
        let share = (total > 0).then(|| used as f64 / total as f64);
        self.tell(metric::GPU_MEMORY_UTILIZATION, "1", &[], share);
    }

    /// What changes slowly, or takes longer to ask.
    pub(super) fn deep(&mut self, device: &Device<'_>, names: &mut Names) {
        for (error, name) in [(MemoryError::Corrected, "ecc-corrected"), (MemoryError::Uncorrected, "ecc-uncorrected")]
        {
            let count = self.take(device.total_ecc_errors(error, EccCounter::Volatile));
            self.tell(metric::HW_ERRORS, "{error}", &[("error.type", name)], count.map(|count| count as f64));
        }
        let replays = self.take(device.pcie_replay_counter());
        self.tell(metric::HW_ERRORS, "{error}", &[("error.type", "pcie-replay")], replays.map(f64::from));
        self.links(device);
        self.programs(device, names);
        if self.take(device.mig_mode()).is_some_and(|mode| mode.current == 1) {
            self.instances(device);
        }
    }

    fn links(&mut self, device: &Device<'_>) {
        let (mut active, mut there, mut errors) = (0, false, 0);
        for index in 0..LINKS_MAXIMUM {
            let link = device.link_wrapper_for(index);
            // The first that is not there ends them.
            let Some(is_active) = self.take(link.is_active()) else { break };
            there = true;
            if is_active {
                active += 1;
                let counters = [
                    ErrorCounter::DlReplay,
                    ErrorCounter::DlRecovery,
                    ErrorCounter::DlCrcFlit,
                    ErrorCounter::DlCrcData,
                ];
                errors +=
                    counters.into_iter().filter_map(|counter| self.take(link.error_counter(counter))).sum::<u64>();
            }
        }
        if there {
            self.tell(metric::GPU_NVLINK_ACTIVE, "{link}", &[], Some(f64::from(active)));
            self.tell(metric::HW_ERRORS, "{error}", &[("error.type", "nvlink")], Some(errors as f64));
        }
    }

    /// Those with most memory, by name of program.
    fn programs(&mut self, device: &Device<'_>, names: &mut Names) {
        let Some(mut processes) = self.take(device.running_compute_processes()) else { return };
        processes.extend(self.take(device.running_graphics_processes()).unwrap_or_default());
        processes.sort_by_key(|process| process.pid);
        processes.dedup_by_key(|process| process.pid);
        self.tell(metric::GPU_PROCESSES, "{process}", &[], Some(processes.len() as f64));
        let mut by_name: BTreeMap<String, u64> = BTreeMap::new();
        for process in processes {
            let UsedGpuMemory::Used(bytes) = process.used_gpu_memory else { continue };
            // One in another pid namespace has no name here.
            let comm = std::fs::read_to_string(format!("/proc/{}/comm", process.pid));
            *by_name.entry(comm.map_or_else(|_| "?".into(), |comm| plain(&comm))).or_default() += bytes;
        }
        let mut all: Vec<_> = by_name.into_iter().collect();
        all.sort_by_key(|(_, bytes)| std::cmp::Reverse(*bytes));
        let at = self.sink.at;
        for (name, bytes) in all.iter().take(PROGRAMS_MAXIMUM) {
            let attributes = [("process.executable.name", names.admit(name, at))];
            let subject = self.sink.gpu(self.uuid);
            self.sink.add(subject, metric::GPU_PROCESS_MEMORY, "By", &attributes, *bytes as f64);
        }
    }

    /// MIG instances are subjects of their own, as far as NVML tells of them: their utilisation it does not.
    fn instances(&mut self, device: &Device<'_>) {
        let count = self.take(device.mig_device_count()).unwrap_or_default().min(MIG_MAXIMUM);
        let mut told = 0;
        for index in 0..count {
            let Ok(instance) = device.mig_device_by_index(index) else { continue };
            let Ok(uuid) = instance.uuid() else { continue };
            let mut of = Look { uuid: &uuid, sink: &mut *self.sink, lost: false };
            if let Some(memory) = of.take(instance.memory_info()) {
                of.memory(memory.used, memory.total);
                told += 1;
            }
        }
        self.tell(metric::GPU_MIG_INSTANCES, "{instance}", &[], Some(f64::from(told)));
    }
}
