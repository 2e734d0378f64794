# What is checked before a change is taken: reads only.
verify: format-check clippy test doc deny msrv

# Formats, and lets the linter mend what it can.
fix:
    cargo fmt
    cargo clippy --all-targets --all-features --fix --allow-dirty --allow-staged

format-check:
    cargo fmt --check

clippy:
    cargo clippy --all-targets --all-features -- -D warnings
    cargo clippy -- -D warnings

test:
    cargo test

doc:
    RUSTDOCFLAGS="-D warnings" cargo doc --no-deps --all-features

# Licences, advisories, sources, duplicates (needs cargo-deny).
deny:
    cargo deny --config .deny.toml check bans licenses sources

# With the oldest toolchain the manifest allows.
msrv:
    cargo check --locked

# Whole workers on paused time.
fleet:
    cargo test --test fleet
