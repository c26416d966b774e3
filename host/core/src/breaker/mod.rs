//! Breakers: how much may be begun within a node, a pool, a rack, a tenant and the fleet before a person has to look.
//!
//! A breaker counts what was begun in its scope within a window: incidents by number, and the nodes that they began on
//! as a share of the scope's nodes. The beginning that would go beyond either opens it; it stays open, over restarts,
//! until an operator resets it. An open breaker says that something acts more often than anybody meant: the cause may be
//! the policy itself.
//!
//! It never stands in the way of getting back: undoing, what an incident goes on with once it has begun, and plans that
//! do nothing but recover are neither refused nor counted.

#[cfg(test)]
mod tests;

use crate::{
    id::{IncidentId, NodeId},
    order::Direction,
    plan::Plan,
    time::Time,
};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use thiserror::Error;
use utoipa::ToSchema;

/// Verbs that give back what was taken. A plan of these alone is recovery.
const RECOVERY: [&str; 6] =
    ["process.resume", "process.thaw", "cgroup.restore", "gpu.restore", "node.undrain", "node.wake"];

/// Whether a plan does nothing but recover.
pub fn recovers(plan: &Plan) -> bool {
    !plan.steps.is_empty() && plan.steps.iter().all(|step| is_recovery(&step.verb))
}

/// Whether a verb gives back what was taken.
pub fn is_recovery(verb: &str) -> bool {
    RECOVERY.contains(&verb)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ScopeKind {
    Node,
    Pool,
    Rack,
    Tenant,
    Fleet,
}

impl ScopeKind {
    pub const ALL: [ScopeKind; 5] =
        [ScopeKind::Node, ScopeKind::Pool, ScopeKind::Rack, ScopeKind::Tenant, ScopeKind::Fleet];

    /// Also the label of a node that puts it into the scope.
    pub fn name(self) -> &'static str {
        match self {
            ScopeKind::Node => "node",
            ScopeKind::Pool => "pool",
            ScopeKind::Rack => "rack",
            ScopeKind::Tenant => "tenant",
            ScopeKind::Fleet => "fleet",
        }
    }
}

/// What one breaker watches: `fleet`, or such as `node/node-a` and `pool/spot`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
pub struct Scope {
    pub kind: ScopeKind,
    /// Empty for the fleet.
    pub name: String,
}

impl Scope {
    pub fn fleet() -> Self {
        Self { kind: ScopeKind::Fleet, name: String::new() }
    }

    pub fn parse(text: &str) -> Option<Self> {
        if text == ScopeKind::Fleet.name() {
            return Some(Self::fleet());
        }
        let (kind, name) = text.split_once('/')?;
        let kind = ScopeKind::ALL.into_iter().find(|known| known.name() == kind && *known != ScopeKind::Fleet)?;
        (!name.is_empty()).then(|| Self { kind, name: name.into() })
    }
}

impl std::fmt::Display for Scope {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.kind {
            ScopeKind::Fleet => f.write_str(self.kind.name()),
            ScopeKind::Node | ScopeKind::Pool | ScopeKind::Rack | ScopeKind::Tenant => {
                write!(f, "{}/{}", self.kind.name(), self.name)
            }
        }
    }
}

/// How much may be begun in one scope within the window.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Limit {
    /// Incidents that begin to act.
    pub count: u32,
    /// Nodes that they begin on, as a share of the scope's; 100: no limit. The first two never open a breaker by their
    /// share, or none could ever be acted on in a small scope.
    pub percent: u8,
}

/// The limits of each kind of scope.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    pub window_ms: u64,
    pub node: Limit,
    pub pool: Limit,
    pub rack: Limit,
    pub tenant: Limit,
    pub fleet: Limit,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            window_ms: 3_600_000,
            node: Limit { count: 6, percent: 100 },
            pool: Limit { count: 20, percent: 25 },
            rack: Limit { count: 10, percent: 50 },
            tenant: Limit { count: 20, percent: 50 },
            fleet: Limit { count: 50, percent: 20 },
        }
    }
}

impl Limits {
    pub fn of(&self, kind: ScopeKind) -> &Limit {
        match kind {
            ScopeKind::Node => &self.node,
            ScopeKind::Pool => &self.pool,
            ScopeKind::Rack => &self.rack,
            ScopeKind::Tenant => &self.tenant,
            ScopeKind::Fleet => &self.fleet,
        }
    }
}

/// Nodes whose share is not looked at: see [`Limit::percent`].
const SHARE_FROM_NODES: usize = 3;

/// An incident that wants to begin on a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Beginning<'a> {
    pub incident: &'a IncidentId,
    pub direction: Direction,
    /// Whether its plan does nothing but recover.
    pub recovers: bool,
    pub node: &'a NodeId,
    /// Where the node stands, each with how many nodes are there.
    pub scopes: &'a [(Scope, u32)],
}

/// Why nothing begins.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("the breaker of {scope} is open: {reason}; an operator resets it with `aether breaker reset {scope}`")]
pub struct Open {
    pub scope: Scope,
    pub reason: String,
    /// It was this beginning that opened it.
    pub fresh: bool,
}

impl Open {
    pub const CODE: &'static str = "breaker.open";
}

#[derive(Clone, Debug, Default)]
struct Breaker {
    /// Since when, and why.
    open: Option<(Time, String)>,
    begun: Vec<(Time, NodeId)>,
}

/// How one breaker stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = BreakerStanding)]
pub struct Standing {
    pub scope: Scope,
    /// None: it is closed.
    pub opened_at: Option<Time>,
    pub reason: Option<String>,
    /// Begun within the window.
    pub begun: u32,
    /// Nodes that it was begun on.
    pub nodes: u32,
    pub limit: Limit,
}

#[derive(Clone, Debug, Default)]
pub struct Breakers {
    limits: Limits,
    all: BTreeMap<Scope, Breaker>,
    /// Incidents that have begun and not ended.
    going: BTreeSet<IncidentId>,
}

impl Breakers {
    pub fn new(limits: Limits) -> Self {
        Self { limits, all: BTreeMap::new(), going: BTreeSet::new() }
    }

    /// Whether it may begin now. Whoever then begins says so with [`Breakers::begun`].
    pub fn admit(&mut self, now: Time, beginning: &Beginning<'_>) -> Result<(), Open> {
        let Beginning { incident, direction, recovers, node, scopes } = *beginning;
        if direction == Direction::Compensate || recovers || self.going.contains(incident) {
            return Ok(());
        }
        self.forget(now);
        for (scope, _) in scopes {
            if let Some((_, reason)) = self.all.get(scope).and_then(|breaker| breaker.open.as_ref()) {
                return Err(Open { scope: scope.clone(), reason: reason.clone(), fresh: false });
            }
        }
        for (scope, size) in scopes {
            let limit = self.limits.of(scope.kind);
            let breaker = self.all.entry(scope.clone()).or_default();
            if let Some(reason) = breaker.beyond(limit, node, *size, self.limits.window_ms) {
                breaker.open = Some((now, reason.clone()));
                return Err(Open { scope: scope.clone(), reason, fresh: true });
            }
        }
        Ok(())
    }

    /// What was admitted has begun. After a restart: `at` some time ago.
    pub fn begun(&mut self, at: Time, incident: &IncidentId, node: &NodeId, scopes: &[(Scope, u32)]) {
        if self.going.insert(incident.clone()) {
            self.count(at, node, scopes);
        }
    }

    /// What had begun and ended before a restart.
    pub fn count(&mut self, at: Time, node: &NodeId, scopes: &[(Scope, u32)]) {
        for (scope, _) in scopes {
            self.all.entry(scope.clone()).or_default().begun.push((at, node.clone()));
        }
    }

    pub fn ended(&mut self, incident: &IncidentId) {
        self.going.remove(incident);
    }

    /// After a restart: it was open.
    pub fn restore(&mut self, scope: Scope, opened_at: Time, reason: String) {
        self.all.entry(scope).or_default().open = Some((opened_at, reason));
    }

    /// Closes it, and forgets what was begun in its scope; false if it was not open.
    pub fn reset(&mut self, scope: &Scope) -> bool {
        let Some(breaker) = self.all.get_mut(scope) else { return false };
        let was_open = breaker.open.is_some();
        if was_open {
            self.all.remove(scope);
        }
        was_open
    }

    /// Those that are open or have something to count, in order of scope.
    pub fn standing(&mut self, now: Time) -> Vec<Standing> {
        self.forget(now);
        let standing = |(scope, breaker): (&Scope, &Breaker)| Standing {
            scope: scope.clone(),
            opened_at: breaker.open.as_ref().map(|(at, _)| *at),
            reason: breaker.open.as_ref().map(|(_, reason)| reason.clone()),
            begun: saturating(breaker.begun.len()),
            nodes: saturating(breaker.nodes().len()),
            limit: self.limits.of(scope.kind).clone(),
        };
        self.all.iter().map(standing).collect()
    }

    fn forget(&mut self, now: Time) {
        let since = now.minus_ms(self.limits.window_ms);
        self.all.retain(|_, breaker| {
            breaker.begun.retain(|(at, _)| *at >= since);
            breaker.open.is_some() || !breaker.begun.is_empty()
        });
    }
}

impl Breaker {
    fn nodes(&self) -> BTreeSet<&NodeId> {
        self.begun.iter().map(|(_, node)| node).collect()
    }

    /// What one more on `node` would go beyond.
    fn beyond(&self, limit: &Limit, node: &NodeId, size: u32, window_ms: u64) -> Option<String> {
        if saturating(self.begun.len()) >= limit.count {
            return Some(format!("{} actions were begun there within {window_ms} ms, the most that may", limit.count));
        }
        let mut nodes = self.nodes();
        nodes.insert(node);
        let share = u64::from(saturating(nodes.len())) * 100;
        let allowed = u64::from(limit.percent) * u64::from(size.max(1));
        (limit.percent < 100 && nodes.len() >= SHARE_FROM_NODES && share > allowed).then(|| {
            format!(
                "one more would make it {} of {size} nodes within {window_ms} ms, and {} % is the most that may",
                nodes.len(),
                limit.percent
            )
        })
    }
}

fn saturating(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}
