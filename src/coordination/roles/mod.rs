//! What the coordinator does in each of its roles.

mod follower;
mod independent;
mod leader;

#[cfg(feature = "internals")]
pub(crate) use self::follower::is_given_to;
pub(super) use self::leader::Run;

/// What a coordinator does in its rounds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Role {
    /// Takes for itself.
    #[default]
    Independent,
    /// Assigns to all.
    Leader,
    /// Accepts what it is assigned.
    Follower,
}
