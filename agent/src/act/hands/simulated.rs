//! Only pretends: workloads are counters, a snapshot is a line of JSON. It exists when the agent is started with
//! `--simulate`, and says `simulated` in every outcome and capability. The way of a snapshot to the store and back,
//! with its hashes, is the real one.

use super::{Copied, Failure, Hands, Still};
use crate::{
    act::{check::Refusal, outside::Outside, run::Run},
    clock,
    workloads::{Body, Entry},
};
use aether_core::snapshot::Manifest;
use serde::{Deserialize, Serialize};
use std::{fs, path::Path};

const FILE: &str = "simulated.img";
const VERSION: &str = "simulated";

pub struct Simulated;

#[derive(Serialize, Deserialize)]
struct Image {
    simulated: bool,
    progress: u64,
}

fn failure(error: impl std::fmt::Display) -> Failure {
    Failure::new("simulated.failed", error.to_string())
}

fn progress(entry: &Entry) -> Result<u64, Failure> {
    match &entry.body {
        Body::Simulated { .. } => Ok(entry.progress(clock::now()).unwrap_or(0)),
        Body::Process { .. } | Body::Gone => Err(failure("a simulating agent does not touch real processes")),
    }
}

impl Hands for Simulated {
    fn simulated(&self) -> bool {
        true
    }

    fn version(&self) -> String {
        VERSION.into()
    }

    fn ready(&self, _verb: &str) -> Result<(), Refusal> {
        Ok(())
    }

    fn examine(&self, _entry: &Entry) -> Result<(), Failure> {
        Ok(())
    }

    fn holds(&self) -> bool {
        false
    }

    fn dump<'a>(&'a self, entry: &Entry, images: &Path, _run: &'a Run) -> Result<Still<'a>, Failure> {
        let progress = progress(entry)?;
        let image = serde_json::to_vec(&Image { simulated: true, progress }).map_err(failure)?;
        fs::write(images.join(FILE), image).map_err(failure)?;
        let body = Body::Simulated { base: progress, since: clock::now() };
        Ok(Still { body, outside: Outside::default(), let_go: Box::new(|| Ok(())) })
    }

    fn is_image(&self, name: &str) -> bool {
        name == FILE
    }

    fn go_on(&self, entry: &Entry) -> Result<Body, Failure> {
        Ok(Body::Simulated { base: progress(entry)?, since: clock::now() })
    }

    fn fits(&self, manifest: &Manifest) -> Result<(), Failure> {
        if manifest.criu_version == VERSION {
            return Ok(());
        }
        Err(Failure::new("snapshot.version", "a simulating agent does not restore a real snapshot"))
    }

    fn restore(&self, _manifest: &Manifest, _outside: &Outside, images: &Path, _run: &Run) -> Result<Copied, Failure> {
        let image = fs::read(images.join(FILE)).map_err(failure)?;
        let image: Image = serde_json::from_slice(&image).map_err(failure)?;
        Ok(Copied { body: Body::Simulated { base: image.progress, since: clock::now() }, pages: None })
    }

    fn reach(&self, _entry: &Entry) -> Result<(), Failure> {
        Ok(())
    }

    fn drill(&self, _images: &Path, _run: &Run) -> Result<usize, Failure> {
        Err(Failure::new("drill.simulated", "this agent only pretends: a drill here would prove nothing"))
    }

    fn end(&self, entry: &Entry) -> Result<(), Failure> {
        match entry.body {
            Body::Simulated { .. } | Body::Gone => Ok(()),
            Body::Process { .. } => Err(failure("a simulating agent does not touch real processes")),
        }
    }

    fn clear_up(&self, _images: &Path) -> Result<(), Failure> {
        Ok(())
    }
}
