//! What can go wrong, in words for an operator.

use thiserror::Error as ThisError;

/// A failure of the recorder itself. Nothing unsealed is ever lost by one: it stays for the next seal.
#[derive(Debug, ThisError)]
pub enum Error {
    #[error("recorder setting {name} is {value}: it must be between {least} and {most}")]
    Setting { name: &'static str, value: u64, least: u64, most: u64 },
    #[error("the segments cannot be listed")]
    List(#[source] object_store::Error),
    #[error("segment {path} cannot be read")]
    Read {
        path: String,
        #[source]
        source: object_store::Error,
    },
    #[error("segment {path} cannot be written; what it should hold stays unsealed and is tried again")]
    Write {
        path: String,
        #[source]
        source: object_store::Error,
    },
    #[error("segment {path} cannot be removed")]
    Remove {
        path: String,
        #[source]
        source: object_store::Error,
    },
    #[error("the folder {path} for segments cannot be used")]
    Folder {
        path: String,
        #[source]
        source: std::io::Error,
    },
    #[error("the store for segments cannot be opened")]
    Store(#[source] object_store::Error),
    #[error("a segment cannot be encoded; what it should hold stays unsealed")]
    Encode(#[source] parquet::errors::ParquetError),
    #[error("this file is not a segment of the recorder: {0}")]
    Foreign(String),
    #[error("this file is not a readable Parquet file")]
    Parquet(#[source] parquet::errors::ParquetError),
    /// For an operator: nothing is wrong but the question.
    #[error(
        "this is more than {limit} rows, or than one query may read: ask for fewer subjects, names or a shorter time"
    )]
    TooMuch { limit: usize },
    #[error("`{0}` is no name for evidence: letters, digits, - and _, at most 128")]
    Name(String),
    #[error("the recorder's worker was stopped")]
    Stopped,
}

/// Why a batch was not taken.
#[derive(Clone, Debug, PartialEq, Eq, ThisError)]
pub enum Rejected {
    /// Too much waits to be sealed. The sender keeps the batch and sends it again later.
    #[error(
        "{unsealed_bytes} bytes wait to be sealed, and {limit} is the limit: keep the batch and send it again later"
    )]
    Full { unsealed_bytes: usize, limit: usize },
    /// The batch is not acceptable, now or ever. Its sequence counts as settled, so that later ones can be acknowledged.
    #[error("{text}")]
    Malformed { code: &'static str, text: String },
}

impl Rejected {
    /// A stable code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Full { .. } => "telemetry.full",
            Self::Malformed { code, .. } => code,
        }
    }

    /// Whether the same batch can be accepted later.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Full { .. })
    }
}
