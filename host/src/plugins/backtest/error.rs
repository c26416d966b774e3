//! Why there is no report. Nothing was changed by any of it.

use thiserror::Error;

#[derive(Debug, Error)]
pub enum Error {
    #[error("{name} cannot be read")]
    Read { name: String, source: std::io::Error },
    #[error("{name}, line {line}: {reason}")]
    Line { name: String, line: u64, reason: String },
    #[error("{name}: {reason}")]
    Form { name: String, reason: String },
    #[error("the history has more than {limit} rows; take a shorter stretch, or every n-th sample")]
    TooLong { limit: u64 },
    #[error(
        "{given} evaluations are asked for, over the limit of {limit}; take a shorter stretch, a longer tick, or raise the limit"
    )]
    TooMany { given: u64, limit: u64 },
    #[error("it took longer than {limit_ms} ms; take a shorter stretch or a longer tick, or raise the limit")]
    TimeLimit { limit_ms: u64 },
    #[error("it was stopped after {done} of {of} evaluations")]
    Stopped { done: u64, of: u64 },
    #[error("the components are of different roles: {0}")]
    Roles(String),
    #[error("{0}")]
    Nothing(String),
    #[error("the recorded history could not be read")]
    Recorder(#[from] aether_recorder::Error),
    #[error("there is no {what} `{id}`")]
    Unknown { what: &'static str, id: String },
    #[error("{limit} backtests run or wait already; wait, or stop one")]
    Busy { limit: usize },
    #[error("the candidate cannot be had from the registry: {0}")]
    Registry(#[source] crate::plugins::registry::Error),
    #[error(transparent)]
    Activate(aether_runtime::ActivateError),
    #[error("the database could not be used")]
    Store(#[from] crate::store::Error),
    #[error("a thread of the backtest died; this is a defect of the host, and nothing was changed")]
    Died,
}

impl Error {
    /// A stable code; `docs/errors.md` has a section for each.
    pub fn code(&self) -> &'static str {
        match self {
            Error::Read { .. } | Error::Line { .. } | Error::Form { .. } => "AE0070",
            Error::TooLong { .. } | Error::TooMany { .. } | Error::TimeLimit { .. } => "AE0071",
            Error::Stopped { .. } => "AE0072",
            Error::Nothing(_) | Error::Roles(_) => "AE0073",
            Error::Recorder(_) | Error::Registry(_) | Error::Store(_) | Error::Died => "AE0074",
            Error::Unknown { .. } => "AE0004",
            Error::Activate(_) => "AE0077",
            Error::Busy { .. } => "AE0078",
        }
    }
}
