# What is checked before a change is taken: reads only.
verify: format-check clippy test doc deny msrv

# Formats, and lets the linter mend what it can.
fix:
    cargo fmt --all
    cargo clippy --workspace --all-targets --all-features --fix --allow-dirty --allow-staged

format-check:
    cargo fmt --all --check

clippy:
    cargo clippy --workspace --all-targets --all-features -- -D warnings
    cargo clippy -- -D warnings

test:
    cargo test

# The library with its default features, as another crate uses it.
test-default-features:
    cargo build --example local_aws
    LOCAL_AWS="$PWD/target/debug/examples/local_aws" cargo test -p default-features -- --include-ignored

doc:
    RUSTDOCFLAGS="-D warnings" cargo doc --no-deps --all-features

# Licences, advisories, sources, duplicates (needs cargo-deny).
deny:
    cargo deny --config .deny.toml check bans licenses sources

# With the oldest toolchain the manifest allows.
msrv:
    cargo check --locked

# Simulates whole fleets under faults: so many seeds, from `from` on.
sim seeds="100" from="0":
    SIM_SEEDS={{seeds}} SIM_FROM={{from}} cargo test --test simulation seeds -- --nocapture

# Replays one seed and prints everything that happened.
sim-seed seed:
    SIM_SEED={{seed}} cargo test --test simulation one_seed -- --ignored --nocapture

# Hunts every planted bug from seed `from` on.
sim-planted from="0":
    SIM_FROM={{from}} cargo test --test simulation planted -- --nocapture

# Fuzzes one of deaggregate, event_stream, lease_row, records_page and texts (needs cargo-fuzz and a nightly toolchain).
fuzz target seconds="60":
    cargo +nightly fuzz run {{target}} -- -max_total_time={{seconds}}

# Explores larger worlds of leases than `cargo test` does: some three minutes, and less than 6 GiB.
model:
    cargo test --config 'profile.dev.package.kinesis-consumer.opt-level=3' --config 'profile.test.package.kinesis-consumer.opt-level=3' --test model -- --include-ignored --nocapture

# What de-aggregation costs, against the plain way.
bench-deaggregate:
    cargo bench --bench deaggregate

# What plans for large fleets take.
bench-assignment:
    cargo bench --bench assignment

# What a consumer costs against a bare SDK loop: throughput, latency, memory, idle leases.
bench-pipeline:
    cargo bench -p consumer-benches --bench pipeline

# From an empty table, and from a shutdown, to the first record.
bench-handover:
    cargo bench -p consumer-benches --bench handover

# Whole workers on paused time.
fleet:
    cargo test --test fleet
