//! Times and durations as people and files write them.

use aether_core::time::Time;
use toml::value::{Datetime, Offset};

const DAY_MS: i64 = 86_400_000;

/// `2026-11-21T02:00:00Z`, `2026-11-21 02:00:00.5` (UTC where no offset stands), `2026-11-21`, or a whole number of UTC
/// milliseconds.
pub fn time(text: &str) -> Result<Time, String> {
    let text = text.trim();
    if let Ok(ms) = text.parse::<i64>() {
        return Ok(Time(ms));
    }
    let wrong = || format!("`{text}` is no time; write 2026-11-21T02:00:00Z, 2026-11-21 02:00:00 or UTC milliseconds");
    let parsed: Datetime = text.parse().map_err(|_| wrong())?;
    let date = parsed.date.ok_or_else(wrong)?;
    let days = days(i64::from(date.year), i64::from(date.month), i64::from(date.day));
    let clock = parsed.time.map_or(0, |time| {
        let seconds = i64::from(time.hour) * 3_600 + i64::from(time.minute) * 60 + i64::from(time.second.unwrap_or(0));
        seconds * 1_000 + i64::from(time.nanosecond.unwrap_or(0) / 1_000_000)
    });
    let offset = match parsed.offset {
        None | Some(Offset::Z) => 0,
        Some(Offset::Custom { minutes }) => i64::from(minutes) * 60_000,
    };
    Ok(Time(days * DAY_MS + clock - offset))
}

/// Days from 1970-01-01. H. Hinnant, "chrono-compatible low-level date algorithms".
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    let of_year = (153 * (if month > 2 { month - 3 } else { month + 9 }) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

/// `500ms`, `90s`, `5m`, `2h`, `7d`.
pub fn duration_ms(text: &str) -> Result<u64, String> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let unit = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => 0,
    };
    match number.parse::<u64>().ok().and_then(|number| number.checked_mul(unit)) {
        Some(ms) if unit > 0 => Ok(ms),
        _ => Err(format!("`{text}` is no duration; write 500ms, 90s, 5m, 2h or 7d")),
    }
}

/// A time, or how long before `now` it was.
pub fn time_or_ago(text: &str, now: Time) -> Result<Time, String> {
    duration_ms(text).map(|ms| now.minus_ms(ms)).or_else(|_| time(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_utc_unless_they_say_otherwise() {
        for (text, ms) in [
            ("1970-01-01 00:00:00", 0),
            ("2000-02-29", 951_782_400_000),
            ("2014-02-26 13:45:00.000000", 1_393_422_300_000),
            ("2026-11-21T02:00:00Z", 1_795_226_400_000),
            ("2026-11-21T03:30:00.250+01:30", 1_795_226_400_250),
            ("1795226400000", 1_795_226_400_000),
            (" -1 ", -1),
        ] {
            assert_eq!(time(text), Ok(Time(ms)), "{text}");
        }
        for text in ["", "yesterday", "02:00:00", "2026-13-01", "2026-11-31", "5.5"] {
            assert!(time(text).is_err(), "{text}");
        }
    }

    #[test]
    fn durations_have_a_unit() {
        for (text, ms) in [("500ms", 500), ("90s", 90_000), ("5m", 300_000), ("2h", 7_200_000), ("7d", 604_800_000)] {
            assert_eq!(duration_ms(text), Ok(ms), "{text}");
        }
        for text in ["", "5", "h", "-1h", "1.5h", "99999999999999999999d", "99999999999999999d"] {
            assert!(duration_ms(text).is_err(), "{text}");
        }
        assert_eq!(time_or_ago("1h", Time(3_600_001)), Ok(Time(1)));
        assert_eq!(time_or_ago("7", Time(0)), Ok(Time(7)));
    }
}
