//! Randomness: one stream for each concern, all from one seed, so that a change to one concern leaves the others as
//! they were.

pub(crate) use fastrand::Rng;

/// The stream of one concern.
pub(crate) fn dice(seed: u64, concern: &str) -> Rng {
    let hash = blake3::hash(format!("{seed}\n{concern}").as_bytes());
    let first = hash.as_bytes().first_chunk::<8>().copied().unwrap_or_default();
    Rng::with_seed(u64::from_le_bytes(first))
}

/// Whether something of this probability happens.
pub(crate) fn happens(dice: &mut Rng, probability: f64) -> bool {
    dice.f64() < probability
}
