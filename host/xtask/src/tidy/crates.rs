//! Crate directions: `core <- {runtime, proto, recorder} <- host`, `{core, proto} <- agent`, and what must never reach
//! whose dependency tree.
//!
//! Read from `cargo metadata`, so renamed and feature-gated dependencies are seen too. Dev-dependencies are left out:
//! they do not ship, and an integration test may need the other side.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

/// Which of our crates each of our crates may depend on directly. A crate that is missing here breaks the rule.
const DIRECTIONS: &[(&str, &[&str])] = &[
    ("aether-core", &[]),
    ("aether-proto", &["aether-core"]),
    ("aether-runtime", &["aether-core"]),
    ("aether-recorder", &["aether-core"]),
    ("aether-agent", &["aether-core", "aether-proto"]),
    ("aether-host", &["aether-core", "aether-proto", "aether-recorder", "aether-runtime"]),
    // Ships nowhere: it runs the real parts under a clock of its own.
    (
        "aether-sim",
        &["aether-core", "aether-agent", "aether-host", "aether-proto", "aether-recorder", "aether-runtime"],
    ),
    // Builds nothing that ships: it asks what was built.
    ("aether-conformance", &["aether-core", "aether-runtime"]),
    ("xtask", &[]),
];

/// A dependency that must not be reachable, at any depth.
struct Ban {
    crate_name: &'static str,
    banned: &'static [&'static str],
    /// What lies behind these is not followed.
    opaque: &'static [&'static str],
    why: &'static str,
}

const BANS: &[Ban] = &[
    Ban {
        crate_name: "aether-core",
        banned: &["tokio", "sqlx", "wasmtime", "axum", "tonic"],
        opaque: &[],
        why: "the kernel is pure: all waiting, storing and talking is its driver's",
    },
    Ban {
        crate_name: "aether-agent",
        banned: &["wasmtime", "sqlx"],
        opaque: &[],
        why: "the agent acts and never decides, and stays small on every node",
    },
    Ban {
        crate_name: "aether-agent",
        banned: &["axum"],
        // tonic brings axum along where another crate of the workspace serves with it; the agent only dials.
        opaque: &["tonic", "tonic-prost", "tonic-health"],
        why: "the agent serves nothing: it has no port to attack",
    },
];

/// Crates with one owner: nobody else names them.
const OWNED: &[(&str, &str)] = &[("wasmtime", "aether-runtime")];

#[derive(Debug, Deserialize)]
pub(super) struct Metadata {
    packages: Vec<Package>,
    workspace_members: BTreeSet<String>,
    resolve: Resolve,
}

#[derive(Debug, Deserialize)]
struct Package {
    id: String,
    name: String,
}

#[derive(Debug, Deserialize)]
struct Resolve {
    nodes: Vec<Node>,
}

#[derive(Debug, Deserialize)]
struct Node {
    id: String,
    deps: Vec<Edge>,
}

#[derive(Debug, Deserialize)]
struct Edge {
    pkg: String,
    dep_kinds: Vec<Kind>,
}

#[derive(Debug, Deserialize)]
struct Kind {
    /// Absent for a normal dependency, else `build` or `dev`.
    kind: Option<String>,
}

impl Metadata {
    pub(super) fn of(root: &Path) -> Result<Self> {
        let output = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
            .args(["metadata", "--format-version", "1", "--locked", "--all-features"])
            .current_dir(root)
            .output()
            .context("cargo metadata could not be started")?;
        ensure!(output.status.success(), "cargo metadata: {}", String::from_utf8_lossy(&output.stderr).trim());
        serde_json::from_slice(&output.stdout).context("cargo metadata printed something unexpected")
    }
}

/// The dependency graph by package id, dev-dependencies left out.
struct Graph<'a> {
    names: BTreeMap<&'a str, &'a str>,
    edges: BTreeMap<&'a str, Vec<&'a str>>,
    members: Vec<&'a str>,
}

impl<'a> Graph<'a> {
    fn new(metadata: &'a Metadata) -> Self {
        let ships = |edge: &&Edge| edge.dep_kinds.iter().any(|kind| kind.kind.as_deref() != Some("dev"));
        let names: BTreeMap<_, _> =
            metadata.packages.iter().map(|package| (package.id.as_str(), package.name.as_str())).collect();
        let edges = metadata
            .resolve
            .nodes
            .iter()
            .map(|node| (node.id.as_str(), node.deps.iter().filter(ships).map(|edge| edge.pkg.as_str()).collect()))
            .collect();
        let mut members: Vec<_> = metadata.workspace_members.iter().map(String::as_str).collect();
        members.sort_by_key(|id| names.get(id));
        Self { names, edges, members }
    }

    fn name(&self, id: &str) -> &'a str {
        self.names.get(id).copied().unwrap_or("(a package without metadata)")
    }

    fn direct(&self, id: &str) -> &[&'a str] {
        self.edges.get(id).map_or(&[], Vec::as_slice)
    }

    /// The shortest chain of names from `from` to a package called `to`.
    fn chain(&self, from: &'a str, to: &str, opaque: &[&str]) -> Option<Vec<&'a str>> {
        let mut came_from: BTreeMap<&str, &'a str> = BTreeMap::new();
        let mut queue = VecDeque::from([from]);
        while let Some(id) = queue.pop_front() {
            if id != from && self.name(id) == to {
                let mut chain = vec![id];
                while let Some(&previous) = chain.last().and_then(|last| came_from.get(last)) {
                    chain.push(previous);
                }
                return Some(chain.into_iter().rev().map(|id| self.name(id)).collect());
            }
            if opaque.contains(&self.name(id)) {
                continue;
            }
            for &next in self.direct(id) {
                if next != from && !came_from.contains_key(next) {
                    came_from.insert(next, id);
                    queue.push_back(next);
                }
            }
        }
        None
    }
}

pub(super) fn check(metadata: &Metadata) -> Vec<String> {
    let graph = Graph::new(metadata);
    let mut broken = Vec::new();
    for &member in &graph.members {
        let name = graph.name(member);
        match DIRECTIONS.iter().find(|(known, _)| *known == name) {
            None => broken.push(format!("{name}: has no row in the crate directions; say what it may depend on")),
            Some((_, allowed)) => {
                let ours = graph.direct(member).iter().filter(|id| graph.members.contains(id));
                for other in ours.map(|id| graph.name(id)).filter(|other| !allowed.contains(other)) {
                    broken.push(format!("{name}: must not depend on {other}"));
                }
            }
        }
        for ban in BANS.iter().filter(|ban| ban.crate_name == name) {
            for banned in ban.banned {
                if let Some(chain) = graph.chain(member, banned, ban.opaque) {
                    broken.push(format!("{name}: {} ({})", chain.join(" -> "), ban.why));
                }
            }
        }
        for (owned, owner) in OWNED.iter().filter(|(_, owner)| *owner != name) {
            if graph.direct(member).iter().any(|id| graph.name(id) == *owned) {
                broken.push(format!("{name}: must not depend on {owned}, which is only {owner}'s"));
            }
        }
    }
    broken
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// A workspace of `members` in which each `(from, to, kind)` is a dependency.
    fn broken(members: &[&str], edges: &[(&str, &str, Option<&str>)]) -> Vec<String> {
        let all: BTreeSet<&str> =
            members.iter().copied().chain(edges.iter().flat_map(|(from, to, _)| [*from, *to])).collect();
        let node = |id: &str| {
            let deps: Vec<_> = edges.iter().filter(|(from, ..)| *from == id).collect();
            let deps: Vec<_> =
                deps.iter().map(|(_, to, kind)| json!({"pkg": to, "dep_kinds": [{"kind": kind}]})).collect();
            json!({"id": id, "deps": deps})
        };
        let metadata = json!({
            "packages": all.iter().map(|name| json!({"id": name, "name": name})).collect::<Vec<_>>(),
            "workspace_members": members,
            "resolve": {"nodes": all.iter().map(|id| node(id)).collect::<Vec<_>>()},
        });
        check(&serde_json::from_value(metadata).unwrap())
    }

    #[test]
    fn the_intended_house_is_tidy() {
        let edges = [
            ("aether-proto", "aether-core", None),
            ("aether-runtime", "aether-core", None),
            ("aether-runtime", "wasmtime", None),
            ("aether-agent", "aether-proto", None),
            ("aether-host", "aether-runtime", None),
            ("aether-host", "axum", None),
        ];
        let members = ["aether-core", "aether-proto", "aether-runtime", "aether-agent", "aether-host"];
        assert_eq!(broken(&members, &edges), Vec::<String>::new());
    }

    #[test]
    fn a_direction_against_the_house_is_told() {
        let edges = [("aether-core", "aether-proto", None), ("aether-agent", "aether-host", Some("build"))];
        assert_eq!(
            broken(&["aether-core", "aether-proto", "aether-agent", "aether-host"], &edges),
            ["aether-agent: must not depend on aether-host", "aether-core: must not depend on aether-proto"]
        );
    }

    #[test]
    fn a_ban_is_found_at_depth_and_told_with_its_chain() {
        let edges = [("aether-core", "innocent", None), ("innocent", "hyper", None), ("hyper", "tokio", None)];
        let told = broken(&["aether-core"], &edges);
        assert_eq!(told.len(), 1);
        assert!(told[0].starts_with("aether-core: aether-core -> innocent -> hyper -> tokio ("), "{told:?}");
    }

    #[test]
    fn what_only_tests_use_does_not_count() {
        let edges = [("aether-core", "proptest", Some("dev")), ("proptest", "tokio", None)];
        assert_eq!(broken(&["aether-core"], &edges), Vec::<String>::new());
    }

    #[test]
    fn the_agent_may_dial_with_tonic_but_not_serve() {
        let dials = [("aether-agent", "tonic", None), ("tonic", "axum", None)];
        assert_eq!(broken(&["aether-agent"], &dials), Vec::<String>::new());
        let serves = [("aether-agent", "tonic", None), ("aether-agent", "axum", None)];
        assert_eq!(broken(&["aether-agent"], &serves).len(), 1);
    }

    #[test]
    fn a_crate_with_one_owner_is_named_by_no_other() {
        let told = broken(&["aether-host", "aether-runtime"], &[("aether-host", "wasmtime", None)]);
        assert_eq!(told, ["aether-host: must not depend on wasmtime, which is only aether-runtime's"]);
    }

    #[test]
    fn a_new_crate_must_say_its_direction() {
        assert_eq!(broken(&["aether-new"], &[]).len(), 1);
    }

    #[test]
    fn a_cycle_ends() {
        let edges = [("aether-core", "a", None), ("a", "b", None), ("b", "a", None), ("b", "aether-core", None)];
        assert_eq!(broken(&["aether-core"], &edges), Vec::<String>::new());
    }
}
