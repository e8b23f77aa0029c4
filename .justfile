# `just` lists the recipes. `check` never writes, `fix` does. `cargo test` suffices without just.

set shell := ["bash", "-euo", "pipefail", "-c"]

# What is here.
default:
    @just --list --unsorted

# A node on localhost:8080 with its data in ./data.
run *ARGS:
    cargo run --release -- {{ARGS}}

# Everything that a change must pass.
ci:
    .ci/run

# Format, scripts, lints: quick, writes nothing.
check:
    cargo fmt --all -- --check
    deploy/verify
    cargo clippy --workspace --all-targets -- -D warnings

# Format, and the lints that can mend themselves.
fix:
    cargo fmt --all
    cargo clippy --workspace --all-targets --fix --allow-dirty --allow-staged

# The tests, as a fresh machine runs them.
test *ARGS:
    cargo test --workspace {{ARGS}}

# The simulator: `just sim run --seeds 1..100`, `just sim explain 7`, `just sim check DIR`.
sim *ARGS:
    RUSTFLAGS="--cfg tokio_unstable" CARGO_TARGET_DIR=target/sim cargo build --profile sim --quiet -p unisondb-sim
    target/sim/sim/unisondb-sim {{ARGS}}

# The same as the release is built, without assertions.
sim-release *ARGS:
    RUSTFLAGS="--cfg tokio_unstable" CARGO_TARGET_DIR=target/sim cargo build --release --quiet -p unisondb-sim
    target/sim/release/unisondb-sim {{ARGS}}

# Two thousand seeds that the revision decides; all that is to be reached must be.
soak-sim:
    just sim run --fresh 2000 --coverage 5

# Every planted bug, and after how many seeds it is found.
soak-mutants:
    just sim mutants

# The documented scripts against a real node.
documented:
    cargo test -p unisondb-tests --test documented_scripts --test documented_restores -- --nocapture

# Writes, backups, kill -9 and restores for an hour (or `just soak-workload 600`).
soak-workload SECONDS="3600":
    UNISON_SOAK_SECONDS={{SECONDS}} cargo test --release -p unisondb-tests --test workload -- --nocapture

# 200,000 writes, a 300 MB object, 20 restores to an LSN and 20 to a time.
soak-full:
    UNISON_WORKLOAD=full cargo test --release -p unisondb-tests --test workload -- --nocapture

# A crash, a full disk, a failed fsync at every disk operation, not at a sample of them.
soak-sweep:
    UNISON_SWEEP=full cargo test --release -p unisondb-engine --test crash -- --nocapture

# Random schedules over a raft group of three: these seeds instead of thirty.
soak-raft SEEDS="1..500":
    UNISON_RAFT_SEEDS={{SEEDS}} cargo test --release -p unisondb-raft --test schedules -- --nocapture

# The properties with many more cases (those that do not set a number themselves).
soak-properties CASES="5000":
    PROPTEST_CASES={{CASES}} cargo test --release --workspace --exclude unisondb-tests

# Every decoder against libfuzzer, each for so long. Wants nightly Rust and cargo-fuzz.
soak-fuzz SECONDS="60":
    for target in $(cargo +nightly fuzz list --fuzz-dir tests/fuzz | grep -vx seeds); do \
        mkdir -p "tests/fuzz/corpus/$target"; \
        cargo +nightly fuzz run --fuzz-dir tests/fuzz --target-dir target/fuzz "$target" "tests/fuzz/corpus/$target" "tests/fuzz/seeds/$target" \
            -- -max_total_time={{SECONDS}} -rss_limit_mb=2048 -max_len=65536; \
    done

# Ratios to redis, etcd, cp and LMDB on this machine.
bench *ARGS:
    cargo build --release -p unisondb-server -p unisondb-ctl
    cargo run --release -p unisondb-tests --bin bench -- {{ARGS}}

# Known advisories, licences, doubled dependencies.
deny:
    cargo deny --config .deny.toml check
