//! Rego on regorus: its interpreter, and its virtual machine, which runs what was compiled once. The answer stays a
//! regorus value in the timed part; only the check reads it.

use super::{Variant, variant};
use crate::cases;
use anyhow::Result;
use bench_logic::{ewma, gate};
use regorus::{Engine, Value, languages::rego::compiler::Compiler, rvm::vm::RegoVM};
use serde::Serialize;
use serde_json::json;
use std::collections::BTreeMap;

pub const INTERPRETER: &str = "Rego on regorus, interpreter";
pub const MACHINE: &str = "Rego on regorus, virtual machine";
pub const MACHINE_PREPARED: &str = "Rego on regorus, virtual machine, input built before";

struct Policy {
    engine: Engine,
    data: Value,
    rule: &'static str,
}

impl Policy {
    fn new(name: &str, source: &str, data: &impl Serialize, rule: &'static str) -> Result<Self> {
        let data = Value::from(serde_json::to_value(data)?);
        let mut engine = Engine::new();
        engine.add_policy(name.into(), source.into())?;
        engine.add_data(data.clone())?;
        Ok(Self { engine, data, rule })
    }

    fn machine(&self) -> Result<RegoVM> {
        let compiled = self.engine.clone().compile_with_entrypoint(&self.rule.into())?;
        let program = Compiler::compile_from_policy(&compiled, &[self.rule])?;
        let mut machine = RegoVM::new_with_policy(compiled);
        machine.load_program(program);
        machine.set_data(self.data.clone())?;
        Ok(machine)
    }

    fn variants<I: Clone + 'static>(
        self,
        inputs: Vec<I>,
        build: fn(&I) -> Value,
        check: impl Fn(usize, Result<Value>) -> Result<()>,
    ) -> Result<Vec<Variant>> {
        let count = inputs.len();
        let (mut engine, rule, input) = (self.engine.clone(), self.rule, inputs.clone());
        let interpreter = variant(
            INTERPRETER,
            count,
            move |case| {
                engine.set_input(build(&input[case]));
                engine.eval_rule(rule.into())
            },
            &check,
        )?;
        let (mut machine, input) = (self.machine()?, inputs.clone());
        let compiled = variant(
            MACHINE,
            count,
            move |case| {
                machine.set_input(build(&input[case]));
                Ok(machine.execute()?)
            },
            &check,
        )?;
        let mut machine = self.machine()?;
        let built: Vec<Value> = inputs.iter().map(build).collect();
        let prepared = variant(
            MACHINE_PREPARED,
            count,
            move |case| {
                machine.set_input(built[case].clone());
                Ok(machine.execute()?)
            },
            &check,
        )?;
        Ok(vec![interpreter, compiled, prepared])
    }
}

fn object(fields: impl IntoIterator<Item = (&'static str, Value)>) -> Value {
    Value::from(fields.into_iter().map(|(key, value)| (Value::from(key), value)).collect::<BTreeMap<_, _>>())
}

pub fn gate() -> Result<Vec<Variant>> {
    let source = include_str!("../../policies/gate.rego");
    let policy = Policy::new("gate.rego", source, &json!({ "rules": cases::GATE }), "data.bench.gate.judgement")?;
    let plans = cases::plans();
    let native: Vec<_> = plans.iter().map(cases::judged).collect();
    let build = |plan: &gate::Plan| {
        let class = match plan.class {
            gate::Class::ReadOnly => "read_only",
            gate::Class::Reversible => "reversible",
            gate::Class::Impactful => "impactful",
            gate::Class::Destructive => "destructive",
        };
        object([
            ("class", Value::from(class)),
            ("nodes", Value::from(plan.nodes)),
            ("gpus", Value::from(plan.gpus)),
            ("pool_percent", Value::from(plan.pool_percent)),
        ])
    };
    policy.variants(plans, build, |case, answer| {
        let answer: gate::Judgement = serde_json::from_value(serde_json::to_value(answer?)?)?;
        cases::same_judgement(&answer, &native[case])
    })
}

pub fn scorer() -> Result<Vec<Variant>> {
    let source = include_str!("../../policies/ewma.rego");
    let data = json!({ "rules": cases::EWMA, "weights": weights(cases::SAMPLES - 1, cases::EWMA.alpha) });
    let policy = Policy::new("ewma.rego", source, &data, "data.bench.ewma.risk")?;
    let series = cases::series();
    let native = series.iter().map(cases::scored).collect::<Result<Vec<_>>>()?;
    let build = |series: &ewma::Series| {
        object([("values", Value::from(series.values.iter().copied().map(Value::from).collect::<Vec<_>>()))])
    };
    policy.variants(series, build, |case, answer| {
        let answer: ewma::Risk = serde_json::from_value(serde_json::to_value(answer?)?)?;
        cases::same_score(answer.level, answer.score, &native[case])
    })
}

/// What the recursion of the moving average gives each of `count` samples, oldest first.
fn weights(count: u32, alpha: f64) -> Vec<f64> {
    let newest = i32::try_from(count).unwrap_or(i32::MAX) - 1;
    (0..=newest).map(|i| if i == 0 { 1.0 } else { alpha } * (1.0 - alpha).powi(newest - i)).collect()
}
