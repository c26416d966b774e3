//! The kit for plugins written in Rust: what every one of them needs and `wit-bindgen` does not give.
//!
//! - [`Settings`]: the configuration, checked once and kept for the question.
//! - [`series`]: reading columns with gaps.
//! - An allocator that keeps small instances within one page of memory; whoever wants another one does without this
//!   crate.
//!
//! The types of `wit/aether.wit` are not here. Each plugin generates its own with `wit_bindgen::generate!`, because a
//! component says by what it links which world it is of.

#[cfg(any(target_family = "wasm", test))]
mod arena;
pub mod series;

use serde::de::DeserializeOwned;
use std::sync::OnceLock;

/// A plugin's configuration: unknown fields are refused, and so is what [`Check`] refuses.
pub struct Settings<T>(OnceLock<T>);

/// What a type cannot say about its fields.
pub trait Check {
    /// Names the field that is wrong and says what would do.
    fn check(&self) -> Result<(), String>;
}

impl<T: DeserializeOwned + Default + Check> Settings<T> {
    #[must_use]
    pub const fn new() -> Self {
        Self(OnceLock::new())
    }

    /// Parses and keeps the config. `configure` calls it, once in the life of an instance.
    pub fn set(&self, json: &str) -> Result<(), String> {
        let parsed = parse(json)?;
        self.0.set(parsed).map_err(|_| "the component was configured already".to_owned())
    }

    /// What was set, or the defaults.
    pub fn get(&self) -> &T {
        self.0.get_or_init(T::default)
    }
}

impl<T: DeserializeOwned + Default + Check> Default for Settings<T> {
    fn default() -> Self {
        Self::new()
    }
}

/// A config from its JSON, checked.
pub fn parse<T: DeserializeOwned + Check>(json: &str) -> Result<T, String> {
    let parsed: T = serde_json::from_str(json).map_err(|error| {
        // The position is of use in a file; the config was one line of canonical JSON on its way here.
        let text = error.to_string();
        text.split_once(" at line ").map_or(text.clone(), |(what, _)| what.to_owned())
    })?;
    parsed.check()?;
    Ok(parsed)
}

/// Refuses a share outside 0 to 1.
pub fn check_share(field: &str, value: f64) -> Result<(), String> {
    if (0.0..=1.0).contains(&value) { Ok(()) } else { Err(format!("`{field}` is {value}; give a number from 0 to 1")) }
}

/// Refuses a number below zero, an infinity or NaN.
pub fn check_positive(field: &str, value: f64) -> Result<(), String> {
    if value.is_finite() && value >= 0.0 {
        Ok(())
    } else {
        Err(format!("`{field}` is {value}; give a number of at least 0"))
    }
}

#[cfg(test)]
mod tests {
    use super::{Check, parse};

    #[derive(Debug, Default, serde::Deserialize)]
    #[serde(default, deny_unknown_fields)]
    struct Config {
        share: f64,
    }

    impl Check for Config {
        fn check(&self) -> Result<(), String> {
            super::check_share("share", self.share)
        }
    }

    #[test]
    fn config_errors_name_the_field() {
        assert_eq!(parse::<Config>("{}").map(|config| config.share), Ok(0.0));
        assert_eq!(parse::<Config>(r#"{"shard":1}"#).unwrap_err(), "unknown field `shard`, expected `share`");
        assert_eq!(parse::<Config>(r#"{"share":2}"#).unwrap_err(), "`share` is 2; give a number from 0 to 1");
    }
}
