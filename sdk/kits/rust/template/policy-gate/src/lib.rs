//! {{name}}: may this plan run? What cannot be undone or touches too much may not, the rest needs people.

wit_bindgen::generate!({ path: "wit", world: "policy-gate" });

use aether::plugin::types::{Description, Reason, SafetyClass};
use aether_plugin::{Check, Settings};
use exports::aether::plugin::{
    gating::{self, Demand, Judgement, Question, Verdict},
    plugin,
};

#[derive(serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Config {
    max_nodes: u32,
}

impl Default for Config {
    fn default() -> Self {
        Self { max_nodes: 4 }
    }
}

impl Check for Config {
    fn check(&self) -> Result<(), String> {
        Ok(())
    }
}

static SETTINGS: Settings<Config> = Settings::new();

struct Component;

impl plugin::Guest for Component {
    fn describe() -> Description {
        Description {
            name: "{{name}}".into(),
            version: env!("CARGO_PKG_VERSION").into(),
            summary: "Denies what cannot be undone or touches too many nodes; asks people about the rest.".into(),
            // A gate reads no telemetry: its question holds all it needs.
            inputs: vec![],
            config_schema: r#"{
                "type": "object",
                "properties": { "max_nodes": { "type": "integer", "minimum": 0, "default": 4 } },
                "additionalProperties": false
            }"#
            .into(),
        }
    }

    fn configure(config: String) -> Result<(), String> {
        SETTINGS.set(&config)
    }
}

impl gating::Guest for Component {
    /// An error is a fault of the component, which denies.
    fn judge(question: Question) -> Result<Judgement, String> {
        judge(&question, SETTINGS.get())
    }
}

export!(Component);

/// A plain function of the question, so that `cargo test` can ask it without a host.
fn judge(question: &Question, config: &Config) -> Result<Judgement, String> {
    let Question { proposal, class, blast, recent, dry_run, .. } = question;
    if proposal.steps.is_empty() {
        return Err("the proposal has no steps".into());
    }
    let title = &proposal.title;
    let settled = |verdict, code, text| Ok(Judgement { verdict, reasons: vec![reason(code, text)] });
    if *class == SafetyClass::Destructive {
        return settled(Verdict::Deny, "gate.destructive", format!("\"{title}\" cannot be undone"));
    }
    if blast.nodes > config.max_nodes {
        let text = format!("{} nodes are touched, of at most {}", blast.nodes, config.max_nodes);
        return settled(Verdict::Deny, "gate.blast-radius", text);
    }
    if *dry_run || *class == SafetyClass::ReadOnly {
        return settled(Verdict::Allow, "gate.harmless", "nothing is changed".into());
    }

    // Once more with care after a failure; an outcome that nobody knows counts as one.
    let failed = recent.iter().filter(|activity| activity.succeeded != Some(true));
    let mut reasons: Vec<Reason> = failed
        .map(|activity| {
            let text = format!("{} on {} did not succeed", activity.verb, activity.target_id);
            reason("gate.recent-failure", text)
        })
        .collect();
    let approvers = if reasons.is_empty() { 1 } else { 2 };
    reasons.push(reason("gate.approval", format!("\"{title}\" changes what runs")));
    let demand = Demand {
        approvers,
        role: "approver".into(),
        approve_within: 15 * 60_000,
        execute_within: 5 * 60_000,
        comment: approvers > 1,
    };
    Ok(Judgement { verdict: Verdict::RequireApproval(demand), reasons })
}

fn reason(code: &str, text: String) -> Reason {
    Reason { code: code.into(), text }
}
