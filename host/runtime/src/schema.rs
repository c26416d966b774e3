//! A component's config against the JSON schema that the component itself gave, before the component sees it: so that a
//! mistake is told with its place and with what would do, in the same words for every language.
//!
//! Draft 2020-12, without references to elsewhere. The schema is the guest's and so not to be trusted: what checking by
//! it can cost is bounded before it is used, and its patterns run in linear time.

use jsonschema::{
    Draft, PatternOptions, ValidationError, Validator,
    error::{TypeKind, ValidationErrorKind},
};
use serde_json::Value;
use std::{collections::BTreeMap, fmt::Write as _};

const DIALECT: &str = "https://json-schema.org/draft/2020-12/schema";
const SCHEMA_BYTES_MAX: usize = 128 << 10;
/// Rules that may apply to one value, references written out.
const RULES_MAX: u64 = 4_000;
const PATTERN_BYTES_MAX: usize = 256 << 10;
/// Values in a config, at any depth.
const CONFIG_VALUES_MAX: usize = 20_000;
/// Mistakes that are told at one time.
const TOLD_MAX: usize = 5;

/// What a component's config must be.
#[derive(Debug)]
pub(crate) struct Schema {
    document: Value,
    validator: Validator,
}

impl Schema {
    /// The error says what is wrong with the schema itself.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        if text.len() > SCHEMA_BYTES_MAX {
            return Err(format!("its config schema is {} bytes, over the limit of {SCHEMA_BYTES_MAX}", text.len()));
        }
        let document: Value =
            serde_json::from_str(text).map_err(|error| format!("its config schema is not JSON: {error}"))?;
        let Some(fields) = document.as_object() else { return Err("its config schema is not a JSON object".into()) };
        if let Some(dialect) = fields.get("$schema")
            && dialect.as_str().is_none_or(|dialect| dialect.trim_end_matches('#') != DIALECT)
        {
            return Err(format!("its config schema is written in {dialect}; this host reads \"{DIALECT}\""));
        }
        let rules = weigh(&document, &document, &mut BTreeMap::new())?;
        if rules > RULES_MAX {
            return Err(format!(
                "its config schema comes to more than {RULES_MAX} rules once its references are written out"
            ));
        }
        let validator = jsonschema::options()
            .with_draft(Draft::Draft202012)
            .offline()
            .with_pattern_options(PatternOptions::regex().size_limit(PATTERN_BYTES_MAX))
            .build(&document)
            .map_err(|error| format!("its config schema is not valid at `{}`: {error}", error.instance_path()))?;
        Ok(Self { document, validator })
    }

    /// The error names each mistake by its path and says what would do.
    pub(crate) fn check(&self, config: &Value) -> Result<(), String> {
        let values = count(config);
        if values > CONFIG_VALUES_MAX {
            return Err(format!("it holds {values} values, over the limit of {CONFIG_VALUES_MAX}"));
        }
        let mistakes: Vec<String> =
            self.validator.iter_errors(config).take(TOLD_MAX).map(|error| self.tell(&error, 0)).collect();
        if mistakes.is_empty() { Ok(()) } else { Err(mistakes.join("; ")) }
    }

    fn tell(&self, error: &ValidationError<'_>, depth: usize) -> String {
        let path = match error.instance_path().as_str() {
            "" => "the config".to_owned(),
            path => format!("`{path}`"),
        };
        let mut text = match error.kind() {
            ValidationErrorKind::AdditionalProperties { unexpected } => {
                let unknown = unexpected.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
                format!("{path} has the unknown {unknown}{}", self.known(error))
            }
            ValidationErrorKind::OneOfNotValid { context } | ValidationErrorKind::AnyOf { context } if depth == 0 => {
                let mut text = format!("{path} fits none of {} forms", context.len());
                for (number, form) in context.iter().enumerate().take(TOLD_MAX) {
                    if let Some(first) = form.first() {
                        // Writing to a string cannot fail.
                        let _ = write!(text, ", ({}) {}", number + 1, self.tell(first, depth + 1));
                    }
                }
                text
            }
            ValidationErrorKind::Type { kind } => {
                let wanted = match kind {
                    TypeKind::Single(kind) => kind.to_string(),
                    TypeKind::Multiple(kinds) => {
                        kinds.iter().map(|kind| kind.to_string()).collect::<Vec<_>>().join(" or ")
                    }
                };
                format!("{path} must be of type {wanted}, not {}", error.instance())
            }
            _ => format!("{path}: {error}"),
        };
        if text.len() > 600 {
            text.truncate(text.floor_char_boundary(600));
            text.push_str("...");
        }
        text
    }

    /// The properties that the object could have, where the schema lists them.
    fn known(&self, error: &ValidationError<'_>) -> String {
        let place = error.schema_path().as_str().rsplit_once('/').map_or("", |(parent, _)| parent);
        let listed =
            self.document.pointer(place).and_then(|object| object.get("properties")).and_then(Value::as_object);
        let names: Vec<_> = listed.into_iter().flatten().take(32).map(|(name, _)| format!("`{name}`")).collect();
        if names.is_empty() { String::new() } else { format!("; known are {}", names.join(", ")) }
    }
}

fn count(value: &Value) -> usize {
    1 + match value {
        Value::Array(items) => items.iter().map(count).sum(),
        Value::Object(fields) => fields.values().map(count).sum(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => 0,
    }
}

/// How many rules apply at most, each reference counted as what it refers to. A few lines of references can otherwise
/// stand for more rules than could be checked in a year, and a schema that refers to itself for any number.
fn weigh<'a>(document: &'a Value, part: &'a Value, known: &mut BTreeMap<&'a str, Option<u64>>) -> Result<u64, String> {
    match part {
        Value::Array(items) => {
            items.iter().try_fold(1, |sum: u64, item| Ok(sum.saturating_add(weigh(document, item, known)?)))
        }
        Value::Object(fields) => fields.iter().try_fold(1, |sum: u64, (name, value)| {
            let weight = match (name.as_str(), value) {
                ("$ref", Value::String(target)) => follow(document, target, known)?,
                ("$dynamicRef" | "$dynamicAnchor" | "$recursiveRef" | "$anchor" | "$id", Value::String(_)) => {
                    return Err(format!("its config schema uses `{name}`; refer by `\"$ref\": \"#/$defs/NAME\"`"));
                }
                _ => weigh(document, value, known)?,
            };
            Ok(sum.saturating_add(weight))
        }),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Ok(1),
    }
}

fn follow<'a>(document: &'a Value, target: &'a str, known: &mut BTreeMap<&'a str, Option<u64>>) -> Result<u64, String> {
    let Some(part) = target.strip_prefix('#').filter(|p| p.starts_with('/')).and_then(|p| document.pointer(p)) else {
        return Err(format!("its config schema refers to `{target}`, which is not a place within it"));
    };
    match known.get(target) {
        Some(Some(weight)) => Ok(*weight),
        Some(None) => {
            Err(format!("its config schema refers from `{target}` to itself; write the depth out that is needed"))
        }
        None => {
            known.insert(target, None);
            let weight = weigh(document, part, known)?;
            known.insert(target, Some(weight));
            Ok(weight)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Schema;
    use expect_test::{Expect, expect};
    use serde_json::{Value, json};

    fn check(schema: Value, config: Value, expected: Expect) {
        let said = match Schema::parse(&schema.to_string()) {
            Ok(schema) => schema.check(&config).map_or_else(|error| error, |()| "fits".into()),
            Err(error) => format!("schema: {error}"),
        };
        expected.assert_eq(&said);
    }

    fn gate() -> Value {
        json!({
            "$schema": super::DIALECT, "type": "object", "additionalProperties": false,
            "properties": {
                "nodes": { "type": ["integer", "null"], "minimum": 0 },
                "name": { "type": "string", "pattern": "^[a-z]+$" },
                "rule": { "$ref": "#/$defs/rule" },
            },
            "$defs": { "rule": { "oneOf": [
                { "type": "object", "required": ["verdict"], "properties": { "verdict": { "enum": ["allow", "deny"] } } },
                { "type": "string" },
            ] } },
        })
    }

    #[test]
    fn a_mistake_is_told_with_its_place_and_what_would_do() {
        check(gate(), json!({ "nodes": 3, "name": "ab", "rule": "x" }), expect!["fits"]);
        check(gate(), json!({}), expect!["fits"]);
        check(
            gate(),
            json!({ "nodes": "three" }),
            expect![[r#"`/nodes` must be of type null or integer, not "three""#]],
        );
        check(
            gate(),
            json!({ "nodes": -1, "name": "A" }),
            expect![[r#"`/name`: "A" does not match "^[a-z]+$"; `/nodes`: -1 is less than the minimum of 0"#]],
        );
        check(
            gate(),
            json!({ "node": 1 }),
            expect!["the config has the unknown `node`; known are `name`, `nodes`, `rule`"],
        );
        check(
            gate(),
            json!({ "rule": { "verdict": "perhaps" } }),
            expect![[
                r#"`/rule` fits none of 2 forms, (1) `/rule/verdict`: "perhaps" is not one of "allow" or "deny", (2) `/rule` must be of type string, not {"verdict":"perhaps"}"#
            ]],
        );
    }

    #[test]
    fn a_schema_that_will_not_do_is_told() {
        check(json!([]), json!({}), expect!["schema: its config schema is not a JSON object"]);
        check(
            json!({ "type": "text" }),
            json!({}),
            expect![[
                r#"schema: its config schema is not valid at `/type`: "text" is not valid under any of the schemas listed in the 'anyOf' keyword"#
            ]],
        );
        check(
            json!({ "$schema": "http://json-schema.org/draft-07/schema#" }),
            json!({}),
            expect![[
                r#"schema: its config schema is written in "http://json-schema.org/draft-07/schema#"; this host reads "https://json-schema.org/draft/2020-12/schema""#
            ]],
        );
        check(
            json!({ "$ref": "https://example.com/schema.json" }),
            json!({}),
            expect![
                "schema: its config schema refers to `https://example.com/schema.json`, which is not a place within it"
            ],
        );
        check(
            json!({ "$ref": "#/$defs/none" }),
            json!({}),
            expect!["schema: its config schema refers to `#/$defs/none`, which is not a place within it"],
        );
        check(
            json!({ "properties": { "a": { "$dynamicRef": "#x" } } }),
            json!({}),
            expect![[r##"schema: its config schema uses `$dynamicRef`; refer by `"$ref": "#/$defs/NAME"`"##]],
        );
        check(
            json!({ "properties": { "a": { "pattern": "(?=a)b" } } }),
            json!({}),
            expect![[
                r#"schema: its config schema is not valid at `/properties/a/pattern`: "(?=a)b" is not a "regex""#
            ]],
        );
        check(
            json!({ "properties": { "a": { "pattern": "(a{1000}){1000}" } } }),
            json!({}),
            expect![[
                r#"schema: its config schema is not valid at `/properties/a/pattern`: "(a{1000}){1000}" is not a "regex""#
            ]],
        );
    }

    /// Thirty lines that stand for a billion rules, and two that stand for any number.
    #[test]
    fn a_schema_cannot_cost_more_than_it_is_long() {
        let mut definitions = serde_json::Map::new();
        for i in 0..30 {
            let next = json!({ "$ref": format!("#/$defs/a{}", i + 1) });
            definitions.insert(format!("a{i}"), json!({ "allOf": [next, next] }));
        }
        definitions.insert("a30".into(), json!({ "type": "object" }));
        check(
            json!({ "$ref": "#/$defs/a0", "$defs": definitions }),
            json!({}),
            expect!["schema: its config schema comes to more than 4000 rules once its references are written out"],
        );
        let list = json!({ "properties": { "next": { "$ref": "#/$defs/list" } } });
        check(
            json!({ "$ref": "#/$defs/list", "$defs": { "list": list } }),
            json!({}),
            expect![
                "schema: its config schema refers from `#/$defs/list` to itself; write the depth out that is needed"
            ],
        );
    }
}
