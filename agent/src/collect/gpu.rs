//! Whether the GPUs that were found at the start still answer. NVML is opened for each look, and rarely: a driver that
//! nobody keeps loaded is loaded for it.

use super::{Missing, Sink, Source};
use crate::{act::control::gpu::Gpus, drill::Stage};
use aether_core::{
    drill::{ATTRIBUTE, Kind},
    metric,
    time::Time,
};

/// Between two looks.
const LOOK_EVERY_MS: u64 = 5_000;

pub(super) struct Gpu {
    gpus: Gpus,
    stage: Stage,
    looked: Option<Time>,
}

impl Gpu {
    pub(super) fn of(gpus: Gpus, stage: Stage) -> Self {
        Self { gpus, stage, looked: None }
    }
}

impl Source for Gpu {
    fn name(&self) -> &'static str {
        "gpu"
    }

    fn sample(&mut self, into: &mut Sink<'_>) -> Result<(), Missing> {
        let gpus = self.gpus.found.as_ref().map_err(|absent| Missing(absent.reason.clone()))?;
        if self.looked.is_some_and(|looked| into.at.since_ms(looked) < LOOK_EVERY_MS) {
            return Ok(());
        }
        self.looked = Some(into.at);
        for gpu in gpus {
            let available = if self.gpus.is_lost(&gpu.uuid) { 0.0 } else { 1.0 };
            let mut attributes = vec![("gpu", gpu.uuid.as_str())];
            if self.stage.gpu() {
                attributes.push((ATTRIBUTE, Kind::GpuLost.name()));
            }
            into.node(metric::GPU_AVAILABLE, "1", &attributes, available);
        }
        Ok(())
    }
}
