#!/usr/bin/env bash
# The demo: a small language model split into a prefill and a decode process that share its K/V
# through turbokvd, compressed.
#   scripts/demo.sh [--no-install] [--policy POLICY] [--prompt FILE_OR_TEXT] [more options]
# Options other than --no-install go to examples/run_demo.sh.
source "$(dirname "$0")/common.sh"

install=true
arguments=()
for argument in "$@"; do
  if [[ "$argument" == --no-install ]]; then install=false; else arguments+=("$argument"); fi
done
if $install; then scripts/install_dependencies.sh; fi
scripts/build.sh release turbokvd turbokv-demo-prefill turbokv-demo-decode

step "Running the demo"
exec examples/run_demo.sh build/release/bin "${arguments[@]}"
