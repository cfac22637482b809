#!/usr/bin/env bash
# Builds the libFuzzer targets with clang and runs each for a while, from its corpus.
#   scripts/fuzz.sh [seconds a target]
source "$(dirname "$0")/common.sh"

seconds=${1:-60}
require_command clang++ "Run scripts/install_dependencies.sh --tests."
step "Building the fuzz targets"
cmake -S . -B build/fuzz -G Ninja -DCMAKE_BUILD_TYPE=Release -DCMAKE_CXX_COMPILER=clang++ \
  -DTURBOKV_FUZZ=ON -DTURBOKV_BUILD_BENCHMARKS=OFF >build/fuzz-configure.log 2>&1 || {
  cat build/fuzz-configure.log >&2
  die "CMake could not configure the fuzz targets (its output is above)"
}
cmake --build build/fuzz --parallel "$(build_jobs)" --target turbokv_fuzzers

for fuzzer in build/fuzz/bin/*_fuzzer; do
  name=$(basename "$fuzzer" _fuzzer)
  step "Fuzzing $name for $seconds s"
  mkdir -p "build/fuzz/corpus/$name"
  "$fuzzer" -max_total_time="$seconds" -rss_limit_mb=1024 -timeout=10 -print_final_stats=0 \
    -verbosity=0 "build/fuzz/corpus/$name" "tests/fuzz/corpus/$name" ||
    die "$name failed; the input is in the file named above"
done
