//! Who has NVML open for long, and how it is let go.
//!
//! Opening NVML takes from tens of milliseconds to seconds, so the collector opens it once and holds it. But a client
//! that stays keeps a GPU from being reset. So a reset asks for it ([`Hold::away`]), the holder closes it, and takes it
//! up again when the reset is over.

use std::{
    fmt,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

#[derive(Clone, Default)]
pub struct Hold(Arc<Shared>);

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    held: bool,
    /// How many want it closed.
    away: usize,
    /// Tells the holder that somebody does.
    wake: Option<Box<dyn Fn() + Send>>,
}

/// While this lives, the holder does not open NVML.
#[derive(Debug)]
pub struct Away(Hold);

/// While this lives, NVML may be open.
#[derive(Debug)]
pub struct Held(Hold);

impl Hold {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How the holder is told that somebody wants it closed.
    pub fn set_wake(&self, wake: impl Fn() + Send + 'static) {
        self.lock().wake = Some(Box::new(wake));
    }

    /// The holder is about to open it, and has closed it when what comes back is dropped. None: not now.
    pub fn take(&self) -> Option<Held> {
        let mut state = self.lock();
        state.held = state.away == 0;
        state.held.then(|| Held(self.clone()))
    }

    /// Whether the holder should close it.
    pub fn is_wanted_away(&self) -> bool {
        self.lock().away > 0
    }

    /// Has it closed, and kept closed. None: the holder did not close it within this time.
    pub fn away(&self, within: Duration) -> Option<Away> {
        let mut state = self.lock();
        state.away += 1;
        // From here on it is counted down again, whatever happens.
        let away = Away(self.clone());
        if let Some(wake) = state.wake.as_ref().filter(|_| state.held) {
            wake();
        }
        let waited = self.0.changed.wait_timeout_while(state, within, |state| state.held);
        let (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        let closed = !state.held;
        drop(state);
        closed.then_some(away)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.0.lock().held = false;
        self.0.0.changed.notify_all();
    }
}

impl Drop for Away {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.away = state.away.saturating_sub(1);
    }
}

/// Two are the same if they are about the same holder.
impl PartialEq for Hold {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}
impl Eq for Hold {}

impl fmt::Debug for Hold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.lock();
        f.debug_struct("Hold").field("held", &state.held).field("away", &state.away).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{sync::mpsc::channel, thread};

    #[test]
    fn it_is_let_go_for_as_long_as_it_is_wanted_away() {
        let hold = Hold::default();
        let (wake, woken) = channel();
        hold.set_wake(move || wake.send(()).unwrap());
        let held = hold.take().expect("nobody wants it away");
        let holder = {
            let hold = hold.clone();
            thread::spawn(move || {
                woken.recv().unwrap();
                assert!(hold.is_wanted_away());
                drop(held);
                hold.take().is_some()
            })
        };
        let away = hold.away(Duration::from_secs(10)).expect("it is let go");
        assert!(!holder.join().unwrap(), "it was taken up though it is wanted away");
        assert!(hold.take().is_none());
        drop(away);
        assert!(hold.take().is_some());
    }

    #[test]
    fn a_holder_that_hangs_is_not_waited_for_without_end() {
        let hold = Hold::default();
        let _held = hold.take().expect("nobody wants it away");
        assert!(hold.away(Duration::from_millis(20)).is_none());
        assert!(!hold.is_wanted_away(), "who gave up still wants it");
    }
}
