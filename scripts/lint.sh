#!/usr/bin/env bash
# Formatting, clang-tidy's allow-list, layering, and documentation that matches the code.
#   scripts/lint.sh [--no-tidy]
source "$(dirname "$0")/common.sh"

require_command clang-format "Run scripts/install_dependencies.sh --tests."
step "Checking formatting"
mapfile -t sources < <(git ls-files '*.cc' '*.h' '*.cu' '*.cuh')
clang-format --dry-run --Werror "${sources[@]}" || die "run: clang-format -i on the files above"

step "Checking layering, sizes and links"
python3 scripts/check_tree.py || die "the rules are in docs/hacking.md"

if [[ "${1:-}" != --no-tidy ]]; then
  step "Running clang-tidy"
  require_command run-clang-tidy "Run scripts/install_dependencies.sh --tests."
  # GCC's command lines carry warnings that clang does not know; tidy's own checks are what counts.
  run-clang-tidy -quiet -p build/release -j "$(build_jobs)" \
    -extra-arg=-Wno-unknown-warning-option -extra-arg=-Wno-unused-command-line-argument \
    "^$PWD/(base|kernels|client|server|examples|bench)/" >build/tidy.log 2>&1 || {
    grep -E 'error:|warning:' build/tidy.log >&2 || tail -n 40 build/tidy.log >&2
    die "clang-tidy found the above (whole log: build/tidy.log)"
  }
fi
