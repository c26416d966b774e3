//! Sources that may take long, each on a thread of its own, so that a driver or a disk that hangs stalls nobody else.
//!
//! One is asked, and answers when it can; while it owes an answer it is not asked again. A thread that never answers is
//! left behind at the end: nothing can be done about it, and nothing waits for it.

use super::source::{Missing, Readings, Sink, Source};
use crate::clock::Stopwatch;
use aether_core::{id::NodeId, time::Time};
use std::{
    sync::mpsc::{Receiver, Sender, channel},
    thread,
    time::Duration,
};

/// Stacks of these threads: they read, and go no deeper.
const STACK_BYTES: usize = 512 << 10;

/// What a source on a thread of its own is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ask {
    /// Take a sample, as of this time, and answer.
    Sample(Time),
    /// Close what is held open, and be silent.
    Rest,
    /// Somebody else has a need of what is held open: look.
    LetGo,
    /// The collector is gone.
    End,
}

/// What it answers.
pub(super) struct Answer {
    pub(super) readings: Readings,
    pub(super) result: Result<(), Missing>,
}

/// The thread's end of it.
pub(super) struct Desk {
    pub(super) node: NodeId,
    asks: Receiver<Ask>,
    answers: Sender<Answer>,
}

impl Desk {
    /// Waits for the next. None: the collector is gone.
    pub(super) fn next(&self) -> Option<Ask> {
        self.asks.recv().ok().filter(|ask| *ask != Ask::End)
    }

    /// Samples by `work`, and answers.
    pub(super) fn answer(&self, at: Time, work: impl FnOnce(&mut Sink<'_>) -> Result<(), Missing>) {
        let mut readings = Readings::default();
        let result = work(&mut Sink { node: &self.node, at, readings: &mut readings });
        // Nobody is there any more to hear it: the next ask says so.
        let _ = self.answers.send(Answer { readings, result });
    }
}

/// The collector's end.
pub(super) struct Apart {
    asks: Sender<Ask>,
    answers: Receiver<Answer>,
    /// Since when it owes an answer.
    owes: Option<Stopwatch>,
    resting: bool,
    /// It could not be started.
    broken: Option<Missing>,
    /// How long an answer may take before that is a failure.
    patience: Duration,
}

impl Apart {
    /// A thread that does `work` with its desk. What asks are sent with can be had before, by `wake`.
    pub(super) fn serve(
        name: &str,
        node: &NodeId,
        patience: Duration,
        wake: impl FnOnce(Sender<Ask>),
        work: impl FnOnce(Desk) + Send + 'static,
    ) -> Self {
        let (asks, asked) = channel();
        let (answer, answers) = channel();
        wake(asks.clone());
        let desk = Desk { node: node.clone(), asks: asked, answers: answer };
        let begun = thread::Builder::new().name(format!("src-{name}")).stack_size(STACK_BYTES).spawn(|| work(desk));
        let broken = begun.err().map(|error| Missing::new(format!("its thread cannot be started: {error}")));
        Self { asks, answers, owes: None, resting: false, broken, patience }
    }

    /// Any source, on a thread of its own.
    pub(super) fn of(mut source: Box<dyn Source>, node: &NodeId, patience: Duration) -> Self {
        let name = source.name().to_string();
        Self::serve(&name, node, patience, drop, move |desk| {
            while let Some(ask) = desk.next() {
                match ask {
                    Ask::Sample(at) => desk.answer(at, |sink| source.sample(sink)),
                    Ask::Rest => source.rest(),
                    Ask::LetGo | Ask::End => {}
                }
            }
        })
    }

    /// Asks for a sample, unless one is owed.
    pub(super) fn ask(&mut self, at: Time) {
        self.resting = false;
        if self.owes.is_none() && self.asks.send(Ask::Sample(at)).is_ok() {
            self.owes = Some(Stopwatch::start());
        }
    }

    pub(super) fn rest(&mut self) {
        if !std::mem::replace(&mut self.resting, true) {
            let _ = self.asks.send(Ask::Rest);
        }
    }

    /// Whether it was asked just now, and may well answer soon.
    pub(super) fn is_fresh(&self, within: Duration) -> bool {
        self.owes.is_some_and(|owes| owes.elapsed() < within)
    }

    /// Its answer, if it comes in time. Or that none came for too long.
    pub(super) fn hear(&mut self, within: Duration) -> Option<Answer> {
        if let Some(broken) = &self.broken {
            return Some(Answer { readings: Readings::default(), result: Err(broken.clone()) });
        }
        let owes = self.owes?;
        if let Ok(answer) = self.answers.recv_timeout(within) {
            self.owes = None;
            return Some(answer);
        }
        (owes.elapsed() >= self.patience).then(|| {
            let reason = format!(
                "no answer for {} s: what it reads hangs. It is asked again once it answers; look at `dmesg`",
                self.patience.as_secs()
            );
            Answer { readings: Readings::default(), result: Err(Missing::new(reason)) }
        })
    }
}

impl Drop for Apart {
    fn drop(&mut self) {
        // Others may have an end of this channel too, so that closing it says nothing.
        let _ = self.asks.send(Ask::End);
    }
}
