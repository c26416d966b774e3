//! How a fleet is gone through each tick.

use crate::{Fleet, PATIENCE, scoring, write_bundle};
use aether_core::{
    decision::{Envelope, Role},
    id::{Digest, EntryId},
    observation::Input,
    time::Time,
};
use aether_host::{
    control::{Asking, Components, Panel, Panels},
    plugins::runbooks::Runbooks,
};
use aether_runtime::bundle::Failure;
use async_trait::async_trait;
use std::{sync::Arc, time::Duration};
use tokio::{sync::watch, time::timeout};

/// The real components behind a gate, with a count of those that stand before it.
struct Gated {
    components: Components,
    at_once: usize,
    is_open: watch::Receiver<bool>,
    before: watch::Sender<Before>,
}

#[derive(Default)]
struct Before {
    now: usize,
    most: usize,
}

struct Gate {
    panel: Arc<dyn Panel>,
    is_open: watch::Receiver<bool>,
    before: watch::Sender<Before>,
}

impl Panels for Gated {
    fn runbooks(&self) -> &Runbooks {
        self.components.runbooks()
    }

    fn at_once(&self) -> usize {
        self.at_once
    }

    fn in_force(&self) -> (Vec<Arc<dyn Panel>>, Digest) {
        let (panels, digest) = self.components.in_force();
        let gate = |panel| -> Arc<dyn Panel> {
            Arc::new(Gate { panel, is_open: self.is_open.clone(), before: self.before.clone() })
        };
        (panels.into_iter().map(gate).collect(), digest)
    }
}

#[async_trait]
impl Panel for Gate {
    fn role(&self) -> Role {
        self.panel.role()
    }

    async fn ask(&self, at: Time, question: &Asking<'_>) -> Vec<Envelope> {
        self.before.send_modify(|before| {
            before.now += 1;
            before.most = before.most.max(before.now);
        });
        self.is_open.clone().wait_for(|open| *open).await.unwrap();
        self.before.send_modify(|before| before.now -= 1);
        self.panel.ask(at, question).await
    }

    fn inputs(&self, entry: &EntryId) -> &[Input] {
        self.panel.inputs(entry)
    }

    fn silent(&self) -> Vec<Failure> {
        self.panel.silent()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn as_many_nodes_are_scored_at_a_time_as_may_be_and_no_more() {
    for at_once in [1, 3] {
        let folder = tempfile::tempdir().unwrap();
        write_bundle(folder.path(), &scoring(0.25), "");
        let (open, is_open) = watch::channel(true);
        let before = watch::Sender::new(Before::default());
        let gated = |components| -> Arc<dyn Panels> {
            Arc::new(Gated { components, at_once, is_open, before: before.clone() })
        };
        let fleet = Fleet::start_with(folder.path(), 5, gated).await;
        fleet.scored_since(1).await;
        open.send_replace(false);
        let full = async {
            let mut counts = before.subscribe();
            loop {
                let _ = counts.wait_for(|before| before.now == at_once).await;
                // Whoever had passed when it was closed is replaced; then two ticks bring no other.
                if timeout(Duration::from_millis(200), counts.changed()).await.is_err() {
                    return;
                }
            }
        };
        let full = timeout(PATIENCE, full).await.is_ok();
        let most = before.borrow().most;
        assert!(full && most == at_once, "{at_once} at a time, and {most} were asked");
        open.send_replace(true);
        let newest = fleet.decisions().iter().map(|envelope| envelope.at).max().unwrap();
        super::until("all are scored again", async || {
            let decisions = fleet.decisions();
            let again = decisions.len() == 5 && decisions.iter().all(|envelope| envelope.at > newest);
            again.then_some(())
        })
        .await;
        fleet.close().await;
    }
}
