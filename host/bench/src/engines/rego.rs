//! Rego on regorus: its interpreter, and its virtual machine, which runs what was compiled once. Both are handed the
//! question as the host has it, through serde, as a policy that may be swapped needs it; and, where that is less, only
//! the fields that this policy reads, built by hand. The answer stays a regorus value in the timed part; only the check
//! reads it.

use super::{Variant, variant};
use crate::cases;
use anyhow::Result;
use bench_logic::{ewma, gate};
use regorus::{
    CompiledPolicy, Engine, Value,
    languages::rego::compiler::Compiler,
    rvm::{program::Program, vm::RegoVM},
};
use serde::Serialize;
use serde_json::json;
use std::{collections::BTreeMap, sync::Arc};

pub const INTERPRETER: &str = "Rego on regorus, interpreter";
pub const FRESH: &str = "Rego on regorus, fresh virtual machine";
pub const REUSED: &str = "Rego on regorus, reused virtual machine";
pub const REUSED_FIELDS: &str = "Rego on regorus, reused virtual machine, only the fields that are read";

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

    fn program(&self) -> Result<(CompiledPolicy, Arc<Program>)> {
        let compiled = self.engine.clone().compile_with_entrypoint(&self.rule.into())?;
        let program = Compiler::compile_from_policy(&compiled, &[self.rule])?;
        Ok((compiled, program))
    }

    /// A machine that has evaluated nothing yet.
    fn machine(&self, (compiled, program): &(CompiledPolicy, Arc<Program>)) -> Result<RegoVM> {
        let mut machine = RegoVM::new_with_policy(compiled.clone());
        machine.load_program(Arc::clone(program));
        machine.set_data(self.data.clone())?;
        Ok(machine)
    }

    fn variants<I: Clone + 'static, Q: Serialize + 'static>(
        self,
        inputs: Vec<I>,
        question: fn(&I) -> Q,
        fields: fn(&I) -> Value,
        check: impl Fn(usize, Result<Value>) -> Result<()>,
    ) -> Result<Vec<Variant>> {
        let count = inputs.len();
        let questions: Arc<[Q]> = inputs.iter().map(question).collect();
        let program = self.program()?;
        let (mut engine, rule, asked) = (self.engine.clone(), self.rule, Arc::clone(&questions));
        let interpreter = variant(
            INTERPRETER,
            count,
            move |case| {
                engine.set_input(converted(&asked[case])?);
                engine.eval_rule(rule.into())
            },
            &check,
        )?;
        let (mut machine, asked) = (self.machine(&program)?, Arc::clone(&questions));
        let reused = variant(
            REUSED,
            count,
            move |case| {
                machine.set_input(converted(&asked[case])?);
                Ok(machine.execute()?)
            },
            &check,
        )?;
        let mut machine = self.machine(&program)?;
        let reused_fields = variant(
            REUSED_FIELDS,
            count,
            move |case| {
                machine.set_input(fields(&inputs[case]));
                Ok(machine.execute()?)
            },
            &check,
        )?;
        let fresh = variant(
            FRESH,
            count,
            move |case| {
                let mut machine = self.machine(&program)?;
                machine.set_input(converted(&questions[case])?);
                Ok(machine.execute()?)
            },
            &check,
        )?;
        Ok(vec![interpreter, fresh, reused, reused_fields])
    }
}

/// A question as regorus takes it.
fn converted(question: &impl Serialize) -> Result<Value> {
    Ok(Value::from(serde_json::to_value(question)?))
}

fn object(fields: impl IntoIterator<Item = (&'static str, Value)>) -> Value {
    Value::from(fields.into_iter().map(|(key, value)| (Value::from(key), value)).collect::<BTreeMap<_, _>>())
}

pub fn gate() -> Result<Vec<Variant>> {
    let source = include_str!("../../policies/gate.rego");
    let policy = Policy::new("gate.rego", source, &json!({ "rules": cases::GATE }), "data.bench.gate.judgement")?;
    let plans = cases::plans();
    let native: Vec<_> = plans.iter().map(cases::judged).collect();
    let fields = |plan: &gate::Plan| {
        let class = match plan.class {
            gate::Class::ReadOnly => "read-only",
            gate::Class::Reversible => "reversible",
            gate::Class::Impactful => "impactful",
            gate::Class::Destructive => "destructive",
        };
        let blast = object([
            ("nodes", Value::from(plan.nodes)),
            ("gpus", Value::from(plan.gpus)),
            ("pool_percent", Value::from(plan.pool_percent)),
        ]);
        object([("class", Value::from(class)), ("blast", blast)])
    };
    policy.variants(plans, cases::gate_asked, fields, |case, answer| {
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
    let fields = |series: &ewma::Series| {
        let values = Value::from(series.values.iter().copied().map(Value::from).collect::<Vec<_>>());
        object([("columns", Value::from(vec![object([("values", values)])]))])
    };
    policy.variants(series, cases::scorer_asked, fields, |case, answer| {
        let answer: ewma::Risk = serde_json::from_value(serde_json::to_value(answer?)?)?;
        cases::same_score(answer.level, answer.score, &native[case])
    })
}

/// What the recursion of the moving average gives each of `count` samples, oldest first.
fn weights(count: u32, alpha: f64) -> Vec<f64> {
    let newest = i32::try_from(count).unwrap_or(i32::MAX) - 1;
    (0..=newest).map(|i| if i == 0 { 1.0 } else { alpha } * (1.0 - alpha).powi(newest - i)).collect()
}
