//! What is measured, once: a gate on a plan's blast radius and a scorer by exponentially weighted moving average. The
//! native variant calls this crate, and the guests of Aether and Extism link it; Rego and Cedar say the same in their
//! own words, and the benchmark compares every answer with this one before it takes a time.

pub mod ewma;
pub mod gate;
