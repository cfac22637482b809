// Writes query blocks, and the lists of pages of a batch with several pools. For a pages kernel
// that finishes rows itself, it clears the counters and gives the results of sequences without
// pages.
#pragma once

#include "kernels/cuda/attention/query_block.cuh"
#include "kernels/cuda/attention/row_output.cuh"
#include "kernels/cuda/attention/schedule.cuh"
#include "kernels/cuda/primitives/hadamard.cuh"
#include "kernels/cuda/primitives/value_types.cuh"
#include "kernels/cuda/primitives/warp_reduce.cuh"

namespace turbokv::cuda {

inline constexpr int kPrepareThreads = kTileRows * kWarpLanes;  // of one query block

// Where channel 32 tile + lane of row `row` stands among the bytes of a tile's fragment: lane
// 4 row + t holds code (h, i), channel 16 h + 4 t + i.
struct FragmentPlace {
  int lane;
  int half;
  int index;

  TURBOKV_DEVICE FragmentPlace(int row, int channel)
      : lane(4 * row + ((channel >> 2) & 3)), half(channel >> 4), index(channel & 3) {}
};

// A row of q as it is written into its query block by one warp; value i of a lane is channel
// 32 i + lane.
template <int kHeadDim>
class QueryRowWriter {
 public:
  static constexpr int kTiles = kHeadDim / kTileChannels;
  using Values = float[kTiles];

  TURBOKV_DEVICE QueryRowWriter(QueryBlock<kHeadDim>* block, int row, int lane)
      : block_(block), row_(row), lane_(lane), place_(row, lane) {}

  // As 16-bit integers, for values up to `largest`; returns what 1 stands for.
  TURBOKV_DEVICE float WriteIntegers(const Values& values, float largest,
                                     Words4 (&fragments)[kTiles][kWarpLanes],
                                     float (&group_sums)[2]) {
    const float scale = largest > 0.0f ? fmaxf(largest / kLargestInt16, kSmallestScale) : 1.0f;
    const float inverse = 1.0f / scale;
    constexpr int kGroupTiles = GroupChannels(kHeadDim) / kTileChannels;
    int sums[2] = {};
#pragma unroll
    for (int tile = 0; tile < kTiles; ++tile) {
      // A rounding error of the product may not carry it past what the bytes can hold.
      const int integer =
          min(max(__float2int_rn(values[tile] * inverse), -kLargestInteger), kLargestInteger);
      auto* const bytes = reinterpret_cast<uint8_t*>(&fragments[tile][place_.lane]);
      uint8_t* const to = bytes + 8 * place_.half + place_.index;
      to[0] = static_cast<uint8_t>((integer + 128) >> 8);
      to[4] = static_cast<uint8_t>(integer);
      sums[tile / kGroupTiles] += integer;
    }
    for (int group = 0; group < 2; ++group) {
      group_sums[group] = static_cast<float>(__reduce_add_sync(~0u, sums[group]));  // exact
    }
    return scale;
  }

  // As sums of two fp16 or bf16, each times `inverse`.
  template <bool kBf16>
  TURBOKV_DEVICE void WritePairs(const Values& values, float inverse,
                                 Words4 (&fragments)[kTiles][2][kWarpLanes]) {
#pragma unroll
    for (int tile = 0; tile < kTiles; ++tile) {
      const float value = values[tile] * inverse;
      const uint32_t high = kBf16 ? PackBf16(value, 0.0f) : PackHalves(value, 0.0f);
      const float rest = value - (kBf16 ? LowBf16(high) : LowHalf(high));
      const uint32_t low = kBf16 ? PackBf16(rest, 0.0f) : PackHalves(rest, 0.0f);
      auto* const halves = reinterpret_cast<uint16_t*>(&fragments[tile][place_.half][place_.lane]);
      uint16_t* const to = halves + 4 * (place_.index >> 1) + (place_.index & 1);
      to[0] = static_cast<uint16_t>(high);
      to[2] = static_cast<uint16_t>(low);
    }
  }

  TURBOKV_DEVICE void Write(Values& values, int forms, const PageRange& visible) {
    QueryRow row{};
    row.visible_begin = visible.begin;
    row.visible_end = visible.end;
    const float largest = Largest(values);
    // Magnitudes of pairs are below 1024: their products with fp16 stay finite.
    const int exponent = largest > 0.0f ? ilogbf(largest) - 9 : 0;
    row.pair_scale = ScaleByPower(1.0f, exponent);
    if (forms & kFp16Q) WritePairs<false>(values, ScaleByPower(1.0f, -exponent), block_->fp16);
    if (forms & kBf16Q) WritePairs<true>(values, ScaleByPower(1.0f, -exponent), block_->bf16);
    if (forms & kPlainQ) {
      float unused[2];
      row.plain_scale = WriteIntegers(values, largest, block_->plain, unused);
    }
    if (forms & kRotatedQ) {
      RotateHead<kHeadDim, false>(values, lane_);
      row.rotated_scale = WriteIntegers(values, Largest(values), block_->rotated, row.rotated_sums);
    }
    if (HasNan(values)) {  // integers would hide it
      row.pair_scale = row.plain_scale = row.rotated_scale = __int_as_float(0x7fffffff);
    }
    if (lane_ == 0) block_->rows[row_] = row;
  }

 private:
  static TURBOKV_DEVICE bool HasNan(const Values& values) {
    bool has_nan = false;
    for (const float value : values) has_nan |= value != value;
    return __any_sync(~0u, has_nan) != 0;
  }

  static TURBOKV_DEVICE float Largest(const Values& values) {
    float largest = 0.0f;
    for (const float value : values) largest = fmaxf(largest, fabsf(value));
    return WarpMax(largest);
  }

  QueryBlock<kHeadDim>* block_;
  int row_;
  int lane_;
  FragmentPlace place_;
};

// No thread block of the pages kernel ever comes to a row of a sequence without pages.
template <int kHeadDim>
TURBOKV_DEVICE void StoreRowWithoutPages(const PrepareParams& params, const RowPlace& place,
                                         int lane) {
  const PageRange pages = VisiblePages(params.batch, place.sequence);
  if (pages.begin < pages.end) return;
  RowSums<kHeadDim> nothing;
  StoreRow(params.finish.output, params.rows, params.batch.queries, place, nothing, lane);
}

// kPrepareThreads threads, of which this is number `thread`. Rows past the last one are zero and
// see everything, so that they never make a page look partly hidden.
template <int kHeadDim>
TURBOKV_DEVICE void PrepareQueries(const PrepareParams& params, int64_t block_index, int thread,
                                   QueryBlock<kHeadDim>* block) {
  const RowParams& rows = params.rows;
  const int tiles = rows.units_per_head * rows.row_tiles;
  const int tile = static_cast<int>(block_index % tiles);
  const int head = static_cast<int>(block_index / tiles % rows.kv_heads);
  const int sequence = static_cast<int>(block_index / tiles / rows.kv_heads);
  const int lane = thread % kWarpLanes;
  const int row = kTileRows * tile + thread / kWarpLanes;

  float values[kHeadDim / kWarpLanes] = {};
  PageRange visible{0, 0x7fffffff};
  if (row < rows.rows) {
    const int query = row / rows.group;
    const int q_head = head * rows.group + row % rows.group;
    const int64_t first = ((static_cast<int64_t>(sequence) * params.batch.queries + query) *
                               rows.kv_heads * rows.group +
                           q_head) *
                          kHeadDim;
#pragma unroll
    for (int i = 0; i < kHeadDim / kWarpLanes; ++i) {
      values[i] =
          params.scale * LoadValue(params.q, params.value_type, first + kWarpLanes * i + lane);
    }
    visible = VisibleTokens(params.batch, QueryPosition(params.batch, sequence, query));
  }
  if (params.finish.arrivals != nullptr) {
    if (lane == 0) params.finish.arrivals[block_index * kTileRows + row % kTileRows] = 0;
    if (row < rows.rows) StoreRowWithoutPages<kHeadDim>(params, {sequence, head, row}, lane);
  }
  QueryRowWriter<kHeadDim>(block, row % kTileRows, lane).Write(values, params.forms, visible);
}

// From shared memory to where other kernels read it, without forms that are not wanted.
template <int kHeadDim>
TURBOKV_DEVICE void CopyQueries(const PrepareParams& params, int64_t block_index, int thread,
                                const QueryBlock<kHeadDim>* block) {
  using Block = QueryBlock<kHeadDim>;
  auto* const to = static_cast<Block*>(params.query_blocks) + block_index;
  constexpr int kCount = sizeof(Block) / sizeof(Words4);
  constexpr int kFormWords = sizeof(Block::rotated) / sizeof(Words4);  // pairs have twice as many
  const int forms = params.forms;
  const int wanted = (forms & (kRotatedQ | kPlainQ)) | (forms & kFp16Q ? 0x0c : 0) |
                     (forms & kBf16Q ? 0x30 : 0) | 0x40;  // a bit for kFormWords each; the rows
  for (int i = thread; i < kCount; i += kPrepareThreads) {
    if ((wanted >> (i / kFormWords)) & 1) {
      reinterpret_cast<Words4*>(to)[i] = reinterpret_cast<const Words4*>(block)[i];
    }
  }
}

// One warp a sequence: its visible pages, divided by pool, in order.
TURBOKV_DEVICE void ListPages(const PrepareParams& params, int sequence, int lane) {
  const PageRange visible = VisiblePages(params.batch, sequence);
  const int64_t first = static_cast<int64_t>(sequence) * params.batch.max_pages;
  const int64_t pool_stride = static_cast<int64_t>(params.batch.batch) * params.batch.max_pages;
  for (int pool = 0; pool < params.pools; ++pool) {
    int count = 0;
    for (int begin = visible.begin; begin < visible.end; begin += kWarpLanes) {
      const int page = begin + lane;
      const bool mine = page < visible.end && params.page_pools[first + page] == pool;
      const unsigned others = __ballot_sync(~0u, mine);
      if (mine) {
        const int64_t to = pool * pool_stride + first + count + __popc(others & ((1u << lane) - 1));
        params.list_ids[to] = params.block_tables[first + page];
        params.list_indices[to] = page;
      }
      count += __popc(others);
    }
    if (lane == 0) params.list_counts[pool * params.batch.batch + sequence] = count;
  }
}

// Every warp of the pages kernel begins with an entry of the block tables, and cannot fetch before
// it knows it. Wide tables are mostly unused; their first lines will do.
TURBOKV_DEVICE void PrefetchTables(const PrepareParams& params) {
  constexpr int64_t kLineEntries = 32;
  constexpr int64_t kMostEntries = 1 << 16;
  const int64_t entries = min(int64_t{params.batch.batch} * params.batch.max_pages, kMostEntries);
  const int64_t entry = (int64_t{blockIdx.x} * blockDim.x + threadIdx.x) * kLineEntries;
  if (entry < entries) PrefetchLine(params.block_tables + entry);
}

// Thread blocks of 1 to kMostPrepareTiles times kPrepareThreads threads: so many as query blocks
// need, then (with several pools) a warp for each sequence. Shared memory: query blocks of the
// thread block.
template <int kHeadDim>
TURBOKV_DEVICE void Prepare(const PrepareParams& params, uint8_t* shared) {
  LetNextKernelLaunch();
  PrefetchTables(params);
  const RowParams& rows = params.rows;
  const int64_t query_blocks = static_cast<int64_t>(params.batch.batch) * rows.kv_heads *
                               rows.units_per_head * rows.row_tiles;
  const int tiles = blockDim.x / kPrepareThreads;  // of a thread block
  const int64_t tile_blocks = (query_blocks + tiles - 1) / tiles;
  if (blockIdx.x < tile_blocks) {
    const int own = threadIdx.x / kPrepareThreads;
    const int thread = threadIdx.x % kPrepareThreads;
    const int64_t index = int64_t{blockIdx.x} * tiles + own;
    auto* const block = reinterpret_cast<QueryBlock<kHeadDim>*>(shared) + own;
    if (index < query_blocks) PrepareQueries<kHeadDim>(params, index, thread, block);
    __syncthreads();
    if (index < query_blocks) CopyQueries<kHeadDim>(params, index, thread, block);
    return;
  }
  const int warps = blockDim.x / kWarpLanes;
  const int sequence = static_cast<int>(blockIdx.x - tile_blocks) * warps +
                       static_cast<int>(threadIdx.x) / kWarpLanes;
  if (sequence < params.batch.batch) ListPages(params, sequence, threadIdx.x % kWarpLanes);
}

}  // namespace turbokv::cuda
