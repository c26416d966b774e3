//! Compiles the eBPF programs of `bpf/` with clang, into the build folder: neither objects nor a dump of a kernel's
//! types are in the repository.
//!
//! Without clang the build ends and says which package is missing. `AETHER_BPF=off` builds an agent without the
//! programs, which says so of itself.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

const OBJECTS: [&str; 5] = ["block", "exits", "oom", "scheduler", "tcp"];

fn main() {
    for variable in ["AETHER_BPF", "AETHER_CLANG"] {
        println!("cargo::rerun-if-env-changed={variable}");
    }
    println!("cargo::rerun-if-changed=bpf");
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    let off = env::var("AETHER_BPF").is_ok_and(|value| value == "off");
    for name in OBJECTS {
        let object = out.join(format!("{name}.bpf.o"));
        // An object of no bytes is none.
        let made = if off { std::fs::write(&object, []).map_err(|e| e.to_string()) } else { compile(name, &object) };
        if let Err(problem) = made {
            println!("cargo::error={problem}");
            return;
        }
    }
}

fn compile(name: &str, object: &Path) -> Result<(), String> {
    let advice = "install the packages `clang` and `libbpf-dev` (`make setup` does, as root on Debian; \
                  AETHER_CLANG names another clang), or set AETHER_BPF=off to build an agent without eBPF";
    let clang = env::var_os("AETHER_CLANG").unwrap_or_else(|| "clang".into());
    let target = match env::var("CARGO_CFG_TARGET_ENDIAN").as_deref() {
        Ok("big") => "bpfeb",
        _ => "bpfel",
    };
    let source = format!("bpf/{name}.bpf.c");
    let output = Command::new(&clang)
        .args(["-target", target, "-O2", "-g", "-Wall", "-Werror", "-fdebug-compilation-dir=.", "-c", &source, "-o"])
        .arg(object)
        .output()
        .map_err(|error| format!("{} cannot be run, and compiles {source}: {error}; {advice}", clang.display()))?;
    if output.status.success() {
        return Ok(());
    }
    // One line is all that cargo shows of an error; the rest is told as warnings.
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    for line in said.lines().take(20) {
        println!("cargo::warning={line}");
    }
    let first = said.lines().find(|line| line.contains("error")).unwrap_or("clang said nothing");
    Err(format!("{source} cannot be compiled: {first}; if a header is missing: {advice}"))
}
