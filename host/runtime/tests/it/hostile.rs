//! Guests that mean harm: each ends as exactly its kind of fault, and the next evaluation is unharmed.

use crate::guest::{
    ANSWER, ASSESSMENT, CONTRIBUTIONS, LEVEL, REASON, SCORE, TAG, ask, assert_serves, engine, good, prepare, question,
    scorer, scorer_with,
};
use aether_core::{
    decision::{FaultKind, Limits},
    observation::{Column, MetricInput},
    subject::Subject,
};
use aether_runtime::{Engine, EngineSettings, Environment, History};
use std::{
    sync::{Arc, Barrier},
    time::Duration,
};

const LOG: &str = r#"(import "aether:plugin/log@0.1.0" "write" (func $log (param i32 i32 i32)))"#;
const HISTORY: &str = r#"(import "aether:plugin/history@0.1.0" "query"
    (func $query (param i32 i32 i32 i64 i32 i32 i32 i32 i32 i32 i64 i64 i32 i32)))"#;
/// Asks the history for nothing in particular; the answer goes to 4096.
const QUERY: &str = "(call $query (i32.const 0) (i32.const 0) (i32.const 1) (i64.const 1) (i32.const 0) (i32.const 0)
    (i32.const 0) (i32.const 1) (i32.const 0) (i32.const 1) (i64.const 1000) (i64.const 1000) (i32.const 0)
    (i32.const 4096))";

/// Writes into the answer and gives it back.
fn answering(writes: &str) -> String {
    format!("{writes} i32.const {ANSWER}")
}

struct Case {
    name: &'static str,
    bytes: Vec<u8>,
    limits: Limits,
    kind: FaultKind,
    /// What the message must hold.
    told: &'static str,
}

fn cases() -> Vec<Case> {
    let case = |name, bytes, kind, told| Case { name, bytes, limits: Limits::default(), kind, told };
    let forever = "(loop $forever (br $forever)) unreachable";
    let string = |address: u32, at: u32, length: u32| {
        format!(
            "(i32.store (i32.const {address}) (i32.const {at})) (i32.store (i32.const {}) (i32.const {length}))",
            address + 4
        )
    };
    let grow = "(loop $more (drop (memory.grow $memory (i32.const 16))) (br $more)) unreachable";
    let grow_both = "(loop $more (drop (memory.grow $memory (i32.const 1))) (drop (memory.grow $second (i32.const 1)))
        (br $more)) unreachable";
    vec![
        case("endless loop", scorer(forever), FaultKind::OutOfFuel, "fuel of 50000000"),
        Case {
            limits: Limits { fuel: Limits::MAXIMUM.fuel, deadline_ms: 50, ..Limits::default() },
            ..case("endless loop, fuel to burn", scorer(forever), FaultKind::TimedOut, "longer than 50 ms")
        },
        case(
            "deep recursion",
            scorer(
                "(drop (call $score (local.get 0) (local.get 1) (local.get 2) (local.get 3) (local.get 4)
                (local.get 5) (local.get 6) (local.get 7) (local.get 8) (local.get 9) (local.get 10)))
                i32.const 1",
            ),
            FaultKind::StackOverflow,
            "ran out of stack",
        ),
        case("one memory grows", scorer(grow), FaultKind::OutOfMemory, "33554432 bytes"),
        case(
            "two memories grow",
            scorer_with("(memory $second 0)", grow_both),
            FaultKind::OutOfMemory,
            "33554432 bytes",
        ),
        case(
            "a table grows",
            scorer_with(
                "(table $table 1 funcref)",
                "(drop (table.grow $table (ref.null func) (i32.const 1000000))) unreachable",
            ),
            FaultKind::OutOfMemory,
            "33554432 bytes",
        ),
        case("trap", scorer("unreachable"), FaultKind::Trapped, "unreachable"),
        case(
            "division by zero",
            scorer("(i32.div_u (i32.const 1) (i32.const 0))"),
            FaultKind::Trapped,
            "integer divide by zero",
        ),
        case("a wild pointer", scorer("(i32.load (i32.const -4))"), FaultKind::Trapped, "out of bounds memory access"),
        case(
            "a gigabyte of text",
            scorer(&answering(&string(REASON, 0, 1 << 30))),
            FaultKind::BadOutput,
            "its answer could not be read",
        ),
        case(
            "a megabyte of text that is really there",
            scorer(&answering(&string(REASON, 0, 1 << 20))),
            FaultKind::BadOutput,
            "limited to 262144 bytes",
        ),
        case(
            "a list without end",
            scorer(&answering(&string(CONTRIBUTIONS, 8_192, 0x0fff_ffff))),
            FaultKind::BadOutput,
            "its answer could not be read",
        ),
        case(
            "too many items",
            scorer(&answering(&string(CONTRIBUTIONS, 8_192, 65))),
            FaultKind::BadOutput,
            "`contributions` holds 65 items",
        ),
        case(
            "an answer from nowhere",
            scorer("i32.const 0x7ffffff8"),
            FaultKind::BadOutput,
            "its answer could not be read",
        ),
        case(
            "text that is no UTF-8",
            scorer(&answering(&format!("(i32.store8 (i32.const 4096) (i32.const 0xff)) {}", string(REASON, 4_096, 1)))),
            FaultKind::BadOutput,
            "utf-8",
        ),
        case(
            "a level that does not exist",
            scorer(&answering(&format!("(i32.store8 (i32.const {LEVEL}) (i32.const 9))"))),
            FaultKind::BadOutput,
            "its answer could not be read",
        ),
        case(
            "a score that is no number",
            scorer(&answering(&format!("(f64.store (i32.const {SCORE}) (f64.const nan))"))),
            FaultKind::BadOutput,
            "`score` is NaN",
        ),
        case(
            "a score over 1",
            scorer(&answering(&format!("(f64.store (i32.const {SCORE}) (f64.const 1.5))"))),
            FaultKind::BadOutput,
            "`score` is 1.5",
        ),
        case(
            "an error of its own",
            scorer(&answering(&format!("(i32.store8 (i32.const {TAG}) (i32.const 1)) {}", string(ASSESSMENT, 0, 10)))),
            FaultKind::Refused,
            "test-guest",
        ),
        case(
            "a flood of log lines",
            scorer_with(
                LOG,
                "(loop $more (call $log (i32.const 1) (i32.const 0) (i32.const 4)) (br $more)) unreachable",
            ),
            FaultKind::HostCall,
            "more than 64 log lines",
        ),
        case(
            "a log line of a megabyte",
            scorer_with(LOG, "(call $log (i32.const 1) (i32.const 0) (i32.const 0x100000)) unreachable"),
            FaultKind::HostCall,
            "a host call failed",
        ),
        case(
            "a log line that is no UTF-8",
            scorer_with(
                LOG,
                "(i32.store8 (i32.const 4096) (i32.const 0xff))
                (call $log (i32.const 1) (i32.const 4096) (i32.const 1)) unreachable",
            ),
            FaultKind::HostCall,
            "utf-8",
        ),
        case(
            "a flood of look-backs",
            scorer_with(HISTORY, &format!("(loop $more {QUERY} (br $more)) unreachable")),
            FaultKind::HostCall,
            "more than 256 host calls",
        ),
    ]
}

#[test]
fn each_ends_as_its_fault_and_the_host_keeps_serving() {
    let engine = engine();
    let good = good(&engine);
    assert_serves(&good);
    for Case { name, bytes, limits, kind, told } in cases() {
        let prepared = prepare(&engine, &bytes, &limits);
        let evaluation = ask(&prepared);
        let fault = evaluation.outcome.expect_err(name);
        assert_eq!(fault.kind, kind, "{name}: {}", fault.message);
        assert!(fault.message.contains(told), "{name}: {}", fault.message);
        assert!(evaluation.log.len() <= limits.log_lines as usize);
        assert!(evaluation.memory_bytes <= limits.memory_bytes, "{name}");
        assert_serves(&good);
    }
}

#[test]
fn faults_are_the_same_on_every_run() {
    let engine = engine();
    for Case { name, bytes, limits, kind, .. } in cases() {
        if matches!(kind, FaultKind::TimedOut | FaultKind::StackOverflow) {
            continue;
        }
        let prepared = prepare(&engine, &bytes, &limits);
        let (first, second) = (ask(&prepared), ask(&prepared));
        assert_eq!((first.outcome, first.fuel, first.log), (second.outcome, second.fuel, second.log), "{name}");
    }
}

#[test]
fn a_long_log_line_is_cut_between_characters() {
    let engine = engine();
    // "ä" is two bytes; the limit of three falls into the second one.
    let bytes = scorer_with(
        &format!("{LOG} (data (memory $memory) (i32.const 512) \"\\c3\\a4\\c3\\a4\")"),
        &format!("(call $log (i32.const 2) (i32.const 512) (i32.const 4)) i32.const {ANSWER}"),
    );
    let prepared = prepare(&engine, &bytes, &Limits { log_line_bytes: 3, ..Limits::default() });
    let evaluation = ask(&prepared);
    assert!(evaluation.outcome.is_ok(), "{:?}", evaluation.outcome);
    assert_eq!(evaluation.log[0].message, "ä");
}

#[test]
fn nothing_is_kept_from_one_evaluation_to_the_next() {
    let engine = engine();
    // Traps if it finds the mark that it leaves.
    let bytes = scorer(&format!(
        "(if (i32.load (i32.const 1048576)) (then unreachable)) (i32.store (i32.const 1048576) (i32.const 7))
        i32.const {ANSWER}"
    ));
    let prepared = prepare(&engine, &bytes, &Limits::default());
    for _ in 0..50 {
        assert!(ask(&prepared).outcome.is_ok());
    }
}

/// Holds an evaluation where it is until the test lets it go.
struct Held(Arc<Barrier>);

impl History for Held {
    fn query(&self, _: &Subject, _: &MetricInput) -> Result<Vec<Column>, String> {
        self.0.wait();
        self.0.wait();
        Ok(vec![])
    }
}

#[test]
fn a_full_pool_is_told_and_frees_itself() {
    let settings = EngineSettings { concurrency: 1, pool_wait: Duration::from_millis(20), ..EngineSettings::default() };
    let engine = Engine::new(settings).expect("an engine");
    let bytes = scorer_with(HISTORY, &format!("{QUERY} i32.const {ANSWER}"));
    let slow = prepare(&engine, &bytes, &Limits { deadline_ms: 5_000, ..Limits::default() });
    let good = good(&engine);
    let barrier = Arc::new(Barrier::new(2));
    let held = Environment { history: Some(Arc::new(Held(Arc::clone(&barrier)))), ..Environment::default() };
    let running = std::thread::spawn(move || slow.evaluate(&question(), held));
    barrier.wait();
    let refused = ask(&good).outcome.expect_err("the only place is taken");
    assert_eq!(refused.kind, FaultKind::Overloaded, "{}", refused.message);
    barrier.wait();
    let answered = running.join().expect("no panic");
    assert!(answered.outcome.is_ok(), "{:?}", answered.outcome);
    assert_serves(&good);
}

#[test]
fn more_threads_than_places_all_get_their_turn() {
    let settings = EngineSettings { concurrency: 2, pool_wait: Duration::from_secs(20), ..EngineSettings::default() };
    let engine = Engine::new(settings).expect("an engine");
    let good = good(&engine);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| (0..50).for_each(|_| assert_serves(&good)));
        }
    });
}

#[test]
fn the_watchdog_ends_with_its_engine() {
    let watchdogs = || {
        let tasks = std::fs::read_dir("/proc/self/task").expect("this is Linux");
        let names = tasks.filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("comm")).ok());
        names.filter(|name| name.trim() == "aether-watchdog").count()
    };
    // Tests in one process share it, so only a rise and a fall are looked at under `cargo nextest`, one process a test.
    if std::env::var_os("NEXTEST").is_none() {
        return;
    }
    assert_eq!(watchdogs(), 0);
    let engine = engine();
    let clone = engine.clone();
    // A thread takes its name a moment after it has begun; a test that never sees it is ended by its runner.
    while watchdogs() == 0 {
        std::thread::yield_now();
    }
    drop(engine);
    assert_eq!(watchdogs(), 1);
    drop(clone);
    assert_eq!(watchdogs(), 0);
}

#[test]
fn a_watchdog_that_rests_wakes_for_the_next_guest() {
    if std::env::var_os("NEXTEST").is_none() {
        return; // the watchdog of a test beside this one does not rest
    }
    let engine = engine();
    let limits = Limits { fuel: Limits::MAXIMUM.fuel, deadline_ms: 50, ..Limits::default() };
    let forever = prepare(&engine, &scorer("(loop $forever (br $forever)) unreachable"), &limits);
    let watchdog = || {
        let tasks = std::fs::read_dir("/proc/self/task").expect("this is Linux");
        let mut tasks = tasks.filter_map(|task| task.ok().map(|task| task.path()));
        tasks.find(|task| std::fs::read_to_string(task.join("comm")).is_ok_and(|name| name.trim() == "aether-watchdog"))
    };
    let status = || std::fs::read_to_string(watchdog().expect("it is there").join("status")).expect("it is there");
    let switches = || status().lines().find(|line| line.starts_with("voluntary")).map(str::to_owned);
    for _ in 0..2 {
        // Ten of its ticks without one: it rests. A test that never sees that is ended by its runner.
        let mut seen = None;
        while seen != switches() {
            seen = switches();
            std::thread::sleep(Duration::from_millis(50));
        }
        let fault = ask(&forever).outcome.expect_err("it does not end by itself");
        assert_eq!(fault.kind, FaultKind::TimedOut, "{fault:?}");
    }
}
