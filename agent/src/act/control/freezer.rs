//! Freezing a workload: by the cgroup v2 freezer where the workload is alone in a cgroup, by SIGSTOP to every process of
//! its tree otherwise. The freezer is better: the workload cannot see it, and a process that is born meanwhile is held too.

use super::{
    cgroup::{self, Cgroups},
    settings::{Settings, Values},
};
use crate::{
    act::hands::Failure,
    process::{self, Condition, ProcessRef},
    workloads::Entry,
};
use rustix::process::Signal;
use std::{path::PathBuf, time::Duration};

pub const FROZEN: &str = "1";
pub const THAWED: &str = "0";
/// Some processes of the tree are stopped and some are not.
const PARTLY: &str = "partly";

/// The freezer's own file.
const BY_CGROUP: &str = "cgroup.freeze";
/// The tree's processes, by signals.
const BY_SIGNALS: &str = "process.stopped";

const WITHIN: Duration = Duration::from_secs(10);

pub struct Freezer {
    root: ProcessRef,
    /// The workload's own cgroup, if it is alone in one.
    own: Option<PathBuf>,
}

/// The setting that freezing this workload is about.
pub fn wanted(entry: &Entry, cgroups: &Cgroups, value: &str) -> Result<Values, Failure> {
    let freezer = Freezer::of(entry, cgroups)?;
    // One that somebody stopped by signals is not let go by the cgroup.
    let by = match &freezer.own {
        Some(_) if freezer.read(BY_SIGNALS)? == THAWED => BY_CGROUP,
        Some(_) | None => BY_SIGNALS,
    };
    Ok(Values::from([(by.to_string(), value.to_string())]))
}

impl Freezer {
    pub fn of(entry: &Entry, cgroups: &Cgroups) -> Result<Self, Failure> {
        let root = entry.root().ok_or_else(|| Failure::new("workload.state", "it has no process"))?;
        let own = cgroups.own(&root, cgroup::Kind::Freezer).ok();
        Ok(Self { root, own })
    }

    fn own(&self) -> Result<&PathBuf, Failure> {
        self.own.as_ref().ok_or_else(|| {
            Failure::new(
                "cgroup.shared",
                "the workload is not alone in its cgroup any more, so its freezer is not used",
            )
        })
    }

    fn tree(&self) -> Vec<ProcessRef> {
        let mut tree = self.root.descendants();
        tree.push(self.root);
        tree
    }

    fn stopped(&self) -> Result<String, Failure> {
        let conditions: Vec<Condition> = self.tree().iter().map(ProcessRef::condition).collect();
        let alive = conditions.iter().filter(|condition| **condition != Condition::Gone).count();
        let stopped = conditions.iter().filter(|condition| **condition == Condition::Stopped).count();
        match (alive, stopped) {
            (0, _) => Err(Failure::new("workload.state", "the workload has ended")),
            (_, 0) => Ok(THAWED.into()),
            (alive, stopped) if alive == stopped => Ok(FROZEN.into()),
            _ => Ok(PARTLY.into()),
        }
    }
}

impl Settings for Freezer {
    fn read(&self, name: &str) -> Result<String, Failure> {
        match name {
            BY_CGROUP => cgroup::read(&self.own()?.join(BY_CGROUP)),
            _ => self.stopped(),
        }
    }

    fn write(&self, name: &str, value: &str) -> Result<(), Failure> {
        if ![FROZEN, THAWED].contains(&value) {
            let why = "only a part of the tree was stopped before, and which cannot be put back";
            return Err(Failure::new("freezer.partly", why));
        }
        let seen = if name == BY_CGROUP {
            let own = self.own()?;
            cgroup::write(&own.join(BY_CGROUP), value)?;
            let events = own.join("cgroup.events");
            let frozen = format!("frozen {value}");
            process::poll(WITHIN, || {
                cgroup::read(&events).ok().filter(|text| text.lines().any(|line| line == frozen)).map(|_| ())
            })
        } else {
            let signal = if value == FROZEN { Signal::STOP } else { Signal::CONT };
            // Again and again: a process that is born meanwhile belongs to the tree too.
            process::poll(WITHIN, || {
                for process in self.tree() {
                    let _ = process.signal(signal);
                }
                self.stopped().ok().filter(|now| now == value).map(|_| ())
            })
        };
        seen.ok_or_else(|| {
            Failure::new("freezer.timeout", format!("the kernel did not reach `{name}` = {value} in time"))
        })
    }
}
