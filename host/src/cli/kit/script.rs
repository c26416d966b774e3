//! Runs a kit's `kit.sh`: is the toolchain there, get it, build. The scripts are the same that this repository's own
//! set-up runs.

use super::{Kits, Lang, project::Project};
use anyhow::{Context, bail};
use std::{
    path::Path,
    process::{Command, Stdio},
};

/// What is there, or what is missing and how to get it.
pub(super) fn present(lang: Lang) -> Result<String, String> {
    let told = |error: anyhow::Error| format!("{error:#}");
    let output = command(lang, "present").and_then(|mut command| command.output().context("bash cannot be run"));
    let output = output.map_err(told)?;
    let what = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    if output.status.success() {
        return Ok(what);
    }
    Err(if what.is_empty() { String::from_utf8_lossy(&output.stderr).trim().to_owned() } else { what })
}

/// Gets what is missing. What it does goes to standard error, because it takes its time.
pub(super) fn install(lang: Lang) -> anyhow::Result<()> {
    let status = command(lang, "locked_install")?.stdout(std::io::stderr()).status().context("bash cannot be run")?;
    if !status.success() {
        bail!("the toolchain for {} could not be had; what was there before is unharmed", lang.name());
    }
    Ok(())
}

/// Builds `project` into `out`, a component or a core module.
pub(super) fn build(project: &Project, out: &Path) -> anyhow::Result<()> {
    let lang = project.manifest.lang;
    if let Err(why) = present(lang) {
        bail!("{why}.\nGet it by `aether plugin toolchain {}`; nothing was built", lang.name());
    }
    let output = command(lang, "build")?
        .current_dir(&project.folder)
        .env("NAME", &project.manifest.name)
        .env("WORLD", project.manifest.world.world())
        .env("WASI", project.manifest.wasi.to_string())
        .env("STACK_BYTES", (u64::from(project.manifest.stack_kib) << 10).to_string())
        .env("SCRATCH", project.scratch())
        .env("OUT", out)
        .stdin(Stdio::null())
        .output()
        .context("bash cannot be run")?;
    if !output.status.success() {
        let said = [output.stdout, output.stderr].concat();
        bail!("{} does not build:\n{}", project.manifest.name, String::from_utf8_lossy(&said).trim_end());
    }
    Ok(())
}

/// The text that runs for `lang`, which is part of what a build depends on.
pub(super) fn text(lang: Lang) -> anyhow::Result<String> {
    let mut text = String::new();
    for path in ["lib.sh".to_owned(), format!("{}/kit.sh", lang.name())] {
        let file = Kits::get(&path).with_context(|| format!("this binary holds no {path}"))?;
        text.push_str(&String::from_utf8_lossy(&file.data));
    }
    Ok(text)
}

fn command(lang: Lang, function: &str) -> anyhow::Result<Command> {
    let mut command = Command::new("bash");
    command.args(["-euo", "pipefail", "-c", &(text(lang)? + function)]);
    Ok(command)
}
