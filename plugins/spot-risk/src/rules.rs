//! The rules, as plain functions of an observation.

use crate::{
    aether::plugin::types::{Contribution, Event, Level, Observation, Risk},
    exports::aether::plugin::scoring::Assessment,
};
use aether_plugin::{Check, check_positive, series};
use serde::Deserialize;

/// One hour.
pub(crate) const WINDOW_MS: u64 = 3_600_000;
pub(crate) const STEP_MS: u64 = 10_000;

/// Indices of the declared inputs.
pub(crate) mod input {
    pub(crate) const PRICE: u32 = 0;
    pub(crate) const REBALANCE: u32 = 1;
    pub(crate) const TERMINATION: u32 = 2;
}

#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Config {
    pub(crate) trend_critical: f64,
    pub(crate) volatility_critical: f64,
    pub(crate) least_prices: u32,
    pub(crate) notice_ms: u64,
    pub(crate) lapse_ms: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self { trend_critical: 0.2, volatility_critical: 5.0, least_prices: 30, notice_ms: 120_000, lapse_ms: 300_000 }
    }
}

impl Check for Config {
    fn check(&self) -> Result<(), String> {
        check_positive("trend_critical", self.trend_critical)?;
        check_positive("volatility_critical", self.volatility_critical)?;
        if !(3..=360).contains(&self.least_prices) {
            return Err(format!("`least_prices` is {}; give a whole number from 3 to 360", self.least_prices));
        }
        for (field, value) in [("notice_ms", self.notice_ms), ("lapse_ms", self.lapse_ms)] {
            if value > 86_400_000 {
                return Err(format!("`{field}` is {value}; give at most 86400000 (a day)"));
            }
        }
        Ok(())
    }
}

/// What the price did within the window.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Market {
    pub(crate) last: f64,
    /// Mean of the last third over mean of the first third, less 1.
    pub(crate) trend: f64,
    /// Standard deviation of the relative changes from one sampled price to the next, in percent.
    pub(crate) volatility: f64,
    pub(crate) prices: usize,
    /// Share of the window's cells that hold a price.
    pub(crate) coverage: f64,
}

/// Reads the prices; none if there are fewer than `least` or one is not above zero.
pub(crate) fn market(values: &[f64], least: u32) -> Option<Market> {
    let prices = series::sampled(values);
    if prices.len() < least.max(3) as usize || prices.iter().any(|price| *price <= 0.0) {
        return None;
    }
    let third = prices.len() / 3;
    let first = series::mean(&prices[..third])?;
    let recent = series::mean(&prices[prices.len() - third..])?;
    let changes: Vec<f64> = prices.windows(2).map(|pair| (pair[1] / pair[0] - 1.0) * 100.0).collect();
    Some(Market {
        last: *prices.last()?,
        trend: recent / first - 1.0,
        volatility: series::deviation(&changes)?,
        prices: prices.len(),
        coverage: (prices.len() as f64 * STEP_MS as f64 / WINDOW_MS as f64).min(1.0),
    })
}

/// The newest raising of a signal, unless it was withdrawn: an event with `state` = `cleared` that is newer.
fn raised(events: &[Event], input: u32) -> Option<&Event> {
    let of_input = || events.iter().filter(move |event| event.input == input);
    let is_cleared = |event: &Event| attribute(event, "state") == Some("cleared");
    let last = of_input().filter(|event| !is_cleared(event)).max_by_key(|event| event.at)?;
    let withdrawn = of_input().any(|event| is_cleared(event) && event.at > last.at);
    (!withdrawn).then_some(last)
}

fn attribute<'a>(event: &'a Event, key: &str) -> Option<&'a str> {
    event.attributes.iter().find(|attribute| attribute.key == key).map(|attribute| attribute.value.as_str())
}

/// Milliseconds from `earlier` to `later`; zero if it is not later.
fn elapsed_ms(earlier: i64, later: i64) -> u64 {
    u64::try_from(later.saturating_sub(earlier)).unwrap_or(0)
}

/// The whole decision.
pub(crate) fn assess(observation: &Observation, config: &Config) -> Assessment {
    let now = observation.at;
    let node = &observation.subject.id;
    let values: &[f64] = observation
        .columns
        .iter()
        .find(|column| column.input == input::PRICE)
        .map_or(&[], |column| column.values.as_slice());
    let market = market(values, config.least_prices);
    let price_note = |market: &Market| {
        format!(
            "price {:.4} USD/h, trend {:+.1} %, volatility {:.1} % over {} samples",
            market.last,
            market.trend * 100.0,
            market.volatility,
            market.prices
        )
    };
    let mut contributions: Vec<Contribution> = market
        .iter()
        .map(|market| Contribution {
            input: input::PRICE,
            weight: (market.trend / config.trend_critical.max(f64::EPSILON)).clamp(0.0, 1.0),
            note: price_note(market),
        })
        .collect();

    if let Some(event) = raised(&observation.events, input::TERMINATION) {
        let deadline = attribute(event, "deadline").and_then(|text| text.parse::<i64>().ok());
        let lapsed = deadline.is_some_and(|deadline| elapsed_ms(deadline, now) > config.lapse_ms);
        if !lapsed {
            let horizon = deadline.map_or(config.notice_ms, |deadline| elapsed_ms(now, deadline));
            let note = format!("termination notice {} s ago", elapsed_ms(event.at, now) / 1_000);
            contributions.insert(0, Contribution { input: input::TERMINATION, weight: 1.0, note });
            return Assessment::Risk(Risk {
                level: Level::Critical,
                score: 0.99,
                confidence: 0.99,
                horizon: Some(horizon),
                cause: "spot.termination".into(),
                reason: format!("The provider will reclaim {node} in {} s.", horizon / 1_000),
                contributions,
            });
        }
    }
    if let Some(event) = raised(&observation.events, input::REBALANCE) {
        let ago_s = elapsed_ms(event.at, now) / 1_000;
        let note = format!("rebalance signal {ago_s} s ago");
        contributions.insert(0, Contribution { input: input::REBALANCE, weight: 1.0, note });
        let price = market.as_ref().map(|market| format!(" Meanwhile: {}.", price_note(market))).unwrap_or_default();
        return Assessment::Risk(Risk {
            level: Level::Critical,
            score: 0.9,
            confidence: 0.9,
            horizon: Some(config.notice_ms),
            cause: "spot.rebalance".into(),
            reason: format!("The provider advises to rebalance away from {node}, signalled {ago_s} s ago.{price}"),
            contributions,
        });
    }
    let Some(market) = market else {
        // A signal that was raised and withdrawn is knowledge, too.
        if observation.events.is_empty() {
            let found = series::sampled(values).len();
            return Assessment::Insufficient(format!(
                "no signal of the provider and {found} usable prices within the hour, of at least {}",
                config.least_prices
            ));
        }
        return Assessment::Risk(Risk {
            level: Level::Low,
            score: 0.1,
            confidence: 0.5,
            horizon: None,
            cause: "spot.withdrawn".into(),
            reason: format!("The provider's signal for {node} was withdrawn."),
            contributions,
        });
    };
    // Grows with the share of the window that was seen, and is never certain: a price is a hint, not a notice.
    let confidence = 0.5 + 0.4 * market.coverage;
    let told = price_note(&market);
    let (level, score, horizon, cause, reason) = if market.trend > config.trend_critical {
        let limit = config.trend_critical * 100.0;
        let reason = format!("The spot price of {node} rises, over the limit of {limit:+.1} %: {told}.");
        (Level::Critical, (0.5 + market.trend).clamp(0.5, 0.95), Some(config.notice_ms), "spot.price-trend", reason)
    } else if market.volatility > config.volatility_critical {
        let limit = config.volatility_critical;
        let reason = format!("The spot price of {node} jumps, over the limit of {limit:.1} %: {told}.");
        let score = (0.5 + market.volatility / 50.0).clamp(0.5, 0.9);
        (Level::Critical, score, Some(config.notice_ms), "spot.price-volatility", reason)
    } else {
        let nearness = (market.trend / config.trend_critical.max(f64::EPSILON))
            .max(market.volatility / config.volatility_critical.max(f64::EPSILON))
            .clamp(0.0, 1.0);
        let reason = format!("No signal of the provider, and the spot price of {node} is calm: {told}.");
        (Level::Low, 0.05 + 0.25 * nearness, None, "spot.calm", reason)
    };
    Assessment::Risk(Risk { level, score, confidence, horizon, cause: cause.into(), reason, contributions })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::aether::plugin::types::{Attribute, Column, Subject, SubjectKind};

    const NOW: i64 = 1_800_000_000_000;

    fn observed(prices: Vec<f64>, events: Vec<Event>) -> Observation {
        let columns = vec![Column {
            input: input::PRICE,
            attributes: vec![],
            start: NOW - WINDOW_MS as i64,
            step: STEP_MS,
            values: prices,
        }];
        let subject = Subject { kind: SubjectKind::Node, id: "node-a".into(), generation: 1, labels: vec![] };
        Observation { subject, at: NOW, columns, events }
    }

    fn event(input: u32, seconds_ago: i64, attributes: &[(&str, &str)]) -> Event {
        let attributes =
            attributes.iter().map(|(key, value)| Attribute { key: (*key).into(), value: (*value).into() }).collect();
        Event { input, at: NOW - seconds_ago * 1_000, attributes }
    }

    fn risk(observation: &Observation) -> Risk {
        match assess(observation, &Config::default()) {
            Assessment::Risk(risk) => risk,
            Assessment::Insufficient(missing) => panic!("insufficient: {missing}"),
        }
    }

    #[test]
    fn a_calm_price_is_low() {
        let risk = risk(&observed(vec![0.3; 360], vec![]));
        assert_eq!((risk.level, risk.cause.as_str()), (Level::Low, "spot.calm"));
        assert!((risk.confidence - 0.9).abs() < 1e-9);
    }

    #[test]
    fn a_rise_over_a_fifth_is_critical() {
        let prices = |last: f64| [vec![0.3; 120], vec![0.33; 120], vec![last; 120]].concat();
        assert_eq!(risk(&observed(prices(0.36), vec![])).cause, "spot.calm");
        let risen = risk(&observed(prices(0.365), vec![]));
        assert_eq!((risen.level, risen.cause.as_str()), (Level::Critical, "spot.price-trend"));
        assert!(risen.reason.contains("trend +21.7 %"), "{}", risen.reason);
    }

    #[test]
    fn jumps_are_critical_even_without_a_trend() {
        let prices: Vec<f64> = (0..360).map(|i| if i % 2 == 0 { 0.30 } else { 0.34 }).collect();
        assert_eq!(risk(&observed(prices, vec![])).cause, "spot.price-volatility");
    }

    #[test]
    fn volatility_is_the_deviation_of_relative_changes_in_percent() {
        let market = market(&[1.0, 1.1, 0.99, 1.089], 3).unwrap();
        // +10 %, -10 %, +10 %: mean 10/3, population deviation sqrt(800/9).
        assert!((market.volatility - (800.0f64 / 9.0).sqrt()).abs() < 1e-6, "{market:?}");
        assert!((market.trend - 0.089).abs() < 1e-9, "{market:?}");
    }

    #[test]
    fn a_rebalance_signal_is_critical_until_it_is_withdrawn() {
        let raised = event(input::REBALANCE, 60, &[]);
        let cleared = event(input::REBALANCE, 30, &[("state", "cleared")]);
        let signalled = risk(&observed(vec![], vec![raised.clone()]));
        assert_eq!((signalled.level, signalled.cause.as_str()), (Level::Critical, "spot.rebalance"));
        assert_eq!(signalled.horizon, Some(120_000));
        let withdrawn = risk(&observed(vec![], vec![raised.clone(), cleared.clone()]));
        assert_eq!((withdrawn.level, withdrawn.cause.as_str()), (Level::Low, "spot.withdrawn"));
        let again = event(input::REBALANCE, 10, &[]);
        assert_eq!(risk(&observed(vec![], vec![raised, cleared, again])).cause, "spot.rebalance");
    }

    #[test]
    fn a_termination_notice_counts_down_and_lapses() {
        let notice = |deadline: i64| event(input::TERMINATION, 30, &[("deadline", &deadline.to_string())]);
        let coming = risk(&observed(vec![], vec![notice(NOW + 90_000), event(input::REBALANCE, 60, &[])]));
        assert_eq!((coming.cause.as_str(), coming.horizon), ("spot.termination", Some(90_000)));
        let lapsed = risk(&observed(vec![], vec![notice(NOW - 301_000)]));
        assert_eq!(lapsed.level, Level::Low);
    }

    #[test]
    fn without_data_nothing_is_said() {
        let few = [vec![f64::NAN; 340], vec![0.3; 20]].concat();
        match assess(&observed(few, vec![]), &Config::default()) {
            Assessment::Insufficient(missing) => assert!(missing.contains("20 usable prices"), "{missing}"),
            Assessment::Risk(risk) => panic!("{risk:?}"),
        }
    }

    #[test]
    fn the_schema_tells_the_defaults() {
        let schema: serde_json::Value = serde_json::from_str(include_str!("schema.json")).unwrap();
        let defaults: serde_json::Map<String, serde_json::Value> = schema["properties"]
            .as_object()
            .unwrap()
            .iter()
            .map(|(field, property)| (field.clone(), property["default"].clone()))
            .collect();
        let text = serde_json::to_string(&defaults).unwrap();
        assert_eq!(aether_plugin::parse::<Config>(&text).unwrap(), Config::default());
    }
}
