//! Measures the plugin runtime beside other engines, in one run. What each row contains is told in
//! `docs/benchmarks.md`, which this program writes its figures into.
//!
//! `--quick` measures a tenth and writes nothing: to see that all engines still agree.

#![allow(clippy::disallowed_methods, reason = "a benchmark measures with the real clock")]
#![allow(clippy::print_stdout, reason = "a benchmark prints its table")]

mod cases;
mod clock;
mod engines;
mod report;
mod scenarios;

use aether_runtime::{CacheKey, CacheSettings, CompileLimits, Compiler, Engine, EngineSettings, compile::serve_child};
use anyhow::{Result, bail};
use engines::{Variant, aether, cedar, extism, native, rego};
use report::{Measured, Rows};
use std::{path::Path, process::ExitCode, time::Duration};

/// Turns of each row.
const ROUNDS: usize = 400;
/// Turns of each neighbour and of each number of threads.
const LOAD_ROUNDS: usize = 20;
const LOAD_TURN: Duration = Duration::from_millis(200);
const SWAPS: usize = 1_000;
const UPLOADS: u8 = 10;

/// With this argument the program is the compiling child of its engine, as `aether` is of its own.
const CHILD: &str = "compile-component";

fn main() -> Result<ExitCode> {
    let quick = match std::env::args().nth(1).as_deref() {
        None => false,
        Some("--quick") => true,
        Some(CHILD) => return Ok(serve_child()),
        Some(other) => bail!("`{other}` is not an option; there is --quick"),
    };
    let share = if quick { 10 } else { 1 };
    let folder = tempfile::tempdir()?;
    let engine = engine(folder.path())?;

    let gate = {
        let mut rows = vec![native::gate()?, aether::empty(&engine)?];
        rows.extend(aether::gate(&engine)?);
        rows.extend(extism::gate()?);
        rows.extend(rego::gate()?);
        rows.push(cedar::gate()?);
        rows
    };
    let scorer = {
        let mut rows = vec![native::scorer()?, aether::empty(&engine)?];
        rows.extend(aether::scorer(&engine)?);
        rows.extend(extism::scorer()?);
        rows.extend(rego::scorer()?);
        rows
    };
    println!("every engine answers every case as the native logic does");
    let measured = Measured {
        gate: measure(gate, cases::plans().len(), ROUNDS / share),
        scorer: measure(scorer, cases::series().len(), ROUNDS / share),
        threads: scenarios::threads(&engine, LOAD_ROUNDS / share, LOAD_TURN)?,
        swaps: scenarios::swaps(&engine, SWAPS / share)?,
        neighbours: scenarios::neighbours(&engine, LOAD_ROUNDS / share, LOAD_TURN)?,
        upload: scenarios::uploads(&engine, UPLOADS)?,
    };
    let text = report::text(&measured)?;
    println!("{text}");
    if !quick {
        report::write_into(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/benchmarks.md"), &text)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// As a host sets it up: compiled in a child, kept in a sealed cache.
fn engine(folder: &Path) -> Result<Engine> {
    let program = std::env::current_exe()?;
    let compiler = Compiler::Child { program, arguments: vec![CHILD.into()], limits: CompileLimits::default() };
    let cache = CacheSettings { folder: folder.to_owned(), key: CacheKey([1; 32]), bytes: 1 << 30 };
    Ok(Engine::new(EngineSettings { compiler, cache: Some(cache), ..EngineSettings::default() })?)
}

fn measure(mut rows: Vec<Variant>, cases: usize, rounds: usize) -> Rows {
    let samples = clock::measure(&mut rows, cases, rounds);
    rows.into_iter().map(|row| row.label).zip(samples).collect()
}
