//! Points in time as UTC milliseconds since the Unix epoch, the unit of every contract.
//! There is no `now` here: time comes in from outside.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// UTC milliseconds since the Unix epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(transparent)]
pub struct Time(pub i64);

impl Time {
    /// This time plus `ms`, saturating.
    #[must_use]
    pub fn plus_ms(self, ms: u64) -> Self {
        Self(self.0.saturating_add_unsigned(ms))
    }
    /// This time minus `ms`, saturating.
    #[must_use]
    pub fn minus_ms(self, ms: u64) -> Self {
        Self(self.0.saturating_sub_unsigned(ms))
    }
    /// Milliseconds from `earlier` to this; zero if `earlier` is later.
    pub fn since_ms(self, earlier: Time) -> u64 {
        u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0)
    }
}
