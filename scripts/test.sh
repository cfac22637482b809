#!/usr/bin/env bash
# All tests: release, CUDA (compiled; run where there is a GPU), lint, AddressSanitizer +
# UndefinedBehaviorSanitizer, ThreadSanitizer, fuzzing.
#   scripts/test.sh [--no-install] [--quick]
# --quick runs the release tests only.
source "$(dirname "$0")/common.sh"

install=true
quick=false
for argument in "$@"; do
  case "$argument" in
    --no-install) install=false ;;
    --quick) quick=true ;;
    -h | --help)
      sed -n '2,5s/^# //p' scripts/test.sh
      exit 0
      ;;
    *) die "unknown option '$argument'; see scripts/test.sh --help" ;;
  esac
done

if $install; then scripts/install_dependencies.sh --tests; fi
export PATH="$PWD/build/tools/usr/bin:$PATH"

# Both sanitizers need the loader to leave them their address ranges.
export ASAN_OPTIONS=detect_leaks=1:strict_string_checks=1
export UBSAN_OPTIONS=print_stacktrace=1
export TSAN_OPTIONS="suppressions=$PWD/tests/tsan_suppressions.txt:history_size=4"

run_preset() {  # run_preset PRESET [ctest arguments...]
  local preset=$1
  shift
  scripts/build.sh "$preset"
  step "Testing preset $preset"
  ctest --test-dir "build/$preset" --output-on-failure --no-tests=error "$@"
}

# The CUDA preset builds only where there is nvcc; its GPU tests skip themselves, with the reason,
# where there is no GPU.
run_cuda() {
  scripts/build.sh cuda cuda_kernels_test cuda_device_test cuda_in_place_test cuda_bench
  [[ -x build/cuda/bin/cuda_kernels_test ]] || return 0
  step "Testing preset cuda"
  ctest --test-dir build/cuda --output-on-failure --no-tests=error -R '^cuda_'
}

run_preset release
if ! $quick; then
  run_cuda
  scripts/lint.sh
  run_preset asan --label-exclude 'slow|bench'
  run_preset tsan --label-exclude 'slow|bench' --exclude-regex 'demo_test|reference_test|example_llama_test'  # one thread's arithmetic
  scripts/fuzz.sh 20
fi
step "All tests passed"
