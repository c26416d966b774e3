//! Runs a recorded decision again: same component, config, limits, question and host answers must give the same bits.

use crate::{
    ENGINE_VERSION, WIT_VERSION,
    component::Prepared,
    evaluate::{self, Evaluation},
    host::{Recording, Source},
};
use aether_core::{
    decision::{Envelope, Fault, FaultKind, HostCall},
    id::Digest,
};

/// What came of running a decision again.
#[derive(Clone, Debug, PartialEq)]
pub enum Replay {
    /// Answer, fuel, memory, log and host calls are all as recorded.
    Identical,
    /// The component came to something else; what differs, by field, and the evaluation itself.
    OutputDiffers { fields: Vec<&'static str>, evaluation: Box<Evaluation> },
    /// The component asked the host something else than it did then.
    HostCallDiverges {
        /// Number of the call, from 0.
        index: usize,
        /// None: the record has no further call.
        recorded: Option<HostCall>,
        /// Empty where the recorded call did not come at all.
        function: String,
        request: serde_json::Value,
    },
    /// Recorded under another engine or contract, whose fuel and floats are not comparable. Nothing was run.
    EngineMismatch { recorded: String, running: String },
    /// The envelope is of another component or config. Nothing was run.
    ComponentMismatch { what: &'static str, recorded: Digest, given: Digest },
    /// The recorded outcome was the host's own verdict, which depends on the machine and is never derived again.
    /// Nothing was run.
    HostVerdict(Fault),
}

/// Runs the envelope's question again with the envelope's limits. `prepared` must be the same component and config.
pub fn replay(prepared: &Prepared, envelope: &Envelope) -> Replay {
    let recorded = format!("{}, aether:plugin@{}", envelope.engine_version, envelope.wit_version);
    let running = format!("{ENGINE_VERSION}, aether:plugin@{WIT_VERSION}");
    if recorded != running {
        return Replay::EngineMismatch { recorded, running };
    }
    for (what, recorded, given) in
        [("component", &envelope.component, prepared.digest()), ("config", &envelope.config, prepared.config_digest())]
    {
        if recorded != given {
            return Replay::ComponentMismatch { what, recorded: recorded.clone(), given: given.clone() };
        }
    }
    if envelope.assets.as_ref() != prepared.assets_digest() {
        let digest = |digest: Option<&Digest>| digest.cloned().unwrap_or_else(|| Digest("none".into()));
        let (recorded, given) = (digest(envelope.assets.as_ref()), digest(prepared.assets_digest()));
        return Replay::ComponentMismatch { what: "assets", recorded, given };
    }
    if let Err(fault) = &envelope.outcome {
        match fault.kind {
            FaultKind::TimedOut | FaultKind::StackOverflow | FaultKind::Overloaded => {
                return Replay::HostVerdict(fault.clone());
            }
            FaultKind::OutOfFuel
            | FaultKind::OutOfMemory
            | FaultKind::Trapped
            | FaultKind::BadOutput
            | FaultKind::HostCall
            | FaultKind::Refused => {}
        }
    }
    let source = Source::Recorded(Recording::new(envelope));
    let active = &prepared.0;
    let (evaluation, source) = evaluate::evaluate(active, &envelope.limits, &envelope.question, source);
    if let Some(Source::Recorded(recording)) = source
        && let Some(divergence) = recording.divergence()
    {
        return Replay::HostCallDiverges {
            index: divergence.index,
            recorded: divergence.recorded,
            function: divergence.function,
            request: divergence.request,
        };
    }
    let fields: Vec<&'static str> = [
        ("outcome", evaluation.outcome != envelope.outcome),
        ("fuel", evaluation.fuel != envelope.fuel),
        ("memory_bytes", evaluation.memory_bytes != envelope.memory_bytes),
        ("log", evaluation.log != envelope.log),
        ("host_calls", evaluation.host_calls != envelope.host_calls),
    ]
    .into_iter()
    .filter_map(|(field, differs)| differs.then_some(field))
    .collect();
    if fields.is_empty() {
        Replay::Identical
    } else {
        Replay::OutputDiffers { fields, evaluation: Box::new(evaluation) }
    }
}
