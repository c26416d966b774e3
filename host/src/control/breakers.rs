//! Breakers as the driver uses them: where a node stands, what opened one, and who resets it.

use super::{Control, locked};
use crate::{
    clock,
    fabric::{Fabric, fact_of_label},
    store::{self, Store},
};
use aether_core::{
    audit::Act,
    breaker::{self, Beginning, Breakers, Open, Scope, ScopeKind, Standing},
    id::{IncidentId, NodeId},
    incident::{Incident, Reservation},
    order::Direction,
    time::Time,
};
use std::collections::{BTreeMap, BTreeSet};

/// The scopes that a node stands in, each with how many nodes are there: itself, what its labels say, the fleet.
fn scopes(node: &NodeId, fabric: &Fabric) -> Vec<(Scope, u32)> {
    let mut scopes = vec![(Scope { kind: ScopeKind::Node, name: node.0.clone() }, 1)];
    let here = fabric.node(node);
    for kind in [ScopeKind::Pool, ScopeKind::Rack, ScopeKind::Tenant] {
        let label = fact_of_label(kind.name());
        if let Some(name) = here.as_ref().and_then(|here| here.facts.get(&label)) {
            let size = fabric.survey(|nodes| nodes.filter(|node| node.label(&label) == Some(name)).count());
            scopes.push((Scope { kind, name: name.to_owned() }, u32::try_from(size).unwrap_or(u32::MAX)));
        }
    }
    let fleet = fabric.survey(|nodes| nodes.count());
    scopes.push((Scope::fleet(), u32::try_from(fleet).unwrap_or(u32::MAX)));
    scopes
}

/// As they stood when the host stopped. `acting`: incidents that have begun and not ended.
pub(super) async fn restored(
    limits: breaker::Limits,
    store: &Store,
    fabric: &Fabric,
    acting: &BTreeSet<IncidentId>,
    now: Time,
) -> Result<Breakers, store::Error> {
    let since = now.minus_ms(limits.window_ms);
    let mut breakers = Breakers::new(limits);
    let mut reset: BTreeMap<Scope, Time> = BTreeMap::new();
    for kept in store.breakers().await? {
        if let Some((at, reason)) = kept.open {
            breakers.restore(kept.scope.clone(), at, reason);
        }
        if let Some(at) = kept.reset_at {
            reset.insert(kept.scope, at);
        }
    }
    for begun in store.begun(since).await? {
        if breaker::is_recovery(&begun.verb) {
            continue;
        }
        let counted: Vec<_> = scopes(&begun.node, fabric)
            .into_iter()
            .filter(|(scope, _)| reset.get(scope).is_none_or(|at| begun.at > *at))
            .collect();
        if acting.contains(&begun.incident) {
            breakers.begun(begun.at, &begun.incident, &begun.node, &counted);
        } else {
            breakers.count(begun.at, &begun.node, &counted);
        }
    }
    Ok(breakers)
}

impl Control {
    /// Those that are open or have something to count.
    pub fn breakers(&self) -> Vec<Standing> {
        locked(&self.0.breakers).standing(clock::now())
    }

    /// Closes one; false if it is not open. `act`: what the audit is told.
    pub async fn reset_breaker(&self, scope: &Scope, act: Act) -> Result<bool, store::Error> {
        let open = self.breakers().into_iter().any(|standing| standing.scope == *scope && standing.opened_at.is_some());
        if !open {
            return Ok(false);
        }
        // On disk first: a breaker that is closed here alone would be open again after a restart, which is the safe way.
        let by = act.principal.clone();
        self.0.store.reset_breaker(scope, clock::now(), &by, act).await?;
        Ok(locked(&self.0.breakers).reset(scope))
    }

    /// Whether an incident may begin its first step. Undoing and going on are never asked for.
    pub(super) async fn may_begin(
        &self,
        incident: &Incident,
        reservation: &Reservation,
        now: Time,
    ) -> Result<(), Open> {
        if reservation.direction == Direction::Compensate || reservation.step > 0 {
            return Ok(());
        }
        let scopes = scopes(&reservation.node, &self.0.fabric);
        let beginning = Beginning {
            incident: &incident.id,
            direction: reservation.direction,
            recovers: incident.plan.as_ref().is_some_and(breaker::recovers),
            node: &reservation.node,
            scopes: &scopes,
        };
        let admitted = locked(&self.0.breakers).admit(now, &beginning);
        let Err(open) = admitted else { return Ok(()) };
        if open.fresh {
            metrics::counter!("aether_breakers_opened_total", "scope" => open.scope.kind.name()).increment(1);
            let detail = [("reason", open.reason.clone()), ("incident", incident.id.0.clone())];
            let detail = detail.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
            let act = Act::by_itself("breaker.open", format!("breaker/{}", open.scope), detail);
            let kept = self.0.store.open_breaker(&open.scope, now, &open.reason, &incident.id, act).await;
            if let Err(error) = kept {
                // It is open here all the same, and what made it so is counted again after a restart.
                tracing::error!(breaker = %open.scope, error = &error as &dyn std::error::Error,
                    "a breaker opened and could not be written down");
            }
        }
        tracing::warn!(incident.id = %incident.id, breaker = %open.scope, reason = open.reason, "not begun: a breaker is open");
        Err(open)
    }

    /// The first step was admitted and reserved.
    pub(super) fn has_begun(&self, incident: &Incident, reservation: &Reservation, now: Time) {
        let recovers = incident.plan.as_ref().is_some_and(breaker::recovers);
        if reservation.direction == Direction::Forward && reservation.step == 0 && !recovers {
            let scopes = scopes(&reservation.node, &self.0.fabric);
            locked(&self.0.breakers).begun(now, &incident.id, &reservation.node, &scopes);
        }
    }
}
