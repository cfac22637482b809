#!/usr/bin/env bash
# Configures and builds one preset; binaries land in build/<preset>/bin.
#   scripts/build.sh [debug|release|asan|tsan|cuda] [target...]
source "$(dirname "$0")/common.sh"

preset=${1:-release}
shift || true
case "$preset" in
  debug | release | asan | tsan | cuda) ;;
  -h | --help)
    sed -n '2,3s/^# //p' "scripts/build.sh"
    exit 0
    ;;
  *) die "unknown preset '$preset'; one of: debug release asan tsan cuda" ;;
esac

if [[ "$preset" == cuda ]]; then
  nvcc=$(command -v nvcc || { [[ -x /usr/local/cuda/bin/nvcc ]] && echo /usr/local/cuda/bin/nvcc; } || true)
  if [[ -z "$nvcc" ]]; then
    note "preset cuda skipped: no nvcc. Install the CUDA Toolkit >= 12.4 from NVIDIA to build it."
    exit 0
  fi
  version=$("$nvcc" --version | sed -n 's/.*release \([0-9.]*\),.*/\1/p')
  if [[ "$(printf '%s\n' 12.4 "$version" | sort -V | head -n1)" != 12.4 ]]; then
    note "preset cuda skipped: nvcc $version found, CUDA Toolkit >= 12.4 is needed."
    exit 0
  fi
fi

# Lets the cache serve every clone of the repository.
export CCACHE_BASEDIR="$PWD" CCACHE_NOHASHDIR=true

hint="Run scripts/install_dependencies.sh, or leave --no-install out."
require_command cmake "$hint"
require_command ninja "$hint"
require_command c++ "$hint"

step "Configuring preset $preset"
cmake --preset "$preset" >"build-$preset.log" 2>&1 || {
  cat "build-$preset.log" >&2
  rm -f "build-$preset.log"
  die "CMake could not configure preset $preset (its output is above). $hint"
}
mkdir -p "build/$preset" && mv "build-$preset.log" "build/$preset/configure.log"

step "Building preset $preset ($(build_jobs) jobs)"
NINJA_STATUS='[%f/%t %es] ' cmake --build --preset "$preset" --parallel "$(build_jobs)" \
  ${1:+--target "$@"}
