//! What the eBPF programs cost the machine that is watched, and a limit to it.
//!
//! Now and then, for the time between two samples, the kernel is asked to measure how long each program runs
//! (`BPF_ENABLE_STATS`; never for longer, since measuring costs as much again). That time and the way to the programs, as
//! a share of the time that processors were busy, is the cost. Where all sources together would cost more than their
//! budget, those that can do with less look at one of so many intervals as the budget allows: their percentiles are of
//! these, and what they count is what came in these. Where that is not enough in two windows, one after the other, the
//! dearest is taken out of the kernel, says so, and is tried again an hour later.
//!
//! The kernel reads its clock before and after each run, so one reading is in each run's time, and more than the run of
//! a short program: it is taken off again, as long as the same clock takes here.

use super::{Budget, Missing, Sink, Source};
use crate::clock;
use aether_core::{metric, time::Time};
use aya::sys::{Stats, enable_stats};
use procfs::{CurrentSI, KernelStats};
use std::{
    collections::BTreeMap,
    os::fd::OwnedFd,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tracing::{info, warn};

/// From the end of a window to the next one. The first one comes soon.
const WINDOW_EVERY_MS: u64 = 60_000;
const FIRST_AFTER_MS: u64 = 5_000;
/// A window is at least this long; it ends with the first sample after it.
const WINDOW_MS: u64 = 900;
/// Windows over budget, one after the other, after which a source goes.
const WINDOWS_OVER: u32 = 2;
/// For how long a source that was too dear is out.
const OUT_FOR_MS: u64 = 3_600_000;
/// How long it takes to come to a program and back, which the kernel does not measure. As seen where indirect calls are
/// made safe by retpolines (docs/benchmarks.md); elsewhere it is less.
const WAY: Duration = Duration::from_nanos(100);
/// The least that sources that may rest look: one of so many intervals.
const EVERY_MAXIMUM: u32 = 16;
/// Sources look more often again only where this share of the budget would do.
const EASED: f64 = 0.8;
/// A machine that does nothing is taken to be busy for this share of its processors' time: a share of nothing means
/// nothing.
const BUSY_LEAST: f64 = 0.05;

/// What sources say of themselves, and what becomes of them.
#[derive(Clone, Default)]
pub(super) struct Board(Arc<Mutex<Ledger>>);

#[derive(Default)]
struct Ledger {
    accounts: BTreeMap<&'static str, Account>,
    rest: Rest,
    /// Whether what programs did is to be told: about to be measured, or being so.
    asking: bool,
}

/// When sources that may rest do.
struct Rest {
    /// They look at one of so many intervals.
    every: u32,
    passed: u32,
    now: bool,
}

impl Default for Rest {
    fn default() -> Self {
        Self { every: 1, passed: 0, now: false }
    }
}

#[derive(Default)]
struct Account {
    /// What its programs did while the kernel measured: as told last, and at the beginning of the window.
    ran: Ran,
    began: Option<Ran>,
    may_rest: bool,
    out: Option<Out>,
}

/// How long programs ran, and how often.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Ran {
    pub(super) time: Duration,
    pub(super) runs: u64,
}

struct Out {
    until: Time,
    reason: String,
}

/// What a source costs while it looks, as a share of the time that processors were busy.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Cost {
    looking: f64,
    may_rest: bool,
}

type Costs = BTreeMap<&'static str, Cost>;

impl Cost {
    fn at(self, every: u32) -> f64 {
        if self.may_rest { self.looking / f64::from(every) } else { self.looking }
    }
}

fn sum(costs: &Costs, every: u32) -> f64 {
    costs.values().map(|cost| cost.at(every)).sum()
}

/// How seldom those that may rest have to look for this budget: as often as before, where it would do.
fn every(costs: &Costs, budget: f64, before: u32) -> u32 {
    let within = |budget: f64| (1..=EVERY_MAXIMUM).find(|every| sum(costs, *every) <= budget).unwrap_or(EVERY_MAXIMUM);
    within(budget).max(before.min(within(budget * EASED)))
}

impl Board {
    fn lock(&self) -> MutexGuard<'_, Ledger> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn tell(&self, source: &'static str, ran: Ran, may_rest: bool) {
        let mut ledger = self.lock();
        let account = ledger.accounts.entry(source).or_default();
        (account.ran, account.may_rest) = (ran, may_rest);
    }

    /// Whether sources are to say what their programs did. To ask the kernel costs, too.
    pub(super) fn is_asking(&self) -> bool {
        self.lock().asking
    }

    /// Why a source is out for its cost, while it is.
    pub(super) fn switched_off(&self, source: &str, at: Time) -> Option<String> {
        let mut ledger = self.lock();
        let account = ledger.accounts.get_mut(source)?;
        account.out.take_if(|out| at >= out.until);
        account.out.as_ref().map(|out| out.reason.clone())
    }

    /// Whether sources that may rest do so from now to the next sample.
    pub(super) fn rests(&self) -> bool {
        self.lock().rest.now
    }

    /// Whether they do so now and then.
    pub(super) fn spares(&self) -> bool {
        self.lock().rest.every > 1
    }

    /// What is to be from the next sample on.
    fn turn(&self, look: bool) {
        let Rest { every, passed, now } = &mut self.lock().rest;
        *passed = (*passed + 1) % *every;
        *now = *passed != 0 && !look;
    }

    fn begin(&self) {
        for account in self.lock().accounts.values_mut() {
            account.began = Some(account.ran);
        }
    }

    /// What each source cost since then, as a share of `busy`, without a reading of the clock for each run. One that was
    /// loaded within the window is left out.
    fn costs(&self, busy: Duration, reading: Duration) -> Costs {
        let mut ledger = self.lock();
        let costs = ledger.accounts.iter_mut().filter_map(|(source, account)| {
            let began = account.began.take()?;
            let runs = account.ran.runs.checked_sub(began.runs)? as f64;
            let inside = account.ran.time.checked_sub(began.time)?.as_secs_f64() - runs * reading.as_secs_f64();
            let looking = (inside.max(0.0) + runs * WAY.as_secs_f64()) / busy.as_secs_f64();
            account.out.is_none().then_some((*source, Cost { looking, may_rest: account.may_rest }))
        });
        costs.collect()
    }

    /// Takes the dearest out.
    fn evict(&self, costs: &Costs, every: u32, budget: f64, at: Time) -> Option<&'static str> {
        let (&source, cost) = costs.iter().max_by(|a, b| a.1.at(every).total_cmp(&b.1.at(every)))?;
        let reason = format!(
            "switched off for its cost: its programs took {:.2} % of the time that processors were busy, and the budget \
             of all eBPF sources (`collect.bpf_budget_permille`) is {:.1} %; it is tried again after {} minutes",
            cost.at(every) * 100.0,
            budget * 100.0,
            OUT_FOR_MS / 60_000
        );
        warn!(source, reason);
        self.lock().accounts.entry(source).or_default().out = Some(Out { until: at.plus_ms(OUT_FOR_MS), reason });
        Some(source)
    }
}

/// The source that tells the cost, and keeps it within the budget. It stands after all whose cost it tells.
pub(super) struct Keeper {
    board: Board,
    budget: Budget,
    last: Option<Time>,
    next: Option<Time>,
    window: Option<Window>,
    over: u32,
}

struct Window {
    since: Time,
    busy: Duration,
    idle: Duration,
    _measuring: OwnedFd,
}

impl Keeper {
    pub(super) fn of(board: Board, budget: Budget) -> Self {
        Self { board, budget, last: None, next: None, window: None, over: 0 }
    }

    fn begin(&mut self, at: Time) -> Result<(), Missing> {
        let measuring = measure()?;
        let (busy, idle) = processors()?;
        self.board.begin();
        self.window = Some(Window { since: at, busy, idle, _measuring: measuring });
        Ok(())
    }

    fn end(&mut self, window: &Window, into: &mut Sink<'_>) -> Result<(), Missing> {
        let (busy, idle) = processors()?;
        let (busy, idle) = (busy.saturating_sub(window.busy), idle.saturating_sub(window.idle));
        let busy = busy.max((busy + idle).mul_f64(BUSY_LEAST));
        if busy.is_zero() {
            return Ok(());
        }
        let costs = self.board.costs(busy, reading_time());
        let budget = self.budget.get();
        let before = self.board.lock().rest.every;
        let every = every(&costs, budget, before);
        if every != before {
            info!(before, every, "sources by eBPF that may rest look at one of so many intervals from now on");
            self.board.lock().rest.every = every;
        }
        for (&source, cost) in &costs {
            into.node(metric::BPF_COST, "1", &[("source", source)], cost.at(every));
            let looks = if cost.may_rest { 1.0 / f64::from(every) } else { 1.0 };
            into.node(metric::BPF_DUTY, "1", &[("source", source)], looks);
        }
        self.over = if sum(&costs, every) > budget { self.over + 1 } else { 0 };
        if self.over >= WINDOWS_OVER {
            self.over = 0;
            self.board.evict(&costs, every, budget, into.at);
        }
        Ok(())
    }

    fn measure(&mut self, into: &mut Sink<'_>) -> Result<(), Missing> {
        let at = into.at;
        let Some(next) = self.next else {
            // Whether it can be measured at all.
            measure()?;
            self.next = Some(at.plus_ms(FIRST_AFTER_MS));
            return Ok(());
        };
        if let Some(window) = self.window.take_if(|window| at.since_ms(window.since) >= WINDOW_MS) {
            // Over budget, the next look is soon.
            self.end(&window, into)?;
            self.next = Some(at.plus_ms(if self.over > 0 { FIRST_AFTER_MS } else { WINDOW_EVERY_MS }));
            self.board.lock().asking = false;
        } else if self.window.is_none() && at >= next && !self.board.rests() {
            // From the next sample on: sources stand before this one, and have not said what it begins with.
            if std::mem::replace(&mut self.board.lock().asking, true) {
                self.begin(at)?;
            }
        }
        Ok(())
    }
}

impl Source for Keeper {
    fn name(&self) -> &'static str {
        "bpf_cost"
    }

    fn sample(&mut self, into: &mut Sink<'_>) -> Result<(), Missing> {
        let at = into.at;
        let measured = self.measure(into);
        let pass_ms = self.last.replace(at).map_or(0, |last| at.since_ms(last));
        // Nobody rests within a window that one interval does not fill.
        let look = self.window.as_ref().is_some_and(|window| at.since_ms(window.since) + pass_ms < WINDOW_MS);
        self.board.turn(look);
        measured
    }

    fn rest(&mut self) {
        (self.last, self.next, self.window) = (None, None, None);
        // Without a measure nobody rests.
        let mut ledger = self.board.lock();
        (ledger.rest, ledger.asking) = (Rest::default(), false);
    }
}

/// Has the kernel measure how long programs run, for as long as what is returned is open.
fn measure() -> Result<OwnedFd, Missing> {
    enable_stats(Stats::RunTime).map_err(|error| {
        let why = match error.io_error.kind() {
            std::io::ErrorKind::PermissionDenied => "the agent lacks CAP_SYS_ADMIN".to_string(),
            _ => error.io_error.to_string(),
        };
        Missing::new(format!("how long eBPF programs run cannot be measured, so their budget is not kept: {why}"))
    })
}

/// How long one reading of the clock takes: the least over some batches, since what comes between is none of it.
fn reading_time() -> Duration {
    const BATCHES: u32 = 5;
    const READINGS: u32 = 100;
    let batch = || {
        let began = clock::monotonic_ns();
        let ended = (0..READINGS).fold(began, |_, _| clock::monotonic_ns());
        Duration::from_nanos(ended - began) / READINGS
    };
    (0..BATCHES).map(|_| batch()).min().unwrap_or_default()
}

/// How long processors were busy, and idle, since the boot.
fn processors() -> Result<(Duration, Duration), Missing> {
    let t = KernelStats::current()?.total;
    let busy = t.user + t.nice + t.system + t.irq.unwrap_or(0) + t.softirq.unwrap_or(0) + t.steal.unwrap_or(0);
    let ticks = procfs::ticks_per_second().max(1);
    let time = |count: u64| Duration::from_millis(count.saturating_mul(1_000) / ticks);
    Ok((time(busy), time(t.idle + t.iowait.unwrap_or(0))))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn looking(looking: f64, may_rest: bool) -> Cost {
        Cost { looking, may_rest }
    }

    /// One window in which the first source, which may rest, ran for so many milliseconds of a second, a thousand times,
    /// and the second for one.
    fn window(board: &Board, first_ms: u64, reading: Duration) -> Costs {
        let ran = |source| board.lock().accounts.get(source).map_or(Ran::default(), |account| account.ran);
        let (first, second) = (ran("first"), ran("second"));
        board.tell("first", first, true);
        board.tell("second", second, false);
        board.begin();
        let and = |ran: Ran, ms: u64| Ran { time: ran.time + Duration::from_millis(ms), runs: ran.runs + 1_000 };
        board.tell("first", and(first, first_ms), true);
        board.tell("second", and(second, 1), false);
        board.costs(SECOND, reading)
    }

    #[test]
    fn the_dearest_goes_and_comes_back() {
        let board = Board::default();
        let costs = window(&board, 30, Duration::ZERO);
        let near = |cost: Cost, looking: f64| (cost.looking - looking).abs() < 1e-9;
        assert!(near(costs["first"], 0.0301) && near(costs["second"], 0.0011), "with the way of each: {costs:?}");
        assert_eq!(board.evict(&costs, 1, 0.02, Time(1_000)), Some("first"));
        let reason = board.switched_off("first", Time(2_000)).unwrap();
        assert!(reason.contains("3.01 %") && reason.contains("2.0 %"), "{reason}");
        assert_eq!(board.switched_off("second", Time(2_000)), None);
        let left = window(&board, 0, Duration::ZERO);
        assert!(left.keys().eq(&["second"]), "what is out has no cost: {left:?}");
        assert_eq!(board.switched_off("first", Time(1_000).plus_ms(OUT_FOR_MS)), None);
        // The dearest by what it costs when it rests.
        let costs = BTreeMap::from([("first", looking(0.08, true)), ("second", looking(0.03, false))]);
        assert_eq!(board.evict(&costs, 8, 0.02, Time(1_000)), Some("second"));
    }

    #[test]
    fn the_clock_is_not_what_a_program_costs() {
        // Of 30 µs a run, ten are the clock's; of one, all. The way is left.
        let costs = window(&Board::default(), 30, Duration::from_micros(10));
        assert!((costs["first"].looking - 0.0201).abs() < 1e-9, "{costs:?}");
        assert!((costs["second"].looking - 0.0001).abs() < 1e-9, "{costs:?}");
        assert!(reading_time() < Duration::from_millis(1));
    }

    #[test]
    fn sources_rest_as_much_as_the_budget_wants() {
        let costs = |rest: f64, other: f64| BTreeMap::from([("r", looking(rest, true)), ("o", looking(other, false))]);
        assert_eq!(every(&costs(0.015, 0.004), 0.02, 1), 1, "within the budget");
        assert_eq!(every(&costs(0.035, 0.001), 0.02, 1), 2);
        assert_eq!(every(&costs(0.035, 0.011), 0.02, 1), 4);
        assert_eq!(every(&costs(0.035, 0.021), 0.02, 1), EVERY_MAXIMUM, "not to be kept by rest");
        assert_eq!(every(&costs(0.018, 0.0), 0.02, 2), 2, "no back and forth at the edge");
        assert_eq!(every(&costs(0.015, 0.0), 0.02, 4), 1, "well below it, all is looked at again");
        assert_eq!(every(&costs(0.0, 0.0), -1.0, 1), EVERY_MAXIMUM);
    }

    #[test]
    fn of_so_many_intervals_one_is_looked_at_and_a_window_is_never_cut() {
        let board = Board::default();
        let turns = |count: usize, look: bool| -> Vec<bool> {
            let turn = |_| {
                board.turn(look);
                board.rests()
            };
            (0..count).map(turn).collect()
        };
        assert_eq!(turns(3, false), [false; 3], "nobody rests by itself");
        board.lock().rest.every = 3;
        assert_eq!(turns(6, false), [true, true, false, true, true, false]);
        assert_eq!(turns(2, true), [false, false]);
    }

    #[test]
    fn what_began_within_a_window_is_not_judged_by_it() {
        let board = Board::default();
        board.begin();
        board.tell("late", Ran { time: SECOND, runs: 9 }, false);
        assert!(board.costs(SECOND, Duration::ZERO).is_empty());
        // Loaded anew, a program has run for less than before.
        board.begin();
        board.tell("late", Ran::default(), false);
        assert!(board.costs(SECOND, Duration::ZERO).is_empty());
        assert_eq!(board.evict(&BTreeMap::new(), 1, 0.02, Time(0)), None);
    }
}
