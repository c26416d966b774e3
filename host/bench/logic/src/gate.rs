//! The gate: a plan that touches too much is denied, one that only reads is allowed, and what is between needs people.

use serde::{Deserialize, Serialize};

/// The gravest class of the plan's verbs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Class {
    ReadOnly,
    Reversible,
    Impactful,
    Destructive,
}

/// The facts that the rules look at.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    pub class: Class,
    pub nodes: u32,
    pub gpus: u32,
    /// Share of the largest touched pool's nodes, 0 to 100.
    pub pool_percent: f64,
}

/// What is too much.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rules {
    pub max_nodes: u32,
    pub max_gpus: u32,
    pub max_pool_percent: f64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    Allow,
    Deny,
    /// This many different people must agree.
    RequireApproval(u32),
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reason {
    pub code: String,
    pub text: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Judgement {
    pub verdict: Verdict,
    pub reasons: Vec<Reason>,
}

fn reason(code: &str, text: String) -> Reason {
    Reason { code: code.into(), text }
}

/// Judges a plan.
#[must_use]
pub fn judge(plan: &Plan, rules: &Rules) -> Judgement {
    if plan.class == Class::ReadOnly {
        let reasons = vec![reason("bench.read-only", "the plan changes nothing".into())];
        return Judgement { verdict: Verdict::Allow, reasons };
    }
    let mut reasons = Vec::new();
    if plan.nodes > rules.max_nodes {
        let text = format!("it touches {} nodes, over the limit of {}", plan.nodes, rules.max_nodes);
        reasons.push(reason("bench.blast.nodes", text));
    }
    if plan.gpus > rules.max_gpus {
        let text = format!("it touches {} GPUs, over the limit of {}", plan.gpus, rules.max_gpus);
        reasons.push(reason("bench.blast.gpus", text));
    }
    if plan.pool_percent > rules.max_pool_percent {
        let text =
            format!("it touches {} % of a pool, over the limit of {} %", plan.pool_percent, rules.max_pool_percent);
        reasons.push(reason("bench.blast.pool", text));
    }
    if plan.class == Class::Destructive {
        reasons.push(reason("bench.class.destructive", "nothing destructive runs".into()));
    }
    if !reasons.is_empty() {
        return Judgement { verdict: Verdict::Deny, reasons };
    }
    let (approvers, code, text) = match plan.class {
        Class::Impactful => (2, "bench.class.impactful", "it is felt by users: two people must agree"),
        Class::ReadOnly | Class::Reversible | Class::Destructive => {
            (1, "bench.class.reversible", "it can be undone: one person must agree")
        }
    };
    Judgement { verdict: Verdict::RequireApproval(approvers), reasons: vec![reason(code, text.into())] }
}
