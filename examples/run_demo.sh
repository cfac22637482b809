#!/usr/bin/env bash
# A small language model split into a prefill and a decode process that share its K/V through
# turbokvd, compressed. Starts turbokvd on a free port, runs both workers, stops turbokvd.
#   examples/run_demo.sh BIN_DIR [options of turbokv-demo-decode, e.g. --policy P --transport grpc]
# The last line of the output is the decode worker's key=value pairs (docs/demo.md).
set -euo pipefail

usage() {
  sed -n '2,5s/^# \{0,1\}//p' "$0"
}

if [[ $# -lt 1 || $1 == -h || $1 == --help ]]; then
  usage
  exit $(($# < 1 ? 2 : 0))
fi
bin_dir=$1
shift
for binary in turbokvd turbokv-demo-prefill turbokv-demo-decode; do
  if [[ ! -x $bin_dir/$binary ]]; then
    echo "run_demo.sh: $bin_dir/$binary is missing; build it with scripts/build.sh" >&2
    exit 1
  fi
done

# Both workers take the options that decide which K/V are meant; the rest is the decode worker's.
shared_options=()
decode_options=()
while [[ $# -gt 0 ]]; do
  case $1 in
    --help | -h) exec "$bin_dir/turbokv-demo-decode" --help ;;
    --server | --server=*)
      echo "run_demo.sh: it starts its own turbokvd; run the workers yourself to use another" >&2
      exit 2
      ;;
    --model=* | --prompt=* | --policy=* | --tokens=* | --transport=*) shared_options+=("$1") ;;
    --model | --prompt | --policy | --tokens | --transport)
      shared_options+=("${@:1:2}")
      if [[ $# -gt 1 ]]; then shift; fi
      ;;
    *) decode_options+=("$1") ;;
  esac
  shift
done

work_dir=$(mktemp -d)
server_pid=
stop() {
  if [[ -n $server_pid ]]; then
    kill "$server_pid" 2>/dev/null || true
    wait "$server_pid" 2>/dev/null || true
  fi
  rm -rf "$work_dir"
}
trap stop EXIT

: >"$work_dir/server.log" # exists before the first look at it
echo "=== turbokvd ==="
"$bin_dir/turbokvd" --listen 127.0.0.1:0 --metrics-listen 127.0.0.1:0 --memory 256MiB \
  --share-socket "$work_dir/share.sock" 2>"$work_dir/server.log" &
server_pid=$!
port=
for _ in {1..100}; do
  port=$(sed -n 's/.* listening .* port=\([0-9]*\).*/\1/p' "$work_dir/server.log")
  [[ -n $port ]] && break
  if ! kill -0 "$server_pid" 2>/dev/null; then break; fi
  sleep 0.1
done
if [[ -z $port ]]; then
  echo "run_demo.sh: turbokvd did not start:" >&2
  cat "$work_dir/server.log" >&2
  exit 1
fi
server=127.0.0.1:$port
echo "listening on $server"

echo
echo "=== Prefill worker ==="
"$bin_dir/turbokv-demo-prefill" --server "$server" "${shared_options[@]}" |
  tee "$work_dir/prefill.out"
store_ms=$(sed -n 's/.* store_ms=\([0-9.]*\).*/\1/p' "$work_dir/prefill.out")

echo
echo "=== Decode worker ==="
"$bin_dir/turbokv-demo-decode" --server "$server" --store-ms "$store_ms" \
  "${shared_options[@]}" "${decode_options[@]}"
