//! Bindings of languages that need some written out: C and Go. They are made from the project's own contract, so they
//! are never out of step with it.

use super::{Lang, project::Project};
use aether_core::decision::Role;
use anyhow::Context;
use wit_bindgen_core::{Files, WorldGenerator};
use wit_parser::{PackageId, Resolve};

/// Where they lie in a project.
const FOLDER: &str = "bindings";

/// Writes the bindings of `project`, if its language has any. Files that are as they should be are left alone.
pub(super) fn write(project: &Project) -> anyhow::Result<()> {
    let mut generator: Box<dyn WorldGenerator> = match project.manifest.lang {
        Lang::C => c(project.manifest.world).build(),
        Lang::Go => go().build(),
        Lang::Rust | Lang::Js | Lang::Python => return Ok(()),
    };
    let (mut resolve, package) = contract(project)?;
    let world = resolve.select_world(&[package], Some(project.manifest.world.world()))?;
    let mut files = Files::default();
    generator.generate(&mut resolve, world, &mut files)?;
    for (name, bytes) in files.iter() {
        let path = project.folder.join(FOLDER).join(name);
        if std::fs::read(&path).is_ok_and(|found| found == bytes) {
            continue;
        }
        let folder = path.parent().context("a file lies in a folder")?;
        std::fs::create_dir_all(folder)
            .and_then(|()| std::fs::write(&path, bytes))
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

/// The project's copy of `wit/`, parsed.
pub(super) fn contract(project: &Project) -> anyhow::Result<(Resolve, PackageId)> {
    let folder = project.folder.join("wit");
    let mut resolve = Resolve::default();
    let (package, _) =
        resolve.push_dir(&folder).with_context(|| format!("{} does not hold the contract", folder.display()))?;
    Ok((resolve, package))
}

/// C has no namespaces: names are as short as they can be, and the same in every world.
fn c(world: Role) -> wit_bindgen_c::Opts {
    let (history, verb) = match world {
        Role::RiskScorer => (true, "scoring"),
        Role::RemediationPlanner => (true, "planning"),
        Role::PolicyGate => (false, "gating"),
        Role::Router => (false, "routing"),
    };
    let mut rename = vec![
        ("types", "aether"),
        ("log", "aether_log"),
        ("assets", "aether_assets"),
        ("plugin", "plugin"),
        (verb, verb),
    ];
    if history {
        rename.push(("history", "aether_history"));
    }
    wit_bindgen_c::Opts {
        rename: rename
            .into_iter()
            .map(|(interface, name)| {
                (format!("aether:plugin/{interface}@{}", aether_runtime::WIT_VERSION), name.to_owned())
            })
            .collect(),
        rename_world: Some("aether".into()),
        ..wit_bindgen_c::Opts::default()
    }
}

/// The project is the module `component`; what is exported is implemented in its own packages.
fn go() -> wit_bindgen_go::Opts {
    wit_bindgen_go::Opts {
        pkg_name: Some(format!("component/{FOLDER}")),
        export_pkg_name: Some("component".into()),
        ..wit_bindgen_go::Opts::default()
    }
}
