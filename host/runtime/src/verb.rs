//! The one function that makes a component's role, found and checked once.
//!
//! wasmtime compares a function's whole type with the host's each time that a typed handle is made. The types of a
//! component do not change, and for a question of some fifty fields this is a tenth of the evaluation.
#![allow(unsafe_code, reason = "a typed handle without another look at the type, which was looked at")]

use crate::{
    WIT_VERSION,
    bindings::{
        aether::plugin::types::{Observation, ProposalResult, Verb as CatalogueVerb},
        exports::aether::plugin::{gating, planning, routing, scoring},
    },
    host::State,
};
use aether_core::decision::Role;
use std::{
    marker::PhantomData,
    sync::atomic::{AtomicBool, Ordering},
};
use wasmtime::{
    Store,
    component::{ComponentExportIndex, ComponentNamedList, Func, Instance, InstancePre, Lift, Lower, TypedFunc},
};

/// What a role's function takes and gives.
pub(crate) trait Signature {
    const INTERFACE: &'static str;
    const FUNCTION: &'static str;
    type Parameters<'a>: ComponentNamedList + Lower;
    type Answer: Lift;
}

pub(crate) struct Score;
pub(crate) struct Plan;
pub(crate) struct Judge;
pub(crate) struct Route;

impl Signature for Score {
    const INTERFACE: &'static str = "scoring";
    const FUNCTION: &'static str = "score";
    type Parameters<'a> = (&'a Observation<'a>,);
    type Answer = scoring::Assessment;
}

impl Signature for Plan {
    const INTERFACE: &'static str = "planning";
    const FUNCTION: &'static str = "plan";
    type Parameters<'a> =
        (&'a planning::Finding<'a>, &'a Observation<'a>, &'a [planning::Candidate<'a>], &'a [CatalogueVerb<'a>]);
    type Answer = Vec<ProposalResult>;
}

impl Signature for Judge {
    const INTERFACE: &'static str = "gating";
    const FUNCTION: &'static str = "judge";
    type Parameters<'a> = (&'a gating::Question<'a>,);
    type Answer = gating::Judgement;
}

impl Signature for Route {
    const INTERFACE: &'static str = "routing";
    const FUNCTION: &'static str = "route";
    type Parameters<'a> = (&'a routing::Question<'a>,);
    type Answer = Vec<routing::Choice>;
}

/// What a verb gives: an answer, or the guest's own error.
type Given<S> = (Result<<S as Signature>::Answer, String>,);

/// A role's function in one component.
pub(crate) struct Export<S> {
    index: ComponentExportIndex,
    checked: AtomicBool,
    signature: PhantomData<fn() -> S>,
}

impl<S: Signature> Export<S> {
    fn new(pre: &InstancePre<State>) -> wasmtime::Result<Self> {
        let interface = format!("aether:plugin/{}@{WIT_VERSION}", S::INTERFACE);
        let missing = || wasmtime::format_err!("`{interface}` has no function `{}`", S::FUNCTION);
        let parent = pre.component().get_export_index(None, &interface).ok_or_else(missing)?;
        let index = pre.component().get_export_index(Some(&parent), S::FUNCTION).ok_or_else(missing)?;
        Ok(Self { index, checked: AtomicBool::new(false), signature: PhantomData })
    }

    /// Asks `instance`, which is of the component that this export was found in.
    pub(crate) fn call(
        &self,
        store: &mut Store<State>,
        instance: &Instance,
        parameters: S::Parameters<'_>,
    ) -> wasmtime::Result<Result<S::Answer, String>> {
        let (answer,) = self.typed(store, instance)?.call(store, parameters)?;
        Ok(answer)
    }

    fn check(&self, store: &mut Store<State>, instance: &Instance) -> wasmtime::Result<()> {
        self.typed(store, instance).map(drop)
    }

    fn typed<'a>(
        &self,
        store: &mut Store<State>,
        instance: &Instance,
    ) -> wasmtime::Result<TypedFunc<S::Parameters<'a>, Given<S>>> {
        let function = self.function(store, instance)?;
        if !self.checked.load(Ordering::Relaxed) {
            let function = function.typed(&*store)?;
            self.checked.store(true, Ordering::Relaxed);
            return Ok(function);
        }
        // SAFETY: the function that this index names in this component has been compared with these very types, but for
        // their lifetimes, which a component's types do not have. wasmtime finds no function for the index of another
        // component.
        Ok(unsafe { TypedFunc::new_unchecked(function) })
    }

    fn function(&self, store: &mut Store<State>, instance: &Instance) -> wasmtime::Result<Func> {
        let missing = || wasmtime::format_err!("the instance has no function `{}`", S::FUNCTION);
        instance.get_func(store, self.index).ok_or_else(missing)
    }
}

/// By role.
pub(crate) enum Verb {
    Score(Export<Score>),
    Plan(Export<Plan>),
    Judge(Export<Judge>),
    Route(Export<Route>),
}

impl Verb {
    pub(crate) fn new(pre: &InstancePre<State>, role: Role) -> wasmtime::Result<Self> {
        Ok(match role {
            Role::RiskScorer => Self::Score(Export::new(pre)?),
            Role::RemediationPlanner => Self::Plan(Export::new(pre)?),
            Role::PolicyGate => Self::Judge(Export::new(pre)?),
            Role::Router => Self::Route(Export::new(pre)?),
        })
    }

    /// Whether the component's function has the type of its world.
    pub(crate) fn check(&self, store: &mut Store<State>, instance: &Instance) -> wasmtime::Result<()> {
        match self {
            Self::Score(export) => export.check(store, instance),
            Self::Plan(export) => export.check(store, instance),
            Self::Judge(export) => export.check(store, instance),
            Self::Route(export) => export.check(store, instance),
        }
    }
}
