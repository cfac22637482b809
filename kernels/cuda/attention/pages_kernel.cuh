// Attention of all queries on packed pages of one pair of codecs.
//
// Every warp works for itself: it walks through its share of slices (schedule.cuh), with one slot
// in shared memory for the K half of a slice and one for the V half. While it works on one, the
// other is being fetched. When its unit ends before its share does, it writes the partial result of
// that unit; what it holds at the end is first merged with that of the block's other warps. Calls
// without a merge kernel have their rows finished by the block that is the last to come to them
// (finish_rows.cuh).
#pragma once

#include "kernels/cuda/attention/finish_rows.cuh"
#include "kernels/cuda/attention/pages_config.cuh"
#include "kernels/cuda/attention/params.cuh"
#include "kernels/cuda/attention/partial.cuh"
#include "kernels/cuda/attention/slice_cursor.cuh"
#include "kernels/cuda/primitives/fetch.cuh"

namespace turbokv::cuda {

inline constexpr int kNoUnit = -1;

// What one warp has in shared memory beside its slots.
struct alignas(16) WarpShared {
  int16_t header[kHeaderPieceBytes / 2];  // of the page
  uint64_t barriers[2];
  CursorPlace place;
  int unit;  // that is worked on, numbered through all sequences, or kNoUnit
  // Pages that every row of the unit sees whole: they need no mask.
  int unmasked_begin;
  int unmasked_end;
  int total_numbers;  // of the batch (division.cuh)
  const uint8_t* v_data;
};
static_assert(sizeof(WarpShared) == kWarpExtraBytes);

template <Codec kK, Codec kV, int kHeadDim, int kRowTiles>
class PagesWarp {
 public:
  TURBOKV_DEVICE PagesWarp(const PagesParams& params, uint8_t* slots, WarpShared* shared, int lane)
      : params_(params),
        lane_(lane),
        k_half_(slots),
        v_half_(slots + HalfBytes(kK, kHeadDim, IsQuantized(kK))),
        shared_(*shared),
        k_slot_(&shared->barriers[0], lane),
        v_slot_(&shared->barriers[1], lane),
        cursor_(params, &shared->place, lane) {
    if (lane == 0) shared_.unit = kNoUnit;
    __syncwarp();
  }

  // Works on the slices of `share`. `waited`: earlier kernels have already been waited for.
  TURBOKV_DEVICE void Run(const NumberRange& share, bool waited) {
    ShareWalk walk(share, share.begin < share.end ? cursor_.Seek(share.begin) : 0);
    if (!walk.done()) {
      FetchKeys();
      if (!IsSparse()) FetchValues(VData());
    }
    if (!waited) WaitForEarlierKernels();
    if (params_.finish.arrivals == nullptr) LetNextKernelLaunch();
    if (walk.done()) return;
    EnterUnit();
    while (true) {
      const bool last_of_unit = cursor_.IsLastOfUnit();
      const bool more = walk.HasNext(last_of_unit);
      WorkOnSlice(more);
      if (!more) return;
      walk.Advance(last_of_unit);
      if (last_of_unit) {
        StoreUnit();
        EnterUnit();
      }
    }
  }

  TURBOKV_DEVICE void Store(const PartialSlot& slot, int pitch) const {
    StorePartial<kHeadDim, kRowTiles, IsAffine(kV)>(slot, pitch, values_, softmax_, lane_);
  }

  TURBOKV_DEVICE void Close() {
    k_slot_.Close(lane_);
    v_slot_.Close(lane_);
  }

  static TURBOKV_DEVICE PartialSlot GlobalSlot(const PagesParams& params, int64_t index) {
    constexpr int kRows = kTileRows * kRowTiles;
    return {params.partial_values + index * kRows * kHeadDim,
            params.partial_stats + index * kRows * 2};
  }

 private:
  TURBOKV_DEVICE bool IsSparse() const { return params_.sparse_threshold > 0.0f; }

  TURBOKV_DEVICE void FetchKeys() {
    const uint8_t* const page = cursor_.page_bytes();
    k_slot_.Fetch(
        lane_,
        FetchPiece{k_half_, page + cursor_.slice_offset(), static_cast<uint32_t>(params_.k_bytes)},
        FetchPiece{reinterpret_cast<uint8_t*>(shared_.header), page + kHeaderPieceOffset,
                   kHeaderPieceBytes});
  }
  TURBOKV_DEVICE const uint8_t* VData() const {
    return cursor_.page_bytes() + cursor_.slice_offset() + params_.k_bytes;
  }
  TURBOKV_DEVICE void FetchValues(const uint8_t* data) {
    v_slot_.Fetch(lane_, FetchPiece{v_half_, data, HalfBytes(kV, kHeadDim, false)});
  }

  TURBOKV_DEVICE const QueryBlock<kHeadDim>* Blocks() const {
    return static_cast<const QueryBlock<kHeadDim>*>(params_.query_blocks) +
           static_cast<int64_t>(shared_.unit) * kRowTiles;
  }

  TURBOKV_DEVICE void EnterUnit() {
    __syncwarp();
    if (lane_ == 0) shared_.unit = cursor_.unit();
    __syncwarp();
    queries_.Load(Blocks(), lane_);
#pragma unroll
    for (int r = 0; r < kRowTiles; ++r) softmax_[r] = SoftmaxState();
    values_.Clear();
    PageRange visible{0, 0x7fffffff};
#pragma unroll
    for (int r = 0; r < kRowTiles; ++r) {
      const QueryRow& row = Blocks()[r].rows[lane_ / 4];
      visible.begin = max(visible.begin, row.visible_begin);
      visible.end = min(visible.end, row.visible_end);
    }
    visible.begin = __reduce_max_sync(~0u, visible.begin);
    visible.end = __reduce_min_sync(~0u, visible.end);
    if (lane_ == 0) {
      shared_.unmasked_begin = (visible.begin + kPageTokens - 1) / kPageTokens;
      shared_.unmasked_end = visible.end / kPageTokens;
    }
    __syncwarp();
  }

  // The partial result of a unit that ends before the warp's share does.
  TURBOKV_DEVICE void StoreUnit() const {
    const int64_t blocks_slots = static_cast<int64_t>(gridDim.x) * (blockDim.x / kWarpLanes);
    Store(GlobalSlot(params_, blocks_slots + shared_.unit), kHeadDim);
  }

  // `more`: another slice follows, to which the cursor goes on.
  TURBOKV_DEVICE void WorkOnSlice(bool more) {
    TokenValues weights[kRowTiles];
    float scale[kRowTiles];
    float bias[kRowTiles] = {};
    const int page_index = cursor_.page();
    k_slot_.Wait(!IsSparse());
    constexpr int kExponents = (kHeaderExponentsOffset - kHeaderPieceOffset) / 2;
    const int k_exponent = shared_.header[kExponents];
    const int v_exponent = shared_.header[kExponents + 1];
    ScorePage<kK, kHeadDim, kRowTiles>(k_half_, queries_, lane_, weights);
    if (params_.k_mean) {
      ScoreMean<kHeadDim, kRowTiles>(k_half_ + MeanOffset(kK, kHeadDim), Blocks(), lane_, bias);
    }
#pragma unroll
    for (int r = 0; r < kRowTiles; ++r) {
      scale[r] = ScaleByPower(queries_.scale[r], k_exponent);
      if constexpr (kK == Codec::kFp8E4m3) {
        scale[r] *= *reinterpret_cast<const float*>(k_half_ + ScalesOffset(kK, kHeadDim));
      }
      // Hidden tokens score -infinity, which no scale may turn into something else.
      if (scale[r] < kSmallestScale) scale[r] = kSmallestScale;
      bias[r] = ScaleByPower(bias[r], k_exponent);
    }
    // Sparse: V is fetched below, when the cursor may have left the slice.
    if (IsSparse() && lane_ == 0) shared_.v_data = VData();
    __syncwarp();
    if (more) {
      cursor_.Advance();
      FetchKeys();
    }
    PageWeights page[kRowTiles];
    const bool any = Softmax(page_index, scale, bias, weights, page);
    ScaleValues(page);
    if (IsSparse()) {
      if (!any) return;
      FetchValues(shared_.v_data);
    }
    v_slot_.Wait(more && !IsSparse());
    AddPageValues<kV, kHeadDim, kRowTiles>(v_half_, weights, page, ValueUnit(), v_exponent, lane_,
                                           values_);
    __syncwarp();
    if (more && !IsSparse()) FetchValues(VData());
  }

  // Turns scores into weights; returns whether any row has one that is not dropped.
  TURBOKV_DEVICE bool Softmax(int page_index, float (&scale)[kRowTiles], float (&bias)[kRowTiles],
                              TokenValues (&weights)[kRowTiles], PageWeights (&page)[kRowTiles]) {
    bool any = false;
#pragma unroll
    for (int r = 0; r < kRowTiles; ++r) {
      if (params_.soft_cap > 0.0f) {
        ForPage([&](int block, int n, int e) {
          float& score = weights[r][block][n][e];
          score = SoftCap(__fmaf_rn(score, scale[r], bias[r]), params_.soft_cap);
        });
        scale[r] = 1.0f;
        bias[r] = 0.0f;
      }
      if (page_index < shared_.unmasked_begin || page_index >= shared_.unmasked_end) {
        const QueryRow& row = Blocks()[r].rows[lane_ / 4];
        const int first = page_index * kPageTokens;
        MaskTokens(weights[r], row.visible_begin - first, row.visible_end - first, lane_ & 3);
      }
      page[r] = UpdateSoftmax(scale[r], bias[r], weights[r], softmax_[r]);
      if (IsSparse()) {
        // Padding rows weigh all tokens alike; they have no say.
        const bool kept = DropSmallWeights(params_.sparse_threshold, page[r], weights[r]);
        any |= kept && IsRealRow(r);
      }
    }
    return IsSparse() ? __any_sync(~0u, any) != 0 : true;
  }

  TURBOKV_DEVICE bool IsRealRow(int r) const {
    const int tile = shared_.unit % params_.rows.units_per_head * kRowTiles + r;
    return kTileRows * tile + lane_ / 4 < params_.rows.rows;
  }

  // What 1 in V's codes stands for on this page, up to the scales of tokens and the exponent.
  TURBOKV_DEVICE float ValueUnit() const {
    if constexpr (IsTurbo(kV)) return TableUnit<kV, kHeadDim>();
    if constexpr (kV == Codec::kFp8E4m3) {
      return *reinterpret_cast<const float*>(v_half_ + ScalesOffset(kV, kHeadDim));
    }
    return 1.0f;
  }

  // What was summed before a page that raised the largest score. Few do.
  TURBOKV_DEVICE void ScaleValues(const PageWeights (&page)[kRowTiles]) {
    bool changed = false;
    for (const PageWeights& weights : page) changed |= weights.keep != 1.0f;
    if (!__any_sync(~0u, changed)) return;
#pragma unroll
    for (int r = 0; r < kRowTiles; ++r) {
#pragma unroll
      for (int tile = 0; tile < kHeadDim / kTileChannels; ++tile) {
        ForTokens([&](int n, int e) { values_.sums[r][tile][n][e] *= page[r].keep; });
      }
      for (float& middle : values_.middles[r]) middle *= page[r].keep;
    }
  }

  const PagesParams& params_;
  const int lane_;
  uint8_t* const k_half_;  // in shared memory
  uint8_t* const v_half_;
  WarpShared& shared_;
  FetchSlot k_slot_;
  FetchSlot v_slot_;
  SliceCursor cursor_;
  UnitQueries<kK, kHeadDim, kRowTiles> queries_;
  SoftmaxState softmax_[kRowTiles];
  ValueSums<kHeadDim, kRowTiles> values_;
};

// The kernel's body; threads: a multiple of 32, shared memory: PagesSharedBytes.
template <Codec kK, Codec kV, int kHeadDim, int kRowTiles>
TURBOKV_DEVICE void AttendPages(const PagesParams& params, uint8_t* shared) {
  using Warp = PagesWarp<kK, kV, kHeadDim, kRowTiles>;
  constexpr int kSlotBytes = WarpSlotBytes(kK, kV, kHeadDim);
  static_assert(PartialFloats(kHeadDim, kRowTiles) * 4 <= kSlotBytes, "partials reuse the slots");
  const int warps = blockDim.x / kWarpLanes;
  const int warp_index = threadIdx.x / kWarpLanes;
  const int lane = threadIdx.x % kWarpLanes;
  auto* const warp_shared = reinterpret_cast<WarpShared*>(shared + warps * kSlotBytes);

  Warp warp(params, shared + warp_index * kSlotBytes, warp_shared + warp_index, lane);
  // Lists are made by the prepare kernel; plain tables are there already.
  const bool wait_first = params.lists.counts != nullptr;
  if (wait_first) WaitForEarlierKernels();
  const int total = TotalNumbers(params.batch, params.lists, params.rows.units, lane);
  if (lane == 0) warp_shared[warp_index].total_numbers = total;
  const auto block_share = [&](int numbers) {
    return NumberRange{0, numbers}.Part(blockIdx.x, gridDim.x);
  };
  warp.Run(block_share(total).Part(warp_index, warps), wait_first);

  // The slots are free now: partial results take their place.
  warp.Close();
  constexpr int kPitch = kHeadDim + kSharedRowPadding;
  constexpr int kStrideFloats = kSlotBytes / 4;
  auto* const partials = reinterpret_cast<float*>(shared);
  __syncwarp();
  if (warp_shared[warp_index].unit != kNoUnit) {
    float* const own = partials + warp_index * kStrideFloats;
    warp.Store({own, own + kTileRows * kRowTiles * kPitch}, kPitch);
  }
  __syncthreads();
  const auto unit_of = [&](int warp) { return warp_shared[warp].unit; };
  MergeWarps<kHeadDim, kRowTiles>(partials, kStrideFloats, unit_of, [&](int warp) {
    return Warp::GlobalSlot(params, static_cast<int64_t>(blockIdx.x) * warps + warp);
  });
  if (params.finish.arrivals == nullptr) return;
  __syncthreads();
  const NumberRange all{0, warp_shared[warp_index].total_numbers};
  const NumberRange share = block_share(all.end);
  if (share.begin == share.end) return;
  RowFinisher<kHeadDim, kRowTiles, FactsOf(kV).rotated>(params, all, lane)
      .Run(share, warp_shared[0].place.sought);
}

}  // namespace turbokv::cuda

// Defines the kernel of one pair as __global__ NAME. Registers are divided among the warps that
// share a multiprocessor.
#define TURBOKV_DEFINE_PAGES_KERNEL(NAME, K, V, HEAD_DIM, ROW_TILES)         \
  __global__ void __launch_bounds__(                                         \
      32 * ::turbokv::cuda::PagesWarps(K, V, HEAD_DIM, ROW_TILES,            \
                                       ::turbokv::cuda::kMaxSharedBytes),    \
      1) NAME(const __grid_constant__ ::turbokv::cuda::PagesParams params) { \
    extern __shared__ __align__(128) uint8_t shared[];                       \
    ::turbokv::cuda::AttendPages<K, V, HEAD_DIM, ROW_TILES>(params, shared); \
  }
