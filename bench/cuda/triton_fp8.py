"""Decode attention on fp8_e4m3 keys and values in Triton: our own yardstick.

Split over the context, then combined. The query heads of a KV head are the rows of the products; K
and V become fp16 in registers, which is exact.
"""
import itertools

import torch
import triton
import triton.language as tl
from triton.tools.tensor_descriptor import TensorDescriptor

ROWS = 16  # the least that tensor cores take; group sizes up to this


@triton.jit
def attend_to_chunk(q, k, v, k_scale, partial, lse, tokens, chunk_tokens, score_scale,
                    GROUP: tl.constexpr, DIM: tl.constexpr, BLOCK: tl.constexpr,
                    ROWS: tl.constexpr, TMA: tl.constexpr):
    """k and v are pointers, with TMA tensor descriptors."""
    head = tl.program_id(0)
    chunk = tl.program_id(1)
    rows = tl.arange(0, ROWS)
    dims = tl.arange(0, DIM)
    block = tl.arange(0, BLOCK)
    q_tile = tl.load(q + (head * GROUP + rows[:, None]) * DIM + dims[None, :],
                     mask=rows[:, None] < GROUP, other=0.0)
    scale = score_scale * tl.load(k_scale + head)
    first = head.to(tl.int64) * tokens
    largest = tl.full([ROWS], float("-inf"), tl.float32)
    weight = tl.zeros([ROWS], tl.float32)
    values = tl.zeros([ROWS, DIM], tl.float32)
    begin = chunk * chunk_tokens
    end = tl.minimum(begin + chunk_tokens, tokens)
    for start in range(begin, end, BLOCK):
        if TMA:
            k_tile = k.load([head * tokens + start, 0])
            v_tile = v.load([head * tokens + start, 0])
        else:
            offsets = (first + start + block[:, None]) * DIM + dims[None, :]
            k_tile = tl.load(k + offsets)
            v_tile = tl.load(v + offsets)
        scores = tl.dot(q_tile, tl.trans(k_tile.to(tl.float16))) * scale
        larger = tl.maximum(largest, tl.max(scores, 1))
        decay = tl.exp2(largest - larger)
        p = tl.exp2(scores - larger[:, None])
        weight = weight * decay + tl.sum(p, 1)
        values = tl.dot(p.to(tl.float16), v_tile.to(tl.float16), values * decay[:, None])
        largest = larger
    row = (head * tl.num_programs(1) + chunk) * GROUP + rows
    tl.store(partial + row[:, None] * DIM + dims[None, :], values / weight[:, None],
             mask=rows[:, None] < GROUP)
    tl.store(lse + row, largest + tl.log2(weight), mask=rows < GROUP)


@triton.jit
def combine_chunks(partial, lse, v_scale, out, chunks, GROUP: tl.constexpr, DIM: tl.constexpr,
                   CHUNKS: tl.constexpr):
    head = tl.program_id(0)
    row = tl.program_id(1)
    dims = tl.arange(0, DIM)
    index = tl.arange(0, CHUNKS)
    at = (head * chunks + index) * GROUP + row
    part_lse = tl.load(lse + at, mask=index < chunks, other=float("-inf"))
    weights = tl.exp2(part_lse - tl.max(part_lse, 0))
    parts = tl.load(partial + at[:, None] * DIM + dims[None, :], mask=index[:, None] < chunks,
                    other=0.0)
    summed = tl.sum(parts * weights[:, None], 0) / tl.sum(weights, 0)
    tl.store(out + (head * GROUP + row) * DIM + dims, summed * tl.load(v_scale + head))


class Fp8Decode:
    """q [heads, group, dim] fp16; k, v [heads, tokens, dim] fp8_e4m3 with one scale a head."""

    def __init__(self, q, k, v, k_scale, v_scale, softmax_scale, block, chunks, warps, stages, tma):
        self.q = q
        if tma:
            self.loads = tuple(TensorDescriptor.from_tensor(x.reshape(-1, x.shape[2]),
                                                            [block, x.shape[2]]) for x in (k, v))
        else:
            self.loads = (k, v)
        self.tma = tma
        self.k_scale, self.v_scale = k_scale, v_scale
        heads, self.tokens, dim = k.shape
        assert self.tokens % block == 0, f"{self.tokens} tokens are no multiple of {block}"
        self.block, self.warps, self.stages = block, warps, stages
        self.score_scale = softmax_scale * 1.4426950408889634
        self.chunk_tokens = triton.cdiv(triton.cdiv(self.tokens, chunks), block) * block
        self.chunks = triton.cdiv(self.tokens, self.chunk_tokens)
        group = q.shape[1]
        self.partial = torch.empty((heads, self.chunks, group, dim), device=q.device)
        self.lse = torch.empty((heads, self.chunks, group), device=q.device)
        self.out = torch.empty_like(q)

    def __call__(self):
        heads, group, dim = self.q.shape
        attend_to_chunk[(heads, self.chunks)](
            self.q, *self.loads, self.k_scale, self.partial, self.lse, self.tokens,
            self.chunk_tokens, self.score_scale, GROUP=group, DIM=dim, BLOCK=self.block, ROWS=ROWS,
            TMA=self.tma, num_warps=self.warps, num_stages=self.stages)
        combine_chunks[(heads, group)](self.partial, self.lse, self.v_scale, self.out, self.chunks,
                                       GROUP=group, DIM=dim,
                                       CHUNKS=triton.next_power_of_2(self.chunks), num_warps=4)
        return self.out


def candidates(heads, tokens, multiprocessors):
    """Keyword arguments of Fp8Decode that are worth a try."""
    waves = sorted({max(1, min(tokens // 128, round(per_sm * multiprocessors / heads)))
                    for per_sm in (1, 2, 3, 4, 8)})
    shapes = ((64, 4, 3), (64, 4, 5), (64, 8, 4), (128, 4, 3), (128, 8, 3))
    for tma, (block, warps, stages), chunks in itertools.product((False, True), shapes, waves):
        yield dict(block=block, chunks=chunks, warps=warps, stages=stages, tma=tma)
