//! Cedar, for the gate alone: it decides on attributes and does no arithmetic over a series. Policies are parsed and
//! validated against their schema once; the plan becomes an entity in every request, as its facts are new each time.

use super::{Variant, variant};
use crate::cases;
use anyhow::{Context, Result, bail, ensure};
use bench_logic::gate;
use cedar_policy::{
    Authorizer, Context as Facts, Decision, Entities, Entity, EntityUid, PolicyId, PolicySet, Request, Response,
    RestrictedExpression, Schema, ValidationMode, Validator,
};
use std::collections::{HashMap, HashSet};

pub const CEDAR: &str = "Cedar";

pub fn gate() -> Result<Variant> {
    let policies: PolicySet = include_str!("../../policies/gate.cedar").parse()?;
    let (schema, _) = Schema::from_cedarschema_str(include_str!("../../policies/gate.cedarschema"))?;
    let validated = Validator::new(schema).validate(&policies, ValidationMode::Strict);
    ensure!(validated.validation_passed(), "the policies do not fit their schema: {validated}");

    let planner: EntityUid = r#"Planner::"bench""#.parse()?;
    let run: EntityUid = r#"Action::"run""#.parse()?;
    let plan: EntityUid = r#"Plan::"plan""#.parse()?;
    let authorizer = Authorizer::new();
    let plans = cases::plans();
    let native: Vec<_> = plans.iter().map(cases::judged).collect();
    let asked = policies.clone();
    let ask = move |case: usize| -> Result<Response> {
        let facts = &plans[case];
        let class = match facts.class {
            gate::Class::ReadOnly => "read-only",
            gate::Class::Reversible => "reversible",
            gate::Class::Impactful => "impactful",
            gate::Class::Destructive => "destructive",
        };
        #[allow(clippy::cast_possible_truncation, reason = "a share of 0 to 100")]
        let hundredths = (facts.pool_percent * 100.0) as i64;
        let attributes = HashMap::from([
            ("class".to_owned(), RestrictedExpression::new_string(class.into())),
            ("nodes".to_owned(), RestrictedExpression::new_long(facts.nodes.into())),
            ("gpus".to_owned(), RestrictedExpression::new_long(facts.gpus.into())),
            ("pool_hundredths".to_owned(), RestrictedExpression::new_long(hundredths)),
        ]);
        let entity = Entity::new(plan.clone(), attributes, HashSet::new())?;
        let entities = Entities::from_entities([entity], None)?;
        let request = Request::new(planner.clone(), run.clone(), plan.clone(), Facts::empty(), None)?;
        Ok(authorizer.is_authorized(&request, &asked, &entities))
    };
    variant(CEDAR, native.len(), ask, move |case, response| {
        cases::same_judgement(&judgement(&policies, &response?)?, &native[case])
    })
}

/// What the policies that decided say by their annotations.
fn judgement(policies: &PolicySet, response: &Response) -> Result<gate::Judgement> {
    if let Some(error) = response.diagnostics().errors().next() {
        bail!("{error}");
    }
    let told = |id: &PolicyId, key: &str| policies.annotation(id, key).map(str::to_owned);
    let mut reasons = Vec::new();
    let mut approvers = 0;
    for id in response.diagnostics().reason() {
        reasons.push(gate::Reason { code: told(id, "code").context("a policy without a code")?, text: String::new() });
        if let Some(count) = told(id, "approvers") {
            approvers = approvers.max(count.parse()?);
        }
    }
    let verdict = match (response.decision(), approvers) {
        (Decision::Deny, _) => gate::Verdict::Deny,
        (Decision::Allow, 0) => gate::Verdict::Allow,
        (Decision::Allow, approvers) => gate::Verdict::RequireApproval(approvers),
    };
    Ok(gate::Judgement { verdict, reasons })
}
