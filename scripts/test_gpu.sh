#!/usr/bin/env bash
# The GPU tests, on a machine that has a GPU: once as they are, then under compute-sanitizer.
#   scripts/test_gpu.sh [--no-sanitizers] [--filter GTEST_FILTER] [BINARY]
# BINARY: build/cuda/bin/cuda_kernels_test by default, or cuda_device_test; a copy of it and its
# libraries will do. The tests' oracles take CPU time, so they are divided over all cores.
source "$(dirname "$0")/common.sh"

sanitizers=true
filter='*'
binary=build/cuda/bin/cuda_kernels_test
while [[ $# -gt 0 ]]; do
  case "$1" in
    --no-sanitizers) sanitizers=false ;;
    --filter)
      filter=${2:?--filter needs a pattern}
      shift
      ;;
    -h | --help)
      sed -n '2,6s/^# //p' scripts/test_gpu.sh
      exit 0
      ;;
    -*) die "unknown option '$1'; see scripts/test_gpu.sh --help" ;;
    *) binary=$1 ;;
  esac
  shift
done
[[ -x "$binary" ]] || die "no $binary; build it with: scripts/build.sh cuda cuda_kernels_test"
export TURBOKV_SOURCE_DIR=${TURBOKV_SOURCE_DIR:-$PWD}

logs=$(mktemp -d)
trap 'rm -rf "$logs"' EXIT

run_shards() {  # run_shards NAME FILTER COMMAND...
  local name=$1 pattern=$2 shards i failed=0
  shift 2
  shards=$(nproc)
  step "$name: $shards processes"
  for ((i = 0; i < shards; ++i)); do
    GTEST_TOTAL_SHARDS=$shards GTEST_SHARD_INDEX=$i "$@" "$binary" --gtest_filter="$pattern" \
      --gtest_brief=1 >"$logs/$name.$i" 2>&1 &
  done
  for ((i = 1; i <= shards; ++i)); do wait -n || failed=1; done
  if [[ $failed -ne 0 ]]; then
    cat "$logs/$name".* >&2
    die "$name failed (its output is above)"
  fi
  awk '/tests? (from|ran)/ && /ran/ {ran += $2} /SKIPPED/ && /tests?\./ {skipped += $4}
       END {printf "   %d tests ran, %d skipped\n", ran, skipped}' "$logs/$name".*
}

run_shards tests "$filter" env
if $sanitizers; then
  require_command compute-sanitizer "It comes with the CUDA Toolkit."
  # Every pair of codecs takes minutes under a sanitizer, and shares its code with the usual pairs.
  # A GPU that a test breaks is what a sanitizer reports.
  for tool in memcheck racecheck synccheck initcheck; do
    run_shards "$tool" "$filter-*Pairs*:*BrokenGpu*" compute-sanitizer --tool "$tool" --error-exitcode 9
  done
fi
step "All GPU tests passed"
