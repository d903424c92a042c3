# The habits of this repository. `check` only reads; `fix` writes.

.PHONY: check fix test sim model soak bench ci

check:
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings
	cargo clippy -p chordal --no-default-features --lib --locked -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --document-private-items --locked
	@if cargo deny --version >/dev/null 2>&1; then cargo deny --locked check bans licenses sources; \
	else echo "cargo-deny is not installed: bans, licenses and sources are not checked"; fi

fix:
	cargo clippy --workspace --all-targets --fix --allow-dirty --allow-staged
	cargo fmt --all

test:
	cargo test --workspace --locked

# The ring simulated with more seeds and sizes than the tests have: ten thousand, with every kind of fault.
sim:
	cargo run --release --locked -- simulate protocol --nodes 1..64 --seeds 0..10000

# The replicated views explored further than the tests do: two minutes and 1.1 GiB, once it is built.
model:
	cargo test --release -p chordal-protocol --test model --locked -- --include-ignored --nocapture

# A ring of processes under kills, pauses, cuts, joins and leaves for an hour (the tests have a minute of it); the history of its
# clients is checked. docs/soak.md has the result. SOAK_SECONDS and SOAK_SEED say otherwise.
soak:
	SOAK_SECONDS=$${SOAK_SECONDS:-3600} cargo test --release --test soak --locked fire -- --nocapture

# Stores and lookups per second through random nodes of twelve, and addresses per second of a bootstrap service and what kills do
# to it, each beside an empty axum server in the same run.
bench:
	cargo bench --bench ring --locked
	cargo bench --bench bootstrap --locked

ci:
	.ci/run
