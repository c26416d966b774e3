//! Names of programs as attributes of series, of which there may not be any number: whoever starts a program chooses
//! its name, and each name is a series that the host keeps.

use aether_core::time::Time;
use std::collections::BTreeMap;

/// What stands for every name beyond the limit.
pub(super) const OTHER: &str = "other";
/// A name that was not seen for this long makes room for another.
const FORGOTTEN_AFTER_MS: u64 = 3_600_000;

/// The names that one source may use.
#[derive(Debug)]
pub(super) struct Names {
    seen: BTreeMap<String, Time>,
    maximum: usize,
}

impl Names {
    pub(super) fn at_most(maximum: usize) -> Self {
        Self { seen: BTreeMap::new(), maximum }
    }

    /// The name itself while there is room, and `other` beyond it.
    pub(super) fn admit<'a>(&mut self, name: &'a str, at: Time) -> &'a str {
        if let Some(last) = self.seen.get_mut(name) {
            *last = at;
            return name;
        }
        if self.seen.len() >= self.maximum {
            self.seen.retain(|_, last| at.since_ms(*last) < FORGOTTEN_AFTER_MS);
        }
        if self.seen.len() >= self.maximum {
            return OTHER;
        }
        self.seen.insert(name.into(), at);
        name
    }
}

/// A program's name as an attribute: without what makes each instance another (`kworker/3:1-events` is `kworker`), of
/// printable ASCII, and not empty.
pub(super) fn plain(comm: &str) -> String {
    let comm = comm.trim();
    let stem = comm.find(['/', ':', ' ']).filter(|at| *at > 0).map_or(comm, |at| &comm[..at]);
    let stem = stem.trim_end_matches(|c: char| c.is_ascii_digit() || c == '-' || c == '_' || c == '.' || c == '#');
    let stem = if stem.is_empty() { comm } else { stem };
    let name: String = stem.chars().map(|c| if c.is_ascii_graphic() { c } else { '?' }).take(32).collect();
    if name.is_empty() { "?".into() } else { name }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_bounded_and_old_ones_make_room() {
        let mut names = Names::at_most(2);
        assert_eq!(names.admit("a", Time(0)), "a");
        assert_eq!(names.admit("b", Time(1)), "b");
        assert_eq!(names.admit("c", Time(2)), OTHER);
        assert_eq!(names.admit("a", Time(3_000_000)), "a");
        // By now `b` is forgotten and `a` is not.
        assert_eq!(names.admit("c", Time(3_600_001)), "c");
        assert_eq!(names.admit("b", Time(3_600_002)), OTHER);
    }

    #[test]
    fn what_makes_each_instance_another_is_cut_off() {
        for (comm, name) in [
            ("kworker/3:1-events", "kworker"),
            ("worker-17", "worker"),
            ("python3.11", "python"),
            ("tokio-runtime-w", "tokio-runtime-w"),
            ("42", "42"),
            ("bad\u{1b}name", "bad?name"),
            ("", "?"),
        ] {
            assert_eq!(plain(comm), name, "{comm:?}");
        }
    }
}
