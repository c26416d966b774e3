//! Tables, times and sizes for people.

use aether_core::time::Time;
use serde::Serialize;

/// The document as the API gives it.
pub(super) fn json<T: Serialize>(document: &T) -> anyhow::Result<()> {
    super::say(&serde_json::to_string_pretty(document)?);
    Ok(())
}

/// Columns as wide as what is in them; the last is left as it is.
pub(super) fn table<const N: usize>(head: [&str; N], rows: &[[String; N]]) {
    super::print(&lines(head, rows));
}

fn lines<const N: usize>(head: [&str; N], rows: &[[String; N]]) -> String {
    let mut widths = head.map(|title| title.chars().count());
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let line = |cells: [&str; N]| {
        let mut text = String::new();
        for (cell, width) in cells.iter().zip(widths) {
            text.push_str(&format!("{cell:width$}  "));
        }
        format!("{}\n", text.trim_end())
    };
    let mut text = line(head);
    for row in rows {
        text.push_str(&line(row.each_ref().map(String::as_str)));
    }
    text
}

/// How long ago, in words.
pub(super) fn ago(at: Option<Time>) -> String {
    at.map_or_else(|| "never".into(), |at| format!("{} ago", duration(crate::clock::now().since_ms(at))))
}

/// How long, in the largest unit that tells enough.
pub(super) fn duration(ms: u64) -> String {
    match ms {
        0..1_000 => format!("{ms} ms"),
        1_000..120_000 => format!("{} s", ms / 1_000),
        120_000..7_200_000 => format!("{} min", ms / 60_000),
        7_200_000..172_800_000 => format!("{} h", ms / 3_600_000),
        _ => format!("{} d", ms / 86_400_000),
    }
}

/// How much, in the largest unit that tells enough.
#[allow(clippy::cast_precision_loss, reason = "one digit behind the point is shown")]
pub(super) fn bytes(bytes: u64) -> String {
    const UNITS: [(&str, u64); 4] = [("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
    match UNITS.into_iter().find(|(_, unit)| bytes >= *unit) {
        Some((name, unit)) => format!("{:.1} {name}", bytes as f64 / unit as f64),
        None => format!("{bytes} B"),
    }
}

/// UTC, to the second.
pub(super) fn time(at: Time) -> String {
    let seconds = at.0.div_euclid(1_000);
    let (days, rest) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    // Civil date from days: H. Hinnant, "chrono-compatible low-level date algorithms".
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let of_era = shifted.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    let (hour, minute, second) = (rest / 3_600, rest % 3_600 / 60, rest % 60);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}Z")
}

/// A name that serde gives: `awaiting_approval`, `policy-gate`.
pub(super) fn name<T: Serialize>(value: &T) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(name)) => name,
        Ok(serde_json::Value::Object(object)) => object.keys().next().cloned().unwrap_or_default(),
        _ => String::new(),
    }
}

/// With `…` where it was cut.
pub(super) fn short(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.into();
    }
    text.chars().take(width.saturating_sub(1)).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_civil_dates() {
        for (ms, shown) in [
            (0, "1970-01-01 00:00:00Z"),
            (951_782_399_000, "2000-02-28 23:59:59Z"),
            (951_782_400_000, "2000-02-29 00:00:00Z"),
            (1_795_226_400_000, "2026-11-21 02:00:00Z"),
            (-1, "1969-12-31 23:59:59Z"),
        ] {
            assert_eq!(time(Time(ms)), shown);
        }
    }

    #[test]
    fn columns_stand_below_their_titles() {
        let rows = [["a".to_owned(), "one".to_owned()], ["longer".to_owned(), "two".to_owned()]];
        assert_eq!(lines(["ID", "WORD"], &rows), "ID      WORD\na       one\nlonger  two\n");
    }

    #[test]
    fn durations_are_in_the_largest_unit_that_tells_enough() {
        for (ms, shown) in
            [(0, "0 ms"), (999, "999 ms"), (61_000, "61 s"), (7_199_999, "119 min"), (90_000_000, "25 h")]
        {
            assert_eq!(duration(ms), shown);
        }
    }
}
