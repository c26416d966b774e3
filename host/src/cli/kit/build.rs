//! From a project's source to `<name>.wasm`. What has not changed is not built again, by content and not by time.

use super::{bindings, component, project::Project, script};
use aether_core::id::Digest;
use anyhow::{Context, ensure};
use serde::Serialize;
use std::{
    fmt,
    path::{Path, PathBuf},
};
use tokio::time::Instant;

/// What came of a build.
#[derive(Debug, Serialize)]
pub(super) struct Built {
    pub(super) component: PathBuf,
    pub(super) digest: Digest,
    pub(super) bytes: u64,
    /// None: it was up to date.
    pub(super) build_ms: Option<u64>,
}

impl fmt::Display for Built {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path =
            std::env::current_dir().ok().and_then(|here| self.component.strip_prefix(here).ok().map(Path::to_owned));
        let path = path.as_deref().unwrap_or(&self.component).display();
        write!(f, "{path} ({}, {} KiB): ", self.digest.short(), self.bytes.div_ceil(1024))?;
        match self.build_ms {
            Some(ms) => write!(f, "built in {}", crate::cli::show::duration(ms)),
            None => write!(f, "up to date"),
        }
    }
}

pub(super) fn build(project: &Project) -> anyhow::Result<Built> {
    let path = project.component();
    let stamp = project.scratch().join("stamp");
    let inputs = inputs(project)?;
    if let Ok(bytes) = std::fs::read(&path) {
        let digest = Digest::of(&bytes);
        if std::fs::read_to_string(&stamp).is_ok_and(|stamped| stamped == format!("{inputs} {digest}\n")) {
            return Ok(Built { component: path, digest, bytes: bytes.len() as u64, build_ms: None });
        }
    }
    let started = Instant::now();
    let scratch = project.scratch();
    std::fs::create_dir_all(&scratch).with_context(|| format!("cannot make {}", scratch.display()))?;
    bindings::write(project)?;
    let raw = scratch.join("built.wasm");
    script::build(project, &raw)?;
    let bytes = std::fs::read(&raw).with_context(|| format!("the build wrote no {}", raw.display()))?;
    let bytes = component::finish(bytes, project).context("what was built cannot be made a component")?;
    let digest = Digest::of(&bytes);
    std::fs::write(&path, &bytes).with_context(|| format!("cannot write {}", path.display()))?;
    std::fs::write(&stamp, format!("{inputs} {digest}\n"))
        .with_context(|| format!("cannot write {}", stamp.display()))?;
    let build_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
    Ok(Built { component: path, digest, bytes: bytes.len() as u64, build_ms: Some(build_ms) })
}

/// The hash of all that a build reads: the project's files, and the way it is built.
fn inputs(project: &Project) -> anyhow::Result<Digest> {
    const FILES_MAX: usize = 5_000;
    let mut paths = Vec::new();
    let mut folders = vec![project.folder.clone()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).with_context(|| format!("cannot read {}", folder.display()))? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let kind = entry.file_type()?;
            // Neither is read by a build; what a language's own tools leave behind is not source.
            let apart =
                ["fixtures", "assets", "target", "node_modules", "__pycache__", "bindings"].contains(&name.as_str());
            if name.starts_with('.') || apart {
                continue;
            }
            if kind.is_dir() {
                folders.push(entry.path());
            } else if kind.is_file() && !name.ends_with(".wasm") && !name.ends_with(".md") {
                paths.push(entry.path());
            }
        }
        ensure!(paths.len() <= FILES_MAX, "{} holds more than {FILES_MAX} files", project.folder.display());
    }
    paths.sort();
    let script = script::text(project.manifest.lang)?;
    let mut text = format!("{} {}\n", env!("CARGO_PKG_VERSION"), Digest::of(script.as_bytes()));
    for path in paths {
        let bytes = std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let path = path.strip_prefix(&project.folder).unwrap_or(&path);
        text.push_str(&format!("{} {}\n", Digest::of(&bytes), path.display()));
    }
    Ok(Digest::of(text.as_bytes()))
}
