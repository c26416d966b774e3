//! The setup scripts say what is missing, what to do and what will not work, and CI takes no silence for an answer.
//!
//! What they install is not tested here: `make test` begins by running them for real.

#![allow(clippy::unwrap_used, reason = "a test stops at the first thing that is not as it should be")]

use std::path::Path;
use std::process::{Command, Output};

use tempfile::TempDir;

struct Machine {
    folder: TempDir,
}

impl Machine {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    /// Runs a setup script with cache, logs and skip list in a folder of its own.
    fn run(&self, script: &str, arguments: &[&str], environment: &[(&str, &str)]) -> Output {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("setup").join(script);
        Command::new(script)
            .args(arguments)
            .env_remove("CI")
            .env_remove("AETHER_CRIU")
            .env("AETHER_CACHE", self.folder.path().join("cache"))
            .env("AETHER_LOGS", self.folder.path().join("logs"))
            .env("AETHER_SKIPS", self.folder.path().join("skips"))
            .envs(environment.iter().copied())
            .output()
            .unwrap()
    }

    fn skips(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("skips")).unwrap_or_default()
    }
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

const ABSENT: [&str; 2] = ["--needs", "a-tool-that-nobody-has"];

#[test]
fn a_step_without_its_tool_is_a_named_skip() {
    let machine = Machine::new();
    let output = machine.run("step.sh", &[ABSENT[0], ABSENT[1], "probe", "false"], &[]);
    assert!(output.status.success());
    assert!(stderr(&output).contains("probe      skipped: it needs a-tool-that-nobody-has"), "{}", stderr(&output));
    assert_eq!(machine.skips(), "probe\n");

    let summary = machine.run("summary.sh", &[], &[]);
    assert!(stdout(&summary).contains("missing or skipped: 1 (probe)"), "{}", stdout(&summary));
}

#[test]
fn in_ci_a_step_without_its_tool_fails() {
    let output = Machine::new().run("step.sh", &[ABSENT[0], ABSENT[1], "probe", "true"], &[("CI", "true")]);
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn a_step_is_quiet_until_it_fails() {
    let machine = Machine::new();
    let output = machine.run("step.sh", &["probe", "echo", "noise"], &[]);
    assert!(output.status.success());
    assert!(!stdout(&output).contains("noise"), "{}", stdout(&output));

    let output = machine.run("step.sh", &["probe", "sh", "-c", "echo the reason; exit 3"], &[]);
    assert_eq!(output.status.code(), Some(3));
    assert!(stderr(&output).contains("the reason"), "{}", stderr(&output));
    assert!(stderr(&output).contains("FAILED"), "{}", stderr(&output));
}

#[test]
fn a_step_tells_the_lines_asked_for() {
    let output = Machine::new().run("step.sh", &["--tell", "^Summary", "probe", "printf", "noise\nSummary: 3\n"], &[]);
    assert!(stdout(&output).contains("Summary: 3"), "{}", stdout(&output));
    assert!(!stdout(&output).contains("noise"), "{}", stdout(&output));
}

/// `false` stands for a CRIU that is there and cannot dump: it must not pass for one that works.
#[test]
fn a_criu_that_cannot_dump_does_not_count() {
    let machine = Machine::new();
    let output = machine.run("criu.sh", &[], &[("AETHER_CRIU", "/bin/false")]);
    assert!(output.status.success(), "setup goes on without it");
    assert_eq!(stdout(&output), "");
    assert!(stderr(&output).contains("missing"), "{}", stderr(&output));
    assert!(stderr(&output).contains("process.migrate are refused"), "{}", stderr(&output));
    assert_eq!(machine.skips(), "criu\n");

    let output = machine.run("criu.sh", &[], &[("AETHER_CRIU", "/bin/false"), ("CI", "true")]);
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn an_explicit_criu_is_the_one_that_is_named() {
    let output = Machine::new().run("criu.sh", &["--path"], &[("AETHER_CRIU", "/opt/criu")]);
    assert_eq!(stdout(&output), "/opt/criu\n");
}

/// `false` stands for a clang that is there and compiles nothing for the kernel.
#[test]
fn a_clang_that_cannot_compile_for_the_kernel_does_not_count() {
    let machine = Machine::new();
    let output = machine.run("bpf.sh", &[], &[("AETHER_CLANG", "/bin/false")]);
    assert!(output.status.success(), "setup goes on without it");
    let said = stderr(&output);
    assert!(said.contains("missing") && said.contains("libbpf-dev") && said.contains("without its eBPF"), "{said}");
    assert_eq!(machine.skips(), "bpf\n");

    let output = machine.run("bpf.sh", &["--state"], &[("AETHER_CLANG", "/bin/false")]);
    assert_eq!(stdout(&output), "off\n");
    // So a step that builds is told to leave them out.
    let output =
        machine.run("step.sh", &["--tell", ".", "probe", "printenv", "AETHER_BPF"], &[("AETHER_CLANG", "/bin/false")]);
    assert!(stdout(&output).contains("off"), "{}", stdout(&output));

    let output = machine.run("bpf.sh", &[], &[("AETHER_CLANG", "/bin/false"), ("CI", "true")]);
    assert_eq!(output.status.code(), Some(1));
}
