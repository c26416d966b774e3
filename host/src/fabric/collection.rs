//! What agents are told to collect: a person's word for the whole fleet, and another for single nodes. Each session watches
//! it and tells its agent at once; an agent follows within what its own configuration permits, and says what it did not.

use super::Settings;
use aether_core::{
    id::{NodeId, PrincipalId},
    time::Time,
};
use aether_proto::v1;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use utoipa::ToSchema;

/// Sources and groups that one word may name.
const SOURCES_MAXIMUM: usize = 128;
const INTERVAL_MS: std::ops::RangeInclusive<u32> = 100..=600_000;

/// What is wanted of an agent's telemetry. What is left out stays as the host's and the node's configurations have it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Collection {
    /// Between two samples of all that have no longer interval of their own; 100 ms to 10 min.
    pub sample_interval_ms: Option<u32>,
    /// Between two batches; 100 ms to 10 min.
    pub batch_interval_ms: Option<u32>,
    /// Sources, and groups of them, that are switched off.
    pub disabled_sources: BTreeSet<String>,
    /// Of single sources; 100 ms to 10 min.
    pub intervals_ms: BTreeMap<String, u32>,
    /// What all eBPF sources together may take of the time that processors are busy, in thousandths; 0 to 1,000.
    pub bpf_budget_permille: Option<u32>,
}

impl Collection {
    /// What is wrong with it, if anything.
    pub fn check(&self) -> Result<(), String> {
        let Self { sample_interval_ms, batch_interval_ms, disabled_sources, intervals_ms, bpf_budget_permille } = self;
        let whole = [("sample_interval_ms", sample_interval_ms), ("batch_interval_ms", batch_interval_ms)];
        let whole = whole.into_iter().filter_map(|(name, ms)| Some((name.to_owned(), (*ms)?)));
        let single = intervals_ms.iter().map(|(source, ms)| (format!("intervals_ms.{source}"), *ms));
        for (name, ms) in whole.chain(single) {
            if !INTERVAL_MS.contains(&ms) {
                return Err(format!("`{name}` is {ms}: an interval is 100 to 600,000 ms"));
            }
        }
        if let Some(permille) = bpf_budget_permille.filter(|permille| *permille > 1_000) {
            return Err(format!("`bpf_budget_permille` is {permille}: it is 0 to 1,000"));
        }
        if disabled_sources.len() + intervals_ms.len() > SOURCES_MAXIMUM {
            return Err(format!("more than {SOURCES_MAXIMUM} sources are named"));
        }
        match disabled_sources.iter().chain(intervals_ms.keys()).find(|source| !aether_core::id::is_name(source)) {
            Some(source) => Err(format!("`{source}` is no name of a source; docs/metrics.md has them all")),
            None => Ok(()),
        }
    }
}

/// What a person wanted last of the fleet, or of one node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Configured {
    /// Rises with each change of any.
    pub version: u64,
    /// None: the fleet, but for nodes that have their own.
    pub node: Option<NodeId>,
    /// None: it was taken back.
    pub collection: Option<Collection>,
    pub by: PrincipalId,
    pub name: String,
    pub at: Time,
    pub reason: String,
}

/// The newest word on the fleet and on each node that has one.
#[derive(Clone, Debug, Default)]
pub(crate) struct Collections(BTreeMap<Option<NodeId>, Configured>);

impl FromIterator<Configured> for Collections {
    fn from_iter<I: IntoIterator<Item = Configured>>(all: I) -> Self {
        let mut collections = Self::default();
        all.into_iter().for_each(|configured| collections.put(configured));
        collections
    }
}

impl Collections {
    /// Two words at one time may come in any order: the one with the higher version stands.
    pub(crate) fn put(&mut self, configured: Configured) {
        let known = self.0.get(&configured.node).map_or(0, |known| known.version);
        if configured.version > known {
            self.0.insert(configured.node.clone(), configured);
        }
    }

    /// What is in force, the fleet's first.
    pub(crate) fn in_force(&self) -> Vec<Configured> {
        self.0.values().filter(|configured| configured.collection.is_some()).cloned().collect()
    }

    /// What an agent is told. A node's own word takes the place of the fleet's as a whole.
    pub(crate) fn of(&self, node: &NodeId, settings: &Settings) -> v1::AgentConfig {
        let words = [self.0.get(&Some(node.clone())), self.0.get(&None)];
        // A word that was taken back is news as well.
        let version = words.iter().flatten().map(|word| word.version).max().unwrap_or(0);
        let wanted = words.into_iter().flatten().find_map(|word| word.collection.clone()).unwrap_or_default();
        let Collection { sample_interval_ms, batch_interval_ms, disabled_sources, intervals_ms, bpf_budget_permille } =
            wanted;
        let asked_for = [("sample_interval_ms", sample_interval_ms), ("batch_interval_ms", batch_interval_ms)];
        v1::AgentConfig {
            version,
            sample_interval_ms: sample_interval_ms.unwrap_or(settings.sample_interval_ms),
            batch_interval_ms: batch_interval_ms.unwrap_or(settings.batch_interval_ms),
            disabled_sources: disabled_sources.into_iter().collect(),
            intervals_ms: intervals_ms.into_iter().collect(),
            bpf_budget_permille,
            asked_for: asked_for.into_iter().filter(|(_, ms)| ms.is_some()).map(|(name, _)| name.to_owned()).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn word(version: u64, node: Option<&str>, sample_interval_ms: Option<u32>) -> Configured {
        let collection =
            sample_interval_ms.map(|ms| Collection { sample_interval_ms: Some(ms), ..Collection::default() });
        Configured {
            version,
            node: node.map(NodeId::new),
            collection,
            by: PrincipalId("ann".into()),
            name: "ann".into(),
            at: Time(0),
            reason: "to see".into(),
        }
    }

    #[test]
    fn a_nodes_own_word_stands_in_place_of_the_fleets() {
        let settings = Settings::default();
        let told = |words: &[Configured], node: &str| {
            let config = words.iter().cloned().collect::<Collections>().of(&NodeId::new(node), &settings);
            (config.version, config.sample_interval_ms)
        };
        let (fleet, own) = (word(1, None, Some(5_000)), word(2, Some("node-a"), Some(200)));
        let back = word(3, Some("node-a"), None);
        let default = settings.sample_interval_ms;
        assert_eq!(told(&[], "node-a"), (0, default));
        assert_eq!(told(std::slice::from_ref(&fleet), "node-a"), (1, 5_000));
        assert_eq!(told(&[fleet.clone(), own.clone()], "node-a"), (2, 200));
        assert_eq!(told(&[fleet.clone(), own.clone()], "node-b"), (1, 5_000));
        assert_eq!(
            told(&[back.clone(), fleet.clone(), own.clone()], "node-a"),
            (3, 5_000),
            "in whatever order they come"
        );
        assert_eq!(told(&[fleet, own, back, word(4, None, None)], "node-a"), (4, default));
    }

    #[test]
    fn what_no_agent_could_follow_is_refused() {
        let reason = |text: &str| serde_json::from_str::<Collection>(text).unwrap().check().err();
        assert_eq!(
            reason(r#"{"sample_interval_ms":100,"intervals_ms":{"perf":600000},"bpf_budget_permille":0}"#),
            None
        );
        for (text, part) in [
            (r#"{"sample_interval_ms":99}"#, "`sample_interval_ms` is 99"),
            (r#"{"batch_interval_ms":600001}"#, "`batch_interval_ms` is 600001"),
            (r#"{"intervals_ms":{"perf":0}}"#, "`intervals_ms.perf` is 0"),
            (r#"{"bpf_budget_permille":1001}"#, "it is 0 to 1,000"),
            (r#"{"disabled_sources":["a b"]}"#, "`a b` is no name of a source"),
        ] {
            let said = reason(text).unwrap_or_default();
            assert!(said.contains(part), "{text}: {said}");
        }
        assert!(serde_json::from_str::<Collection>(r#"{"sources":[]}"#).is_err(), "a field that is not known");
    }
}
