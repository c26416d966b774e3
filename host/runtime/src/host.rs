//! What a component may call: `log`, `assets`, `history`. Each call is counted against a limit and recorded, so that a
//! replay can give the same answers. WASI, of which nothing is recorded, is in `wasi/`.

use crate::{
    Assets,
    bindings::aether::plugin::{assets, history, log, types},
    convert,
    limit::{Hit, Meter},
    metric,
    wasi::{Moment, Wasi},
};
use aether_core::{
    decision::{Envelope, HostCall, Limits, LogLine, Severity},
    id::Digest,
    observation::{Column, MetricInput},
    subject::Subject,
    time::Time,
};
use serde_json::{Value, json};
use std::sync::Arc;

/// Bounded look-backs into recorded telemetry. The host decides what is granted; an error is for the guest and a person.
pub trait History: Send + Sync {
    /// The columns of `metric` for `subject`, ending at the evaluation's time.
    fn query(&self, subject: &Subject, metric: &MetricInput) -> Result<Vec<Column>, String>;
}

/// What a component can reach in one evaluation, beside the question and its assets.
#[derive(Clone, Default)]
pub struct Environment {
    /// What its clock says, from the first call to the last.
    pub at: Time,
    /// What its randomness is drawn from: the decision's id.
    pub seed: String,
    /// None: every look-back is answered with an error that says that it is not granted.
    pub history: Option<Arc<dyn History>>,
}

/// Where the answers of host calls come from.
pub(crate) enum Source {
    /// While a component takes its config: nothing can be looked back at, and there is no time.
    Activation {
        seed: Arc<str>,
    },
    Live(Environment),
    Recorded(Recording),
}

impl Source {
    /// What clocks and randomness follow from.
    fn moment(&self) -> Moment<'_> {
        match self {
            Source::Activation { seed } => Moment::Activation { seed },
            Source::Live(Environment { at, seed, .. }) | Source::Recorded(Recording { at, seed, .. }) => {
                Moment::Evaluation { at: *at, seed }
            }
        }
    }
}

/// The host calls of a recorded decision, to be given again in the same order.
pub(crate) struct Recording {
    at: Time,
    seed: String,
    calls: Vec<HostCall>,
    next: usize,
    divergence: Option<Divergence>,
}

/// A replayed guest asked something else than it did when it was recorded.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Divergence {
    pub(crate) index: usize,
    pub(crate) recorded: Option<HostCall>,
    pub(crate) function: String,
    pub(crate) request: Value,
}

impl Recording {
    pub(crate) fn new(envelope: &Envelope) -> Self {
        let Envelope { at, id, host_calls, .. } = envelope;
        Self { at: *at, seed: id.0.clone(), calls: host_calls.clone(), next: 0, divergence: None }
    }

    /// The recorded answer, or none if this call is not the one that was recorded here.
    fn answer(&mut self, function: &str, request: &Value) -> Option<Value> {
        let index = self.next;
        self.next += 1;
        match self.calls.get(index) {
            Some(call) if call.function == function && call.request == *request => Some(call.response.clone()),
            recorded => {
                let recorded = recorded.cloned();
                let (function, request) = (function.to_owned(), request.clone());
                self.divergence.get_or_insert(Divergence { index, recorded, function, request });
                None
            }
        }
    }

    /// The first call that differs; one that was recorded and never came counts, too.
    pub(crate) fn divergence(mut self) -> Option<Divergence> {
        let missing = self.calls.get(self.next).map(|call| Divergence {
            index: self.next,
            recorded: Some(call.clone()),
            function: String::new(),
            request: Value::Null,
        });
        self.divergence.take().or(missing)
    }
}

/// What a store carries through one evaluation.
pub(crate) struct State {
    pub(crate) meter: Meter,
    pub(crate) log: Vec<LogLine>,
    pub(crate) host_calls: Vec<HostCall>,
    pub(crate) source: Source,
    assets: Assets,
    limits: Limits,
    /// None: nothing of WASI was called.
    wasi: Option<Box<Wasi>>,
}

impl State {
    pub(crate) fn new(limits: &Limits, assets: Assets, source: Source) -> Self {
        let (log, host_calls) = (Vec::new(), Vec::new());
        Self { meter: Meter::new(limits), log, host_calls, source, assets, limits: limits.clone(), wasi: None }
    }

    /// None: the guest never came near WASI.
    pub(crate) fn wasi_mut(&mut self) -> Option<&mut Wasi> {
        self.wasi.as_deref_mut()
    }

    pub(crate) fn wasi_or_new(&mut self) -> &mut Wasi {
        self.wasi.get_or_insert_with(|| Box::new(Wasi::new(self.source.moment(), self.assets.clone())))
    }

    /// The most that is kept of a line of the log.
    pub(crate) fn log_line_bytes(&self) -> usize {
        self.limits.log_line_bytes as usize
    }

    /// Writes one line into the log, under its limits.
    pub(crate) fn append(&mut self, severity: Severity, mut message: String) -> wasmtime::Result<()> {
        if self.log.len() >= self.limits.log_lines as usize {
            self.meter.note(Hit::LogLines);
            return Err(wasmtime::format_err!("more than {} log lines", self.limits.log_lines));
        }
        let maximum = self.log_line_bytes();
        if message.len() > maximum {
            metrics::counter!(metric::LIMIT_HITS, "limit" => "log-line-bytes").increment(1);
            message.truncate(message.floor_char_boundary(maximum));
        }
        self.log.push(LogLine { severity, message });
        Ok(())
    }

    /// From taking its config to answering: a clean record, and answers from `source`. In a snapshot there is nothing of
    /// the former, and an instance that was configured just now is to find and leave the very same.
    pub(crate) fn turn(&mut self, source: Source) {
        self.log.clear();
        self.host_calls.clear();
        self.source = source;
        if let Some(wasi) = &mut self.wasi {
            wasi.enter(self.source.moment());
        }
    }

    /// Whether the guest holds handles to something of the host's, which a snapshot would not bring back.
    pub(crate) fn holds_handles(&self) -> bool {
        self.wasi.as_ref().is_some_and(|wasi| wasi.holds_handles())
    }

    /// Counts, answers and records one host call.
    fn call(
        &mut self,
        function: &str,
        request: Value,
        live: impl FnOnce(&Environment) -> Value,
    ) -> wasmtime::Result<Value> {
        if self.host_calls.len() >= self.limits.host_calls as usize {
            self.meter.note(Hit::HostCalls);
            return Err(wasmtime::format_err!("more than {} host calls", self.limits.host_calls));
        }
        let response = match &mut self.source {
            Source::Activation { .. } => live(&Environment::default()),
            Source::Live(environment) => live(environment),
            Source::Recorded(recording) => recording.answer(function, &request).ok_or_else(|| {
                wasmtime::format_err!("the replayed component called `{function}` where the record has another call")
            })?,
        };
        self.host_calls.push(HostCall { function: function.to_owned(), request, response: response.clone() });
        Ok(response)
    }
}

impl types::Host for State {}

impl log::Host for State {
    fn write(&mut self, severity: log::Severity, message: String) -> wasmtime::Result<()> {
        self.append(convert::severity(severity), message)
    }
}

impl assets::Host for State {
    fn names(&mut self) -> wasmtime::Result<Vec<String>> {
        let names: Vec<String> = self.assets.files().map(|(name, _)| name.to_owned()).collect();
        let told = json!(names);
        self.call("assets.names", Value::Null, |_| told)?;
        Ok(names)
    }

    fn read(&mut self, name: String) -> wasmtime::Result<Option<Vec<u8>>> {
        let found = self.assets.get(&name).cloned();
        // The set is known by its digest; what is recorded is which file of it was read.
        let told = found.as_ref().map_or(Value::Null, |bytes| json!(Digest::of(bytes)));
        self.call("assets.read", json!({ "name": name }), |_| told)?;
        Ok(found.map(|bytes| bytes.to_vec()))
    }
}

impl history::Host for State {
    fn query(
        &mut self,
        subject: types::SubjectResult,
        metric: types::MetricInput,
    ) -> wasmtime::Result<Result<Vec<types::ColumnResult>, String>> {
        let subject = match convert::subject_from_guest(subject) {
            Ok(subject) => subject,
            Err(invalid) => return Ok(Err(invalid.0)),
        };
        let metric = convert::metric_input_from_guest(metric);
        let request = json!({ "subject": subject, "metric": metric });
        let response = self.call("history.query", request, |environment| {
            let answer = match &environment.history {
                Some(history) => history.query(&subject, &metric),
                None => Err("look-backs are not granted to this slot".to_owned()),
            };
            match answer {
                Ok(columns) => json!({ "ok": columns }),
                Err(error) => json!({ "error": error }),
            }
        })?;
        // Read back from what is recorded, so that live and replay hand over the very same.
        if let Some(error) = response.get("error").and_then(Value::as_str) {
            return Ok(Err(error.to_owned()));
        }
        let columns = response.get("ok").cloned().unwrap_or(Value::Null);
        let columns: Vec<Column> = serde_json::from_value(columns)?;
        Ok(Ok(columns.iter().map(convert::column_owned).collect()))
    }
}
