//! The engines, each in the mode that its own documentation recommends for many calls: everything that can be done once
//! is done before the clock runs.

pub mod aether;
pub mod cedar;
pub mod extism;
pub mod native;
pub mod rego;

use anyhow::{Context, Result};
use std::hint::black_box;

/// One row of the table: a decision as one engine makes it.
pub struct Variant {
    pub label: &'static str,
    /// Makes the decision of one case and drops it.
    pub run: Box<dyn FnMut(usize)>,
}

/// Checks an engine's answer to every case, then makes it a row.
pub fn variant<T: 'static>(
    label: &'static str,
    cases: usize,
    mut ask: impl FnMut(usize) -> T + 'static,
    check: impl Fn(usize, T) -> Result<()>,
) -> Result<Variant> {
    // Twice, so that an instance that is kept shows whether it still gives the same answer.
    for case in (0..cases).chain(0..cases) {
        check(case, ask(case)).with_context(|| format!("{label}, case {case}: not what the native logic answers"))?;
    }
    Ok(Variant { label, run: Box::new(move |case| drop(black_box(ask(black_box(case))))) })
}
