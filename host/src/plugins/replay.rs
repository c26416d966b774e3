//! Replay: one recorded decision executed again, told with where it differs; and decisions as files, which replay on any
//! machine of the same engine version, without a server.
//!
//! A file is JSON: the envelope as the API gives it, the component in base64, the config, and the assets in base64 by
//! name. Each is checked against the digest that the envelope holds, so a file cannot pass another component off as the
//! one that decided.

use super::registry::{self, Registry};
use crate::store::{self, Store};
use aether_core::{
    decision::Envelope,
    id::{DecisionId, Digest},
    plan::canonical,
};
use aether_runtime::{
    ActivateError, Assets, ENGINE_VERSION, Engine, LoadError, Prepared, Replay, WIT_VERSION, replay as run,
};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::{collections::BTreeMap, sync::Arc};
use thiserror::Error;
use tokio::sync::Semaphore;
use utoipa::ToSchema;

/// The file's form.
pub const FORMAT: &str = "aether.decision/1";
/// Differences that are told; there may be more.
const DIFFERENCES_MAXIMUM: usize = 20;
/// Replays at one time on a host.
const REPLAYS_MAXIMUM: usize = 2;

/// How a decision came out when it was executed again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ReplayVerdict {
    /// Answer, fuel, memory, log and host calls are as recorded, bit for bit.
    Identical,
    OutputDiffers,
    /// The component asked the host something else than was recorded.
    HostCallDiverges,
    /// Recorded under another engine or contract. Nothing was executed.
    EngineMismatch,
    /// The component, config or assets are not those of the decision. Nothing was executed.
    ComponentMismatch,
    /// The outcome was the host's own: the watchdog, the stack, a full pool. It depends on the machine; nothing was
    /// executed.
    HostVerdict,
}

/// One value that is not as recorded.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(as = ReplayDifference)]
pub struct Difference {
    /// Where in the envelope, as a JSON pointer (RFC 6901): `/outcome/Ok/assessment/risk/score`.
    pub at: String,
    #[schema(value_type = Object)]
    pub recorded: Value,
    #[schema(value_type = Object)]
    pub replayed: Value,
}

/// What came of executing a decision again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Replayed {
    pub decision: DecisionId,
    pub verdict: ReplayVerdict,
    /// One sentence for a person.
    pub summary: String,
    pub component: Digest,
    pub component_name: String,
    pub component_version: String,
    /// What executed it, or would have.
    pub engine: String,
    /// In the envelope's order, the first 20. Empty where it is identical.
    pub differences: Vec<Difference>,
}

/// A decision with everything that it needs, in one file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = DecisionFile)]
pub struct File {
    /// `aether.decision/1`.
    pub format: String,
    pub envelope: Envelope,
    /// Base64.
    pub component: String,
    #[schema(value_type = Object)]
    pub config: Map<String, Value>,
    /// Base64 by name.
    pub assets: BTreeMap<String, String>,
}

#[derive(Debug, Error)]
pub enum Error {
    #[error("the file is not a decision that Aether exported: {0}")]
    Form(String),
    #[error(
        "the file's {what} is not the one that the decision was made with: it has the digest {given}, and the envelope says {recorded}"
    )]
    Other { what: &'static str, recorded: Digest, given: Digest },
    #[error(transparent)]
    Load(#[from] LoadError),
    #[error(transparent)]
    Activate(#[from] ActivateError),
    #[error(
        "the {what} {digest} that made this decision is not kept on this host any more; export a decision while it is, to replay it later"
    )]
    NotKept { what: &'static str, digest: Digest },
    #[error("the registry could not be used")]
    Registry(#[source] registry::Error),
    #[error("the database could not be used")]
    Store(#[from] store::Error),
    #[error("the thread that executed it died; this is a defect of the host, and nothing was changed")]
    Died,
}

impl Error {
    /// A stable code; `docs/errors.md` has a section for each.
    pub fn code(&self) -> &'static str {
        match self {
            Error::Form(_) | Error::Other { .. } => "AE0076",
            Error::Load(_) | Error::Activate(_) => "AE0077",
            Error::NotKept { .. } => "AE0075",
            Error::Registry(_) | Error::Store(_) | Error::Died => "AE0031",
        }
    }
}

impl File {
    pub fn new(envelope: Envelope, component: &[u8], config: Map<String, Value>, assets: &Assets) -> Self {
        Self {
            format: FORMAT.into(),
            envelope,
            component: BASE64_STANDARD.encode(component),
            config,
            assets: assets.files().map(|(name, bytes)| (name.to_owned(), BASE64_STANDARD.encode(bytes))).collect(),
        }
    }

    pub fn parse(bytes: &[u8]) -> Result<Self, Error> {
        let file: Self = serde_json::from_slice(bytes).map_err(|error| Error::Form(error.to_string()))?;
        if file.format != FORMAT {
            return Err(Error::Form(format!("its format is `{}`, and this program reads `{FORMAT}`", file.format)));
        }
        Ok(file)
    }

    /// Executes the decision again with what the file holds, after checking that it is what the envelope names.
    pub fn replay(&self, engine: &Engine) -> Result<Replayed, Error> {
        let envelope = &self.envelope;
        let decoded = |what: &str, text: &str| {
            BASE64_STANDARD.decode(text).map_err(|error| Error::Form(format!("{what} is not base64: {error}")))
        };
        let component = decoded("the component", &self.component)?;
        let mut assets: BTreeMap<String, Arc<[u8]>> = BTreeMap::new();
        for (name, text) in &self.assets {
            assets.insert(name.clone(), decoded(name, text)?.into());
        }
        let assets = Assets::of(assets);
        let none = || Digest("none".into());
        for (what, recorded, given) in [
            ("component", envelope.component.clone(), Digest::of(&component)),
            ("config", envelope.config.clone(), Digest::of(&canonical(&self.config))),
            (
                "set of assets",
                envelope.assets.clone().unwrap_or_else(none),
                assets.digest().cloned().unwrap_or_else(none),
            ),
        ] {
            if recorded != given {
                return Err(Error::Other { what, recorded, given });
            }
        }
        if let Some(mismatch) = other_engine(envelope) {
            return Ok(mismatch);
        }
        let prepared = engine.load(&component)?.activate(&self.config, &envelope.limits, &assets)?;
        Ok(replay(&prepared, envelope))
    }
}

/// Executes the decision again. `prepared` is its component with its config, limits and assets.
pub fn replay(prepared: &Prepared, envelope: &Envelope) -> Replayed {
    let (verdict, summary, differences) = match run(prepared, envelope) {
        Replay::Identical => (
            ReplayVerdict::Identical,
            format!(
                "answer, log and {} host calls as recorded, with the same {} units of fuel",
                envelope.host_calls.len(),
                envelope.fuel
            ),
            vec![],
        ),
        Replay::OutputDiffers { fields, evaluation } => {
            let mut differences = Vec::new();
            for (field, recorded, replayed) in [
                ("outcome", json(&envelope.outcome), json(&evaluation.outcome)),
                ("fuel", json(&envelope.fuel), json(&evaluation.fuel)),
                ("memory_bytes", json(&envelope.memory_bytes), json(&evaluation.memory_bytes)),
                ("log", json(&envelope.log), json(&evaluation.log)),
                ("host_calls", json(&envelope.host_calls), json(&evaluation.host_calls)),
            ] {
                differ(&format!("/{field}"), recorded, replayed, &mut differences);
            }
            (ReplayVerdict::OutputDiffers, format!("it came out otherwise in {}", fields.join(", ")), differences)
        }
        Replay::HostCallDiverges { index, recorded, function, request } => {
            let summary = match (&recorded, function.as_str()) {
                (Some(call), "") => {
                    format!("host call {index}, `{}`, was recorded and did not come again", call.function)
                }
                (None, _) => format!("it made host call {index}, `{function}`, where none was recorded"),
                (Some(call), _) => {
                    format!("host call {index} was `{function}` and not as recorded, `{}`", call.function)
                }
            };
            let recorded = recorded
                .map_or(Value::Null, |call| serde_json::json!({ "function": call.function, "request": call.request }));
            let replayed = match function.is_empty() {
                true => Value::Null,
                false => serde_json::json!({ "function": function, "request": request }),
            };
            let mut differences = Vec::new();
            differ(&format!("/host_calls/{index}"), recorded, replayed, &mut differences);
            (ReplayVerdict::HostCallDiverges, summary, differences)
        }
        Replay::EngineMismatch { recorded, running } => engine_mismatch(&recorded, &running),
        Replay::ComponentMismatch { what, recorded, given } => (
            ReplayVerdict::ComponentMismatch,
            format!("the {what} at hand is {given}, and the decision was made with {recorded}; nothing was executed"),
            vec![Difference { at: format!("/{what}"), recorded: json(&recorded), replayed: json(&given) }],
        ),
        Replay::HostVerdict(fault) => (
            ReplayVerdict::HostVerdict,
            format!("the host itself ended it ({}), which depends on the machine; nothing was executed", fault.message),
            vec![],
        ),
    };
    told(envelope, verdict, summary, differences)
}

/// Said before anything is loaded: a component of another time may not even load here.
pub fn other_engine(envelope: &Envelope) -> Option<Replayed> {
    let recorded = format!("{}, aether:plugin@{}", envelope.engine_version, envelope.wit_version);
    let running = engine();
    (recorded != running).then(|| {
        let (verdict, summary, differences) = engine_mismatch(&recorded, &running);
        told(envelope, verdict, summary, differences)
    })
}

fn engine() -> String {
    format!("{ENGINE_VERSION}, aether:plugin@{WIT_VERSION}")
}

fn engine_mismatch(recorded: &str, running: &str) -> (ReplayVerdict, String, Vec<Difference>) {
    let summary = format!(
        "it was recorded under {recorded}, and this is {running}, whose fuel and floats cannot be compared; nothing was executed"
    );
    let difference = Difference { at: "/engine_version".into(), recorded: json(&recorded), replayed: json(&running) };
    (ReplayVerdict::EngineMismatch, summary, vec![difference])
}

fn told(envelope: &Envelope, verdict: ReplayVerdict, summary: String, differences: Vec<Difference>) -> Replayed {
    Replayed {
        decision: envelope.id.clone(),
        verdict,
        summary,
        component: envelope.component.clone(),
        component_name: envelope.component_name.clone(),
        component_version: envelope.component_version.clone(),
        engine: engine(),
        differences,
    }
}

fn json<T: Serialize>(value: &T) -> Value {
    serde_json::to_value(value).unwrap_or(Value::Null)
}

/// The leaves in which two documents differ, in order.
fn differ(at: &str, recorded: Value, replayed: Value, out: &mut Vec<Difference>) {
    if out.len() >= DIFFERENCES_MAXIMUM || recorded == replayed {
        return;
    }
    match (recorded, replayed) {
        (Value::Object(mut recorded), Value::Object(mut replayed)) => {
            let names: std::collections::BTreeSet<String> = recorded.keys().chain(replayed.keys()).cloned().collect();
            for name in names {
                let pair = (recorded.remove(&name), replayed.remove(&name));
                let at = format!("{at}/{}", name.replace('~', "~0").replace('/', "~1"));
                differ(&at, pair.0.unwrap_or(Value::Null), pair.1.unwrap_or(Value::Null), out);
            }
        }
        (Value::Array(recorded), Value::Array(replayed)) => {
            let longest = recorded.len().max(replayed.len());
            let (mut recorded, mut replayed) = (recorded.into_iter(), replayed.into_iter());
            for number in 0..longest {
                let pair = (recorded.next(), replayed.next());
                differ(&format!("{at}/{number}"), pair.0.unwrap_or(Value::Null), pair.1.unwrap_or(Value::Null), out);
            }
        }
        (recorded, replayed) => out.push(Difference { at: at.to_owned(), recorded, replayed }),
    }
}

/// Decisions executed again on the host that made them, retired components included. Cheap to clone.
#[derive(Clone)]
pub struct Replays {
    store: Store,
    registry: Registry,
    /// So many at one time; a caller waits for a place.
    places: Arc<Semaphore>,
}

impl Replays {
    pub fn new(store: Store, registry: Registry) -> Self {
        Self { store, registry, places: Arc::new(Semaphore::new(REPLAYS_MAXIMUM)) }
    }

    pub async fn replay(&self, envelope: &Envelope) -> Result<Replayed, Error> {
        let _place = self.places.acquire().await.map_err(|_| Error::Died)?;
        if let Some(mismatch) = other_engine(envelope) {
            return Ok(mismatch);
        }
        let (config, assets) = (self.config(envelope).await?, self.assets(envelope).await?);
        let component = self.registry.load(&envelope.component).await.map_err(kept("component"))?;
        let envelope = envelope.clone();
        let work = move || {
            let prepared = component.activate(&config, &envelope.limits, &assets)?;
            Ok(replay(&prepared, &envelope))
        };
        tokio::task::spawn_blocking(work).await.map_err(|_| Error::Died)?
    }

    /// A decision with everything that it needs.
    pub async fn export(&self, envelope: Envelope) -> Result<File, Error> {
        let (config, assets) = (self.config(&envelope).await?, self.assets(&envelope).await?);
        let component = self.registry.bytes(&envelope.component).await.map_err(kept("component"))?;
        Ok(File::new(envelope, &component, config, &assets))
    }

    async fn config(&self, envelope: &Envelope) -> Result<Map<String, Value>, Error> {
        let digest = &envelope.config;
        if *digest == Digest::of(&canonical(&Map::new())) {
            return Ok(Map::new());
        }
        self.store.config(digest).await?.ok_or_else(|| Error::NotKept { what: "config", digest: digest.clone() })
    }

    async fn assets(&self, envelope: &Envelope) -> Result<Assets, Error> {
        match &envelope.assets {
            None => Ok(Assets::default()),
            Some(digest) => self.registry.assets(digest).await.map_err(kept("set of assets")),
        }
    }
}

/// What the registry does not have any more is told as such.
fn kept(what: &'static str) -> impl Fn(registry::Error) -> Error {
    move |error| match error {
        registry::Error::Unknown { digest, .. } => Error::NotKept { what, digest: Digest(digest) },
        error => Error::Registry(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_difference_says_where_it_is() {
        let mut out = Vec::new();
        differ("/log", json!([{ "message": "a", "x/y": 1 }, "gone"]), json!([{ "message": "b", "x/y": 2 }]), &mut out);
        let told: Vec<_> = out.iter().map(|d| (d.at.as_str(), d.recorded.clone(), d.replayed.clone())).collect();
        assert_eq!(
            told,
            [
                ("/log/0/message", json!("a"), json!("b")),
                ("/log/0/x~1y", json!(1), json!(2)),
                ("/log/1", json!("gone"), json!(null))
            ]
        );
        let mut many = Vec::new();
        differ("", json!((0..100).collect::<Vec<_>>()), json!([]), &mut many);
        assert_eq!(many.len(), DIFFERENCES_MAXIMUM);
    }
}
