//! The two forms of dates in these documents. Civil days after H. Hinnant, "chrono-compatible low-level date algorithms".

use crate::time::Time;

const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// RFC 3339, such as `2026-11-28T08:22:00Z` or `2026-11-28T08:22:00.350+00:00`.
pub fn rfc3339(text: &str) -> Option<Time> {
    let text = text.trim();
    let (date, rest) = text.split_once(['T', 't', ' '])?;
    let mut date = date.splitn(3, '-').map(digits);
    let (year, month, day) = (date.next()??, date.next()??, date.next()??);
    let zone = rest.find(['Z', 'z', '+']).or_else(|| rest.rfind('-'))?;
    let (clock, zone) = rest.split_at_checked(zone)?;
    let (clock, fraction) = clock.split_once('.').unwrap_or((clock, ""));
    let mut clock = clock.splitn(3, ':').map(digits);
    let (hour, minute, second) = (clock.next()??, clock.next()??, clock.next()??);
    let millis = match fraction {
        "" => 0,
        fraction => digits(&fraction.chars().chain("000".chars()).take(3).collect::<String>())?,
    };
    let offset = match zone {
        "Z" | "z" => 0,
        zone => {
            let (hours, minutes) = zone.get(1..)?.split_once(':')?;
            let minutes = digits(hours)? * 60 + digits(minutes)?;
            if zone.starts_with('-') { -minutes } else { minutes }
        }
    };
    let seconds = seconds(year, month, day, hour, minute, second)?;
    Some(Time((seconds - offset * 60) * 1_000 + millis))
}

/// RFC 9110's date, such as `Mon, 19 Sep 2016 18:29:47 GMT`.
pub fn http_date(text: &str) -> Option<Time> {
    let mut words = text.trim().split_once(", ")?.1.split(' ');
    let (day, month, year, clock, zone) = (words.next()?, words.next()?, words.next()?, words.next()?, words.next()?);
    let month = i64::try_from(MONTHS.iter().position(|name| *name == month)?).ok()? + 1;
    let mut clock = clock.splitn(3, ':').map(digits);
    let (hour, minute, second) = (clock.next()??, clock.next()??, clock.next()??);
    let whole = zone == "GMT" && words.next().is_none();
    let seconds = seconds(digits(year)?, month, digits(day)?, hour, minute, second)?;
    whole.then_some(Time(seconds * 1_000))
}

/// One to four digits, and nothing else.
fn digits(text: &str) -> Option<i64> {
    let all = (1..=4).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
    all.then(|| text.parse().ok()).flatten()
}

fn seconds(year: i64, month: i64, day: i64, hour: i64, minute: i64, second: i64) -> Option<i64> {
    let sound = (1970..=9_999).contains(&year)
        && (1..=12).contains(&month)
        && (1..=31).contains(&day)
        && (0..24).contains(&hour)
        && (0..60).contains(&minute)
        // A leap second is the one after.
        && (0..=60).contains(&second);
    if !sound {
        return None;
    }
    let shifted = if month <= 2 { year - 1 } else { year };
    let (era, of_era) = (shifted.div_euclid(400), shifted.rem_euclid(400));
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let of_era = of_era * 365 + of_era / 4 - of_era / 100 + of_year;
    Some((era * 146_097 + of_era - 719_468) * 86_400 + hour * 3_600 + minute * 60 + second)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_as_the_documents_have_them() {
        for (text, at) in [
            ("1970-01-01T00:00:00Z", Some(0)),
            ("2020-10-27T08:22:00Z", Some(1_603_786_920_000)),
            ("2024-02-29T23:59:59.5Z", Some(1_709_251_199_500)),
            ("2018-04-25T18:07:00.350Z", Some(1_524_679_620_350)),
            ("2022-07-15T00:00:00+00:00", Some(1_657_843_200_000)),
            ("2022-07-15T01:00:00-01:30", Some(1_657_852_200_000)),
            ("2022-13-15T00:00:00Z", None),
            ("2022-07-15T00:00Z", None),
            ("2022-07-15", None),
            ("soon", None),
            ("", None),
        ] {
            assert_eq!(rfc3339(text), at.map(Time), "{text}");
        }
        for (text, at) in [
            ("Mon, 19 Sep 2016 18:29:47 GMT", Some(1_474_309_787_000)),
            ("Mon, 19 Foo 2016 18:29:47 GMT", None),
            ("Mon, 19 Sep 2016 18:29:47 CET", None),
            ("", None),
        ] {
            assert_eq!(http_date(text), at.map(Time), "{text}");
        }
    }
}
