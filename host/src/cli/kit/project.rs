//! A plugin's folder: made from a kit's template, and read back from its `plugin.toml`.

use super::{Kits, Lang, RustKit, WIT, bindings};
use aether_core::{
    decision::{Limits, Role},
    id::is_name,
};
use aether_runtime::Assets;
use anyhow::{Context, bail, ensure};
use serde::Deserialize;
use serde_json::{Map, Value};
use std::{
    borrow::Cow,
    path::{Path, PathBuf},
};

const MANIFEST: &str = "plugin.toml";

/// A folder that holds a plugin.
#[derive(Debug)]
pub(super) struct Project {
    /// Absolute.
    pub(super) folder: PathBuf,
    pub(super) manifest: Manifest,
}

/// `plugin.toml`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Manifest {
    pub(super) name: String,
    pub(super) lang: Lang,
    pub(super) world: Role,
    /// Whether it is to have the virtual WASI: a clock, randomness, files, and what it prints in the log. Go's runtime
    /// has it in any case.
    #[serde(default)]
    pub(super) wasi: bool,
    /// Of Rust's and C's guests. Each page of memory that a guest has is reset after each evaluation.
    #[serde(default = "stack_kib")]
    pub(super) stack_kib: u32,
    /// What the fixtures are asked with, where it differs from the component's defaults.
    #[serde(default)]
    pub(super) config: Map<String, Value>,
    #[serde(default)]
    pub(super) limits: Limits,
}

/// With a little heap and data in one page of memory.
fn stack_kib() -> u32 {
    32
}

impl Project {
    /// Writes a new project into `folder`, which must not hold anything yet.
    pub(super) fn create(folder: &Path, name: &str, lang: Lang, world: Role) -> anyhow::Result<Self> {
        ensure!(
            is_name(name) && name.starts_with(|c: char| c.is_ascii_lowercase()) && !name.contains('.'),
            "`{name}` will not do as a name: give 1 to 63 of `a-z 0-9 -`, a letter first"
        );
        if std::fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_some()) {
            bail!(
                "{} is not empty; nothing was written. Give another name, or another folder by --folder",
                folder.display()
            );
        }
        let fill = |text: &str| {
            text.replace("{{name}}", name).replace("{{world}}", world.world()).replace("{{lang}}", lang.name())
        };
        let mut written = 0;
        for path in Kits::iter() {
            let Some(target) = target(&path, lang, world) else { continue };
            let file = Kits::get(&path).with_context(|| format!("{path} is not in this binary"))?;
            // Fixtures are for any component; a template's text knows its name.
            let bytes = match std::str::from_utf8(&file.data) {
                Ok(text) if !target.starts_with("fixtures/") => Cow::Owned(fill(text).into_bytes()),
                _ => file.data,
            };
            write(&folder.join(target), &bytes)?;
            written += 1;
        }
        if lang == Lang::Rust {
            for path in RustKit::iter() {
                let file = RustKit::get(&path).with_context(|| format!("{path} is not in this binary"))?;
                write(&folder.join("aether-plugin/src").join(path.as_ref()), &file.data)?;
            }
        }
        ensure!(written > 0, "this binary holds no kit for {}", lang.name());
        write(&folder.join("wit/aether.wit"), WIT.as_bytes())?;
        write(
            &folder.join(MANIFEST),
            format!(
                "# What `aether plugin build`, `test` and `bench` need to know.\nname = \"{name}\"\nlang = \"{}\"\nworld = \"{}\"\n\
                 # true: a clock, randomness, the files of assets/, and what is printed goes to the log; all of it the\n\
                 # same on every run. Costs some start-up. Go has it in any case.\n\
                 wasi = false\n\n\
                 # What the fixtures are asked with, where it differs from the component's defaults: docs/plugins.md\n\
                 # has the limits.\n# [config]\n# [limits]\n",
                lang.name(),
                world.world()
            )
            .as_bytes(),
        )?;
        let project = Self::open(folder)?;
        bindings::write(&project)?;
        Ok(project)
    }

    pub(super) fn open(folder: &Path) -> anyhow::Result<Self> {
        let path = folder.join(MANIFEST);
        let text = std::fs::read_to_string(&path).with_context(|| {
            format!("cannot read {}; `aether plugin new` makes a folder that has one", path.display())
        })?;
        let manifest: Manifest =
            toml::from_str(&text).with_context(|| format!("{} is not as it should be", path.display()))?;
        ensure!(is_name(&manifest.name), "{}: the name is not 1 to 63 of `a-z 0-9 - .`", path.display());
        ensure!((8..=1_024).contains(&manifest.stack_kib), "{}: `stack_kib` is not 8 to 1024", path.display());
        let folder = folder.canonicalize().with_context(|| format!("cannot find {}", folder.display()))?;
        Ok(Self { folder, manifest })
    }

    /// The component that a build writes.
    pub(super) fn component(&self) -> PathBuf {
        self.folder.join(format!("{}.wasm", self.manifest.name))
    }

    /// What is made on the way, and can be thrown away.
    pub(super) fn scratch(&self) -> PathBuf {
        self.folder.join(".aether")
    }

    /// The files of `assets/`, if there is such a folder.
    pub(super) fn assets(&self) -> anyhow::Result<Assets> {
        let folder = self.folder.join("assets");
        if !folder.exists() {
            return Ok(Assets::default());
        }
        Ok(Assets::open(&folder)?)
    }
}

/// Where a file of the kits goes in a project of this language and world; none: it does not.
fn target(path: &str, lang: Lang, world: Role) -> Option<String> {
    if let Some(case) = path.strip_prefix("cases/").and_then(|rest| rest.strip_prefix(world.world())) {
        return Some(format!("fixtures{case}"));
    }
    let path = path.strip_prefix(lang.name())?.strip_prefix("/template/")?;
    let (first, rest) = path.split_once('/')?;
    let file = if first == "common" || first == world.world() { rest } else { return None };
    // Cargo and git look for files of these names where the template itself lies.
    Some(if file == "gitignore" { ".gitignore".into() } else { file.trim_end_matches(".in").to_owned() })
}

fn write(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    let write = || {
        std::fs::create_dir_all(path.parent().unwrap_or(Path::new(".")))?;
        std::fs::write(path, bytes)
    };
    write().with_context(|| format!("cannot write {}", path.display()))
}
