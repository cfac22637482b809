#!/usr/bin/env python3
"""Merges what cuda_bench and torch_baseline.py measured: a table with goals, and a plot.

    report.py --cuda cuda.json [--torch torch.json] [--markdown table.md] [--plot roofline.png]
"""
import argparse
import collections
import dataclasses
import json
import sys


@dataclasses.dataclass
class Goal:
    share: float = 0  # of the read bandwidth (encode, dequantize: of the copy bandwidth)
    fp16: float = 0   # times faster than the best fp16 attention
    fp8: float = 0    # times faster than the best fp8 attention


LARGE = "8x8x131072"
GOALS = {
    f"attention/turbo3/{LARGE}": Goal(share=0.88, fp16=4.2),
    "attention/turbo3/16x8x32768": Goal(share=0.80, fp16=3.7),
    "attention/turbo3/64x8x8192": Goal(share=0.80, fp16=3.7),
    "attention/turbo3/32x8x4096": Goal(fp16=3.0),
    "attention/turbo3/1x8x131072": Goal(fp16=3.3),
    "attention/turbo3/1x8x32768": Goal(fp16=2.4),
    f"attention/turbo2/{LARGE}": Goal(share=0.80),
    f"attention/turbo4/{LARGE}": Goal(share=0.75),
    f"attention/int4/{LARGE}": Goal(share=0.85),
    f"attention/int5/{LARGE}": Goal(share=0.85, fp8=1.4),
    f"attention/int6/{LARGE}": Goal(share=0.85),
    f"attention/q8_0+turbo3/{LARGE}": Goal(share=0.85),
    f"attention/turbo3/{LARGE}/d64/g4": Goal(share=0.75),
    f"attention/int5/{LARGE}/d64/g4": Goal(share=0.75),
    f"attention/turbo3/{LARGE}/d256/g4": Goal(share=0.75),
    f"attention/int5/{LARGE}/d256/g4": Goal(share=0.75),
    "encode/turbo3": Goal(share=0.80),
    "encode/turbo4": Goal(share=0.80),
    "dequantize/turbo3": Goal(share=0.80),
    "dequantize/turbo4": Goal(share=0.80),
    "dequantize/int5": Goal(share=0.80),
}
# Unequal lengths take at most this much longer than equal ones.
UNEQUAL, EQUAL = "unequal/turbo3/1x524288+63x2048", "unequal/turbo3/64_equal"
UNEQUAL_LIMIT = 1.15


def ratio(case, best):
    return best["us"] / case["best_us"] if best else None


def times(value, goal):
    """"4.31 (4.2)": a ratio and its goal."""
    if value is None:
        return f"? ({goal})" if goal else ""
    return f"{value:.2f}" + (f" ({goal})" if goal else "")


def verdict(pairs, wrong):
    """Of (value, goal) pairs; values may be missing, goals 0."""
    if wrong:
        return "WRONG RESULTS"
    pairs = [(value, goal) for value, goal in pairs if goal]
    if not pairs:
        return ""
    if any(value is None for value, _ in pairs):
        return "not measured"
    return "yes" if all(value >= goal for value, goal in pairs) else "no"


def table_row(case, baseline):
    goal = GOALS.get(case["name"], Goal())
    fp16 = ratio(case, baseline.get("best_fp16"))
    fp8 = ratio(case, baseline.get("best_fp8"))
    share = f"{100 * case['share']:.1f} %" + (f" ({100 * goal.share:.0f})" if goal.share else "")
    of = "" if case["limit"] == "read" else " of copy"
    return [case["name"], f"{case['best_us']:.1f}", f"{case['launches']['median_us']:.1f}",
            f"{case['graph']['median_us']:.1f}", f"{1e-12 * case['bytes_per_s']:.3f}", share + of,
            times(fp16, goal.fp16), times(fp8, goal.fp8),
            verdict([(case["share"], goal.share), (fp16, goal.fp16), (fp8, goal.fp8)],
                    case["wrong"])]


def unequal_line(cases):
    if UNEQUAL not in cases or EQUAL not in cases:
        return []
    longer = cases[UNEQUAL]["best_us"] / cases[EQUAL]["best_us"]
    met = "yes" if longer <= UNEQUAL_LIMIT else "no"
    return ["", f"Unequal lengths take {longer:.3f} times as long as equal ones "
                f"(goal: at most {UNEQUAL_LIMIT}): {met}."]


def baseline_lines(torch_results):
    lines = ["", "| shape | best fp16 us | what | best fp8 us | what |", "|---|---|---|---|---|"]
    for shape in torch_results["shapes"]:
        cells = [shape["shape"]]
        for best in (shape["best_fp16"], shape["best_fp8"]):
            cells += [f"{best['us']:.1f}", best["name"]] if best else ["", ""]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def markdown(cuda, torch_results):
    device = cuda["device"]
    lines = [f"{device['name']}, {device['multiprocessors']} multiprocessors; read "
             f"{1e-12 * cuda['read']['bytes_per_s']:.3f} TB/s ({cuda['read']['name']}), copy "
             f"{1e-12 * cuda['copy']['bytes_per_s']:.3f} TB/s ({cuda['copy']['name']}); an empty "
             f"kernel takes {cuda['empty_launch']['median_us']:.1f} us.", "",
             "us: the faster of launches and graph, medians. Goals in parentheses.", "",
             "| case | us | launches | graph | TB/s | share | x fp16 | x fp8 | met |",
             "|---|---|---|---|---|---|---|---|---|"]
    baselines = {x["shape"]: x for x in torch_results["shapes"]}
    cases = {case["name"]: case for case in cuda["cases"]}
    for case in cuda["cases"]:
        if not case["name"].startswith("sweep/") or case["wrong"]:
            row = table_row(case, baselines.get(case.get("shape") or None, {}))
            lines.append("| " + " | ".join(row) + " |")
    lines += unequal_line(cases)
    missing = [name for name in GOALS if name not in cases]
    if missing:
        lines += ["", f"Goals that were not measured: {', '.join(missing)}."]
    for skipped in cuda["skipped"]:
        lines += ["", f"Skipped: {skipped['name']}: {skipped['reason']}"]
    if torch_results["shapes"]:
        lines += baseline_lines(torch_results)
    return "\n".join(lines) + "\n"


def draw(cuda, torch_results, path):
    try:
        import matplotlib
    except ImportError:
        print(f"report.py: no matplotlib here, so no {path}; the JSON files hold all it needs",
              file=sys.stderr)
        return
    matplotlib.use("Agg")
    from matplotlib import pyplot
    lines = collections.defaultdict(list)
    for case in cuda["cases"]:
        if case["name"].startswith("sweep/"):
            lines[case["k_codec"]].append((case["max_tokens"], 100 * case["share"]))
    for shape in torch_results["shapes"]:
        best = shape["best_fp16"]
        if best and any(name.startswith("sweep/") for name in shape["cases"]):
            rate = shape["fp16_bytes"] / best["us"] * 1e6
            lines["best fp16 (PyTorch)"].append((int(shape["shape"].split("/")[0].split("x")[2]),
                                                 100 * rate / cuda["read"]["bytes_per_s"]))
    figure, axes = pyplot.subplots(figsize=(9, 5.5))
    for label, points in lines.items():
        points.sort()
        style = "--k" if label.startswith("best") else "-o"
        axes.plot(*zip(*points), style, label=label, markersize=3)
    axes.set_xscale("log", base=2)
    axes.set_xlabel("context, tokens (up to 8 sequences, 8 KV heads, 8 query heads each, "
                    "head_dim 128)")
    axes.set_ylabel("% of the read bandwidth, bytes stored")
    axes.set_ylim(0, 105)
    axes.set_title(f"Decode attention, {cuda['device']['name']}, "
                   f"read {1e-12 * cuda['read']['bytes_per_s']:.2f} TB/s")
    axes.grid(alpha=0.3)
    if lines:
        axes.legend(ncol=2)
    figure.tight_layout()
    figure.savefig(path, dpi=150)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--cuda", required=True, help="what cuda_bench --json wrote")
    parser.add_argument("--torch", help="what torch_baseline.py --json wrote")
    parser.add_argument("--markdown", help="write the table to this file too")
    parser.add_argument("--plot", help="write the plot to this PNG (needs matplotlib)")
    flags = parser.parse_args()
    with open(flags.cuda) as file:
        cuda = json.load(file)
    torch_results = {"shapes": []}
    if flags.torch:
        with open(flags.torch) as file:
            torch_results = json.load(file)
    table = markdown(cuda, torch_results)
    if flags.markdown:
        with open(flags.markdown, "w") as file:
            file.write(table)
    if flags.plot:
        draw(cuda, torch_results, flags.plot)
    print(table)


if __name__ == "__main__":
    main()
