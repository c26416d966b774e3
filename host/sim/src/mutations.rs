//! What a broken system does to frames on their way. Each is a way of being wrong that the checkers have to see.

use crate::shared::{Mutation, Shared};
use aether_core::{
    catalogue::verb,
    order::{Direction, Order, Outcome, OutcomeStatus},
    plan::Plan,
};
use aether_proto::v1::{self, client_frame::Payload, dispatch_state::State};
use ed25519_dalek::{Signer as _, SigningKey};

/// What the hosts of a simulation sign with.
pub(crate) fn signer() -> SigningKey {
    SigningKey::from_bytes(&[7; 32])
}

/// An agent that lies about its outcomes, or keeps them to itself.
pub(crate) fn on_the_way_up(shared: &Shared, frame: &mut v1::ClientFrame) {
    let Some(Payload::DispatchState(told)) = &mut frame.payload else { return };
    let Some(State::Outcome(outcome)) = &mut told.state else { return };
    if shared.is_broken(Mutation::TellsSuccess)
        && let Ok(mut lie) = serde_json::from_slice::<Outcome>(&outcome.outcome)
    {
        lie.status = OutcomeStatus::Succeeded;
        outcome.outcome = serde_json::to_vec(&lie).unwrap_or_default();
    }
    if shared.is_broken(Mutation::TellsNothing) {
        told.state = Some(State::Accepted(v1::OrderAccepted {}));
    }
}

/// A host that does not wait for what is reserved: the restore is sent while the checkpoint is under way.
pub(crate) fn sent_ahead(shared: &Shared, dispatch: &v1::Dispatch) -> Option<(usize, v1::Dispatch)> {
    let order: Order = serde_json::from_slice(&dispatch.order).ok()?;
    let plan = Plan::from_canonical(&dispatch.plan).ok()?;
    let first = plan.steps.first().filter(|step| step.verb == verb::CHECKPOINT)?;
    let next = plan.steps.get(1).filter(|next| next.target == first.target)?;
    if !shared.is_broken(Mutation::SendsAhead) || order.step != 0 || order.direction != Direction::Forward {
        return None;
    }
    let node = next.node.as_str().strip_prefix("node-")?.parse().ok()?;
    let ahead = Order {
        key: plan.key(1, Direction::Forward)?,
        step: 1,
        node: next.node.clone(),
        fence: order.fence + 1,
        inputs: [("manifest".to_string(), "0".repeat(64))].into(),
        ..order
    };
    let signature = signer().sign(&ahead.signed_bytes()).to_bytes().to_vec();
    Some((node, v1::Dispatch { order: aether_core::plan::canonical(&ahead), signature, ..dispatch.clone() }))
}
