#!/usr/bin/env python3
"""Checks what no compiler checks: layering, file sizes, links in documents.

The rules are explained in docs/hacking.md.
"""
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
MAX_SOURCE_LINES = 600

# A folder may include its own headers and those of the folders listed.
ALLOWED = {
    "base": [],
    "kernels/format": ["base"],
    "kernels/reference": ["base", "kernels/format", "kernels"],
    "kernels/cpu": ["base", "kernels/format", "kernels"],
    "kernels/cuda": ["base", "kernels/format", "kernels"],
    "kernels": ["base", "kernels/format"],
    "client": ["base", "kernels", "kernels/format", "kernels/cpu", "client/wire", "client/share",
               "turbokv/v1"],
    "client/wire": ["base", "kernels", "kernels/format", "client", "turbokv/v1"],
    # Of client/wire, the names of tenants and clients only: no gRPC.
    "client/share": ["base", "client/wire"],
    "client/nccl": ["base", "kernels", "kernels/format", "client", "client/wire", "turbokv/v1"],
    # No gRPC.
    "client/cuda": ["base", "kernels", "kernels/format", "kernels/cuda", "client", "client/share"],
    "client/cli": ["base", "kernels", "kernels/format", "kernels/cpu", "client", "client/nccl"],
    "server/config": ["base"],
    "server/telemetry": ["base", "kernels", "kernels/format", "server/index"],
    "server/pool": ["base", "kernels", "kernels/format", "client/share"],
    "server/share": ["base", "client/share", "server/index", "server/pool"],
    "server/device": ["base", "kernels", "kernels/format", "kernels/cpu", "kernels/cuda",
                      "client/share", "server/pool"],
    "server/index": ["base", "kernels", "kernels/format", "client", "server/pool",
                     "server/telemetry"],
    "server/ingest": ["base", "kernels", "kernels/format", "kernels/cpu", "client", "server/index",
                      "server/telemetry", "server/config", "server/device", "server/pool"],
    "server/nccl": ["base", "kernels", "kernels/format", "kernels/cpu", "client", "client/nccl",
                    "server/device", "server/index", "server/ingest", "server/telemetry"],
    "server/rpc": ["base", "kernels", "kernels/format", "client", "client/nccl", "client/share",
                   "client/wire", "server/config", "server/device", "server/index", "server/ingest",
                   "server/nccl", "server/share", "server/telemetry", "turbokv/v1"],
}
INCLUDE = re.compile(r'#include [<"]((?:base|kernels|client|server|turbokv/v1)/?[\w/.-]*)[>"]')
LINK = re.compile(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)")
PATH = re.compile(r"`((?:base|kernels|client|server|proto|scripts|docs|tests|bench|examples|deploy"
                  r"|cmake)/[\w/.-]*[\w/])`")


def tracked(*patterns):
    out = subprocess.run(["git", "ls-files", "--cached", "--others", "--exclude-standard", *patterns],
                         cwd=ROOT, check=True, capture_output=True, text=True).stdout
    return [ROOT / line for line in out.splitlines() if (ROOT / line).is_file()]


def layer_of(path):
    folder = str(path.parent)
    while folder and folder not in ALLOWED:
        folder = folder.rpartition("/")[0]
    return folder


def check_source(path, problems):
    relative = path.relative_to(ROOT)
    lines = path.read_text().splitlines()
    if len(lines) > MAX_SOURCE_LINES:
        problems.append(f"{relative}: {len(lines)} lines; split files above {MAX_SOURCE_LINES}")
    layer = layer_of(relative)
    if not layer:
        return
    for number, line in enumerate(lines, 1):
        match = INCLUDE.match(line)
        if not match:
            continue
        target = layer_of(pathlib.PurePath(match[1])) or str(pathlib.PurePath(match[1]).parent)
        if target != layer and target not in ALLOWED[layer]:
            problems.append(f"{relative}:{number}: {layer} must not include {match[1]}")


def check_document(path, problems):
    relative = path.relative_to(ROOT)
    for number, line in enumerate(path.read_text().splitlines(), 1):
        for target in LINK.findall(line):
            if not (path.parent / target).exists():
                problems.append(f"{relative}:{number}: link to missing {target}")
        for target in PATH.findall(line):
            if not (ROOT / target).exists():
                problems.append(f"{relative}:{number}: names missing path {target}")


def main():
    problems = []
    for path in tracked("*.cc", "*.h", "*.cu", "*.cuh"):
        check_source(path, problems)
    for path in tracked("*.md"):
        check_document(path, problems)
    for problem in problems:
        print(problem, file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
