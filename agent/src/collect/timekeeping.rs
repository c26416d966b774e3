//! How well the kernel's clock is kept, by `adjtimex`: whether somebody does (chrony, ntpd, phc2sys), what the clock is
//! still to be moved by, and how far off it may be. Traces and collective operations of several nodes are put side by side
//! by their clocks.

use super::{Missing, Sink, Source};
use aether_core::metric;
use nix::libc;
use std::{io, time::Duration};

const EVERY: Duration = Duration::from_secs(5);
/// The unit of a frequency: parts of a million, times two to this.
const FREQUENCY_BITS: i32 = 16;

pub(super) struct Timekeeping;

/// What the kernel says, and asks nothing of it.
#[allow(unsafe_code, reason = "there is no other way to ask")]
fn ask() -> io::Result<libc::timex> {
    // SAFETY: a structure of numbers, for which zeroes are values; without a mode nothing is changed.
    let mut told: libc::timex = unsafe { std::mem::zeroed() };
    // SAFETY: it lives while the kernel writes to it, and nobody else has it.
    match unsafe { libc::adjtimex(&mut told) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(told),
    }
}

fn tell(told: &libc::timex, into: &mut Sink<'_>) {
    let synchronized = told.status & libc::STA_UNSYNC == 0;
    into.node(metric::CLOCK_SYNCHRONIZED, "1", &[], f64::from(u8::from(synchronized)));
    let unit = if told.status & libc::STA_NANO == 0 { 1e6 } else { 1e9 };
    into.node(metric::CLOCK_OFFSET, "s", &[], told.offset as f64 / unit);
    // Without a keeper it grows without end, and says nothing.
    if synchronized {
        into.node(metric::CLOCK_ERROR, "s", &[], told.maxerror as f64 / 1e6);
    }
    into.node(metric::CLOCK_FREQUENCY, "1", &[], told.freq as f64 / f64::from(1 << FREQUENCY_BITS) / 1e6);
}

impl Source for Timekeeping {
    fn name(&self) -> &'static str {
        "clock"
    }

    fn interval(&self) -> Option<Duration> {
        Some(EVERY)
    }

    fn sample(&mut self, into: &mut Sink<'_>) -> Result<(), Missing> {
        let told = ask().map_err(|error| Missing::new(format!("the kernel does not answer adjtimex: {error}")))?;
        tell(&told, into);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collect::source::Readings;
    use aether_core::{id::NodeId, time::Time};
    use std::collections::BTreeMap;

    fn told(timex: &libc::timex) -> BTreeMap<String, f64> {
        let (mut readings, node) = (Readings::default(), NodeId::new("node-a"));
        tell(timex, &mut Sink { node: &node, at: Time(1), readings: &mut readings });
        readings.sorted().into_iter().map(|(key, samples)| (key.metric, samples[0].value)).collect()
    }

    #[test]
    fn units_are_as_the_kernel_says() {
        let mut timex = ask().unwrap();
        (timex.offset, timex.maxerror, timex.freq) = (-1_500, 2_000, -65_536 * 10);
        timex.status = libc::STA_UNSYNC;
        let alone = told(&timex);
        assert_eq!((alone[metric::CLOCK_SYNCHRONIZED], alone[metric::CLOCK_OFFSET]), (0.0, -1_500.0 / 1e6));
        assert!(!alone.contains_key(metric::CLOCK_ERROR));
        timex.status = libc::STA_NANO;
        let kept = told(&timex);
        assert_eq!((kept[metric::CLOCK_SYNCHRONIZED], kept[metric::CLOCK_OFFSET]), (1.0, -1_500.0 / 1e9));
        assert_eq!((kept[metric::CLOCK_ERROR], kept[metric::CLOCK_FREQUENCY]), (0.002, -10.0 / 1e6));
    }
}
