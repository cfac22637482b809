#!/usr/bin/env bash
# Measures everything on this machine's GPU and prints the table last.
#   bench/cuda/run_all.sh <cuda_bench> <output folder> [flags of cuda_bench...]
# Leaves cuda.json, torch.json, logs, table.md and roofline.png in the folder.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
if (($# < 2)); then
  sed -n '2,4s/^# //p' "${BASH_SOURCE[0]}" >&2
  exit 2
fi
cuda_bench=$1
out=$2
shift 2
mkdir -p "$out"

# Wrong results are in the JSON too: the table names them, and this script fails at the end.
status=0
"$cuda_bench" --json "$out/cuda.json" "$@" 2>&1 | tee "$out/cuda.log" || status=$?
[[ -f "$out/cuda.json" ]] || exit "$status"

report=(--cuda "$out/cuda.json" --markdown "$out/table.md" --plot "$out/roofline.png")
if python3 "$here/torch_baseline.py" --cases "$out/cuda.json" --json "$out/torch.json" 2>&1 |
  tee "$out/torch.log"; then
  report+=(--torch "$out/torch.json")
else
  echo "run_all.sh: no baselines, see $out/torch.log" >&2
  status=1
fi
python3 "$here/report.py" "${report[@]}"
exit "$status"
