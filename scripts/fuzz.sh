#!/usr/bin/env bash
# Builds the libFuzzer targets with clang and runs each for a while, from its corpus.
#   scripts/fuzz.sh [seconds a target]
source "$(dirname "$0")/common.sh"

seconds=${1:-60}
require_command clang++ "Run scripts/install_dependencies.sh --tests."
step "Building the fuzz targets"
mkdir -p build
cmake -S . -B build/fuzz -G Ninja -DCMAKE_BUILD_TYPE=Release -DCMAKE_CXX_COMPILER=clang++ \
  -DTURBOKV_BUILD_BENCHMARKS=OFF >build/fuzz-configure.log 2>&1 || {
  cat build/fuzz-configure.log >&2
  die "CMake could not configure the fuzz targets (its output is above)"
}
cmake --build build/fuzz --parallel "$(build_jobs)" --target fuzzers

for fuzzer in build/fuzz/bin/*_fuzz; do
  name=$(basename "$fuzzer")
  step "Fuzzing $name for $seconds s"
  mkdir -p "build/fuzz/corpus/$name"
  "$fuzzer" -max_total_time="$seconds" -rss_limit_mb=1024 -timeout=10 -verbosity=0 \
    -artifact_prefix="build/fuzz/$name-" "build/fuzz/corpus/$name" "tests/fuzz/corpus/$name" ||
    die "$name failed; the input is in build/fuzz/$name-*"
done
