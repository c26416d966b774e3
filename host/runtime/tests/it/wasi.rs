//! Virtual WASI, call by call: what a guest is told follows from time, id and assets alone, and whoever abuses it gets
//! nothing and a typed fault.

use crate::guest::{ANSWER, assert_serves, engine, good, prepare, question, recorded, scorer_with};
use aether_core::{
    decision::{FaultKind, Limits, Severity},
    time::Time,
};
use aether_runtime::{Assets, Engine, Environment, Evaluation, LoadError, Prepared, Replay, replay};
use serde_json::Map;
use std::collections::BTreeMap;

/// Everything that the guests below call. The encoder keeps only what a module imports.
const IMPORTS: &str = r#"
  (import "aether:plugin/log@0.1.0" "write" (func $log (param i32 i32 i32)))
  (import "wasi:clocks/wall-clock@0.2.12" "now" (func $wall (param i32)))
  (import "wasi:clocks/monotonic-clock@0.2.12" "now" (func $monotonic (result i64)))
  (import "wasi:clocks/monotonic-clock@0.2.12" "subscribe-duration" (func $timer (param i64) (result i32)))
  (import "wasi:io/poll@0.2.12" "[method]pollable.block" (func $block (param i32)))
  (import "wasi:io/poll@0.2.12" "poll" (func $poll (param i32 i32 i32)))
  (import "wasi:random/random@0.2.12" "get-random-u64" (func $random (result i64)))
  (import "wasi:random/random@0.2.12" "get-random-bytes" (func $random-bytes (param i64 i32)))
  (import "wasi:random/insecure@0.2.12" "get-insecure-random-u64" (func $insecure (result i64)))
  (import "wasi:random/insecure-seed@0.2.12" "insecure-seed" (func $seed (param i32)))
  (import "wasi:cli/environment@0.2.12" "get-environment" (func $environment (param i32)))
  (import "wasi:cli/exit@0.2.12" "exit" (func $exit (param i32)))
  (import "wasi:cli/stdin@0.2.12" "get-stdin" (func $stdin (result i32)))
  (import "wasi:cli/stdout@0.2.12" "get-stdout" (func $stdout (result i32)))
  (import "wasi:cli/stderr@0.2.12" "get-stderr" (func $stderr (result i32)))
  (import "wasi:io/streams@0.2.12" "[method]input-stream.blocking-read" (func $read-stream (param i32 i64 i32)))
  (import "wasi:io/streams@0.2.12" "[method]output-stream.write" (func $write (param i32 i32 i32 i32)))
  (import "wasi:io/streams@0.2.12" "[method]output-stream.write-zeroes" (func $zeroes (param i32 i64 i32)))
  (import "wasi:filesystem/preopens@0.2.12" "get-directories" (func $directories (param i32)))
  (import "wasi:filesystem/types@0.2.12" "[method]descriptor.open-at"
    (func $open (param i32 i32 i32 i32 i32 i32 i32)))
  (import "wasi:filesystem/types@0.2.12" "[method]descriptor.read" (func $read (param i32 i64 i64 i32)))
  (import "wasi:filesystem/types@0.2.12" "[method]descriptor.read-directory" (func $list (param i32 i32)))
  (import "wasi:filesystem/types@0.2.12" "[method]directory-entry-stream.read-directory-entry"
    (func $entry (param i32 i32)))
  (import "wasi:filesystem/types@0.2.12" "[method]descriptor.symlink-at"
    (func $symlink (param i32 i32 i32 i32 i32 i32)))
  (import "wasi:sockets/tcp-create-socket@0.2.12" "create-tcp-socket" (func $tcp (param i32 i32)))
  (import "wasi:sockets/ip-name-lookup@0.2.12" "resolve-addresses" (func $resolve (param i32 i32 i32 i32)))
  (import "wasi:sockets/instance-network@0.2.12" "instance-network" (func $network (result i32)))
"#;

/// Logs `length` bytes at `at` in hex, from the scratch space at 700,000.
const HEX: &str = r#"
  (func $digit (param i32) (result i32)
    (i32.add (local.get 0) (select (i32.const 87) (i32.const 48) (i32.gt_u (local.get 0) (i32.const 9)))))
  (func $hex (param $at i32) (param $length i32)
    (local $i i32) (local $to i32)
    (local.set $to (i32.const 700000))
    (loop $next
      (if (i32.lt_u (local.get $i) (local.get $length)) (then
        (i32.store8 (local.get $to) (call $digit (i32.shr_u (i32.load8_u (i32.add (local.get $at) (local.get $i))) (i32.const 4))))
        (i32.store8 offset=1 (local.get $to) (call $digit (i32.and (i32.load8_u (i32.add (local.get $at) (local.get $i))) (i32.const 15))))
        (local.set $to (i32.add (local.get $to) (i32.const 2)))
        (local.set $i (i32.add (local.get $i) (i32.const 1)))
        (br $next))))
    (call $log (i32.const 1) (i32.const 700000) (i32.sub (local.get $to) (i32.const 700000))))
  (func $number (param i64)
    (i64.store (i32.const 690000) (local.get 0)) (call $hex (i32.const 690000) (i32.const 8)))
"#;

/// A scorer that does `body` and answers; `texts` lie one after the other from 600,000 on. An import that is not called
/// is left out, as a language's linker does.
fn guest_with(texts: &str, body: &str) -> Vec<u8> {
    let mut code = format!("{HEX} {body}");
    let mut kept = String::new();
    for import in IMPORTS.split("\n  (import ").skip(1) {
        let name = import.split("(func ").nth(1).and_then(|rest| rest.split([' ', ')']).next()).expect("a name");
        if code.split(['(', ')', ' ', '\n']).any(|word| word == name) {
            kept += &format!("(import {import}\n");
        }
    }
    code = format!("{kept} {HEX} (data (memory $memory) (i32.const 600000) \"{texts}\")");
    scorer_with(&code, &format!("{body} i32.const {ANSWER}"))
}

fn guest(body: &str) -> Vec<u8> {
    guest_with("", body)
}

fn assets() -> Assets {
    let files = [("models/one.txt", &b"one model"[..]), ("models/two.txt", b"2"), ("table.csv", b"1,2")];
    Assets::of(files.into_iter().map(|(name, bytes)| (name.to_owned(), bytes.into())).collect::<BTreeMap<_, _>>())
}

fn prepare_with_assets(engine: &Engine, bytes: &[u8]) -> Prepared {
    let component = engine.load(bytes).unwrap_or_else(|error| panic!("{}: {error:?}", error.code()));
    component.activate(&Map::new(), &Limits::default(), &assets()).expect("activates")
}

fn environment(seed: &str) -> Environment {
    Environment { at: Time(1_800_000_000_123), seed: seed.to_owned(), history: None }
}

fn told(evaluation: &Evaluation) -> Vec<&str> {
    assert!(evaluation.outcome.is_ok(), "{:?}", evaluation.outcome);
    evaluation.log.iter().map(|line| line.message.as_str()).collect()
}

/// Eight bytes as the guest tells them.
fn number(hex: &str) -> u64 {
    u64::from_str_radix(hex, 16).expect("eight bytes in hex").swap_bytes()
}

#[test]
fn the_wall_clock_stands_at_the_evaluations_time() {
    let twice = "(call $wall (i32.const 4096)) (call $hex (i32.const 4096) (i32.const 12))";
    let engine = engine();
    let prepared = prepare(&engine, &guest(&format!("{twice} {twice}")), &Limits::default());
    let evaluation = prepared.evaluate(&question(), environment("d-1"));
    // 1,800,000,000 s and 123,000,000 ns.
    assert_eq!(told(&evaluation), ["00d2496b00000000c0d45407"; 2]);
}

#[test]
fn who_waits_by_reading_the_monotonic_clock_comes_to_an_end() {
    let engine = engine();
    let bytes = guest(
        "(i64.store (i32.const 4096) (i64.add (call $monotonic) (i64.const 5000000)))
        (loop $wait (br_if $wait (i64.lt_u (call $monotonic) (i64.load (i32.const 4096)))))",
    );
    let prepared = prepare(&engine, &bytes, &Limits::default());
    assert_eq!(told(&prepared.evaluate(&question(), environment("d-1"))), [""; 0]);
}

#[test]
fn a_sleep_takes_no_time_and_moves_the_monotonic_clock() {
    let engine = engine();
    // The first timer is for a year, the other one for a minute: a poll of both ends with the other.
    let bytes = guest(
        "(i64.store (i32.const 4096) (call $monotonic))
        (i32.store (i32.const 4104) (call $timer (i64.const 31536000000000000)))
        (i32.store (i32.const 4108) (call $timer (i64.const 60000000000)))
        (call $poll (i32.const 4104) (i32.const 2) (i32.const 4112))
        (call $hex (i32.load (i32.const 4112)) (i32.shl (i32.load (i32.const 4116)) (i32.const 2)))
        (call $number (i64.sub (call $monotonic) (i64.load (i32.const 4096))))
        (call $block (i32.load (i32.const 4104)))
        (call $number (i64.sub (call $monotonic) (i64.load (i32.const 4096))))",
    );
    let prepared = prepare(&engine, &bytes, &Limits::default());
    let evaluation = prepared.evaluate(&question(), environment("d-1"));
    let lines = told(&evaluation);
    assert_eq!(lines[0], "01000000");
    assert_eq!((number(lines[1]), number(lines[2])), (60_000_002_000, 31_536_000_000_001_000));
}

#[test]
fn randomness_follows_from_the_decisions_id() {
    let engine = engine();
    let bytes = guest(
        "(call $number (call $random)) (call $number (call $random)) (call $number (call $insecure))
        (call $seed (i32.const 4096)) (call $hex (i32.const 4096) (i32.const 16))
        (call $random-bytes (i64.const 5) (i32.const 4096))
        (call $hex (i32.load (i32.const 4096)) (i32.load (i32.const 4100)))",
    );
    let prepared = prepare(&engine, &bytes, &Limits::default());
    let first = prepared.evaluate(&question(), environment("d-1"));
    let again = prepared.evaluate(&question(), environment("d-1"));
    let other = prepared.evaluate(&question(), environment("d-2"));
    expect_test::expect![[r#"
        70827070d9373858
        65907b0a211d5fba
        7256d451de9b06cc
        c57b8c999a51ba50f59e2f871d36b619
        e20c830db0"#]]
    .assert_eq(&told(&first).join("\n"));
    assert_eq!((&first.log, first.fuel), (&again.log, again.fuel));
    let differing = told(&first).iter().zip(told(&other)).filter(|(first, other)| **first != *other).count();
    assert_eq!(differing, 5);
}

#[test]
fn what_is_printed_is_the_log_line_by_line() {
    let engine = engine();
    let put = |stream: &str, at: u32, length: u32| {
        format!("(call $write (call ${stream}) (i32.const {at}) (i32.const {length}) (i32.const 4096))")
    };
    // "one\ntw" "o\n" to stdout, "\xffoops" to stderr, "end" to stdout.
    let body =
        [put("stdout", 600_000, 6), put("stderr", 600_008, 5), put("stdout", 600_006, 2), put("stdout", 600_013, 3)];
    let bytes = guest_with("one\\ntwo\\n\\ffoopsend", &body.concat());
    let prepared = prepare(&engine, &bytes, &Limits::default());
    let evaluation = prepared.evaluate(&question(), environment("d-1"));
    let lines: Vec<_> = evaluation.log.iter().map(|line| (line.severity, line.message.as_str())).collect();
    assert_eq!(
        lines,
        [(Severity::Info, "one"), (Severity::Info, "two"), (Severity::Info, "end"), (Severity::Warn, "\u{fffd}oops")]
    );
    // The same limits as the log's: two lines, of three bytes each; the third of which would be half a character.
    let limits = Limits { log_line_bytes: 2, ..Limits::default() };
    let short = prepare(&engine, &bytes, &limits).evaluate(&question(), environment("d-1"));
    let lines: Vec<_> = short.log.iter().map(|line| line.message.as_str()).collect();
    assert_eq!(lines, ["on", "tw", "en", ""]);
    let limits = Limits { log_lines: 3, ..Limits::default() };
    let fault = prepare(&engine, &bytes, &limits).evaluate(&question(), environment("d-1")).outcome.expect_err("four");
    assert_eq!((fault.kind, fault.message.as_str()), (FaultKind::HostCall, "wrote more than 3 log lines"));
}

#[test]
fn last_words_of_a_guest_that_fails_are_kept() {
    let engine = engine();
    let bytes =
        guest_with("why", "(call $write (call $stderr) (i32.const 600000) (i32.const 3) (i32.const 4096)) unreachable");
    let evaluation = prepare(&engine, &bytes, &Limits::default()).evaluate(&question(), environment("d-1"));
    assert_eq!(evaluation.outcome.expect_err("it traps").kind, FaultKind::Trapped);
    assert_eq!(evaluation.log[0].message, "why");
    // There is no room for them: the failure is still the guest's own.
    let limits = Limits { log_lines: 0, ..Limits::default() };
    let evaluation = prepare(&engine, &bytes, &limits).evaluate(&question(), environment("d-1"));
    assert_eq!(evaluation.outcome.expect_err("it traps").kind, FaultKind::Trapped);
}

/// Opens the root, then `path` at `at` with `open_flags` and `flags`; the result is at 4112, a handle at 4116.
fn open(at: u32, length: usize, open_flags: u32, flags: u32) -> String {
    format!(
        "(call $directories (i32.const 4096))
        (call $open (i32.load (i32.load (i32.const 4096))) (i32.const 0) (i32.const {at}) (i32.const {length})
            (i32.const {open_flags}) (i32.const {flags}) (i32.const 4112))"
    )
}

#[test]
fn the_assets_are_the_files() {
    let engine = engine();
    let body = format!(
        "{} (call $read (i32.load (i32.const 4116)) (i64.const 100) (i64.const 4) (i32.const 4128))
        (call $log (i32.const 1) (i32.load (i32.const 4132)) (i32.load (i32.const 4136)))
        (call $hex (i32.const 4140) (i32.const 1))
        (call $list (i32.load (i32.load (i32.const 4096))) (i32.const 4160))
        (loop $next
            (call $entry (i32.load (i32.const 4164)) (i32.const 4176))
            (if (i32.load8_u (i32.const 4180)) (then
                (call $log (i32.const 1) (i32.load (i32.const 4188)) (i32.load (i32.const 4192)))
                (br $next))))",
        open(600_000, 24, 0, 1)
    );
    let prepared = prepare_with_assets(&engine, &guest_with("models/../models/one.txt", &body));
    let evaluation = prepared.evaluate(&question(), environment("d-1"));
    // From the fifth byte on, to the end; then what is in the folder, in order.
    assert_eq!(told(&evaluation), ["model", "01", "models", "table.csv"]);
}

#[test]
fn nothing_but_the_assets_can_be_reached_and_nothing_changed() {
    let [read, write] = [1, 2];
    let [create, directory, exclusive, truncate] = [1, 2, 4, 8];
    // Numbers of `error-code` in the WIT.
    let [exist, no_entry, not_directory, not_permitted, read_only] = [7, 20, 24, 31, 33];
    let engine = engine();
    for (path, open_flags, flags, code) in [
        ("../../etc/passwd", 0, read, not_permitted),
        ("models/../../x", 0, read, not_permitted),
        ("/etc/passwd", 0, read, not_permitted),
        ("/assets/table.csv", 0, read, not_permitted),
        ("nothing/../table.csv", 0, read, no_entry),
        ("table.csv/..", 0, read, not_directory),
        ("table.csv/", 0, read, not_directory),
        ("", 0, read, no_entry),
        ("TABLE.CSV", 0, read, no_entry),
        ("table.csv", directory, read, not_directory),
        ("table.csv", 0, write, read_only),
        ("table.csv", truncate, read, read_only),
        ("table.csv", create | exclusive, write, exist),
        ("new", create, write, read_only),
    ] {
        let body =
            format!("{} (call $hex (i32.const 4112) (i32.const 5))", open(600_000, path.len(), open_flags, flags));
        let prepared = prepare_with_assets(&engine, &guest_with(path, &body));
        let evaluation = prepared.evaluate(&question(), environment("d-1"));
        let answer = u64::from_str_radix(told(&evaluation)[0], 16).expect("five bytes in hex").to_be_bytes();
        assert_eq!((answer[3], answer[7]), (1, code), "{path}");
    }
    let body = "(call $directories (i32.const 4096))
        (call $symlink (i32.load (i32.load (i32.const 4096))) (i32.const 600000) (i32.const 11) (i32.const 600011)
            (i32.const 1) (i32.const 4112)) (call $hex (i32.const 4112) (i32.const 2))";
    let prepared = prepare_with_assets(&engine, &guest_with("/etc/passwdx", body));
    assert_eq!(told(&prepared.evaluate(&question(), environment("d-1"))), ["0121"]);
}

#[test]
fn there_is_no_network() {
    let engine = engine();
    let bytes = guest_with(
        "localhost",
        "(call $tcp (i32.const 0) (i32.const 4096)) (call $hex (i32.const 4096) (i32.const 1))
        (call $hex (i32.const 4100) (i32.const 1))
        (call $resolve (call $network) (i32.const 600000) (i32.const 9) (i32.const 4096))
        (call $hex (i32.const 4096) (i32.const 1)) (call $hex (i32.const 4100) (i32.const 1))",
    );
    let prepared = prepare(&engine, &bytes, &Limits::default());
    // An error, and it is `access-denied`.
    assert_eq!(told(&prepared.evaluate(&question(), environment("d-1"))), ["01", "01", "01", "01"]);
}

#[test]
fn there_is_nothing_to_read_and_no_environment() {
    let engine = engine();
    let bytes = guest(
        "(call $environment (i32.const 4096)) (call $hex (i32.const 4100) (i32.const 4))
        (call $read-stream (call $stdin) (i64.const 10) (i32.const 4096))
        (call $hex (i32.const 4096) (i32.const 1)) (call $hex (i32.const 4100) (i32.const 1))",
    );
    let prepared = prepare(&engine, &bytes, &Limits::default());
    // No variables; an error, and it is `closed`.
    assert_eq!(told(&prepared.evaluate(&question(), environment("d-1"))), ["00000000", "01", "01"]);
}

#[test]
fn a_decision_that_used_all_of_it_runs_again_bit_for_bit() {
    let engine = engine();
    let body = format!(
        "(call $wall (i32.const 5000)) (call $hex (i32.const 5000) (i32.const 12)) (call $number (call $random))
        (call $number (call $monotonic)) {} (call $read (i32.load (i32.const 4116)) (i64.const 9) (i64.const 0)
            (i32.const 4128)) (call $write (call $stdout) (i32.load (i32.const 4132)) (i32.load (i32.const 4136))
            (i32.const 4160))",
        open(600_000, 14, 0, 1)
    );
    let prepared = prepare_with_assets(&engine, &guest_with("models/one.txt", &body));
    let envelope = recorded(&prepared, environment("d-1"));
    assert_eq!(envelope.log.len(), 4);
    assert_eq!(envelope.host_calls, []);
    assert_eq!(replay(&prepared, &envelope), Replay::Identical);
    // Had it been made at another time, it would have been another decision.
    let later = aether_core::decision::Envelope { at: Time(envelope.at.0 + 1), ..envelope };
    assert!(matches!(replay(&prepared, &later), Replay::OutputDiffers { fields, .. } if fields == ["log"]));
}

#[test]
fn a_config_is_taken_without_knowing_of_any_decision() {
    // `configure` is asked at activation and may be asked again; `score` tells what each of them saw.
    let text = crate::guest::module(
        &format!(
            r#"(import "aether:plugin/log@0.1.0" "write" (func $log (param i32 i32 i32)))
            (import "wasi:clocks/wall-clock@0.2.12" "now" (func $wall (param i32)))
            (import "wasi:clocks/monotonic-clock@0.2.12" "now" (func $monotonic (result i64)))
            (import "wasi:random/random@0.2.12" "get-random-u64" (func $random (result i64))) {HEX}"#
        ),
        &format!(
            "(call $hex (i32.const 5000) (i32.const 32))
            (call $number (i64.extend_i32_u (i64.gt_u (call $monotonic) (i64.load (i32.const 5016)))))
            (call $number (call $random)) i32.const {ANSWER}"
        ),
        "i32.const 128",
    )
    .replace(
        "(param i32 i32) (result i32) i32.const 1024",
        "(param i32 i32) (result i32) (call $wall (i32.const 5000)) (i64.store (i32.const 5016) (call $monotonic))
        (i64.store (i32.const 5024) (call $random)) i32.const 1024",
    );
    let engine = engine();
    let prepared = prepare(&engine, &crate::guest::component("risk-scorer", &text), &Limits::default());
    let first = prepared.evaluate(&question(), environment("d-1"));
    let other = prepared.evaluate(&question(), environment("d-2"));
    let (first, other) = (told(&first), told(&other));
    assert_eq!(first[0], other[0]);
    assert!(first[0].starts_with("000000000000000000000000"), "{}", first[0]);
    assert_eq!(number(first[1]), 1, "time does not go back");
    assert_ne!(first[2], other[2]);
}

#[test]
fn who_abuses_it_gets_a_typed_fault_and_the_host_keeps_serving() {
    let engine = engine();
    let good = good(&engine);
    let forever = |body: &str| format!("(loop $more {body} (br $more))");
    for (name, bytes, told) in [
        ("descriptors without end", guest(&forever("(call $directories (i32.const 4096))")), "more than 1024 handles"),
        ("streams without end", guest(&forever("(drop (call $stdout))")), "more than 1024 handles"),
        (
            "polls without end",
            guest(&format!(
                "(i32.store (i32.const 5000) (call $timer (i64.const -1))) {}",
                forever("(call $poll (i32.const 5000) (i32.const 1) (i32.const 4096))")
            )),
            "more than 100000 calls",
        ),
        ("a clock that is read without end", guest(&forever("(drop (call $monotonic))")), "more than 100000 calls"),
        (
            "a poll of nothing",
            guest("(call $poll (i32.const 5000) (i32.const 0) (i32.const 4096))"),
            "a poll of nothing would never end",
        ),
        (
            "a gigabyte of randomness",
            guest("(call $random-bytes (i64.const 0x40000000) (i32.const 4096))"),
            "over the limit of 65536",
        ),
        (
            "a huge write",
            guest("(call $write (call $stdout) (i32.const 0) (i32.const 100000) (i32.const 4096))"),
            "over the limit of 65536",
        ),
        (
            "zeroes without end",
            guest("(call $zeroes (call $stdout) (i64.const -1) (i32.const 4096))"),
            "over the limit of 65536",
        ),
        (
            "a stream that is none",
            guest_with(
                "\\n",
                &forever("(call $write (i32.const 1) (i32.const 600000) (i32.const 1) (i32.const 4096))"),
            ),
            "unknown handle index 1",
        ),
        (
            "a flood of lines",
            guest_with(
                "\\n",
                &format!(
                    "(i32.store (i32.const 5000) (call $stdout)) {}",
                    forever(
                        "(call $write (i32.load (i32.const 5000)) (i32.const 600000) (i32.const 1) (i32.const 4096))"
                    )
                ),
            ),
            "more than 64 log lines",
        ),
    ] {
        // Counts end these, not the watchdog, however slow the machine is.
        let limits = Limits { deadline_ms: Limits::MAXIMUM.deadline_ms, ..Limits::default() };
        let prepared = prepare(&engine, &bytes, &limits);
        let evaluation = prepared.evaluate(&question(), environment("d-1"));
        let fault = evaluation.outcome.expect_err(name);
        assert_eq!(fault.kind, FaultKind::HostCall, "{name}: {}", fault.message);
        assert!(fault.message.contains(told), "{name}: {}", fault.message);
        let again = prepared.evaluate(&question(), environment("d-1"));
        assert_eq!((Err(fault), evaluation.fuel), (again.outcome, again.fuel), "{name}");
        assert_serves(&good);
    }
}

#[test]
fn exit_is_told_with_its_status() {
    let engine = engine();
    for (status, message) in [(0, "called exit with status 0"), (1, "called exit with status 1")] {
        let prepared = prepare(&engine, &guest(&format!("(call $exit (i32.const {status}))")), &Limits::default());
        let fault = prepared.evaluate(&question(), environment("d-1")).outcome.expect_err("it exits");
        assert_eq!((fault.kind, fault.message.as_str()), (FaultKind::Trapped, message));
    }
}

#[test]
fn interfaces_that_are_not_virtual_are_refused_by_name() {
    let text = r#"(component
        (import "wasi:http/outgoing-handler@0.2.0" (instance))
        (import "wasi:clocks/wall-clock@0.2.3" (instance))
        (import "wasi:clocks/wall-clock@0.3.0" (instance))
        (instance $empty)
        (export "aether:plugin/plugin@0.1.0" (instance $empty))
        (export "aether:plugin/scoring@0.1.0" (instance $empty)))"#;
    let bytes = wat::parse_str(text).expect("the test's WAT parses");
    match engine().load(&bytes) {
        Err(LoadError::Imports { refused, granted, .. }) => {
            assert_eq!(refused, ["wasi:http/outgoing-handler@0.2.0", "wasi:clocks/wall-clock@0.3.0"]);
            assert!(granted.iter().any(|granted| granted.starts_with("wasi:{cli,")), "{granted:?}");
        }
        other => panic!("{other:?}"),
    }
}
