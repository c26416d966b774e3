//! Errors of the memory that its controllers corrected, or could not, from `/sys/devices/system/edac`.

use super::{Missing, Sink, Source, file::numbers};
use aether_core::metric;
use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

const EVERY: Duration = Duration::from_secs(15);
const CONTROLLERS_MAXIMUM: usize = 32;

pub(super) struct Edac {
    root: PathBuf,
}

impl Edac {
    pub(super) fn at(sys: &Path) -> Self {
        Self { root: sys.join("devices/system/edac/mc") }
    }
}

impl Source for Edac {
    fn name(&self) -> &'static str {
        "edac"
    }

    fn interval(&self) -> Option<Duration> {
        Some(EVERY)
    }

    fn sample(&mut self, into: &mut Sink<'_>) -> Result<(), Missing> {
        let entries = fs::read_dir(&self.root).into_iter().flatten().flatten();
        let mut controllers: Vec<(u32, String)> = entries
            .filter_map(|entry| {
                let name = entry.file_name().into_string().ok()?;
                Some((name.strip_prefix("mc")?.parse().ok()?, name))
            })
            .collect();
        controllers.sort();
        let mut told = 0;
        for (_, name) in controllers.iter().take(CONTROLLERS_MAXIMUM) {
            for (kind, file) in [("ecc-corrected", "ce_count"), ("ecc-uncorrected", "ue_count")] {
                let text = fs::read_to_string(self.root.join(name).join(file)).unwrap_or_default();
                if let Some(count) = numbers(&text).next() {
                    let attributes = [("hw.name", name.as_str()), ("error.type", kind)];
                    into.node(metric::HW_ERRORS, "{error}", &attributes, count as f64);
                    told += 1;
                }
            }
        }
        if told > 0 {
            return Ok(());
        }
        Err(Missing::new(format!(
            "{} has no memory controller: memory without ECC, a virtual machine, or the module for the chip (such as \
             skx_edac, amd64_edac) is not loaded",
            self.root.display()
        )))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collect::source::Readings;
    use aether_core::{id::NodeId, time::Time};

    #[test]
    fn errors_are_told_by_controller_and_a_machine_without_one_says_so() {
        let sys = tempfile::tempdir().unwrap();
        let mut edac = Edac::at(sys.path());
        let mut look = || {
            let (mut readings, node) = (Readings::default(), NodeId::new("node-a"));
            let result = edac.sample(&mut Sink { node: &node, at: Time(1), readings: &mut readings });
            let lines = readings.sorted().into_iter().map(|(key, samples)| {
                format!("{} {}", key.attributes.into_values().collect::<Vec<_>>().join(" "), samples[0].value)
            });
            (lines.collect::<Vec<_>>(), result)
        };
        assert!(look().1.unwrap_err().reason.contains("ECC"));
        for (controller, corrected, uncorrected) in [("mc0", "3\n", "0\n"), ("mc10", "0\n", "1\n"), ("power", "9", "9")]
        {
            let folder = sys.path().join("devices/system/edac/mc").join(controller);
            fs::create_dir_all(&folder).unwrap();
            fs::write(folder.join("ce_count"), corrected).unwrap();
            fs::write(folder.join("ue_count"), uncorrected).unwrap();
        }
        let (lines, result) = look();
        assert_eq!(result, Ok(()));
        assert_eq!(
            lines,
            ["ecc-corrected mc0 3", "ecc-corrected mc10 0", "ecc-uncorrected mc0 0", "ecc-uncorrected mc10 1"]
        );
    }
}
