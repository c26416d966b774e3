//! Typed argument values of verbs.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Integers and counts must stay within ±(2^53 - 1), the range that canonical JSON (RFC 8785) carries exactly;
/// [`crate::catalogue`] refuses larger ones.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Value {
    Text(String),
    Integer(i64),
    Number(f64),
    Flag(bool),
    /// Milliseconds.
    Duration(u64),
    Bytes(u64),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ValueKind {
    Text,
    Integer,
    Number,
    Flag,
    Duration,
    Bytes,
}

/// The largest integer that canonical JSON carries exactly.
pub const MAX_EXACT: u64 = (1 << 53) - 1;

impl Value {
    pub fn kind(&self) -> ValueKind {
        match self {
            Value::Text(_) => ValueKind::Text,
            Value::Integer(_) => ValueKind::Integer,
            Value::Number(_) => ValueKind::Number,
            Value::Flag(_) => ValueKind::Flag,
            Value::Duration(_) => ValueKind::Duration,
            Value::Bytes(_) => ValueKind::Bytes,
        }
    }

    /// The value on the number line, for bounds; none for text and flags. Rounds above 2^53.
    pub fn as_f64(&self) -> Option<f64> {
        match self {
            Value::Integer(v) => Some(*v as f64),
            Value::Number(v) => Some(*v),
            Value::Duration(v) | Value::Bytes(v) => Some(*v as f64),
            Value::Text(_) | Value::Flag(_) => None,
        }
    }

    /// Whether canonical JSON carries this value exactly.
    pub fn is_exact(&self) -> bool {
        match self {
            Value::Integer(v) => v.unsigned_abs() <= MAX_EXACT,
            Value::Number(v) => v.is_finite(),
            Value::Duration(v) | Value::Bytes(v) => *v <= MAX_EXACT,
            Value::Text(_) | Value::Flag(_) => true,
        }
    }

    pub fn as_text(&self) -> Option<&str> {
        match self {
            Value::Text(text) => Some(text),
            Value::Integer(_) | Value::Number(_) | Value::Flag(_) | Value::Duration(_) | Value::Bytes(_) => None,
        }
    }
}

impl std::fmt::Display for Value {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Value::Text(v) => f.write_str(v),
            Value::Integer(v) => write!(f, "{v}"),
            Value::Number(v) => write!(f, "{v}"),
            Value::Flag(v) => write!(f, "{v}"),
            Value::Duration(v) => write!(f, "{v} ms"),
            Value::Bytes(v) => write!(f, "{v} B"),
        }
    }
}
