//! Slots: what stands in each, how it came there, and the steps from candidate to active.

use super::{
    App, Error, Problem,
    extract::{Body, EntryOf, Id, Params},
    view::{AddedEntry, Promotion, Retirement, RollBack, SlotHistory, SlotStatus, Slots},
};
use crate::{
    auth::Principal,
    plugins::{Added, By, Deed, NewEntry},
};
use aether_core::id::{EntryId, SlotId};
use axum::{Json, extract::State, http::StatusCode};
use serde::Deserialize;
use utoipa::IntoParams;

/// Of a comment, a reason, or an id that is only carried along.
const TEXT_BYTES: usize = 4_096;

/// The slots of the active policy bundle, with what stands in each and how it does.
#[utoipa::path(get, path = "/slots", tag = "slots", operation_id = "listSlots",
    responses((status = 200, body = Slots), (status = "default", description = "A problem", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn slots(State(app): State<App>) -> Json<Slots> {
    Json(app.plane().slots())
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct HistoryParams {
    /// Below this generation: `next_before` of the page before.
    before: Option<u64>,
    /// Default 20, 1 to 100.
    limit: Option<u32>,
}

/// The generations of a slot, newest first: what was changed, by whom, why, and what stood there then.
#[utoipa::path(get, path = "/slots/{slot}/generations", tag = "slots", operation_id = "listGenerations", params(("slot" = String, Path), HistoryParams),
    responses((status = 200, body = SlotHistory), (status = "default", description = "A problem", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn generations(
    State(app): State<App>,
    Id(slot): Id,
    Params(params): Params<HistoryParams>,
) -> Result<Json<SlotHistory>, Error> {
    let limit = params.limit.unwrap_or(20).clamp(1, 100);
    let generations = app.store().generations(&SlotId(slot.clone()), params.before, limit).await?;
    if generations.is_empty() && params.before.is_none() {
        return Err(Error::NotFound { what: "slot", id: slot });
    }
    let full = u32::try_from(generations.len()).is_ok_and(|found| found == limit);
    let next_before = generations.last().map(|last| last.slot.generation).filter(|last| full && *last > 1);
    Ok(Json(SlotHistory { generations, next_before }))
}

/// Put a component of the registry into a slot, as a candidate. It is activated and tested on the bundle's fixtures,
/// and asked nothing yet.
#[utoipa::path(post, path = "/slots/{slot}/entries", tag = "slots", operation_id = "addEntry", params(("slot" = String, Path)), request_body = NewEntry,
    responses((status = 201, body = AddedEntry), (status = "default", description = "A problem", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn add(
    State(app): State<App>,
    principal: Principal,
    Id(slot): Id,
    Body(new): Body<NewEntry>,
) -> Result<(StatusCode, Json<AddedEntry>), Error> {
    let slot = SlotId(slot);
    let added = app.plane().act_on_slot(&slot, Deed::Add(new), by(principal)).await?;
    let Some(Added { entry, self_test }) = added else { return Err(Error::Internal) };
    let slot = app.slot(&slot)?;
    let self_test = self_test.into_iter().map(Into::into).collect();
    Ok((StatusCode::CREATED, Json(AddedEntry { slot, entry, self_test })))
}

/// Take an entry one step on: shadow, canary (or another share), active.
#[utoipa::path(post, path = "/slots/{slot}/entries/{entry}/promote", tag = "slots", operation_id = "promoteEntry", params(("slot" = String, Path), ("entry" = String, Path)), request_body = Promotion,
    responses((status = 200, body = SlotStatus), (status = "default", description = "A problem", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn promote(
    State(app): State<App>,
    principal: Principal,
    of: EntryOf,
    Body(body): Body<Promotion>,
) -> Result<Json<SlotStatus>, Error> {
    let Promotion { generation, to, comment, backtest, overridden } = body;
    let (comment, backtest) = (text("comment", comment)?, text("backtest", backtest)?);
    let (entry, overridden) = (EntryId(of.entry), text("overridden", overridden)?);
    if let Some(backtest) = &backtest {
        app.check_proof(backtest, &of.slot, &entry).await?;
    }
    let deed = Deed::Promote { generation, entry, to, comment, backtest, overridden };
    app.act_on_slot(SlotId(of.slot), deed, principal).await
}

/// Take an entry out that did nothing wrong.
#[utoipa::path(post, path = "/slots/{slot}/entries/{entry}/retire", tag = "slots", operation_id = "retireEntry", params(("slot" = String, Path), ("entry" = String, Path)), request_body = Retirement,
    responses((status = 200, body = SlotStatus), (status = "default", description = "A problem", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn retire(
    State(app): State<App>,
    principal: Principal,
    of: EntryOf,
    Body(body): Body<Retirement>,
) -> Result<Json<SlotStatus>, Error> {
    let Retirement { generation, comment } = body;
    let deed = Deed::Retire { generation, entry: EntryId(of.entry), comment: text("comment", comment)? };
    app.act_on_slot(SlotId(of.slot), deed, principal).await
}

/// Take an entry out because it fails. The one that it replaced answers again; its component goes into quarantine.
#[utoipa::path(post, path = "/slots/{slot}/entries/{entry}/roll-back", tag = "slots", operation_id = "rollBackEntry", params(("slot" = String, Path), ("entry" = String, Path)), request_body = RollBack,
    responses((status = 200, body = SlotStatus), (status = "default", description = "A problem", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn roll_back(
    State(app): State<App>,
    principal: Principal,
    of: EntryOf,
    Body(body): Body<RollBack>,
) -> Result<Json<SlotStatus>, Error> {
    let Some(reason) = text("reason", Some(body.reason))? else {
        return Err(Error::Body("`reason` must say why it is taken out".into()));
    };
    let deed = Deed::RollBack { entry: EntryId(of.entry), reason };
    app.act_on_slot(SlotId(of.slot), deed, principal).await
}

impl App {
    async fn act_on_slot(&self, slot: SlotId, deed: Deed, principal: Principal) -> Result<Json<SlotStatus>, Error> {
        self.plane().act_on_slot(&slot, deed, by(principal)).await?;
        self.slot(&slot).map(Json)
    }

    fn slot(&self, id: &SlotId) -> Result<SlotStatus, Error> {
        let found = self.plane().slots().slots.into_iter().find(|slot| slot.id == *id);
        found.ok_or_else(|| Error::NotFound { what: "slot", id: id.0.clone() })
    }
}

fn by(principal: Principal) -> By {
    By { principal: principal.id, name: principal.name, rank: principal.rank }
}

/// Without spaces around it; none if nothing is left.
fn text(name: &str, given: Option<String>) -> Result<Option<String>, Error> {
    let given = given.map(|text| text.trim().to_owned()).filter(|text| !text.is_empty());
    match given {
        Some(text) if text.len() > TEXT_BYTES => {
            Err(Error::Body(format!("`{name}` is longer than {TEXT_BYTES} bytes")))
        }
        given => Ok(given),
    }
}
