#!/usr/bin/env bash
# Installs what building (and with --tests, testing) needs, from the packages of Debian 12 or
# Ubuntu 24.04. Does nothing when everything is there.
source "$(dirname "$0")/common.sh"

packages=(
  build-essential cmake ninja-build ccache pkg-config
  libgrpc++-dev libprotobuf-dev protobuf-compiler protobuf-compiler-grpc libabsl-dev
  prometheus-cpp-dev libhwy-dev libisal-dev libssl-dev libyaml-cpp-dev nlohmann-json3-dev
  libcli11-dev libopenblas-dev libgtest-dev libgmock-dev libbenchmark-dev
)
[[ "${1:-}" == --tests ]] && packages+=(clang clang-format clang-tidy clang-tools python3)

missing=()
for package in "${packages[@]}"; do
  [[ "$(dpkg-query -W -f='${db:Status-Status}' "$package" 2>/dev/null)" == installed ]] ||
    missing+=("$package")
done

as_root() {
  if [[ $EUID -eq 0 ]]; then
    "$@"
  else
    require_command sudo "Run this script as root, or install sudo."
    sudo "$@"
  fi
}

if [[ ${#missing[@]} -gt 0 ]]; then
  require_command apt-get \
    "Only Debian and Ubuntu are set up automatically; install these yourself: ${missing[*]}"
  step "Installing ${#missing[@]} packages"
  note "${missing[*]}"
  export DEBIAN_FRONTEND=noninteractive
  as_root apt-get update -qq || die "apt-get update failed; is the network there?"
  as_root env DEBIAN_FRONTEND=noninteractive \
    apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null ||
    die "apt-get install failed for: ${missing[*]}"
fi

if [[ "${1:-}" == --tests ]]; then
  # libFuzzer's runtime is a package of its own, named after clang's version.
  version=$(clang -dumpversion | cut -d. -f1)
  if ! dpkg -s "libclang-rt-$version-dev" >/dev/null 2>&1; then
    as_root apt-get install -y -qq --no-install-recommends "libclang-rt-$version-dev" >/dev/null ||
      note "no libclang-rt-$version-dev: fuzz targets will be replayed, not fuzzed"
  fi
  # promtool comes in Debian's prometheus package, whose installation would start a daemon: unpack
  # it instead.
  if [[ ! -x build/tools/usr/bin/promtool ]] && ! command -v promtool >/dev/null 2>&1; then
    mkdir -p build/tools
    if (cd build/tools && apt-get download -qq prometheus >/dev/null 2>&1); then
      dpkg-deb -x build/tools/prometheus_*.deb build/tools
    else
      note "no prometheus package: the metrics lint will be skipped"
    fi
  fi
fi
