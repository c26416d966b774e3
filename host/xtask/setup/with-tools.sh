#!/usr/bin/env bash
# with-tools.sh COMMAND...: runs COMMAND with AETHER_CRIU, AETHER_BROWSER, AETHER_MODELS_PYTHON, AETHER_OCI_REGISTRY,
# AETHER_READERS_PYTHON, AETHER_SWIFT_PYTHON, AETHER_OPENTELEMETRY_PYTHON, AETHER_PROMETHEUS, AETHER_VICTORIA_METRICS and
# AETHER_PROMETHEUS_NODE_EXPORTER naming what setup found. What was not found stays unset, so that the program says itself
# what is missing.
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"

criu=$("$setup_dir/criu.sh" --path)
browser=$("$setup_dir/browser.sh" || true)
models=$("$setup_dir/python.sh" models --path)
registry=$("$setup_dir/oci.sh" --path)
swift=$("$setup_dir/python.sh" swift --path)
readers=$("$setup_dir/python.sh" readers --path)
otlp=$("$setup_dir/python.sh" otlp --path)
prometheus=$("$setup_dir/debian.sh" prometheus --path)
victoria=$("$setup_dir/debian.sh" victoria-metrics --path)
exporter=$("$setup_dir/debian.sh" prometheus-node-exporter --path)
[ -z "$readers" ] || export AETHER_READERS_PYTHON=$readers
[ -z "$victoria" ] || export AETHER_VICTORIA_METRICS=$victoria
[ -z "$exporter" ] || export AETHER_PROMETHEUS_NODE_EXPORTER=$exporter
[ -z "$registry" ] || export AETHER_OCI_REGISTRY=$registry
[ -z "$otlp" ] || export AETHER_OPENTELEMETRY_PYTHON=$otlp
[ -z "$prometheus" ] || export AETHER_PROMETHEUS=$prometheus
[ -z "$swift" ] || export AETHER_SWIFT_PYTHON=$swift
[ -z "$criu" ] || export AETHER_CRIU=$criu
[ -z "$browser" ] || export AETHER_BROWSER=$browser
[ -z "$models" ] || export AETHER_MODELS_PYTHON=$models
exec "$@"
