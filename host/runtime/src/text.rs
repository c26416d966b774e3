//! Reading small text files that others wrote: never more than a limit.

use std::{io::Read as _, path::Path};

/// The whole file; none if it is over `limit` bytes.
pub(crate) fn read(path: &Path, limit: u64) -> std::io::Result<Option<String>> {
    let mut text = String::new();
    // One byte more than is taken, so that a file that is too large is seen and never read whole.
    std::fs::File::open(path)?.take(limit.saturating_add(1)).read_to_string(&mut text)?;
    Ok((text.len() as u64 <= limit).then_some(text))
}
