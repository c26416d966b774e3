//! The rules, as plain functions of the question.

use crate::{
    aether::plugin::types::{Reason, SafetyClass},
    exports::aether::plugin::gating::{Demand, Judgement, Question, Verdict},
};
use aether_plugin::{Check, check_positive};
use serde::Deserialize;

/// What becomes of a plan of one class.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(tag = "verdict", rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) enum Rule {
    Allow,
    Deny,
    RequireApproval(Approval),
}

#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Approval {
    pub(crate) approvers: u32,
    pub(crate) role: String,
    pub(crate) approve_within_ms: u64,
    pub(crate) execute_within_ms: u64,
    pub(crate) comment: bool,
}

impl Default for Approval {
    fn default() -> Self {
        Self {
            approvers: 1,
            role: "approver".into(),
            approve_within_ms: 900_000,
            execute_within_ms: 300_000,
            comment: false,
        }
    }
}

/// What no plan may exceed. A limit left out is none.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Blast {
    pub(crate) nodes: Option<u32>,
    pub(crate) gpus: Option<u32>,
    pub(crate) workloads: Option<u32>,
    pub(crate) pool_percent: Option<f64>,
    pub(crate) fleet_percent: Option<f64>,
}

impl Default for Blast {
    fn default() -> Self {
        Self { nodes: Some(4), gpus: Some(32), workloads: Some(16), pool_percent: None, fleet_percent: None }
    }
}

#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Config {
    pub(crate) read_only: Rule,
    pub(crate) reversible: Rule,
    pub(crate) impactful: Rule,
    pub(crate) destructive: Rule,
    pub(crate) blast: Blast,
    /// Failed or unknown actions on the targets within the window, at which no further one is tried.
    pub(crate) failures_maximum: u32,
    pub(crate) failures_window_ms: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            read_only: Rule::Allow,
            reversible: Rule::RequireApproval(Approval::default()),
            impactful: Rule::RequireApproval(Approval::default()),
            destructive: Rule::Deny,
            blast: Blast::default(),
            failures_maximum: 3,
            failures_window_ms: 3_600_000,
        }
    }
}

impl Check for Config {
    fn check(&self) -> Result<(), String> {
        for (field, rule) in [
            ("read_only", &self.read_only),
            ("reversible", &self.reversible),
            ("impactful", &self.impactful),
            ("destructive", &self.destructive),
        ] {
            if let Rule::RequireApproval(approval) = rule {
                approval.check(field)?;
            }
        }
        for (field, value) in
            [("blast.pool_percent", self.blast.pool_percent), ("blast.fleet_percent", self.blast.fleet_percent)]
        {
            if let Some(value) = value {
                check_positive(field, value)?;
            }
        }
        if self.failures_maximum == 0 {
            return Err("`failures_maximum` is 0, which would deny everything; give at least 1".into());
        }
        Ok(())
    }
}

impl Approval {
    fn check(&self, field: &str) -> Result<(), String> {
        const DAY_MS: u64 = 86_400_000;
        if !(1..=16).contains(&self.approvers) {
            return Err(format!("`{field}.approvers` is {}; give 1 to 16", self.approvers));
        }
        if !["approver", "admin"].contains(&self.role.as_str()) {
            return Err(format!("`{field}.role` is `{}`; give `approver` or `admin`", self.role));
        }
        for (name, value) in
            [("approve_within_ms", self.approve_within_ms), ("execute_within_ms", self.execute_within_ms)]
        {
            if !(1_000..=DAY_MS).contains(&value) {
                return Err(format!("`{field}.{name}` is {value}; give 1000 to {DAY_MS}"));
            }
        }
        Ok(())
    }
}

fn reason(code: &str, text: String) -> Reason {
    Reason { code: code.into(), text }
}

/// What a plan exceeds, each with its reason.
fn excesses(question: &Question, config: &Config) -> Vec<Reason> {
    let mut reasons = Vec::new();
    let blast = &question.blast;
    let limits = &config.blast;
    for (code, what, found, limit) in [
        ("gate.blast.nodes", "nodes", blast.nodes, limits.nodes),
        ("gate.blast.gpus", "GPUs", blast.gpus, limits.gpus),
        ("gate.blast.workloads", "workloads", blast.workloads, limits.workloads),
    ] {
        if let Some(limit) = limit.filter(|limit| found > *limit) {
            reasons.push(reason(code, format!("It touches {found} {what}, over the limit of {limit}.")));
        }
    }
    for (code, what, found, limit) in [
        ("gate.blast.pool", "pool", blast.pool_percent, limits.pool_percent),
        ("gate.blast.fleet", "fleet", blast.fleet_percent, limits.fleet_percent),
    ] {
        if let Some(limit) = limit.filter(|limit| found > *limit) {
            let text = format!("It touches {found:.1} % of the {what}'s nodes, over the limit of {limit:.1} %.");
            reasons.push(reason(code, text));
        }
    }
    let since = question.at.saturating_sub_unsigned(config.failures_window_ms);
    let failures = question.recent.iter().filter(|activity| activity.at >= since && activity.succeeded != Some(true));
    let failures = failures.count();
    if failures >= config.failures_maximum as usize {
        let minutes = config.failures_window_ms / 60_000;
        let text = format!("{failures} actions on its targets failed or ended unknown within {minutes} minutes.");
        reasons.push(reason("gate.recent-failures", text));
    }
    reasons
}

/// The whole decision.
pub(crate) fn judge(question: &Question, config: &Config) -> Judgement {
    let (class, name, rule) = match question.class {
        SafetyClass::ReadOnly => ("read-only", "Read-only", &config.read_only),
        SafetyClass::Reversible => ("reversible", "Reversible", &config.reversible),
        SafetyClass::Impactful => ("impactful", "Impactful", &config.impactful),
        SafetyClass::Destructive => ("destructive", "Destructive", &config.destructive),
    };
    let code = format!("gate.class.{class}");
    let mut reasons = excesses(question, config);
    let verdict = match rule {
        Rule::Deny => {
            reasons.push(reason(&code, format!("{name} plans are denied by this policy.")));
            Verdict::Deny
        }
        Rule::Allow | Rule::RequireApproval(_) if !reasons.is_empty() => Verdict::Deny,
        Rule::Allow => {
            reasons.push(reason(&code, format!("{name} plans are allowed by this policy.")));
            Verdict::Allow
        }
        Rule::RequireApproval(approval) => {
            let people = if approval.approvers == 1 { "person" } else { "people" };
            let text = format!(
                "{name} plans need the approval of {} {people} of role {} within {} minutes.",
                approval.approvers,
                approval.role,
                approval.approve_within_ms / 60_000
            );
            reasons.push(reason(&code, text));
            Verdict::RequireApproval(Demand {
                approvers: approval.approvers,
                role: approval.role.clone(),
                approve_within: approval.approve_within_ms,
                execute_within: approval.execute_within_ms,
                comment: approval.comment,
            })
        }
    };
    if question.dry_run {
        // Nothing will be changed, so nothing is in the way; what would be, live, is told.
        let live = match verdict {
            Verdict::Allow => "it would be allowed",
            Verdict::Deny => "it would be denied",
            Verdict::RequireApproval(_) => "it would need approval",
        };
        reasons.insert(0, reason("gate.dry-run", format!("A dry run changes nothing. Live, {live}.")));
        return Judgement { verdict: Verdict::Allow, reasons };
    }
    Judgement { verdict, reasons }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        aether::plugin::types::{Level, Proposal, Risk},
        exports::aether::plugin::gating::{Activity, BlastRadius},
    };

    const NOW: i64 = 1_800_000_000_000;

    fn question(class: SafetyClass) -> Question {
        Question {
            at: NOW,
            utc_offset_minutes: 0,
            proposal: Proposal {
                title: "Migrate".into(),
                rationale: String::new(),
                steps: vec![],
                success: vec![],
                watch: 10_000,
                confidence: 0.9,
            },
            risk: Risk {
                level: Level::Critical,
                score: 0.9,
                confidence: 0.9,
                horizon: None,
                cause: "spot.rebalance".into(),
                reason: String::new(),
                contributions: vec![],
            },
            class,
            blast: BlastRadius { nodes: 2, gpus: 0, workloads: 1, pool_percent: 100.0, fleet_percent: 100.0 },
            recent: vec![],
            dry_run: false,
        }
    }

    fn codes(judgement: &Judgement) -> Vec<&str> {
        judgement.reasons.iter().map(|reason| reason.code.as_str()).collect()
    }

    #[test]
    fn the_class_decides() {
        let judged = |class| judge(&question(class), &Config::default()).verdict;
        assert!(matches!(judged(SafetyClass::ReadOnly), Verdict::Allow));
        assert!(matches!(judged(SafetyClass::Destructive), Verdict::Deny));
        for class in [SafetyClass::Reversible, SafetyClass::Impactful] {
            match judged(class) {
                Verdict::RequireApproval(demand) => {
                    assert_eq!((demand.approvers, demand.role.as_str()), (1, "approver"));
                    assert_eq!((demand.approve_within, demand.execute_within), (900_000, 300_000));
                }
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn a_blast_radius_over_the_limit_denies() {
        let mut wide = question(SafetyClass::Impactful);
        wide.blast.nodes = 5;
        wide.blast.workloads = 17;
        let judgement = judge(&wide, &Config::default());
        assert!(matches!(judgement.verdict, Verdict::Deny));
        assert_eq!(codes(&judgement), ["gate.blast.nodes", "gate.blast.workloads"]);
        let share = Config { blast: Blast { fleet_percent: Some(20.0), ..Blast::default() }, ..Config::default() };
        assert_eq!(codes(&judge(&question(SafetyClass::Impactful), &share)), ["gate.blast.fleet"]);
    }

    #[test]
    fn what_failed_lately_is_not_tried_for_ever() {
        let activity = |minutes_ago: i64, succeeded| Activity {
            verb: "process.migrate".into(),
            target_id: "counter".into(),
            at: NOW - minutes_ago * 60_000,
            succeeded,
        };
        let mut tried = question(SafetyClass::Impactful);
        tried.recent =
            vec![activity(1, Some(false)), activity(2, None), activity(3, Some(true)), activity(61, Some(false))];
        assert!(matches!(judge(&tried, &Config::default()).verdict, Verdict::RequireApproval(_)));
        tried.recent.push(activity(4, Some(false)));
        let judgement = judge(&tried, &Config::default());
        assert!(matches!(judgement.verdict, Verdict::Deny));
        assert_eq!(codes(&judgement), ["gate.recent-failures"]);
    }

    #[test]
    fn a_dry_run_is_allowed_and_tells_what_live_would_be() {
        let mut dry = question(SafetyClass::Destructive);
        dry.dry_run = true;
        let judgement = judge(&dry, &Config::default());
        assert!(matches!(judgement.verdict, Verdict::Allow));
        assert_eq!(codes(&judgement), ["gate.dry-run", "gate.class.destructive"]);
        assert!(judgement.reasons[0].text.ends_with("Live, it would be denied."));
    }

    #[test]
    fn configs_are_checked() {
        let error = |json: &str| aether_plugin::parse::<Config>(json).unwrap_err();
        assert_eq!(
            error(r#"{"impactful":{"verdict":"require-approval","role":"viewer"}}"#),
            "`impactful.role` is `viewer`; give `approver` or `admin`"
        );
        assert!(error(r#"{"impactful":{"verdict":"maybe"}}"#).starts_with("unknown variant `maybe`"));
        let stricter = r#"{"impactful":{"verdict":"require-approval","approvers":2}}"#;
        let config = aether_plugin::parse::<Config>(stricter).unwrap();
        assert_eq!(config.impactful, Rule::RequireApproval(Approval { approvers: 2, ..Approval::default() }));
    }

    #[test]
    fn the_schema_tells_the_defaults() {
        let schema: serde_json::Value = serde_json::from_str(include_str!("schema.json")).unwrap();
        let defaults: serde_json::Map<String, serde_json::Value> = schema["properties"]
            .as_object()
            .unwrap()
            .iter()
            .map(|(field, property)| (field.clone(), property["default"].clone()))
            .collect();
        let text = serde_json::to_string(&defaults).unwrap();
        assert_eq!(aether_plugin::parse::<Config>(&text).unwrap(), Config::default());
    }
}
