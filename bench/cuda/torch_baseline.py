#!/usr/bin/env python3
"""Decode attention on 16- and 8-bit K/V by PyTorch and Triton, on the shapes of cuda_bench.

    torch_baseline.py --cases cuda.json --json torch.json

Timed as cuda_bench does: CUDA events around the work alone, a cold L2 cache before every iteration,
the median of plain launches and of replays of a CUDA graph.
"""
import argparse
import json
import math
import statistics
import time

import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

EVICTOR_BYTES = 256 << 20
WARM_UP_S = 0.015
# Before every iteration, so that the host enqueues all of it before the GPU begins.
HEAD_START_CYCLES = 500_000
MAX_ERROR = 0.02  # of the largest value of the output
FP8_MAX = 448.0


class Stopwatch:
    def __init__(self, iterations):
        self.iterations = iterations
        self.evictor = torch.randint(1 << 30, (EVICTOR_BYTES // 4,), dtype=torch.int32,
                                     device="cuda")

    def time_launches(self, work, iterations=None):
        begin = time.monotonic()
        calls = 0
        while calls < 3 or time.monotonic() - begin < WARM_UP_S:
            work()
            torch.cuda.synchronize()
            calls += 1
        events = []
        for _ in range(iterations or self.iterations):
            torch.cuda._sleep(HEAD_START_CYCLES)
            self.evictor.amax()  # reads: dirty lines would be written back while the work is timed
            pair = [torch.cuda.Event(enable_timing=True) for _ in range(2)]
            pair[0].record()
            work()
            pair[1].record()
            events.append(pair)
        torch.cuda.synchronize()
        times = [1e3 * begin.elapsed_time(end) for begin, end in events]
        return {"median_us": statistics.median(times), "min_us": min(times), "max_us": max(times),
                "spread": (max(times) - min(times)) / statistics.median(times),
                "iterations": len(times)}

    def time_graph(self, work):
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(3):
                work()
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            work()
        return self.time_launches(graph.replay)


class Shape:
    """"8x8x131072/d128/g8": batch x KV heads x tokens, head_dim, query heads a KV head."""

    def __init__(self, key):
        sizes, dim, group = key.split("/")
        self.key = key
        self.batch, self.kv_heads, self.tokens = (int(x) for x in sizes.split("x"))
        self.head_dim = int(dim.removeprefix("d"))
        self.group = int(group.removeprefix("g"))
        self.heads = self.batch * self.kv_heads
        self.softmax_scale = 1 / math.sqrt(self.head_dim)

    def kv_bytes(self, value_bytes):
        return 2 * value_bytes * self.heads * self.tokens * self.head_dim


def random_kv(shape):
    return [torch.randn(shape.heads, shape.tokens, shape.head_dim, dtype=torch.float16,
                        device="cuda") for _ in range(2)]


def random_q(shape):
    return torch.randn(shape.heads, shape.group, shape.head_dim, dtype=torch.float16, device="cuda")


def error_of(out, q, k, v, scale):
    """The largest error of the first and the last head against float32, relative to the output."""
    errors = []
    for head in (0, q.shape[0] - 1):
        scores = q[head].float() @ k[head].float().T * scale
        expected = torch.softmax(scores, -1) @ v[head].float()
        errors.append(((out[head].float() - expected).abs().max() / expected.abs().max()).item())
    return max(errors)


def attempt(name, stopwatch, work, error):
    """One way to compute attention: its times, or why there are none."""
    result = {"name": name}
    try:
        result["error"] = error(work())
        if not result["error"] < MAX_ERROR:
            raise RuntimeError(f"result is off by {result['error']:.3g}, limit {MAX_ERROR}")
        result["launches"] = stopwatch.time_launches(work)
        result["best_us"] = result["launches"]["median_us"]
    except Exception as problem:  # whatever a backend throws is the answer
        result["unavailable"] = str(problem).strip().split("\n")[0][:300]
        return result
    try:
        result["graph"] = stopwatch.time_graph(work)
        result["best_us"] = min(result["best_us"], result["graph"]["median_us"])
    except Exception as problem:
        result["graph_unavailable"] = str(problem).strip().split("\n")[0][:300]
    return result


def sdpa_attempts(shape, stopwatch):
    q = random_q(shape)
    k, v = random_kv(shape)
    scale = shape.softmax_scale
    rows = (shape.batch, shape.kv_heads, shape.group, shape.head_dim)
    kv = (shape.batch, shape.kv_heads, shape.tokens, shape.head_dim)
    # The query heads of a KV head as query rows, the heads as batch or as heads; or as heads.
    forms = {
        "folded_batch": (q.unsqueeze(1), k.unsqueeze(1), v.unsqueeze(1), False),
        "folded_heads": (q.view(rows), k.view(kv), v.view(kv), False),
        "gqa": (q.view(shape.batch, shape.kv_heads * shape.group, 1, shape.head_dim), k.view(kv),
                v.view(kv), True),
    }
    for backend in (SDPBackend.CUDNN_ATTENTION, SDPBackend.FLASH_ATTENTION):
        for form, (query, key, value, gqa) in forms.items():
            def work(query=query, key=key, value=value, gqa=gqa):
                return F.scaled_dot_product_attention(query, key, value, scale=scale,
                                                      enable_gqa=gqa)
            with sdpa_kernel(backend):
                yield attempt(f"sdpa/{backend.name.lower()}/{form}", stopwatch, work,
                              lambda out: error_of(out.reshape(q.shape), q, k, v, scale))


class Fp8Inputs:
    def __init__(self, shape):
        self.shape = shape
        self.q = random_q(shape)
        self.k, self.v = (x.clamp_(-6, 6) for x in random_kv(shape))
        # One scale for all heads, as an array: some take a number, some one a head.
        self.scale = 6 / FP8_MAX
        self.scales = torch.full((shape.heads,), self.scale, device="cuda")
        self.k = (self.k / self.scale).to(torch.float8_e4m3fn)
        self.v = (self.v / self.scale).to(torch.float8_e4m3fn)

    def error(self, out):
        heads = [0, self.shape.heads - 1]
        k, v = (x[heads].float() * self.scale for x in (self.k, self.v))
        return error_of(out[heads], self.q[heads], k, v, self.shape.softmax_scale)


def torch_fp8_attempt(inputs, stopwatch):
    def work():
        q, k, v = (x.unsqueeze(1) for x in (inputs.q.to(torch.float8_e4m3fn), inputs.k, inputs.v))
        return F.scaled_dot_product_attention(q, k, v, scale=inputs.shape.softmax_scale)
    with sdpa_kernel([SDPBackend.CUDNN_ATTENTION, SDPBackend.FLASH_ATTENTION]):
        return attempt("sdpa/fp8", stopwatch, work, lambda out: inputs.error(out.squeeze(1)))


def flashinfer_fp8_attempt(inputs, stopwatch):
    name = "flashinfer/fp8"
    try:
        import flashinfer
    except ImportError as problem:
        return {"name": name, "unavailable": str(problem)}
    page_tokens = 16
    shape = inputs.shape
    pages = shape.tokens // page_tokens
    # HND pages [page][KV head][token]: with one KV head a sequence, K and V as they lie.
    k, v = (x.view(shape.heads * pages, 1, page_tokens, shape.head_dim)
            for x in (inputs.k, inputs.v))
    workspace = torch.empty(512 << 20, dtype=torch.uint8, device="cuda")
    wrapper = flashinfer.BatchDecodeWithPagedKVCacheWrapper(workspace, "HND",
                                                            use_tensor_cores=True)
    int32 = dict(dtype=torch.int32, device="cuda")
    wrapper.plan(torch.arange(shape.heads + 1, **int32) * pages,
                 torch.arange(shape.heads * pages, **int32),
                 torch.full((shape.heads,), page_tokens, **int32), shape.group, 1, shape.head_dim,
                 page_tokens, q_data_type=torch.float16, kv_data_type=torch.float8_e4m3fn,
                 sm_scale=shape.softmax_scale)
    def work():
        return wrapper.run(inputs.q, (k, v), k_scale=inputs.scale, v_scale=inputs.scale)
    return attempt(name, stopwatch, work, inputs.error)


def triton_fp8_attempt(inputs, stopwatch):
    name = "triton_fp8 (ours)"
    try:
        import triton_fp8
    except ImportError as problem:
        return {"name": name, "unavailable": str(problem)}
    shape = inputs.shape
    multiprocessors = torch.cuda.get_device_properties(0).multi_processor_count
    best_us, best, best_options = math.inf, None, None
    for options in triton_fp8.candidates(shape.heads, shape.tokens, multiprocessors):
        try:
            decode = triton_fp8.Fp8Decode(inputs.q, inputs.k, inputs.v, inputs.scales,
                                          inputs.scales, shape.softmax_scale, **options)
            us = stopwatch.time_launches(decode, iterations=3)["median_us"]
        except Exception as problem:  # too much shared memory, say
            print(f"    {options}: {str(problem).splitlines()[0][:100]}")
            continue
        if us < best_us:
            best_us, best, best_options = us, decode, options
    if best is None:
        return {"name": name, "unavailable": "no configuration works"}
    return attempt(name, stopwatch, best, inputs.error) | {"options": best_options}


def fp8_attempts(shape, stopwatch):
    inputs = Fp8Inputs(shape)
    yield torch_fp8_attempt(inputs, stopwatch)
    try:
        yield flashinfer_fp8_attempt(inputs, stopwatch)
    except Exception as problem:
        yield {"name": "flashinfer/fp8", "unavailable": str(problem).split("\n")[0][:300]}
    yield triton_fp8_attempt(inputs, stopwatch)


def best_of(attempts):
    available = [x for x in attempts if "best_us" in x]
    if not available:
        return None
    best = min(available, key=lambda x: x["best_us"])
    return {"name": best["name"], "us": best["best_us"]}


def measure(shape, stopwatch, value_bytes, ways):
    free_bytes = torch.cuda.mem_get_info()[0]
    # fp8 values are made from fp16 ones.
    needed_bytes = 1.6 * shape.kv_bytes(2) if value_bytes == 1 else 1.1 * shape.kv_bytes(2)
    if needed_bytes > free_bytes:
        print(f"  skipped: needs {needed_bytes / 2**30:.1f} GiB, {free_bytes / 2**30:.1f} are free")
        return []
    attempts = []
    for result in ways(shape, stopwatch):
        attempts.append(result)
        if "best_us" in result:
            rate = shape.kv_bytes(value_bytes) / result["best_us"] * 1e-6
            graph = result.get("graph", {}).get("median_us", math.nan)
            print(f"  {result['name']:44} launches {result['launches']['median_us']:8.1f} us, "
                  f"graph {graph:8.1f} us, {rate:.3f} TB/s, error {result['error']:.1e}",
                  flush=True)
        else:
            print(f"  {result['name']:44} unavailable: {result['unavailable'][:120]}", flush=True)
    torch.cuda.empty_cache()
    return attempts


def shapes_of(path):
    """Shapes of cuda_bench's cases, and those of them to which fp8 is compared."""
    with open(path) as file:
        cases = json.load(file)["cases"]
    names = {}
    for case in cases:
        # Of the sweep, the sizes of 16-bit pages.
        wanted = case["name"].startswith(("attention/", "sweep/bf16/"))
        if wanted and case.get("shape"):
            names.setdefault(case["shape"], []).append(case["name"])
    fp8 = {shape for shape, of in names.items()
           if shape.endswith("/d128/g8") and any(x.startswith("attention/") for x in of)}
    return names, fp8


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--cases", required=True, help="what cuda_bench --json wrote")
    parser.add_argument("--json", required=True, help="write every figure to this file")
    parser.add_argument("--iterations", type=int, default=30)
    flags = parser.parse_args()
    if not torch.cuda.is_available():
        raise SystemExit("torch_baseline.py: no GPU here")
    torch.manual_seed(0)
    stopwatch = Stopwatch(flags.iterations)
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}, "
          f"cuDNN {torch.backends.cudnn.version()}")
    names, fp8_shapes = shapes_of(flags.cases)
    shapes = []
    for key, of in names.items():
        print(key, flush=True)
        shape = Shape(key)
        fp16 = measure(shape, stopwatch, 2, sdpa_attempts)
        fp8 = measure(shape, stopwatch, 1, fp8_attempts) if key in fp8_shapes else []
        shapes.append({"shape": key, "cases": of, "fp16_bytes": shape.kv_bytes(2),
                       "fp16": fp16, "fp8": fp8, "best_fp16": best_of(fp16),
                       "best_fp8": best_of(fp8)})
    with open(flags.json, "w") as file:
        json.dump({"device": torch.cuda.get_device_name(), "torch": torch.__version__,
                   "cudnn": torch.backends.cudnn.version(), "shapes": shapes}, file, indent=1)


if __name__ == "__main__":
    main()
