//! Long work that nobody waits for this moment: on a thread of its own, which the others go before.

use crate::Error;
use std::thread;

/// How much it gives way, as `nice` counts: beside a busy processor it has about a quarter of one that does not.
const NICE: i32 = 5;

/// Runs `work` aside.
pub(crate) async fn aside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Error> {
    let run = || {
        let work = move || {
            // In Linux this is of the calling thread alone. Without it the work is done no less.
            let _ = rustix::process::nice(NICE);
            work()
        };
        thread::Builder::new().name("aether-aside".into()).spawn(work).ok()?.join().ok()
    };
    tokio::task::spawn_blocking(run).await.ok().flatten().ok_or(Error::Stopped)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_the_work_itself_gives_way_and_its_panic_is_an_error() {
        let own = || rustix::process::getpriority_process(None).unwrap();
        let before = own();
        let (thread, there) = aside(move || (thread::current().id(), own())).await.unwrap();
        assert_ne!(thread, thread::current().id());
        assert_eq!((there, own()), ((before + NICE).min(19), before));
        assert!(matches!(aside(|| panic!("as it is meant to")).await, Err::<(), _>(Error::Stopped)));
    }
}
