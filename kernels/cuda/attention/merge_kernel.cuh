// The end of attention: the tail, the partial results of all pages kernels, learned sinks, and the
// inverse rotation. One thread block of 2 x head_dim threads an (sequence, KV head, eight rows).
#pragma once

#include "kernels/cuda/attention/partial.cuh"
#include "kernels/cuda/attention/tail.cuh"
#include "kernels/cuda/primitives/hadamard.cuh"
#include "kernels/cuda/primitives/value_types.cuh"

namespace turbokv::cuda {

constexpr int MergeThreads(int head_dim) { return 2 * head_dim; }
// Thread blocks a multiprocessor: without tails there is little to hold, and much latency to hide.
constexpr int MergeBlocks(int head_dim, bool has_tail) { return (has_tail ? 256 : 384) / head_dim; }

// What a thread gathers: four adjacent channels of one row, of V as given and of rotated V.
struct Gathered {
  float largest = kNoScore;
  float sum = 0.0f;
  float plain[4] = {};
  float rotated[4] = {};

  TURBOKV_DEVICE void Add(float other_largest, float other_sum, const float* values,
                          bool is_rotated) {
    const float all_largest = fmaxf(largest, other_largest);
    const float keep = Exp2(largest - all_largest);
    const float gain = Exp2(other_largest - all_largest);
    sum = sum * keep + other_sum * gain;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      plain[i] = plain[i] * keep + (is_rotated ? 0.0f : values[i] * gain);
      rotated[i] = rotated[i] * keep + (is_rotated ? values[i] * gain : 0.0f);
    }
    largest = all_largest;
  }
};

enum class TailKind { kNone, kBf16, kFp16 };

template <int kHeadDim, TailKind kTail>
class MergeBlock {
 public:
  static constexpr int kThreads = MergeThreads(kHeadDim);
  static constexpr int kWarps = kThreads / kWarpLanes;
  static constexpr int kPitch = kHeadDim + 4;
  // The longest tail has eight chunks. Each warp leaves its partial result in shared memory.
  static constexpr int kTailWarps = kTail == TailKind::kNone ? 1 : kWarps < 8 ? kWarps : 8;
  static constexpr int kSharedFloats = kTailWarps * kTileRows * (kPitch + 2);

  TURBOKV_DEVICE MergeBlock(const MergeParams& params, float* shared)
      : params_(params),
        shared_(shared),
        stats_(shared + kTailWarps * kTileRows * kPitch),
        lane_(threadIdx.x % kWarpLanes),
        warp_(threadIdx.x / kWarpLanes),
        row_(threadIdx.x / (kHeadDim / 4)),
        channel_(threadIdx.x % (kHeadDim / 4) * 4) {
    const int tiles = params.rows.units_per_head * params.rows.row_tiles;
    tile_ = static_cast<int>(blockIdx.x) % tiles;
    head_ = static_cast<int>(blockIdx.x) / tiles % params.rows.kv_heads;
    sequence_ = static_cast<int>(blockIdx.x) / tiles / params.rows.kv_heads;
  }

  TURBOKV_DEVICE void Run() {
    // Queries are ready: the pages kernel let this one start after it had waited for them.
    if constexpr (kTail != TailKind::kNone) AddTail();
    AddPools();
    AddSink();
    Finish();
  }

 private:
  TURBOKV_DEVICE void AddTail() {
    TailHead head;
    head.tokens = params_.batch.tail_tokens[sequence_];
    if (head.tokens == 0) return;
    const int64_t first =
        sequence_ * params_.tail.sequence_stride + head_ * params_.tail.head_stride;
    head.k = static_cast<const uint16_t*>(params_.tail.k) + first;
    head.v = static_cast<const uint16_t*>(params_.tail.v) + first;
    head.token_stride = params_.tail.token_stride;
    head.first_position = params_.batch.packed_tokens[sequence_];
    const auto& block = static_cast<const QueryBlock<kHeadDim>*>(params_.query_blocks)[blockIdx.x];
    if (warp_ < kTailWarps) {
      TailSums<kHeadDim> sums;
      for (auto& pair : sums.values) pair[0] = pair[1] = 0.0f;
      const TailWarp<kHeadDim, kTail == TailKind::kFp16> tail(head, block, params_.soft_cap,
                                                              params_.sparse_threshold, lane_);
      for (int first = warp_ * kTailChunkTokens; first < head.tokens;
           first += kTailWarps * kTailChunkTokens) {
        tail.Add(first, sums);
      }
      StoreTail(sums);
    }
    __syncthreads();
    for (int warp = 0; warp < kTailWarps; ++warp) {
      const float* const stats = stats_ + 2 * (warp * kTileRows + row_);
      gathered_.Add(stats[0], stats[1], shared_ + (warp * kTileRows + row_) * kPitch + channel_,
                    false);
    }
    __syncthreads();
  }

  TURBOKV_DEVICE void StoreTail(const TailSums<kHeadDim>& sums) const {
    const int t = lane_ % 4;
    const int row = warp_ * kTileRows + lane_ / 4;
    const float sum = RowSum(sums.softmax.sum);
    if (t == 0) {
      stats_[2 * row] = sums.softmax.largest;
      stats_[2 * row + 1] = sum;
    }
#pragma unroll
    for (int n = 0; n < TailSums<kHeadDim>::kNTiles; ++n) {
      for (int e = 0; e < 2; ++e) {
        shared_[row * kPitch + TailSums<kHeadDim>::Channel(n, e, t)] = sums.values[n][e];
      }
    }
  }

  TURBOKV_DEVICE UnitDivision Divide(const PoolPartials& pool) const {
    const int units = params_.rows.units;
    const int total = TotalNumbers(params_.batch, pool.lists, units, lane_);
    const int before = NumbersBefore(params_.batch, pool.lists, units, sequence_, lane_);
    const PageRange pages = ListedPages(params_.batch, pool.lists, sequence_);
    const int count = pages.end - pages.begin;
    const int unit = head_ * params_.rows.units_per_head + tile_ / params_.rows.row_tiles;
    const int first = before + unit * UnitNumbers(count) + kUnitOverhead;
    return {{0, total}, {first, first + count}, sequence_ * units + unit, pool.blocks, pool.warps};
  }

  // One slot a lane, of places `first` and after it.
  TURBOKV_DEVICE int FindSlot(const UnitDivision& division, int first) const {
    const int place = first + lane_;
    return place < division.Places() ? division.Slot(place) : kNoSlot;
  }

  // Everything that can be known before the pages kernel has ended is found out before: the slots
  // of a plain table's first 32 places.
  TURBOKV_DEVICE void AddPools() {
    const bool early = params_.partials[0].lists.counts == nullptr;
    int places = 0;
    int slot = kNoSlot;
    const auto find = [&](const PoolPartials& pool) {
      const UnitDivision division = Divide(pool);
      places = division.empty() ? 0 : division.Places();
      if (places > 0) slot = FindSlot(division, 0);
    };
    if (early) find(params_.partials[0]);
    WaitForEarlierKernels();
    for (int i = 0; i < params_.pools; ++i) {
      const PoolPartials& pool = params_.partials[i];
      if (!early) find(pool);
      if (places == 0) continue;
      AddSlots(pool, slot);
      for (int first = kWarpLanes; first < places; first += kWarpLanes) {
        AddSlots(pool, FindSlot(Divide(pool), first));  // seldom: divided again to save registers
      }
    }
  }

  // Adds the partial results in the lanes' slots, several loads at a time.
  TURBOKV_DEVICE void AddSlots(const PoolPartials& pool, int slot) {
    constexpr int kAtOnce = 8;
    const int rows = kTileRows * params_.rows.row_tiles;
    const int row = tile_ % params_.rows.row_tiles * kTileRows + row_;
    unsigned left = __ballot_sync(~0u, slot != kNoSlot);
    while (left != 0) {
      float4 values[kAtOnce];
      float2 stats[kAtOnce];
#pragma unroll
      for (int i = 0; i < kAtOnce; ++i) {
        stats[i] = {kNoScore, 0.0f};
        values[i] = {};
        if (left == 0) continue;
        const int64_t source = __shfl_sync(~0u, slot, __ffs(left) - 1);
        left &= left - 1;
        const int64_t index = source * rows + row;
        values[i] = *reinterpret_cast<const float4*>(pool.values + index * kHeadDim + channel_);
        stats[i] = *reinterpret_cast<const float2*>(pool.stats + 2 * index);
      }
#pragma unroll
      for (int i = 0; i < kAtOnce; ++i) {
        const float four[4] = {values[i].x, values[i].y, values[i].z, values[i].w};
        gathered_.Add(stats[i].x, stats[i].y, four, pool.rotated);
      }
    }
  }

  TURBOKV_DEVICE int Row() const { return kTileRows * tile_ + row_; }
  TURBOKV_DEVICE int QueryHead() const {
    return head_ * params_.rows.group + Row() % params_.rows.group;
  }

  TURBOKV_DEVICE void AddSink() {
    if (params_.output.sink_logits == nullptr || Row() >= params_.rows.rows) return;
    constexpr float kLog2E = 1.4426950408889634f;
    const float zeros[4] = {};
    gathered_.Add(params_.output.sink_logits[QueryHead()] * kLog2E, 1.0f, zeros, false);
  }

  TURBOKV_DEVICE void Finish() {
    float* const rotated = shared_ + row_ * kPitch + channel_;
    for (int i = 0; i < 4; ++i) rotated[i] = gathered_.rotated[i];
    __syncthreads();
    for (int row = warp_; row < kTileRows; row += kWarps) {
      float values[kHeadDim / kWarpLanes];
#pragma unroll
      for (int i = 0; i < kHeadDim / kWarpLanes; ++i) {
        values[i] = shared_[row * kPitch + kWarpLanes * i + lane_];
      }
      RotateHead<kHeadDim, true>(values, lane_);
#pragma unroll
      for (int i = 0; i < kHeadDim / kWarpLanes; ++i) {
        shared_[row * kPitch + kWarpLanes * i + lane_] = values[i];
      }
    }
    __syncthreads();
    if (Row() >= params_.rows.rows) return;
    const bool empty = gathered_.sum == 0.0f;
    const float inverse = empty ? 0.0f : 1.0f / gathered_.sum;
    const int query = Row() / params_.rows.group;
    const int q_heads = params_.rows.kv_heads * params_.rows.group;
    const int64_t out_row =
        (static_cast<int64_t>(sequence_) * params_.batch.queries + query) * q_heads + QueryHead();
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      StoreValue(params_.output.out, params_.output.value_type, out_row * kHeadDim + channel_ + i,
                 (gathered_.plain[i] + rotated[i]) * inverse);
    }
    if (channel_ == 0 && params_.output.lse != nullptr) {
      constexpr float kLn2 = 0.6931471805599453f;
      params_.output.lse[out_row] =
          empty ? -Infinity() : kLn2 * gathered_.largest + logf(gathered_.sum);
    }
  }

  const MergeParams& params_;
  float* const shared_;
  float* const stats_;
  const int lane_;
  const int warp_;
  const int row_;
  const int channel_;
  int tile_;
  int head_;
  int sequence_;
  Gathered gathered_;
};

}  // namespace turbokv::cuda
