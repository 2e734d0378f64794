//! A simulated stream and friends, for tests without AWS.
