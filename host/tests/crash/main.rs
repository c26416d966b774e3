//! kill -9 of the host and of each agent at every numbered step of a migration. A numbered step is an entry of the
//! killed one's own journal; the kill comes from outside, right after the entry is on disk, so what is killed is what
//! ships. Then the killed one is started again, and the incident has to come to its end.
//!
//! What is looked at is apart from the system: which processes run, what the workload wrote, what stands in the ledger
//! and in the agents' journals. `make crash` does it all, three times a step, and writes docs/crashes.md; a part of it
//! is in every run of the tests.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    clippy::print_stderr,
    reason = "a test fails by panicking, tells how far it is, and waits for a fleet of processes by the clock"
)]
#![allow(dead_code, reason = "a fleet for the tests of incidents, too")]

#[path = "../fleet/mod.rs"]
mod fleet;
mod scene;
mod table;
mod telemetry;
mod witness;

use scene::Scene;
use table::Table;

/// Whom the kill meets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Who {
    Host,
    Source,
    Target,
}

/// The steps by the entries of each one's journal, in their order.
const HOST: [&str; 17] = [
    "opened",
    "proposed",
    "judged",
    "approved",
    "checkpoint reserved",
    "checkpoint accepted",
    "checkpoint finished",
    "restore reserved",
    "restore accepted",
    "restore finished",
    "confirm reserved",
    "confirm accepted",
    "confirm finished",
    "retire reserved",
    "retire accepted",
    "retire finished",
    "read",
];
const SOURCE: [&str; 8] = [
    "checkpoint accepted",
    "checkpoint copying ahead",
    "checkpoint dumping",
    "checkpoint outcome",
    "checkpoint acknowledged",
    "retire accepted",
    "retire outcome",
    "retire acknowledged",
];
const TARGET: [&str; 7] = [
    "restore accepted",
    "restore restoring",
    "restore outcome",
    "restore acknowledged",
    "confirm accepted",
    "confirm outcome",
    "confirm acknowledged",
];

impl Who {
    const ALL: [Who; 3] = [Who::Host, Who::Source, Who::Target];

    fn steps(self) -> &'static [&'static str] {
        match self {
            Who::Host => &HOST,
            Who::Source => &SOURCE,
            Who::Target => &TARGET,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Who::Host => "host",
            Who::Source => "source's agent",
            Who::Target => "target's agent",
        }
    }
}

/// One of each kind, so that every run of the tests has seen it.
#[tokio::test(flavor = "multi_thread")]
async fn a_kill_at_a_step_of_each_journal_neither_doubles_nor_loses_the_workload() {
    let mut scene = Scene::new().await;
    let mut table = Table::default();
    for (who, step) in
        [(Who::Host, "checkpoint reserved"), (Who::Source, "checkpoint dumping"), (Who::Target, "restore restoring")]
    {
        let ran = scene.run(who, step).await;
        assert!(ran.killed_at.is_some(), "{who:?} was not at `{step}`: {}", ran.told());
        table.note(who, &ran);
    }
    table.check();
}

/// Every step, several times: `make crash`. AETHER_CRASH_TIMES says how often (3), AETHER_CRASH_FLEETS how many fleets
/// take turns side by side (1), AETHER_CRASH_TABLE where the table goes.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes half an hour: make crash"]
async fn a_kill_at_every_step_neither_doubles_nor_loses_the_workload() {
    let number = |name: &str, default: usize| {
        std::env::var(name).map_or(default, |value| value.parse().unwrap_or_else(|_| panic!("{name} is no number")))
    };
    let (times, fleets) = (number("AETHER_CRASH_TIMES", 3), number("AETHER_CRASH_FLEETS", 1));
    let table = std::sync::Mutex::new(Table::default());
    let workers = (0..fleets).map(|_| async {
        let mut scene = Scene::new().await;
        loop {
            let next = table.lock().unwrap().next(times);
            let Some((who, step)) = next else { return };
            let ran = scene.run(who, step).await;
            let mut table = table.lock().unwrap();
            table.note(who, &ran);
            eprintln!("{} at `{step}`: {}", who.name(), ran.told());
        }
    });
    futures::future::join_all(workers).await;
    let table = table.into_inner().unwrap();
    if let Some(file) = std::env::var_os("AETHER_CRASH_TABLE") {
        table.write(file.as_ref(), times);
    }
    table.check();
    assert!(table.is_full(times), "not every step was met {times} times:\n{}", table.text());
}
