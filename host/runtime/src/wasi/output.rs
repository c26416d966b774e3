//! What a guest prints, line by line into the evaluation's log.

use crate::{host::State, wasi::Wasi};
use aether_core::decision::Severity;

/// A line that has not ended yet.
#[derive(Default)]
pub(super) struct Line {
    bytes: Vec<u8>,
    /// Something was printed since the last line ended.
    begun: bool,
}

impl Line {
    /// Adds to the line; what is over `maximum` bytes is dropped, as the log would.
    fn extend(&mut self, bytes: &[u8], maximum: usize) {
        self.begun = true;
        let room = maximum.saturating_sub(self.bytes.len());
        self.bytes.extend_from_slice(&bytes[..room.min(bytes.len())]);
    }

    fn end(&mut self) -> String {
        self.begun = false;
        let text = String::from_utf8_lossy(&self.bytes).into_owned();
        self.bytes.clear();
        text
    }
}

/// Which of the two.
#[derive(Clone, Copy)]
pub(crate) enum Printed {
    Stdout,
    Stderr,
}

impl Printed {
    fn severity(self) -> Severity {
        match self {
            Printed::Stdout => Severity::Info,
            Printed::Stderr => Severity::Warn,
        }
    }
}

impl Wasi {
    fn line(&mut self, printed: Printed) -> &mut Line {
        match printed {
            Printed::Stdout => &mut self.stdout,
            Printed::Stderr => &mut self.stderr,
        }
    }
}

impl State {
    /// Prints; each line that ends is a line of the log, under the log's limits.
    pub(super) fn print(&mut self, printed: Printed, bytes: &[u8]) -> wasmtime::Result<()> {
        // One more than the log keeps, so that the log sees that the line was too long; and a character more, so that
        // one that lies across the limit is cut off whole.
        let maximum = self.log_line_bytes() + 5;
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            match part.strip_suffix(b"\n") {
                Some(rest) => {
                    let line = self.wasi_or_new().line(printed);
                    line.extend(rest, maximum);
                    let text = line.end();
                    self.append(printed.severity(), text)?;
                }
                None => self.wasi_or_new().line(printed).extend(part, maximum),
            }
        }
        Ok(())
    }

    /// Ends the lines that the guest left open.
    pub(crate) fn end_lines(&mut self) -> wasmtime::Result<()> {
        for printed in [Printed::Stdout, Printed::Stderr] {
            let open = self.wasi_mut().map(|wasi| wasi.line(printed)).filter(|line| line.begun);
            if let Some(text) = open.map(Line::end) {
                self.append(printed.severity(), text)?;
            }
        }
        Ok(())
    }
}
