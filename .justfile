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

# The documented scripts against a real node.
documented:
    cargo test -p unisondb-tests --test documented_scripts -- --nocapture

# Writes, backups, kill -9 and restores for an hour (or `just soak-workload 600`).
soak-workload SECONDS="3600":
    UNISON_SOAK_SECONDS={{SECONDS}} cargo test --release -p unisondb-tests --test workload -- --nocapture

# Known advisories, licences, doubled dependencies.
deny:
    cargo deny --config .deny.toml check
