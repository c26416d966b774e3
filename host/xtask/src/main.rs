//! `cargo xtask`: chores of this repository that need to understand its code.
//!
//! It exists so that the rules of the house are held by a program instead of by reviewers' memory. It builds, installs
//! and runs nothing: that is the Makefile's.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};

mod tidy;

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Chores of this repository")]
struct Cli {
    #[command(subcommand)]
    chore: Chore,
}

#[derive(Subcommand)]
enum Chore {
    /// Check crate directions, file sizes and module docs.
    Tidy,
}

fn main() -> Result<ExitCode> {
    let root = root()?;
    let broken = match Cli::parse().chore {
        Chore::Tidy => tidy::check(&root)?,
    };
    report(&broken);
    Ok(if broken.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The folder of the workspace: two above this crate's, wherever the command was started.
fn root() -> Result<PathBuf> {
    let here = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().nth(2).map(PathBuf::from).context("xtask is not at host/xtask of the workspace")
}

#[allow(clippy::print_stdout, reason = "a command for people, whose output is its result")]
fn report(broken: &[String]) {
    for line in broken {
        println!("{line}");
    }
    match broken.len() {
        0 => println!("tidy"),
        1 => println!("1 rule broken"),
        count => println!("{count} rules broken"),
    }
}
