use std::sync::atomic::{AtomicU64, Ordering};

/// The source of every random choice a worker makes. Each part gets its own generator or seed, so a
/// simulation that supplies one number can repeat a whole run.
#[derive(Debug)]
pub(crate) struct Seeds(AtomicU64);

impl Seeds {
    pub(crate) fn from_seed(seed: u64) -> Self {
        Self(AtomicU64::new(seed))
    }

    /// Seeds from the operating system.
    #[expect(clippy::disallowed_methods, reason = "the one place where randomness enters")]
    pub(crate) fn random() -> Self {
        Self::from_seed(fastrand::Rng::new().u64(..))
    }

    /// A new seed.
    pub(crate) fn seed(&self) -> u64 {
        self.rng().u64(..)
    }

    /// A new generator.
    pub(crate) fn rng(&self) -> fastrand::Rng {
        fastrand::Rng::with_seed(self.0.fetch_add(0x9E37_79B9_7F4A_7C15, Ordering::Relaxed))
    }
}
