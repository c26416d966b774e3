//! The same cases over every language and world. `host/xtask/setup/conformance.sh` builds the guests into `build/kits/`
//! by the commands that a newcomer uses (the guests are the kits' own templates); [`discover`] finds them with their cases
//! and [`ask`] asks.
//!
//! Nothing is left out in silence: a guest that is built and has no case, a template that is not built although its
//! language's toolchain is there, and a toolchain that is missing where it must not be, are all told.

mod matrix;

pub use matrix::{figures, table};

use aether_core::decision::Limits;
use aether_runtime::{
    Assets, Engine,
    fixture::{self, Activations, Case, FixtureResult},
};
use anyhow::{Context, Result};
use serde_json::Map;
use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

/// One built guest with what it is asked.
#[derive(Clone, Debug)]
pub struct Guest {
    /// A folder of `sdk/kits`.
    pub lang: String,
    /// A folder of `sdk/kits/cases`: a world, or what else a guest is for.
    pub subject: String,
    pub component: PathBuf,
    pub cases: Vec<(String, Case)>,
    /// What it can read, if it has a folder `assets`.
    pub assets: Option<PathBuf>,
}

/// What is there to be asked, and what is not.
#[derive(Clone, Debug, Default)]
pub struct Found {
    /// In order of language, then subject.
    pub guests: Vec<Guest>,
    /// A language with the reason why its guests were not built.
    pub skipped: BTreeMap<String, String>,
    /// What breaks the build.
    pub problems: Vec<String>,
}

/// What came of one guest.
#[derive(Clone, Debug)]
pub struct Outcome {
    pub lang: String,
    pub subject: String,
    pub results: Vec<FixtureResult>,
    pub bytes: u64,
    /// The least and the most that a case used.
    pub fuel: (u64, u64),
}

/// Languages that continuous integration must not skip. Go's toolchain is fetched from a distribution that moves.
pub const REQUIRED: [&str; 4] = ["c", "js", "python", "rust"];

/// Looks at what `kits` (`sdk/kits`) has templates and cases for, `own` (`sdk/conformance`) has further guests and cases
/// for, and at what is built in `built` (`build/kits`).
pub fn discover(kits: &Path, own: &Path, built: &Path) -> Result<Found> {
    let mut found = Found::default();
    for lang in folders(kits)? {
        let home = kits.join(&lang);
        if !home.join("kit.sh").exists() {
            continue;
        }
        let lang_built = built.join(&lang);
        if let Ok(reason) = std::fs::read_to_string(lang_built.join("missing")) {
            found.skipped.insert(lang, reason.trim().to_owned());
            continue;
        }
        let mut wanted = folders(&home.join("template"))?;
        wanted.remove("common");
        wanted.extend(folders(&own.join("guests").join(&lang))?);
        let mut there = BTreeSet::new();
        for subject in folders(&lang_built)? {
            let project = lang_built.join(&subject);
            let component = project.join(format!("{lang}-{subject}.wasm"));
            if !component.exists() {
                continue;
            }
            there.insert(subject.clone());
            let mut asked = cases(&kits.join("cases").join(&subject))?;
            asked.extend(cases(&own.join("cases").join(&subject))?);
            if asked.is_empty() {
                found
                    .problems
                    .push(format!("{lang}/{subject} is built, and no case names it: add sdk/kits/cases/{subject}/"));
            }
            let assets = Some(project.join("assets")).filter(|folder| folder.exists());
            found.guests.push(Guest { lang: lang.clone(), subject, component, cases: asked, assets });
        }
        for subject in wanted.difference(&there) {
            found.problems.push(format!("{lang}/{subject} has a template and is not built: run `make kits`"));
        }
    }
    Ok(found)
}

/// Asks a guest all its cases, each twice.
pub fn ask(engine: &Engine, guest: &Guest) -> Result<Outcome> {
    let name = format!("{}/{}", guest.lang, guest.subject);
    let bytes = std::fs::read(&guest.component).with_context(|| format!("reading {}", guest.component.display()))?;
    let component = engine.load(&bytes).with_context(|| format!("{name} is no plugin"))?;
    let assets = match &guest.assets {
        None => Assets::default(),
        Some(folder) => Assets::open(folder)?,
    };
    let mut activations = Activations::new(component, Map::new(), Limits::default(), assets);
    let results: Vec<_> = guest.cases.iter().map(|(name, case)| case.run(name.clone(), activations.of(case))).collect();
    let used = || results.iter().map(|result| result.fuel).filter(|fuel| *fuel > 0);
    let fuel = (used().min().unwrap_or(0), used().max().unwrap_or(0));
    Ok(Outcome { lang: guest.lang.clone(), subject: guest.subject.clone(), results, bytes: bytes.len() as u64, fuel })
}

fn cases(folder: &Path) -> Result<Vec<(String, Case)>> {
    fixture::read_all::<Case>(folder)?
        .into_iter()
        .map(|fixture::File { name, parsed }| {
            let case = parsed.map_err(anyhow::Error::msg).with_context(|| format!("the case {name}"))?;
            Ok((name, case))
        })
        .collect()
}

/// Names of the folders in `folder`; none if there is no such folder.
fn folders(folder: &Path) -> Result<BTreeSet<String>> {
    if !folder.exists() {
        return Ok(BTreeSet::new());
    }
    let entries = std::fs::read_dir(folder).with_context(|| format!("reading {}", folder.display()))?;
    let mut names = BTreeSet::new();
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if entry.file_type()?.is_dir() && !name.starts_with('.') {
            names.insert(name);
        }
    }
    Ok(names)
}
