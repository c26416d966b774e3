//! Bytes that mean harm before they are ever asked: what they cost is an error for whoever gave them, and a bounded one.

use crate::guest::{ANSWER, assert_serves, component, good, module, scorer_with};
use aether_core::decision::{FaultKind, Limits};
use aether_runtime::{ActivateError, Assets, CompileError, CompileLimits, Compiler, Engine, EngineSettings, LoadError};
use serde_json::Map;
use std::{path::PathBuf, time::Duration};

/// An engine that compiles in a child with little to spend, and takes large components.
fn engine() -> Engine {
    let limits =
        CompileLimits { cpu_s: 5, wall: Duration::from_secs(60), memory_bytes: 1 << 30, ..CompileLimits::default() };
    let program = PathBuf::from(env!("CARGO_BIN_EXE_compile-component"));
    let compiler = Compiler::Child { program, arguments: vec![], limits };
    let component_bytes = EngineSettings::MAXIMUM.component_bytes;
    Engine::new(EngineSettings { compiler, component_bytes, ..EngineSettings::default() }).expect("an engine")
}

fn refusal(bytes: &[u8]) -> LoadError {
    let engine = engine();
    let good = good(&engine);
    let error = engine.load(bytes).expect_err("it is a bomb");
    assert!(!error.to_string().is_empty());
    assert_serves(&good);
    error
}

/// The exports of a scorer, which are all that is looked at before compiling, in front of `sections`.
fn with_sections(sections: &[(u8, Vec<u8>)]) -> Vec<u8> {
    let shell = wat::parse_str(
        r#"(component (instance $a) (instance $b)
            (export "aether:plugin/plugin@0.1.0" (instance $a)) (export "aether:plugin/scoring@0.1.0" (instance $b)))"#,
    )
    .expect("the test's WAT parses");
    let (header, rest) = shell.split_at(8);
    let mut bytes = header.to_vec();
    for (id, body) in sections {
        section(&mut bytes, *id, body);
    }
    bytes.extend_from_slice(rest);
    bytes
}

fn section(bytes: &mut Vec<u8>, id: u8, body: &[u8]) {
    bytes.push(id);
    leb(bytes, body.len());
    bytes.extend_from_slice(body);
}

fn leb(bytes: &mut Vec<u8>, mut value: usize) {
    loop {
        let low = u8::try_from(value & 0x7f).expect("seven bits");
        value >>= 7;
        bytes.push(if value == 0 { low } else { low | 0x80 });
        if value == 0 {
            return;
        }
    }
}

const CORE_MODULE: u8 = 1;
const COMPONENT: u8 = 4;
const TYPES: u8 = 7;

/// A core module of `functions` bodies, each `body` without its end.
fn code(functions: usize, body: &[u8]) -> Vec<u8> {
    let mut module = b"\0asm\x01\0\0\0".to_vec();
    // (func (param i32))
    section(&mut module, 1, &[1, 0x60, 1, 0x7f, 0]);
    let mut declared = Vec::new();
    leb(&mut declared, functions);
    declared.extend(std::iter::repeat_n(0, functions));
    section(&mut module, 3, &declared);
    let mut bodies = Vec::new();
    leb(&mut bodies, functions);
    for _ in 0..functions {
        leb(&mut bodies, body.len() + 2);
        // No locals.
        bodies.push(0);
        bodies.extend_from_slice(body);
        bodies.push(0x0b);
    }
    section(&mut module, 10, &bodies);
    module
}

#[test]
fn fifty_megabytes_of_code() {
    // local.get 0, i32.const 7, i32.add, local.set 0
    let body = [0x20, 0, 0x41, 7, 0x6a, 0x21, 0].repeat(1_000);
    let bytes = with_sections(&[(CORE_MODULE, code(7_200, &body))]);
    assert!(bytes.len() > 50_000_000);
    match refusal(&bytes) {
        LoadError::Compile(CompileError::Time { .. } | CompileError::Memory { .. }) => {}
        other => panic!("{other:?}"),
    }
    // And where nobody raised the limit it is not looked at.
    let error = crate::guest::engine().load(&bytes).expect_err("too large");
    assert!(matches!(error, LoadError::TooLarge { .. }), "{error}");
}

#[test]
fn half_a_million_types() {
    let mut types = Vec::new();
    leb(&mut types, 500_000);
    // (func), without parameters and results
    types.extend([0x40, 0, 1, 0].repeat(500_000));
    refusal(&with_sections(&[(TYPES, types)]));
}

#[test]
fn components_in_components() {
    let mut inner = b"\0asm\x0d\0\x01\0".to_vec();
    for _ in 0..2_000 {
        let mut outer = b"\0asm\x0d\0\x01\0".to_vec();
        section(&mut outer, COMPONENT, &inner);
        inner = outer;
    }
    refusal(&with_sections(&[(COMPONENT, inner)]));
}

#[test]
fn thousands_of_exports() {
    let many: String =
        (0..5_000).map(|i| format!("(instance $x{i}) (export \"a:b/c{i}@0.1.0\" (instance $x{i}))")).collect();
    let text = format!(
        r#"(component (instance $a) (export "aether:plugin/plugin@0.1.0" (instance $a))
            (instance $b) (export "aether:plugin/scoring@0.1.0" (instance $b)) {many})"#
    );
    let error = refusal(&wat::parse_str(text).expect("the test's WAT parses"));
    assert!(matches!(error, LoadError::Types { .. } | LoadError::Compile(_)), "{error}");
    // In the module of an honest component they are no harm.
    let many: String = (0..5_000).map(|i| format!("(func (export \"f{i}\"))")).collect();
    let engine = engine();
    let bytes = scorer_with("", &format!("i32.const {ANSWER}) {many} (func"));
    match engine.load(&bytes) {
        Ok(component) => {
            assert_serves(&component.activate(&Map::new(), &Limits::default(), &Assets::default()).expect("activates"));
        }
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn tables_and_memories_beyond_the_pool() {
    for head in [
        "(table 20001 funcref)",
        "(table 4000000000 funcref)",
        &"(table 1 funcref)".repeat(40),
        &"(memory 1)".repeat(40),
        "(memory 65536)",
    ] {
        let text = module(head, &format!("i32.const {ANSWER}"), "i32.const 128");
        let error = refusal(&component("risk-scorer", &text));
        assert!(matches!(&error, LoadError::Compile(CompileError::Refused(_))), "{head}: {error}");
    }
}

#[test]
fn a_start_function_that_burns() {
    let head = "(func $burn (loop $forever (br $forever))) (start $burn)";
    let text = module(head, &format!("i32.const {ANSWER}"), "i32.const 128");
    match refusal(&component("risk-scorer", &text)) {
        LoadError::Describe(fault) => assert_eq!(fault.kind, FaultKind::OutOfFuel),
        other => panic!("{other}"),
    }
}

#[test]
fn a_config_that_is_never_taken() {
    let text = module("", &format!("i32.const {ANSWER}"), "i32.const 128")
        .replace("(result i32) i32.const 1024)", "(result i32) (loop $forever (br $forever)) unreachable)");
    let engine = engine();
    let component = engine.load(&component("risk-scorer", &text)).expect("it can describe itself");
    match component.activate(&Map::new(), &Limits::default(), &Assets::default()) {
        Err(ActivateError::Fault { fault, .. }) => {
            assert!(matches!(fault.kind, FaultKind::OutOfFuel | FaultKind::TimedOut), "{fault:?}");
        }
        other => panic!("{other:?}"),
    }
    assert_serves(&good(&engine));
}

/// SplitMix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number generators", 2014).
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((z ^ (z >> 31)) % end.max(1) as u64).expect("below a length")
    }
}

fn mutate(bytes: &mut Vec<u8>, random: &mut Random) {
    for _ in 0..=random.below(4) {
        let (at, length) = (random.below(bytes.len()), 1 + random.below(16));
        let end = (at + length).min(bytes.len());
        match random.below(5) {
            0 => bytes[at] ^= 1 << random.below(8),
            1 => bytes[at] = u8::try_from(random.below(256)).expect("a byte"),
            2 => drop(bytes.drain(at..end)),
            3 => {
                let copied = bytes[at..end].to_vec();
                let to = random.below(bytes.len());
                bytes.splice(to..to, copied);
            }
            _ => bytes[at..end].fill(0xff),
        }
        if bytes.is_empty() {
            return;
        }
    }
}

/// Whatever a valid component is turned into, each ends as an error or as an evaluation, and the host serves on.
#[test]
fn mutated_bytes() {
    const CASES: u64 = 300;
    let limits = CompileLimits { cpu_s: 10, wall: Duration::from_secs(60), ..CompileLimits::default() };
    let program = PathBuf::from(env!("CARGO_BIN_EXE_compile-component"));
    let compiler = Compiler::Child { program, arguments: vec![], limits };
    let engine = Engine::new(EngineSettings { compiler, ..EngineSettings::default() }).expect("an engine");
    let good = good(&engine);
    let original = scorer_with(
        r#"(import "aether:plugin/log@0.1.0" "write" (func $log (param i32 i32 i32))) (table 3 funcref) (memory 1)"#,
        &format!("(call $log (i32.const 1) (i32.const 0) (i32.const 4)) i32.const {ANSWER}"),
    );
    let (mut taken, mut refused) = (0, 0);
    for seed in 0..CASES {
        let mut bytes = original.clone();
        mutate(&mut bytes, &mut Random(seed));
        match engine.load(&bytes) {
            Ok(component) => {
                taken += 1;
                if let Ok(prepared) = component.activate(&Map::new(), &Limits::default(), &Assets::default()) {
                    drop(crate::guest::ask(&prepared));
                }
            }
            Err(error) => {
                refused += 1;
                assert!(!matches!(error, LoadError::Compile(CompileError::Killed(_))), "seed {seed}: {error}");
            }
        }
        if seed % 50 == 0 {
            assert_serves(&good);
        }
    }
    assert_serves(&good);
    assert!(refused > CASES / 2, "{taken} of {CASES} mutants were taken: the mutations do nothing");
}
