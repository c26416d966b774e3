//! What can go. Pure: who refers to what is gathered elsewhere, and so is the removal.

use super::Settings;
use aether_core::{id::Digest, time::Time};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use utoipa::ToSchema;

/// Something that is kept: a component, or a set of assets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    pub digest: Digest,
    pub name: String,
    pub version: String,
    pub bytes: u64,
    pub uploaded_at: Time,
    pub used_at: Time,
}

/// Why something can go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Why {
    /// Not needed for longer than `plugins.keep_ms`, and not among the newest `plugins.keep_versions` of its name.
    Old,
    /// Everything together is over `plugins.bytes_maximum`, and of what nobody needs this was needed longest ago.
    NoRoom,
}

/// What can go, with the reason, in the order in which it goes. What somebody refers to never does.
/// `coming`: bytes for which there ought to be room as well.
pub fn garbage<'a>(
    kept: &'a [Kept],
    needed: &BTreeSet<&Digest>,
    settings: &Settings,
    coming: u64,
    now: Time,
) -> Vec<(&'a Kept, Why)> {
    let mut newest: BTreeMap<&str, Vec<&Kept>> = BTreeMap::new();
    for one in kept {
        newest.entry(&one.name).or_default().push(one);
    }
    let mut spared = BTreeSet::new();
    for of_name in newest.values_mut() {
        of_name.sort_by(|a, b| (b.uploaded_at, &b.digest).cmp(&(a.uploaded_at, &a.digest)));
        let keep = usize::try_from(settings.keep_versions).unwrap_or(usize::MAX);
        spared.extend(of_name.iter().take(keep).map(|one| &one.digest));
    }
    let mut free: Vec<&Kept> = kept.iter().filter(|one| !needed.contains(&one.digest)).collect();
    free.sort_by(|a, b| (a.used_at, &a.digest).cmp(&(b.used_at, &b.digest)));
    let is_old = |one: &Kept| now.since_ms(one.used_at) > settings.keep_ms && !spared.contains(&one.digest);
    let (old, young): (Vec<&Kept>, Vec<&Kept>) = free.into_iter().partition(|one| is_old(one));
    let all: u64 = kept.iter().map(|one| one.bytes).sum();
    let mut left = all.saturating_sub(old.iter().map(|one| one.bytes).sum()).saturating_add(coming);
    let mut gone: Vec<(&Kept, Why)> = old.into_iter().map(|one| (one, Why::Old)).collect();
    for one in young {
        if left <= settings.bytes_maximum {
            break;
        }
        left = left.saturating_sub(one.bytes);
        gone.push((one, Why::NoRoom));
    }
    gone
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: i64 = 86_400_000;

    fn kept(name: &str, number: u8, days_ago: i64, bytes: u64) -> Kept {
        let at = Time(100 * DAY - days_ago * DAY);
        Kept {
            digest: Digest(format!("{name}-{number}")),
            name: name.into(),
            version: format!("0.{number}.0"),
            bytes,
            uploaded_at: at,
            used_at: at,
        }
    }

    fn gone(kept: &[Kept], needed: &[&str], settings: &Settings, coming: u64) -> Vec<(String, Why)> {
        let needed: Vec<Digest> = needed.iter().map(|digest| Digest((*digest).into())).collect();
        let needed = needed.iter().collect();
        garbage(kept, &needed, settings, coming, Time(100 * DAY))
            .into_iter()
            .map(|(one, why)| (one.digest.0.clone(), why))
            .collect()
    }

    #[test]
    fn what_is_old_goes_unless_it_is_needed_or_among_the_newest_of_its_name() {
        let settings = Settings { keep_versions: 2, ..Settings::default() };
        let all: Vec<Kept> = (0..5).map(|number| kept("a", number, 90 - i64::from(number), 10)).collect();
        let old = |digest: &str| (digest.to_owned(), Why::Old);
        assert_eq!(gone(&all, &[], &settings, 0), [old("a-0"), old("a-1"), old("a-2")]);
        assert_eq!(gone(&all, &["a-0", "a-2"], &settings, 0), [old("a-1")]);
        let none = Settings { keep_versions: 0, ..Settings::default() };
        assert_eq!(gone(&all, &[], &none, 0).len(), 5);
        let recent: Vec<Kept> = (0..5).map(|number| kept("a", number, 29, 10)).collect();
        assert_eq!(gone(&recent, &[], &none, 0), [], "nothing is older than 30 days");
    }

    #[test]
    fn where_there_is_no_room_what_was_needed_longest_ago_goes_first_and_nothing_that_is_needed() {
        let settings = Settings { bytes_maximum: 25, ..Settings::default() };
        let all = [kept("a", 0, 3, 10), kept("a", 1, 2, 10), kept("b", 0, 1, 10)];
        let full = |digest: &str| (digest.to_owned(), Why::NoRoom);
        assert_eq!(gone(&all, &[], &settings, 0), [full("a-0")]);
        assert_eq!(gone(&all, &["a-0"], &settings, 0), [full("a-1")]);
        assert_eq!(gone(&all, &[], &settings, 10), [full("a-0"), full("a-1")]);
        assert_eq!(gone(&all, &["a-0", "a-1", "b-0"], &settings, 10), []);
    }
}
