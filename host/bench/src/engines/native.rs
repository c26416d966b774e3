//! The logic called as a function: what a decision costs without any isolation.

use super::{Variant, variant};
use crate::cases;
use anyhow::Result;

pub fn gate() -> Result<Variant> {
    let plans = cases::plans();
    variant("native Rust", plans.len(), move |case| cases::judged(&plans[case]), |_, _| Ok(()))
}

pub fn scorer() -> Result<Variant> {
    let series = cases::series();
    variant("native Rust", series.len(), move |case| cases::scored(&series[case]), |_, answer| answer.map(drop))
}
