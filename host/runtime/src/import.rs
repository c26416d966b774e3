//! What a component's imports ask for, by name: which grant each belongs to, and which nobody gives.

use crate::{WIT_VERSION, wasi};
use aether_core::slot::Grant;

/// What an import needs, by its full name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Import {
    /// The shared types, which let nobody do anything.
    Types,
    Granted(Grant),
    /// Nothing that any world has.
    Unknown,
}

impl Import {
    pub(crate) fn of(name: &str) -> Self {
        if wasi::is_given(name) {
            return Import::Granted(Grant::Wasi);
        }
        match name.strip_prefix("aether:plugin/").and_then(|rest| rest.split_once('@')) {
            Some(("types", WIT_VERSION)) => Import::Types,
            Some(("log", WIT_VERSION)) => Import::Granted(Grant::Log),
            Some(("assets", WIT_VERSION)) => Import::Granted(Grant::Assets),
            Some(("history", WIT_VERSION)) => Import::Granted(Grant::History),
            _ => Import::Unknown,
        }
    }

    /// None: it needs none, or nobody can be granted it.
    pub(crate) fn grant(self) -> Option<Grant> {
        match self {
            Import::Granted(grant) => Some(grant),
            Import::Types | Import::Unknown => None,
        }
    }
}

/// What a grant lets a component import, for a person.
pub(crate) fn named(grant: Grant) -> String {
    let interface = match grant {
        Grant::Log => "log",
        Grant::Assets => "assets",
        Grant::History => "history",
        Grant::Wasi => return "wasi:{cli, clocks, filesystem, io, random, sockets}@0.2".into(),
    };
    format!("aether:plugin/{interface}@{WIT_VERSION}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use aether_core::decision::Role;

    #[test]
    fn each_import_belongs_to_one_grant() {
        for (name, import) in [
            ("aether:plugin/types@0.1.0", Import::Types),
            ("aether:plugin/log@0.1.0", Import::Granted(Grant::Log)),
            ("aether:plugin/history@0.1.0", Import::Granted(Grant::History)),
            ("aether:plugin/history@0.2.0", Import::Unknown),
            ("wasi:filesystem/types@0.2.4", Import::Granted(Grant::Wasi)),
            ("wasi:http/outgoing-handler@0.2.4", Import::Unknown),
            ("env", Import::Unknown),
        ] {
            assert_eq!(Import::of(name), import, "{name}");
        }
    }

    #[test]
    fn what_a_grant_is_called_is_what_it_grants() {
        for grant in Grant::of(Role::RiskScorer).into_iter().filter(|grant| *grant != Grant::Wasi) {
            assert_eq!(Import::of(&named(grant)), Import::Granted(grant));
        }
    }
}
