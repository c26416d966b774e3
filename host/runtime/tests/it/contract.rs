//! The contract itself: a change to `wit/` shows here, and needs a decision about versions. `UPDATE_EXPECT=1` refreshes.

use crate::guest::{repository, resolve};
use expect_test::{expect, expect_file};
use wit_component::WitPrinter;
use wit_parser::WorldKey;

#[test]
fn the_package() {
    let (resolve, package) = resolve();
    let mut printer = WitPrinter::default();
    printer.emit_docs(false);
    printer.print(&resolve, package, &[]).expect("prints");
    expect_file!["golden/aether.wit"].assert_eq(&String::from(printer.output));
}

#[test]
fn what_each_world_imports_and_exports() {
    let (resolve, package) = resolve();
    let mut text = String::new();
    for (name, id) in &resolve.packages[package].worlds {
        let named = |key: &WorldKey| resolve.name_world_key(key);
        let world = &resolve.worlds[*id];
        text += &format!("{name}\n");
        for key in world.imports.keys() {
            text += &format!("  imports {}\n", named(key));
        }
        for key in world.exports.keys() {
            text += &format!("  exports {}\n", named(key));
        }
    }
    expect![[r#"
        risk-scorer
          imports aether:plugin/log@0.1.0
          imports aether:plugin/assets@0.1.0
          imports aether:plugin/types@0.1.0
          imports aether:plugin/history@0.1.0
          exports aether:plugin/plugin@0.1.0
          exports aether:plugin/scoring@0.1.0
        remediation-planner
          imports aether:plugin/log@0.1.0
          imports aether:plugin/assets@0.1.0
          imports aether:plugin/types@0.1.0
          imports aether:plugin/history@0.1.0
          exports aether:plugin/plugin@0.1.0
          exports aether:plugin/planning@0.1.0
        policy-gate
          imports aether:plugin/log@0.1.0
          imports aether:plugin/assets@0.1.0
          imports aether:plugin/types@0.1.0
          exports aether:plugin/plugin@0.1.0
          exports aether:plugin/gating@0.1.0
        router
          imports aether:plugin/log@0.1.0
          imports aether:plugin/assets@0.1.0
          imports aether:plugin/types@0.1.0
          exports aether:plugin/plugin@0.1.0
          exports aether:plugin/routing@0.1.0
    "#]]
    .assert_eq(&text);
}

#[test]
fn every_interface_and_world_is_documented() {
    let (resolve, package) = resolve();
    let mut bare = Vec::new();
    for (name, id) in &resolve.packages[package].interfaces {
        let interface = &resolve.interfaces[*id];
        if interface.docs.contents.is_none() {
            bare.push(name.clone());
        }
    }
    for (name, id) in &resolve.packages[package].worlds {
        if resolve.worlds[*id].docs.contents.is_none() {
            bare.push(name.clone());
        }
    }
    assert!(bare.is_empty(), "without a word of documentation: {}", bare.join(", "));
}

#[test]
fn the_engine_version_is_the_one_that_is_linked() {
    let lock = std::fs::read_to_string(repository().join("Cargo.lock")).expect("Cargo.lock");
    let linked = lock.split("[[package]]").find(|package| package.contains("\nname = \"wasmtime\"\n"));
    let version = linked
        .and_then(|package| package.lines().find_map(|line| line.strip_prefix("version = ")))
        .expect("wasmtime is in Cargo.lock")
        .trim_matches('"');
    let engine = aether_runtime::ENGINE_VERSION.split_once('+').map(|(engine, _)| engine);
    assert_eq!(engine, Some(format!("wasmtime {version}").as_str()));
    let (resolve, package) = resolve();
    let name = &resolve.packages[package].name;
    assert_eq!(name.version.as_ref().map(ToString::to_string).as_deref(), Some(aether_runtime::WIT_VERSION));
}
