//! Drills: troubles to practise on, against a node that allows them. A drill is started by an operator, runs alone, is
//! in the audit, and is followed until it is over: what is seen of it is compared with the story that is expected
//! ([`aether_core::drill`]).
//!
//! The disturbance is made and undone by the node's agent, which ends it by itself at its time; signals of a market are
//! played from here. Everything after that is what happens on any other day.

mod follow;
mod market;

use crate::{
    clock,
    control::Control,
    fabric::Fabric,
    store::{self, Store, drills::Drill},
};
use aether_core::{
    audit::{Act, ActOutcome},
    drill::{Facts, Kind},
    id::{DrillId, NodeId, PrincipalId},
    incident::Rank,
};
use aether_recorder::Recorder;
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};
use thiserror::Error;
use tokio::sync::Notify;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// How short and how long a disturbance can be asked for.
const LEAST_MS: u64 = 5_000;
const LONGEST_MS: u64 = 3_600_000;

#[derive(Debug, Error)]
pub enum Error {
    #[error("there is no node `{0}`")]
    NoNode(NodeId),
    #[error("the drill was not started: {0}")]
    Refused(String),
    #[error("the drill {0} runs; one at a time, so that it is known what follows from what. Stop it, or wait")]
    Running(DrillId),
    #[error("the drill {0} is over already")]
    Over(DrillId),
    #[error("there is no drill `{0}`")]
    Unknown(DrillId),
    #[error(transparent)]
    Store(#[from] store::Error),
}

/// What drills work with.
pub struct Parts {
    pub store: Store,
    pub recorder: Recorder,
    pub fabric: Fabric,
    pub control: Control,
    pub tasks: TaskTracker,
    pub stop: CancellationToken,
}

/// Who asks.
#[derive(Clone, Debug)]
pub struct By {
    pub id: PrincipalId,
    pub name: String,
    pub rank: Rank,
}

/// Cheap to clone.
#[derive(Clone)]
pub struct Drills(Arc<Inner>);

struct Inner {
    parts: Parts,
    market: market::Market,
    /// The drill that was asked to end, and the news of it.
    stopping: Mutex<Option<DrillId>>,
    news: Notify,
}

impl Drills {
    /// Goes on with the drill that ran when the host stopped.
    pub async fn open(parts: Parts) -> Result<Self, store::Error> {
        let running = parts.store.running_drill().await?;
        let market = market::Market::new(clock::now());
        let drills = Self(Arc::new(Inner { parts, market, stopping: Mutex::default(), news: Notify::new() }));
        if let Some(drill) = running {
            tracing::info!(drill = %drill.id, kind = drill.kind.name(), "a drill runs, and is followed");
            drills.0.parts.tasks.spawn(drills.clone().follow(drill, false));
        }
        Ok(drills)
    }

    /// Returns once it is written down; the disturbance begins right after.
    pub async fn start(&self, kind: Kind, node: NodeId, limit_ms: Option<u64>, by: By) -> Result<Drill, Error> {
        let Parts { store, fabric, tasks, .. } = &self.0.parts;
        let limit_ms = limit_ms.unwrap_or(kind.limit_ms());
        let view = fabric.node(&node).ok_or_else(|| Error::NoNode(node.clone()))?;
        let capability = view.capabilities.iter().find(|one| one.name == kind.capability());
        let refused = match capability {
            _ if !(LEAST_MS..=LONGEST_MS).contains(&limit_ms) => {
                Some(format!("it can last {LEAST_MS} ms to {LONGEST_MS} ms, not {limit_ms} ms"))
            }
            _ if !view.live => Some(format!("{node} has no live agent")),
            None => Some(format!("the agent of {node} is of a version without drills")),
            Some(capability) if !capability.available => Some(format!("{node}: {}", capability.reason)),
            Some(_) => None,
        };
        let now = clock::now();
        let drill = Drill {
            id: DrillId(clock::id("drill")),
            kind,
            node,
            by: by.id.clone(),
            name: by.name.clone(),
            started_at: now,
            until: now.plus_ms(limit_ms),
            stopped_at: None,
            over_at: None,
            facts: Facts::default(),
            score: vec![],
            passed: None,
        };
        let limit = ("limit-ms", limit_ms.to_string());
        if let Some(why) = refused {
            let act = act(&drill, &by, "drill.start", ActOutcome::Refused, [limit, ("reason", why.clone())]);
            store.audit(now, act).await?;
            return Err(Error::Refused(why));
        }
        if !store.start_drill(&drill, act(&drill, &by, "drill.start", ActOutcome::Done, [limit])).await? {
            return match store.running_drill().await? {
                Some(running) => Err(Error::Running(running.id)),
                None => Err(Error::Refused("another has ended just now; start it again".into())),
            };
        }
        tracing::warn!(drill = %drill.id, kind = kind.name(), node.id = %drill.node, "a drill starts");
        tasks.spawn(self.clone().follow(drill.clone(), true));
        Ok(drill)
    }

    /// Asks for its end. It is over once it is seen to be undone, or was given up.
    pub async fn stop(&self, id: &DrillId, by: By) -> Result<Drill, Error> {
        let store = &self.0.parts.store;
        let drill = store.drill(id).await?.ok_or_else(|| Error::Unknown(id.clone()))?;
        if drill.over_at.is_some() {
            return Err(Error::Over(id.clone()));
        }
        store.audit(clock::now(), act(&drill, &by, "drill.stop", ActOutcome::Done, [])).await?;
        *self.0.stopping.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(id.clone());
        self.0.news.notify_one();
        Ok(drill)
    }
}

fn act<const N: usize>(drill: &Drill, by: &By, action: &str, outcome: ActOutcome, detail: [(&str, String); N]) -> Act {
    let mut detail: BTreeMap<String, String> = detail.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
    detail.insert("drill".into(), drill.id.0.clone());
    detail.insert("kind".into(), drill.kind.name().into());
    detail.insert("name".into(), by.name.clone());
    Act {
        principal: by.id.clone(),
        rank: Some(by.rank),
        action: action.into(),
        target: format!("node/{}", drill.node),
        outcome,
        detail,
    }
}
