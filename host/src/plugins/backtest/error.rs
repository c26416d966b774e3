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
            Error::Recorder(_) | Error::Died => "AE0074",
        }
    }
}
