//! Between the WIT's types and the core's, exhaustively: every record is taken apart by name, so that a new field
//! breaks the build here until someone has decided what becomes of it. What a guest answers is checked on the way in.

use crate::bindings::{
    aether::plugin::{log, types as wit},
    exports::aether::plugin::{gating, planning, routing, scoring},
};
use aether_core::{
    catalogue::{ArgumentSpec, SafetyClass, Verb},
    decision::{
        Activity, Assessment, BlastRadius, Candidate, Choice, Condition, Contribution, Demand, Description,
        GateQuestion, Judgement, Level, Message, OnFailure, Placement, PlanningFinding, Proposal, ProposedStep, Reason,
        Risk, RoutingQuestion, Severity, Verdict,
    },
    observation::{Aggregation, Column, EventInput, Input, MetricInput, Observation, ObservedEvent},
    subject::{Subject, SubjectKind, Target},
    value::{MAX_EXACT, Value, ValueKind},
};
use bumpalo::Bump;
use std::collections::BTreeMap;

/// Contributions, steps, conditions, reasons: each list of an answer holds at most this many.
const ITEMS_MAX: usize = 64;
const PROPOSALS_MAX: usize = 16;
const CHOICES_MAX: usize = 10_000;
const CODE_BYTES_MAX: usize = 128;
const TITLE_BYTES_MAX: usize = 256;
const APPROVERS_MAX: u32 = 16;

/// What is wrong with an answer, for the component's author.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Invalid(pub(crate) String);

type Checked<T> = Result<T, Invalid>;

fn invalid<T>(message: impl Into<String>) -> Checked<T> {
    Err(Invalid(message.into()))
}

// ---- to the guest ----
//
// Borrowed from the question; lists of what is not laid out as the guest wants it lie in the evaluation's arena.

fn list<I, T>(bump: &Bump, items: I, convert: impl Fn(I::Item) -> T) -> &[T]
where
    I: IntoIterator<IntoIter: ExactSizeIterator>,
{
    bump.alloc_slice_fill_iter(items.into_iter().map(convert))
}

/// As JSON carries them, so that a replay from the record sees the very same bits.
fn numbers<'a>(bump: &'a Bump, values: &'a [f64]) -> &'a [f64] {
    if values.iter().all(|value| value.is_finite()) {
        return values;
    }
    list(bump, values, |value| recorded(*value))
}

fn recorded(value: f64) -> f64 {
    if value.is_finite() { value } else { f64::NAN }
}

fn attributes<'a>(bump: &'a Bump, map: &'a BTreeMap<String, String>) -> &'a [wit::AttributeParam<'a>] {
    list(bump, map, |(key, value)| wit::AttributeParam { key, value })
}

fn subject_kind(kind: SubjectKind) -> wit::SubjectKind {
    match kind {
        SubjectKind::Node => wit::SubjectKind::Node,
        SubjectKind::Gpu => wit::SubjectKind::Gpu,
        SubjectKind::Workload => wit::SubjectKind::Workload,
        SubjectKind::Pool => wit::SubjectKind::Pool,
        SubjectKind::Participant => wit::SubjectKind::Participant,
    }
}

fn subject<'a>(bump: &'a Bump, subject: &'a Subject) -> wit::SubjectParam<'a> {
    let Subject { kind, id, generation, labels } = subject;
    wit::SubjectParam { kind: subject_kind(*kind), id, generation: *generation, labels: attributes(bump, labels) }
}

fn column<'a>(bump: &'a Bump, column: &'a Column) -> wit::ColumnParam<'a> {
    let Column { input, attributes: map, start, step_ms, values } = column;
    wit::ColumnParam {
        input: *input,
        attributes: attributes(bump, map),
        start: start.0,
        step: *step_ms,
        values: numbers(bump, values),
    }
}

/// The answer of a host call, which wasmtime takes as it is.
pub(crate) fn column_owned(column: &Column) -> wit::ColumnResult {
    let Column { input, attributes: map, start, step_ms, values } = column;
    let attribute = |(key, value): (&String, &String)| wit::AttributeResult { key: key.clone(), value: value.clone() };
    wit::ColumnResult {
        input: *input,
        attributes: map.iter().map(attribute).collect(),
        start: start.0,
        step: *step_ms,
        values: values.iter().copied().map(recorded).collect(),
    }
}

fn event<'a>(bump: &'a Bump, event: &'a ObservedEvent) -> wit::Event<'a> {
    let ObservedEvent { input, at, attributes: map } = event;
    wit::Event { input: *input, at: at.0, attributes: attributes(bump, map) }
}

pub(crate) fn observation<'a>(bump: &'a Bump, observation: &'a Observation) -> wit::Observation<'a> {
    let Observation { subject: about, at, columns, events } = observation;
    wit::Observation {
        subject: subject(bump, about),
        at: at.0,
        columns: list(bump, columns, |item| column(bump, item)),
        events: list(bump, events, |item| event(bump, item)),
    }
}

fn level(level: Level) -> wit::Level {
    match level {
        Level::Low => wit::Level::Low,
        Level::Elevated => wit::Level::Elevated,
        Level::High => wit::Level::High,
        Level::Critical => wit::Level::Critical,
    }
}

fn contribution(contribution: &Contribution) -> wit::ContributionParam<'_> {
    let Contribution { input, weight, note } = contribution;
    wit::ContributionParam { input: *input, weight: *weight, note }
}

fn risk<'a>(bump: &'a Bump, risk: &'a Risk) -> wit::RiskParam<'a> {
    let Risk { level: grade, score, confidence, horizon_ms, cause, reason, contributions } = risk;
    wit::RiskParam {
        level: level(*grade),
        score: *score,
        confidence: *confidence,
        horizon: *horizon_ms,
        cause,
        reason,
        contributions: list(bump, contributions, contribution),
    }
}

fn target(target: &Target) -> wit::TargetParam<'_> {
    let Target { kind, id, generation } = target;
    wit::TargetParam { kind: subject_kind(*kind), id, generation: *generation }
}

fn condition(condition: &Condition) -> wit::ConditionParam<'_> {
    let Condition { metric, target: about, minimum, maximum, fresh_within_ms } = condition;
    wit::ConditionParam {
        metric,
        target: target(about),
        minimum: *minimum,
        maximum: *maximum,
        fresh_within: *fresh_within_ms,
    }
}

fn value(value: &Value) -> wit::ValueParam<'_> {
    match value {
        Value::Text(text) => wit::ValueParam::Text(text),
        Value::Integer(integer) => wit::ValueParam::Integer(*integer),
        Value::Number(number) => wit::ValueParam::Number(*number),
        Value::Flag(flag) => wit::ValueParam::Flag(*flag),
        Value::Duration(duration) => wit::ValueParam::Duration(*duration),
        Value::Bytes(bytes) => wit::ValueParam::Bytes(*bytes),
    }
}

fn on_failure(on_failure: OnFailure) -> wit::OnFailure {
    match on_failure {
        OnFailure::Compensate => wit::OnFailure::Compensate,
        OnFailure::Stop => wit::OnFailure::Stop,
    }
}

fn step<'a>(bump: &'a Bump, step: &'a ProposedStep) -> wit::StepParam<'a> {
    let ProposedStep { verb, target: about, arguments, preconditions, on_failure: then } = step;
    wit::StepParam {
        verb,
        target: target(about),
        arguments: list(bump, arguments, |(name, v)| wit::ArgumentParam { name, value: value(v) }),
        preconditions: list(bump, preconditions, condition),
        on_failure: on_failure(*then),
    }
}

fn proposal<'a>(bump: &'a Bump, proposal: &'a Proposal) -> wit::ProposalParam<'a> {
    let Proposal { title, rationale, steps, success, watch_ms, confidence } = proposal;
    wit::ProposalParam {
        title,
        rationale,
        steps: list(bump, steps, |item| step(bump, item)),
        success: list(bump, success, condition),
        watch: *watch_ms,
        confidence: *confidence,
    }
}

fn safety_class(class: SafetyClass) -> wit::SafetyClass {
    match class {
        SafetyClass::ReadOnly => wit::SafetyClass::ReadOnly,
        SafetyClass::Reversible => wit::SafetyClass::Reversible,
        SafetyClass::Impactful => wit::SafetyClass::Impactful,
        SafetyClass::Destructive => wit::SafetyClass::Destructive,
    }
}

fn value_kind(kind: ValueKind) -> wit::ValueKind {
    match kind {
        ValueKind::Text => wit::ValueKind::Text,
        ValueKind::Integer => wit::ValueKind::Integer,
        ValueKind::Number => wit::ValueKind::Number,
        ValueKind::Flag => wit::ValueKind::Flag,
        ValueKind::Duration => wit::ValueKind::Duration,
        ValueKind::Bytes => wit::ValueKind::Bytes,
    }
}

fn argument_spec<'a>(bump: &'a Bump, spec: &'a ArgumentSpec) -> wit::ArgumentSpec<'a> {
    let ArgumentSpec { name, required, kind, minimum, maximum, choices } = spec;
    wit::ArgumentSpec {
        name,
        required: *required,
        kind: value_kind(*kind),
        minimum: *minimum,
        maximum: *maximum,
        choices: list(bump, choices, |choice| choice.as_str()),
    }
}

pub(crate) fn verb<'a>(bump: &'a Bump, verb: &'a Verb) -> wit::Verb<'a> {
    let Verb { name, summary, class, compensable, capability, arguments } = verb;
    wit::Verb {
        name,
        summary,
        class: safety_class(*class),
        compensable: *compensable,
        capability: capability.as_deref(),
        arguments: list(bump, arguments, |item| argument_spec(bump, item)),
    }
}

pub(crate) fn finding<'a>(bump: &'a Bump, finding: &'a PlanningFinding) -> planning::Finding<'a> {
    let PlanningFinding { id, subject: about, risk: found, first_seen, recurrences, attempts, workloads } = finding;
    planning::Finding {
        id,
        subject: subject(bump, about),
        risk: risk(bump, found),
        first_seen: first_seen.0,
        recurrences: *recurrences,
        attempts: *attempts,
        workloads: list(bump, workloads, |item| subject(bump, item)),
    }
}

pub(crate) fn candidate<'a>(bump: &'a Bump, candidate: &'a Candidate) -> planning::Candidate<'a> {
    let Candidate { node, free } = candidate;
    planning::Candidate { node: subject(bump, node), free: list(bump, free, |item| observation(bump, item)) }
}

fn blast_radius(blast: &BlastRadius) -> gating::BlastRadius {
    let BlastRadius { nodes, gpus, workloads, pool_percent, fleet_percent } = blast;
    gating::BlastRadius {
        nodes: *nodes,
        gpus: *gpus,
        workloads: *workloads,
        pool_percent: *pool_percent,
        fleet_percent: *fleet_percent,
    }
}

fn activity(activity: &Activity) -> gating::Activity<'_> {
    let Activity { verb, target_id, at, succeeded } = activity;
    gating::Activity { verb, target_id, at: at.0, succeeded: *succeeded }
}

pub(crate) fn gate_question<'a>(bump: &'a Bump, question: &'a GateQuestion) -> gating::Question<'a> {
    let GateQuestion { at, utc_offset_minutes, proposal: proposed, risk: found, class, blast, recent, dry_run } =
        question;
    gating::Question {
        at: at.0,
        utc_offset_minutes: *utc_offset_minutes,
        proposal: proposal(bump, proposed),
        risk: risk(bump, found),
        class: safety_class(*class),
        blast: blast_radius(blast),
        recent: list(bump, recent, activity),
        dry_run: *dry_run,
    }
}

pub(crate) fn routing_question<'a>(bump: &'a Bump, question: &'a RoutingQuestion) -> routing::Question<'a> {
    match question {
        RoutingQuestion::Placement(placement) => {
            let Placement { workload, needs, nodes } = placement;
            routing::Question::Placement(routing::Placement {
                workload: subject(bump, workload),
                needs: attributes(bump, needs),
                nodes: list(bump, nodes, |item| observation(bump, item)),
            })
        }
        RoutingQuestion::Message(message) => {
            let Message { source, topic, kind, attributes: map, size_bytes } = message;
            routing::Question::Message(routing::Message {
                source,
                topic,
                kind,
                attributes: attributes(bump, map),
                size_bytes: *size_bytes,
            })
        }
    }
}

// ---- from the guest ----

pub(crate) fn severity(severity: log::Severity) -> Severity {
    match severity {
        log::Severity::Debug => Severity::Debug,
        log::Severity::Info => Severity::Info,
        log::Severity::Warn => Severity::Warn,
        log::Severity::Error => Severity::Error,
    }
}

fn at_most<T>(list: &[T], maximum: usize, what: &str) -> Checked<()> {
    if list.len() > maximum {
        return invalid(format!("{what} holds {} items, over the limit of {maximum}", list.len()));
    }
    Ok(())
}

fn share(number: f64, what: &str) -> Checked<f64> {
    // False for NaN, too.
    if (0.0..=1.0).contains(&number) { Ok(number) } else { invalid(format!("{what} is {number}, outside 0 to 1")) }
}

fn finite(number: f64, what: &str) -> Checked<f64> {
    if number.is_finite() { Ok(number) } else { invalid(format!("{what} is {number}, not a finite number")) }
}

fn bound(number: Option<f64>, what: &str) -> Checked<Option<f64>> {
    number.map(|number| finite(number, what)).transpose()
}

fn duration(milliseconds: u64, what: &str) -> Checked<u64> {
    if milliseconds > MAX_EXACT {
        return invalid(format!("{what} is {milliseconds} ms, over the limit of {MAX_EXACT}"));
    }
    Ok(milliseconds)
}

fn text(text: String, maximum: usize, what: &str) -> Checked<String> {
    if text.is_empty() || text.len() > maximum {
        return invalid(format!("{what} is {} bytes, outside 1 to {maximum}", text.len()));
    }
    Ok(text)
}

fn all<A, B>(list: Vec<A>, convert: impl Fn(A) -> Checked<B>) -> Checked<Vec<B>> {
    list.into_iter().map(convert).collect()
}

fn subject_kind_from_guest(kind: wit::SubjectKind) -> SubjectKind {
    match kind {
        wit::SubjectKind::Node => SubjectKind::Node,
        wit::SubjectKind::Gpu => SubjectKind::Gpu,
        wit::SubjectKind::Workload => SubjectKind::Workload,
        wit::SubjectKind::Pool => SubjectKind::Pool,
        wit::SubjectKind::Participant => SubjectKind::Participant,
    }
}

pub(crate) fn subject_from_guest(subject: wit::SubjectResult) -> Checked<Subject> {
    let wit::SubjectResult { kind, id, generation, labels } = subject;
    let mut map = BTreeMap::new();
    for wit::AttributeResult { key, value } in labels {
        if let Some(former) = map.insert(key.clone(), value) {
            return invalid(format!("the label `{key}` comes twice, first as `{former}`"));
        }
    }
    Ok(Subject { kind: subject_kind_from_guest(kind), id, generation, labels: map })
}

pub(crate) fn metric_input_from_guest(input: wit::MetricInput) -> MetricInput {
    let wit::MetricInput { name, unit, window, step, aggregation } = input;
    let aggregation = match aggregation {
        wit::Aggregation::Last => Aggregation::Last,
        wit::Aggregation::Mean => Aggregation::Mean,
        wit::Aggregation::Max => Aggregation::Max,
        wit::Aggregation::Min => Aggregation::Min,
        wit::Aggregation::Sum => Aggregation::Sum,
        wit::Aggregation::Rate => Aggregation::Rate,
    };
    MetricInput { name, unit, window_ms: window, step_ms: step, aggregation }
}

pub(crate) fn description(description: wit::Description) -> Description {
    let wit::Description { name, version, summary, inputs, config_schema } = description;
    let inputs = inputs
        .into_iter()
        .map(|input| match input {
            wit::Input::Metric(metric) => Input::Metric(metric_input_from_guest(metric)),
            wit::Input::Events(wit::EventInput { name, window, at_most }) => {
                Input::Events(EventInput { name, window_ms: window, at_most })
            }
        })
        .collect();
    Description { name, version, summary, inputs, config_schema }
}

fn risk_from_guest(risk: wit::RiskResult) -> Checked<Risk> {
    let wit::RiskResult { level, score, confidence, horizon, cause, reason, contributions } = risk;
    at_most(&contributions, ITEMS_MAX, "`contributions`")?;
    Ok(Risk {
        level: match level {
            wit::Level::Low => Level::Low,
            wit::Level::Elevated => Level::Elevated,
            wit::Level::High => Level::High,
            wit::Level::Critical => Level::Critical,
        },
        score: share(score, "`score`")?,
        confidence: share(confidence, "`confidence`")?,
        horizon_ms: horizon.map(|horizon| duration(horizon, "`horizon`")).transpose()?,
        cause: text(cause, CODE_BYTES_MAX, "`cause`")?,
        reason,
        contributions: all(contributions, |wit::ContributionResult { input, weight, note }| {
            Ok(Contribution { input, weight: finite(weight, "a contribution's `weight`")?, note })
        })?,
    })
}

pub(crate) fn assessment(assessment: scoring::Assessment) -> Checked<Assessment> {
    match assessment {
        scoring::Assessment::Risk(risk) => Ok(Assessment::Risk(risk_from_guest(risk)?)),
        scoring::Assessment::Insufficient(missing) => Ok(Assessment::Insufficient(missing)),
    }
}

fn target_from_guest(target: wit::TargetResult) -> Target {
    let wit::TargetResult { kind, id, generation } = target;
    Target { kind: subject_kind_from_guest(kind), id, generation }
}

fn condition_from_guest(condition: wit::ConditionResult) -> Checked<Condition> {
    let wit::ConditionResult { metric, target, minimum, maximum, fresh_within } = condition;
    Ok(Condition {
        metric,
        target: target_from_guest(target),
        minimum: bound(minimum, "a condition's `minimum`")?,
        maximum: bound(maximum, "a condition's `maximum`")?,
        fresh_within_ms: duration(fresh_within, "`fresh-within`")?,
    })
}

fn conditions_from_guest(conditions: Vec<wit::ConditionResult>, what: &str) -> Checked<Vec<Condition>> {
    at_most(&conditions, ITEMS_MAX, what)?;
    all(conditions, condition_from_guest)
}

fn argument_from_guest(argument: wit::ArgumentResult) -> Checked<(String, Value)> {
    let wit::ArgumentResult { name, value } = argument;
    let value = match value {
        wit::ValueResult::Text(text) => Value::Text(text),
        wit::ValueResult::Integer(integer) => Value::Integer(integer),
        wit::ValueResult::Number(number) => Value::Number(number),
        wit::ValueResult::Flag(flag) => Value::Flag(flag),
        wit::ValueResult::Duration(duration) => Value::Duration(duration),
        wit::ValueResult::Bytes(bytes) => Value::Bytes(bytes),
    };
    if !value.is_exact() {
        return invalid(format!("the argument `{name}` is {value}, outside what JSON carries exactly"));
    }
    Ok((name, value))
}

fn step_from_guest(step: wit::StepResult) -> Checked<ProposedStep> {
    let wit::StepResult { verb, target, arguments, preconditions, on_failure } = step;
    at_most(&arguments, ITEMS_MAX, "`arguments`")?;
    let mut map = BTreeMap::new();
    for argument in arguments {
        let (name, value) = argument_from_guest(argument)?;
        if map.insert(name.clone(), value).is_some() {
            return invalid(format!("the argument `{name}` of `{verb}` comes twice"));
        }
    }
    Ok(ProposedStep {
        verb,
        target: target_from_guest(target),
        arguments: map,
        preconditions: conditions_from_guest(preconditions, "`preconditions`")?,
        on_failure: match on_failure {
            wit::OnFailure::Compensate => OnFailure::Compensate,
            wit::OnFailure::Stop => OnFailure::Stop,
        },
    })
}

fn proposal_from_guest(proposal: wit::ProposalResult) -> Checked<Proposal> {
    let wit::ProposalResult { title, rationale, steps, success, watch, confidence } = proposal;
    if steps.is_empty() {
        return invalid("a proposal has no steps; answer an empty list of proposals to say that nothing can be done");
    }
    at_most(&steps, ITEMS_MAX, "`steps`")?;
    Ok(Proposal {
        title: text(title, TITLE_BYTES_MAX, "`title`")?,
        rationale,
        steps: all(steps, step_from_guest)?,
        success: conditions_from_guest(success, "`success`")?,
        watch_ms: duration(watch, "`watch`")?,
        confidence: share(confidence, "`confidence`")?,
    })
}

pub(crate) fn proposals(proposals: Vec<wit::ProposalResult>) -> Checked<Vec<Proposal>> {
    at_most(&proposals, PROPOSALS_MAX, "the answer")?;
    all(proposals, proposal_from_guest)
}

fn reason_from_guest(reason: wit::Reason) -> Checked<Reason> {
    let wit::Reason { code, text: words } = reason;
    Ok(Reason { code: text(code, CODE_BYTES_MAX, "a reason's `code`")?, text: words })
}

pub(crate) fn judgement(judgement: gating::Judgement) -> Checked<Judgement> {
    let gating::Judgement { verdict, reasons } = judgement;
    if reasons.is_empty() {
        return invalid("a verdict without a reason");
    }
    at_most(&reasons, ITEMS_MAX, "`reasons`")?;
    let verdict = match verdict {
        gating::Verdict::Allow => Verdict::Allow,
        gating::Verdict::Deny => Verdict::Deny,
        gating::Verdict::RequireApproval(gating::Demand {
            approvers,
            role,
            approve_within,
            execute_within,
            comment,
        }) => {
            if !(1..=APPROVERS_MAX).contains(&approvers) {
                return invalid(format!("`approvers` is {approvers}, outside 1 to {APPROVERS_MAX}"));
            }
            Verdict::RequireApproval(Demand {
                approvers,
                role: text(role, CODE_BYTES_MAX, "`role`")?,
                approve_within_ms: duration(approve_within, "`approve-within`")?,
                execute_within_ms: duration(execute_within, "`execute-within`")?,
                comment,
            })
        }
    };
    Ok(Judgement { verdict, reasons: all(reasons, reason_from_guest)? })
}

pub(crate) fn choices(choices: Vec<routing::Choice>) -> Checked<Vec<Choice>> {
    at_most(&choices, CHOICES_MAX, "the answer")?;
    all(choices, |routing::Choice { id, score, reason }| {
        Ok(Choice { id, score: finite(score, "a choice's `score`")?, reason: reason_from_guest(reason)? })
    })
}
