//! What providers and markets say, read from the documents in which they say it: notices of the clouds' metadata
//! services, spot prices, carbon intensity.
//!
//! Parsers alone, and [`Notices`], which turns what is said now into the events that scorers read. Who asks, how often and
//! with which secret is the agent's and the host's matter.

mod aws;
mod azure;
mod carbon;
mod date;
mod gcp;
mod price;

pub use aws::{instance_action, rebalance};
pub use azure::scheduled_events;
pub use carbon::{Carbon, electricity_maps, watttime};
pub use date::{http_date, rfc3339};
pub use gcp::{PREEMPTION_MS, maintenance_event, preempted};
pub use price::{azure_retail_prices, spot_price_history};

use crate::{metric, subject::SubjectRef, telemetry::DiscreteEvent, time::Time};
use std::collections::BTreeMap;
use thiserror::Error;

/// How often what still stands is said again, so that it does not look like news of long ago.
pub const REPEAT_MS: u64 = 60_000;
/// Notices that can stand at one time.
const STANDING_MAXIMUM: usize = 16;

#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Error {
    #[error("the answer is not what {format} is documented to be: {problem}")]
    Format { format: &'static str, problem: String },
}

fn format(format: &'static str, problem: impl ToString) -> Error {
    Error::Format { format, problem: problem.to_string() }
}

/// One thing that a provider says of this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    pub kind: Kind,
    /// When it was said, where that is told.
    pub at: Option<Time>,
    /// Whence it comes and what it says in the provider's own words; goes into the event's attributes.
    pub said: BTreeMap<String, String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Better be elsewhere: an interruption is likelier than usual.
    Rebalance,
    /// The machine goes away, or is taken from under its workloads, at this time. None: now, or the time is not told.
    Termination { deadline: Option<Time> },
}

impl Kind {
    fn event(self) -> &'static str {
        match self {
            Kind::Rebalance => metric::MARKET_REBALANCE,
            Kind::Termination { .. } => metric::MARKET_TERMINATION,
        }
    }
}

fn said(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().filter(|(_, value)| !value.is_empty()).map(|(name, value)| ((*name).into(), short(value))).collect()
}

/// A provider's word, as an attribute takes it.
fn short(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(200).collect()
}

/// The notices that stand, and what of them was told when.
#[derive(Clone, Debug, Default)]
pub struct Notices {
    standing: Vec<Standing>,
}

#[derive(Clone, Debug)]
struct Standing {
    notice: Notice,
    /// As it was told first; a notice without a time counts from then.
    deadline: Time,
    told_at: Time,
}

impl Notices {
    /// The whole of what is said now; answers with what is to be told. A notice without a deadline has `grace_ms` from
    /// when it was first seen.
    pub fn update(
        &mut self,
        subject: &SubjectRef,
        now: Time,
        grace_ms: u64,
        notices: Vec<Notice>,
    ) -> Vec<DiscreteEvent> {
        let mut events = vec![];
        let gone = |standing: &Standing| !notices.iter().any(|notice| notice.kind == standing.notice.kind);
        for standing in self.standing.extract_if(.., |standing| gone(standing)) {
            // Another of the same kind (a new deadline) takes its place without a word between.
            let event = standing.notice.kind.event();
            if !notices.iter().any(|notice| notice.kind.event() == event) {
                let mut attributes = standing.notice.said;
                attributes.insert("state".into(), "cleared".into());
                events.push(DiscreteEvent { subject: subject.clone(), name: event.into(), at: now, attributes });
            }
        }
        for notice in notices.into_iter().take(STANDING_MAXIMUM) {
            let deadline = match notice.kind {
                Kind::Termination { deadline: Some(deadline) } => deadline,
                Kind::Termination { deadline: None } | Kind::Rebalance => now.plus_ms(grace_ms),
            };
            let standing = match self.standing.iter_mut().find(|standing| standing.notice.kind == notice.kind) {
                Some(standing) if now.since_ms(standing.told_at) < REPEAT_MS => continue,
                Some(standing) => {
                    standing.told_at = now;
                    standing
                }
                None => {
                    self.standing.push(Standing { notice, deadline, told_at: now });
                    match self.standing.last_mut() {
                        Some(standing) => standing,
                        None => continue,
                    }
                }
            };
            let mut attributes = standing.notice.said.clone();
            if let Some(at) = standing.notice.at {
                attributes.insert("noticed".into(), at.0.to_string());
            }
            if matches!(standing.notice.kind, Kind::Termination { .. }) {
                attributes.insert("deadline".into(), standing.deadline.0.to_string());
            }
            let name = standing.notice.kind.event().into();
            events.push(DiscreteEvent { subject: subject.clone(), name, at: now, attributes });
        }
        events
    }

    /// Whether anything stands.
    pub fn is_empty(&self) -> bool {
        self.standing.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn notice(kind: Kind) -> Notice {
        Notice { kind, at: None, said: said(&[("source", "aws")]) }
    }

    fn shown(events: &[DiscreteEvent]) -> Vec<String> {
        events
            .iter()
            .map(|event| {
                let attributes: Vec<_> =
                    event.attributes.iter().map(|(name, value)| format!("{name}={value}")).collect();
                format!("{} {}", event.name.trim_start_matches("aether.market."), attributes.join(" "))
            })
            .collect()
    }

    #[test]
    fn what_is_said_is_told_once_again_while_it_stands_and_when_it_is_over() {
        let (node, mut notices) = (SubjectRef::node("node-a"), Notices::default());
        let mut at = |now: i64, said: Vec<Kind>| {
            shown(&notices.update(&node, Time(now), 30_000, said.into_iter().map(notice).collect()))
        };
        let (rebalance, none) = (Kind::Rebalance, Kind::Termination { deadline: None });
        let by = |deadline| Kind::Termination { deadline: Some(Time(deadline)) };
        assert!(at(0, vec![]).is_empty());
        assert_eq!(at(1_000, vec![rebalance]), ["rebalance source=aws"]);
        assert!(at(2_000, vec![rebalance]).is_empty());
        assert_eq!(at(61_000, vec![rebalance]), ["rebalance source=aws"]);
        assert_eq!(at(62_000, vec![rebalance, by(99_000)]), ["termination deadline=99000 source=aws"]);
        assert_eq!(
            at(63_000, vec![by(98_000)]),
            ["rebalance source=aws state=cleared", "termination deadline=98000 source=aws"],
            "a new deadline takes the place of the old one"
        );
        assert_eq!(at(64_000, vec![]), ["termination source=aws state=cleared"]);
        assert_eq!(at(70_000, vec![none]), ["termination deadline=100000 source=aws"]);
        assert_eq!(
            at(130_000, vec![none]),
            ["termination deadline=100000 source=aws"],
            "the deadline does not move on"
        );
    }
}
