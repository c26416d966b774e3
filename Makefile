# Two commands for a newcomer: `make run` and `make test`. Everything else is a part of those.
# One line per step; what a step printed is in build/logs/, and shown when it fails.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.NOTPARALLEL:
.DEFAULT_GOAL := help

setup_dir := $(CURDIR)/host/xtask/setup
step := @$(setup_dir)/step.sh
cache := $(or $(AETHER_CACHE),$(or $(XDG_CACHE_HOME),$(HOME)/.cache)/aether)

# Absolute, because plugins are a workspace of their own and build from their own folder.
export CARGO_TARGET_DIR := $(abspath $(or $(CARGO_TARGET_DIR),target))
export PATH := $(cache)/tools/bin:$(PATH)
# What was missing is listed at the end of `make test`.
export AETHER_SKIPS := $(abspath build/skips)
# Set CARGO_FLAGS=--release (and PROFILE=release) for an optimised build.
PROFILE := debug
CARGO_FLAGS :=
aether := $(CARGO_TARGET_DIR)/$(PROFILE)/aether

.PHONY: help setup setup-test guests kits ui build run test sim crash bench fmt clean

help:
	@echo "make run     set up what is missing, build, start a server, two agents and a demo workload"
	@echo "make test    everything CI runs"
	@echo "make sim     10,000 seeds of the simulation"
	@echo "make crash   kill host and agents at every step of a migration, into docs/crashes.md"
	@echo "make bench   measure the plugin runtime beside other engines (into docs/benchmarks.md), moves, orders, telemetry and the agent"
	@echo "make build   plugins, web page and binaries; make setup, make fmt, make clean"

setup:
	@mkdir -p build && : >$(AETHER_SKIPS)
	@echo "setup"
	@$(setup_dir)/rust.sh
	@$(setup_dir)/criu.sh
	@$(setup_dir)/bpf.sh
	@$(setup_dir)/ui.sh

setup-test: setup
	@$(setup_dir)/test-tools.sh
	@$(setup_dir)/python.sh models
	@$(setup_dir)/kits.sh

guests:
	$(step) guests $(setup_dir)/guests.sh

kits:
	$(step) kits $(setup_dir)/conformance.sh $(aether)

ui:
	$(step) --needs npm --in host/ui ui npm run build

build: guests ui
	$(step) build cargo build --locked $(CARGO_FLAGS) -p aether-host -p aether-agent

run: setup
	@echo "build"
	@$(MAKE) --no-print-directory build
	@exec $(setup_dir)/with-tools.sh $(aether) up

# Cheap checks first. The tests of the binaries need the plugins and the page, so those are built before.
test: setup-test
	@echo "check"
	$(step) fmt cargo fmt --all --check
	$(step) --in plugins fmt-guests cargo fmt --all --check
	$(step) --needs cargo-deny deny cargo deny --config .cargo/deny.toml check bans licenses sources
	$(step) --needs cargo-deny --in plugins deny-guests cargo deny --config ../.cargo/deny.toml check bans licenses sources
	$(step) tidy cargo xtask tidy
	@echo "build"
	$(step) guests $(setup_dir)/guests.sh
	$(step) --needs npm --in host/ui ui npm run build
	$(step) clippy cargo clippy --locked --workspace --all-targets -- -D warnings
	$(step) clippy-guests $(setup_dir)/guests.sh clippy -- -D warnings
	$(step) build cargo build --locked --workspace --bins
	$(step) kits $(setup_dir)/conformance.sh $(aether)
	@echo "test"
	$(step) --needs npm --in host/ui ui-check npm run check
	$(step) --needs npm --in host/ui --tell 'Tests +[0-9]' ui-unit npm test
	$(step) --needs cargo-nextest --in plugins --tell '^ +Summary' guest-unit env CARGO_TARGET_DIR=$(CARGO_TARGET_DIR)/guests \
		cargo nextest run --locked --workspace --no-tests=pass
	$(step) --needs "$$($(setup_dir)/python.sh models --path | grep . || echo models)" --in plugins --tell 'greatest difference' models \
		$(setup_dir)/with-tools.sh env CARGO_TARGET_DIR=$(CARGO_TARGET_DIR)/guests \
		cargo nextest run --locked -p tree-ensemble --run-ignored only --success-output final
	$(step) policy $(aether) policy test policies/default
	$(step) --needs cargo-nextest --tell '^ +Summary' nextest $(setup_dir)/with-tools.sh cargo nextest run --locked --workspace $(if $(CI),--profile ci)
	$(step) --needs "$$($(setup_dir)/browser.sh || echo chromium)" --in host/ui --tell '[0-9]+ (passed|skipped|flaky)' \
		e2e $(setup_dir)/with-tools.sh npm run e2e
	@$(setup_dir)/summary.sh

# The seeds of `make test` and many more; SEEDS=200 for fewer. Counts the faults that were injected.
sim:
	cargo run --locked --release --workspace --bin aether-sim -- --seeds $(or $(SEEDS),10000)

# The first with its own target folder, because other engines bring other versions of what the host is built of. The
# others measure what ships, built for release, from programs that need not be: how long a workload stands still, how soon an
# order follows a finding, what taking telemetry costs, and what the agent costs its node. The last is what the agent's sources
# cost the programs that they watch.
bench: setup
	$(step) bench-guests host/bench/guests/build.sh
	cd host/bench && CARGO_TARGET_DIR=$(CARGO_TARGET_DIR)/bench cargo run --release --locked
	$(step) guests $(setup_dir)/guests.sh
	cargo build --locked --release --workspace --bins
	@$(setup_dir)/debian.sh prometheus
	@$(setup_dir)/debian.sh victoria-metrics
	@$(setup_dir)/debian.sh prometheus-node-exporter
	$(setup_dir)/with-tools.sh env NEXTEST_BIN_EXE_aether=$(CARGO_TARGET_DIR)/release/aether \
		cargo bench --locked --workspace --profile dev --no-fail-fast --bench migration --bench dispatch --bench ingest --bench agent
	$(setup_dir)/with-tools.sh cargo bench --locked --workspace --bench watched

# Each step of each journal, three times; one of each kind is in `make test`.
crash: setup
	$(step) guests $(setup_dir)/guests.sh
	$(step) build cargo build --locked --workspace --bins
	$(setup_dir)/with-tools.sh env AETHER_CRASH_TABLE=$(CURDIR)/docs/crashes.md \
		cargo test --locked --workspace --test crash -- --ignored --nocapture

fmt:
	cargo fmt --all
	cd plugins && cargo fmt --all

clean:
	cargo clean --quiet
	rm -rf build plugins/target host/ui/dist
