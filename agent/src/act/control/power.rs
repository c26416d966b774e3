//! Sleep: what the kernel offers under `/sys/power`, what wakes the machine again, and the one write that does it.
//!
//! The order is what makes the outcome honest. The journal has the announcement before the host is told; the host has it
//! on disk before the journal says `sleeping`; and that is synced before the write. The write blocks for as long as the
//! machine sleeps. If it returns well the machine slept and woke; if it is refused the machine never slept, and that is
//! told; and if the agent ends in between, the next one looks at the boot and at the kernel's own count of sleeps.
//! Meanwhile the host judges by the silence: an agent that sleeps can say nothing.

use super::{Absent, wake};
use crate::{
    act::{check::Task, hands::Failure, run::Run, verbs::Done},
    capabilities::boot_id,
    clock,
    workloads::{Registry, State},
};
use aether_core::{catalogue::argument, value::Value};
use aether_proto::v1::{OrderSleeping, dispatch_state};
use rustix::fs::{Access, access};
use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    path::{Path, PathBuf},
    sync::mpsc,
    time::Duration,
};
use tracing::warn;

const STATES: [&str; 4] = ["mem", "standby", "freeze", "disk"];
const STATE_DEFAULT: &str = "mem";
const ANNOUNCING: &str = "announcing";
/// The phase before the write: `sleeping <boot> <sleeps counted so far, or ->`.
const SLEEPING: &str = "sleeping";
/// No file of sysfs that is read here has more.
const READ_BYTES_MAXIMUM: u64 = 4_096;
/// How long a wake-up event that is being handled may keep the machine from sleeping.
const SETTLED_WITHIN: Duration = Duration::from_secs(5);

/// What is found here of sleep, as it was probed.
#[derive(Clone, Debug)]
pub struct Power {
    sys: PathBuf,
    /// Where magic packets go, and come.
    pub wake_port: u16,
    offered: Result<Vec<&'static str>, Absent>,
    alarm: Result<(), Absent>,
}

/// A network card that is armed for Wake-on-LAN.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Card {
    pub mac: String,
    pub network: wake::Network,
}

impl Power {
    /// `sys` is where the kernel's sysfs is.
    pub fn probe(sys: &Path, wake_port: u16) -> Self {
        Self { sys: sys.to_owned(), wake_port, offered: offered(sys), alarm: alarm(sys) }
    }

    pub fn can_sleep(&self) -> Result<(), Absent> {
        self.offered.as_ref().map(|_| ()).map_err(Clone::clone)
    }

    pub fn has_alarm(&self) -> Result<(), Absent> {
        self.alarm.clone()
    }

    /// The first card, by name, that is armed and on a network.
    pub fn card(&self) -> Option<Card> {
        let folder = fs::read_dir(self.sys.join("class/net")).ok()?;
        let mut cards: Vec<_> = folder.flatten().map(|card| (card.file_name(), card.path())).collect();
        cards.sort();
        let networks = wake::networks();
        cards.into_iter().find_map(|(name, path)| {
            let armed = read(&path.join("device/power/wakeup")).is_ok_and(|armed| armed == "enabled");
            let mac = read(&path.join("address")).ok().filter(|mac| wake::mac(mac).is_some())?;
            let network =
                networks.iter().find(|(on, network)| Some(on.as_str()) == name.to_str() && network.has_others());
            network.filter(|_| armed).map(|(_, network)| Card { mac, network: *network })
        })
    }

    /// What must hold right before.
    pub fn ready(&self, task: &Task, drained: bool, registry: &Registry) -> Result<(), Failure> {
        let state = state_of(task);
        match &self.offered {
            Ok(offered) if offered.contains(&state) => {}
            Ok(offered) => {
                let message = format!("the kernel offers no `{state}` here, only {}", offered.join(", "));
                return Err(Failure::new("sleep.state", message));
            }
            Err(absent) => return Err(Failure::new("sleep.state", absent.reason.clone())),
        }
        // A dry run does not drain, so what its plan would drain is not drained.
        let foreseen = task.dry_run && task.drained_before;
        if !drained && !foreseen {
            let message = "this node is not drained, so work may come while it sleeps; drain it before";
            return Err(Failure::new("sleep.not-drained", message));
        }
        if let Some(entry) = registry.all().into_iter().find(|entry| entry.state != State::Exited) {
            return Err(Failure::new("sleep.occupied", format!("the workload {} is here", entry.spec.id)));
        }
        match (after_ms(task), &self.alarm) {
            (Some(_), Err(absent)) => Err(Failure::new("sleep.alarm", absent.reason.clone())),
            (Some(_), Ok(())) => Ok(()),
            (None, _) if self.card().is_some() => Ok(()),
            (None, _) => {
                let message = "nothing would wake this machine: no network card is armed for Wake-on-LAN, and no alarm is asked for";
                Err(Failure::new("sleep.no-way-back", message))
            }
        }
    }

    pub fn sleep(&self, run: &Run) -> Done {
        let task = run.task();
        match self.go(run) {
            Ok(done) => done,
            Err(failure) => {
                self.disarm(task);
                Done::failed(failure.code, format!("{}. The machine did not sleep", failure.message))
            }
        }
    }

    fn go(&self, run: &Run) -> Result<Done, Failure> {
        let task = run.task();
        let state = state_of(task);
        let journal = |error: io::Error| Failure::new("agent.journal", format!("it cannot be journaled ({error})"));
        // From here on an event that is to wake the machine (a magic packet, say) keeps it awake.
        let events = self.wakeup_count()?;
        run.phase(ANNOUNCING).map_err(journal)?;
        let wakes_at_ms = match after_ms(task) {
            Some(after_ms) => {
                self.arm(after_ms)?;
                clock::now().plus_ms(after_ms).0
            }
            None => 0,
        };
        let sleeping = OrderSleeping { plan: task.order.plan.0.clone(), state: state.into(), wakes_at_ms };
        if !run.confirmed(dispatch_state::State::Sleeping(sleeping))? {
            return Err(Failure::new("sleep.unheard", "the host did not confirm that it knows of it"));
        }
        run.check()?;
        let slept_before = self.sleeps();
        let count = slept_before.map_or_else(|| "-".into(), |count| count.to_string());
        run.phase(&format!("{SLEEPING} {} {count}", boot_id())).map_err(journal)?;
        if let Some(events) = events {
            self.write("power/wakeup_count", &events).map_err(|error| {
                Failure::new(
                    "sleep.woken",
                    format!("something was to wake the machine just as it was to sleep ({error})"),
                )
            })?;
        }
        let began = clock::now();
        self.write("power/state", state).map_err(|error| self.refused(state, &error))?;
        let slept_ms = clock::now().since_ms(began);
        self.disarm(task);
        Ok(Done::ok(format!("slept in `{state}` for {slept_ms} ms, and woke"))
            .evidence("state", Value::Text(state.into()))
            .evidence("slept", Value::Duration(slept_ms)))
    }

    /// What became of a sleep that the end of the agent cut short.
    pub fn settle(&self, task: &Task, phase: Option<&str>) -> Done {
        const CODE: &str = "agent.restarted";
        let mut words = phase.unwrap_or_default().split(' ');
        if words.next() != Some(SLEEPING) {
            self.disarm(task);
            return Done::failed(CODE, "the agent was restarted before the machine was put to sleep");
        }
        let (boot, before) = (words.next().unwrap_or_default(), words.next().and_then(|count| count.parse().ok()));
        if boot != boot_id() {
            return Done::unknown(
                CODE,
                "the machine was booted anew after it was told to sleep: whether it slept, and why it did not wake as it \
                 was, cannot be seen. No workload was on it",
            );
        }
        match (before, self.sleeps()) {
            (Some(before), Some(now)) if now > before => {
                self.disarm(task);
                Done::ok("slept and woke; the agent was restarted before it could say so")
                    .evidence("state", Value::Text(state_of(task).into()))
            }
            (Some(_), Some(_)) => {
                self.disarm(task);
                Done::failed(
                    CODE,
                    "the agent was restarted, and the kernel has counted no sleep since: it did not sleep",
                )
            }
            (None, _) | (_, None) => Done::unknown(
                CODE,
                "the agent was restarted after it told the machine to sleep, and this kernel does not count its sleeps",
            ),
        }
    }

    /// How often the kernel has slept and woken since it booted; not all kernels tell.
    fn sleeps(&self) -> Option<u64> {
        read(&self.sys.join("power/suspend_stats/success")).ok()?.parse().ok()
    }

    /// The count of wake-up events. Reading it waits while one is being handled.
    fn wakeup_count(&self) -> Result<Option<String>, Failure> {
        let path = self.sys.join("power/wakeup_count");
        if !path.exists() {
            return Ok(None);
        }
        let (tell, told) = mpsc::channel();
        std::thread::spawn(move || {
            // Nobody waits for it any more if it comes too late.
            let _ = tell.send(read(&path));
        });
        match told.recv_timeout(SETTLED_WITHIN) {
            Ok(Ok(count)) => Ok(Some(count)),
            Ok(Err(error)) => {
                Err(Failure::new("sleep.refused", format!("the count of wake-up events cannot be read: {error}")))
            }
            Err(_) => {
                Err(Failure::new("sleep.woken", "something keeps the machine awake: a wake-up event does not end"))
            }
        }
    }

    fn arm(&self, after_ms: u64) -> Result<(), Failure> {
        let set = self.write("class/rtc/rtc0/wakealarm", "0");
        // A part of a second more is better than an alarm in the past.
        let seconds = after_ms.div_ceil(1_000);
        let set = set.and_then(|()| self.write("class/rtc/rtc0/wakealarm", &format!("+{seconds}")));
        let set = set.and_then(|()| read(&self.sys.join("class/rtc/rtc0/wakealarm")));
        match set {
            Ok(alarm) if !alarm.is_empty() => Ok(()),
            Ok(_) => Err(Failure::new("sleep.alarm", "the alarm was set, and yet there is none")),
            Err(error) => Err(Failure::new("sleep.alarm", format!("the alarm cannot be set: {error}"))),
        }
    }

    /// Takes the alarm of this order back; an old one that goes off does no harm.
    fn disarm(&self, task: &Task) {
        if after_ms(task).is_some()
            && let Err(error) = self.write("class/rtc/rtc0/wakealarm", "0")
        {
            warn!(%error, "the alarm that was to wake the machine could not be taken back");
        }
    }

    fn refused(&self, state: &str, error: &io::Error) -> Failure {
        let last =
            |name: &str| read(&self.sys.join("power/suspend_stats").join(name)).ok().filter(|text| !text.is_empty());
        let mut message = format!("the kernel did not go to `{state}`: {error}");
        for (what, name) in [("in the step", "last_failed_step"), ("for the device", "last_failed_dev")] {
            if let Some(last) = last(name) {
                message.push_str(&format!(", {what} {last}"));
            }
        }
        Failure::new("sleep.refused", message)
    }

    fn write(&self, name: &str, value: &str) -> io::Result<()> {
        // One write, and nothing made or cut: these are the kernel's.
        OpenOptions::new().write(true).open(self.sys.join(name))?.write_all(value.as_bytes())
    }
}

fn read(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    File::open(path)?.take(READ_BYTES_MAXIMUM).read_to_string(&mut text)?;
    Ok(text.trim().to_string())
}

fn state_of(task: &Task) -> &str {
    task.arguments.get(argument::STATE).and_then(Value::as_text).unwrap_or(STATE_DEFAULT)
}

fn after_ms(task: &Task) -> Option<u64> {
    match task.arguments.get(argument::WAKE_AFTER) {
        Some(Value::Duration(ms)) => Some(*ms),
        _ => None,
    }
}

fn offered(sys: &Path) -> Result<Vec<&'static str>, Absent> {
    let path = sys.join("power/state");
    let advice = "a machine whose kernel and firmware can sleep; virtual machines and containers usually cannot";
    let text =
        read(&path).map_err(|error| Absent::new(format!("{} cannot be read: {error}", path.display()), advice))?;
    let offered: Vec<_> =
        STATES.into_iter().filter(|state| text.split_whitespace().any(|word| word == *state)).collect();
    if offered.is_empty() {
        return Err(Absent::new(format!("the kernel offers no sleep: {} names none", path.display()), advice));
    }
    match access(&path, Access::WRITE_OK) {
        Ok(()) => Ok(offered),
        Err(error) => {
            Err(Absent::new(format!("{} cannot be written: {error}", path.display()), "run the agent as root"))
        }
    }
}

fn alarm(sys: &Path) -> Result<(), Absent> {
    let path = sys.join("class/rtc/rtc0/wakealarm");
    access(&path, Access::WRITE_OK).map_err(|error| {
        let reason = format!("no clock of the machine can wake it: {}: {error}", path.display());
        Absent::new(reason, "a machine with a real-time clock that has an alarm, and an agent that runs as root")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A folder that looks like a machine's sysfs.
    fn sys(state: &str) -> tempfile::TempDir {
        let sys = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| {
            let path = sys.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        file("power/state", state);
        file("class/rtc/rtc0/wakealarm", "");
        file("class/net/lo/address", "02:00:5e:10:00:01\n");
        file("class/net/lo/device/power/wakeup", "enabled\n");
        sys
    }

    #[test]
    fn what_is_offered_is_found_and_what_is_not_is_said_with_its_reason() {
        let folder = sys("freeze mem\n");
        let power = Power::probe(folder.path(), 9);
        assert_eq!(power.offered, Ok(vec!["mem", "freeze"]));
        assert_eq!((power.can_sleep(), power.has_alarm()), (Ok(()), Ok(())));
        let card = power.card().unwrap();
        assert_eq!((card.mac.as_str(), card.network.to_string().as_str()), ("02:00:5e:10:00:01", "127.0.0.0/8"));

        fs::write(folder.path().join("class/net/lo/device/power/wakeup"), "disabled\n").unwrap();
        assert_eq!(power.card(), None);
        fs::write(folder.path().join("class/net/lo/device/power/wakeup"), "enabled\n").unwrap();
        fs::write(folder.path().join("class/net/lo/address"), "00:00:00:00:00:00\n").unwrap();
        assert_eq!(power.card(), None);

        // As in a container: the file is there, and names nothing.
        let none = sys("\n");
        fs::remove_file(none.path().join("class/rtc/rtc0/wakealarm")).unwrap();
        let power = Power::probe(none.path(), 9);
        assert!(power.can_sleep().unwrap_err().reason.contains("offers no sleep"));
        assert!(power.has_alarm().unwrap_err().reason.contains("wakealarm"));
        let nowhere = Power::probe(Path::new("/nowhere"), 9);
        assert!(nowhere.can_sleep().unwrap_err().reason.contains("/nowhere/power/state"));
    }

    #[test]
    fn an_alarm_is_set_ahead_of_now_and_taken_back() {
        let folder = sys("mem\n");
        let power = Power::probe(folder.path(), 9);
        let alarm = || fs::read_to_string(folder.path().join("class/rtc/rtc0/wakealarm")).unwrap();
        power.arm(10_001).unwrap();
        assert_eq!(alarm(), "+11");
        fs::remove_file(folder.path().join("class/rtc/rtc0/wakealarm")).unwrap();
        assert_eq!(power.arm(10_001).unwrap_err().code, "sleep.alarm");
    }
}
