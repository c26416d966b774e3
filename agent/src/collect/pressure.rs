//! Pressure stall information, from `/proc/pressure`: the share of the last ten seconds in which some task waited, or all
//! that had something to do.

use super::{Missing, Sink, Source, file::Kept};
use aether_core::metric;

pub(super) struct Pressure([(&'static str, Kept); 3]);

impl Default for Pressure {
    fn default() -> Self {
        Self(["cpu", "io", "memory"].map(|resource| (resource, Kept::at(format!("/proc/pressure/{resource}")))))
    }
}

impl Source for Pressure {
    fn name(&self) -> &'static str {
        "pressure"
    }

    fn sample(&mut self, into: &mut Sink<'_>) -> Result<(), Missing> {
        for (resource, file) in &mut self.0 {
            let text = file.text().map_err(|missing| {
                Missing::new(format!("{missing}; the kernel needs CONFIG_PSI, and no `psi=0` on its command line"))
            })?;
            if let Some(percent) = average(text, "some") {
                into.node(metric::PRESSURE_SOME, "1", &[("resource", resource)], percent / 100.0);
            }
            // Of the processors, where something always runs, it says nothing.
            if let Some(percent) = average(text, "full").filter(|_| *resource != "cpu") {
                into.node(metric::PRESSURE_FULL, "1", &[("resource", resource)], percent / 100.0);
            }
        }
        Ok(())
    }

    fn rest(&mut self) {
        self.0.iter_mut().for_each(|(_, file)| file.close());
    }
}

/// `some avg10=0.00 avg60=…`.
fn average(text: &str, line: &str) -> Option<f64> {
    let line = text.lines().find_map(|other| other.strip_prefix(line))?;
    line.split_ascii_whitespace().next()?.strip_prefix("avg10=")?.parse().ok()
}
