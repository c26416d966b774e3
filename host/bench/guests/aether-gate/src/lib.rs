//! The measured gate as a component.

use aether_plugin as _;

wit_bindgen::generate!({ path: "../../../../wit", world: "policy-gate" });

use aether::plugin::types::{Description, Reason, SafetyClass};
use bench_logic::gate::{self, Class, Rules};
use exports::aether::plugin::{
    gating::{self, Demand, Judgement, Question, Verdict},
    plugin,
};
use std::sync::OnceLock;

static RULES: OnceLock<Rules> = OnceLock::new();

struct Component;

impl plugin::Guest for Component {
    fn describe() -> Description {
        Description {
            name: "bench-gate".into(),
            version: env!("CARGO_PKG_VERSION").into(),
            summary: "Judges a plan by its class and its blast radius.".into(),
            inputs: vec![],
            config_schema: r#"{"type":"object"}"#.into(),
        }
    }

    fn configure(config: String) -> Result<(), String> {
        let rules = serde_json::from_str(&config).map_err(|error| error.to_string())?;
        RULES.set(rules).map_err(|_| "configured already".to_owned())
    }
}

impl gating::Guest for Component {
    fn judge(question: Question) -> Result<Judgement, String> {
        let rules = RULES.get().ok_or("not configured")?;
        let class = match question.class {
            SafetyClass::ReadOnly => Class::ReadOnly,
            SafetyClass::Reversible => Class::Reversible,
            SafetyClass::Impactful => Class::Impactful,
            SafetyClass::Destructive => Class::Destructive,
        };
        let blast = question.blast;
        let plan = gate::Plan { class, nodes: blast.nodes, gpus: blast.gpus, pool_percent: blast.pool_percent };
        let gate::Judgement { verdict, reasons } = gate::judge(&plan, rules);
        let verdict = match verdict {
            gate::Verdict::Allow => Verdict::Allow,
            gate::Verdict::Deny => Verdict::Deny,
            gate::Verdict::RequireApproval(approvers) => Verdict::RequireApproval(Demand {
                approvers,
                role: "approver".into(),
                approve_within: 3_600_000,
                execute_within: 600_000,
                comment: false,
            }),
        };
        let reasons = reasons.into_iter().map(|gate::Reason { code, text }| Reason { code, text }).collect();
        Ok(Judgement { verdict, reasons })
    }
}

export!(Component);
