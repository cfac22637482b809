// Arguments of the attention kernels: plain structs that host and device code share.
#pragma once

#include <cstdint>

namespace turbokv::cuda {

// The prepare kernel's thread blocks work on one query block, or on so many.
inline constexpr int kMostPrepareTiles = 4;

// What all kernels of one call know about the batch.
struct BatchParams {
  int batch;
  int max_pages;
  int queries;
  int window_tokens;  // 0: none
  const int32_t* packed_tokens;
  const int32_t* tail_tokens;      // null: none
  const int32_t* query_positions;  // null: the last ones
};

// Rows are (query, query head of the KV head), query-major. A unit is a KV head and a run of
// 8 x row_tiles rows: what one warp works on at a time.
struct RowParams {
  int kv_heads;
  int group;      // query heads a KV head
  int rows;       // queries x group
  int row_tiles;  // of eight rows, in a unit
  int units_per_head;
  int units;  // kv_heads x units_per_head
};

// Pages of one pool, in the order of their tokens. With one pool: the block table as it is. With
// more: lists that the prepare kernel makes.
struct PageLists {
  const int32_t* page_ids;      // [batch][max_pages]
  const int32_t* page_indices;  // [batch][max_pages]: which page of the sequence; null: consecutive
  const int32_t* counts;        // [batch]; null: every visible page
};

struct OutputParams {
  void* out;       // [batch][queries][kv_heads x group][head_dim]
  int value_type;  // of out: ValueType
  float* lse;      // null: not wanted
  const float* sink_logits;
};

// Of calls without a merge kernel: the thread block that is the last to leave partial results of a
// row gives the row's result (finish_rows.cuh).
struct FinishParams {
  int* arrivals;  // [batch][units][8 x row_tiles], made 0 by the prepare kernel; null: merge kernel
  OutputParams output;
};

struct PrepareParams {
  BatchParams batch;
  RowParams rows;
  const void* q;       // [batch][queries][kv_heads x group][head_dim]
  int value_type;      // of q: ValueType
  float scale;         // softmax_scale x log2(e)
  int forms;           // QueryForm bits: those that are wanted
  void* query_blocks;  // QueryBlock<head_dim> [batch][kv_heads][tiles_per_head]
  const int32_t* block_tables;
  // Of batches with several pools; null otherwise.
  const uint8_t* page_pools;
  int pools;
  int32_t* list_ids;      // [pools][batch][max_pages]
  int32_t* list_indices;  // likewise
  int32_t* list_counts;   // [pools][batch]
  FinishParams finish;
};

struct PagesParams {
  BatchParams batch;
  RowParams rows;
  PageLists lists;
  const uint8_t* pages;
  int64_t stride_bytes;
  int slice_bytes;
  int k_bytes;  // of the K half of a slice, mean included where there is one
  bool k_mean;
  float soft_cap;          // x log2(e); 0: none
  float sparse_threshold;  // 0: none
  const void* query_blocks;
  // Partial results, 8 x row_tiles rows each: [blocks][warps], then [batch][units].
  float* partial_values;  // [rows][head_dim]
  float* partial_stats;   // [rows][2]: largest score, sum of exp2(score - largest)
  FinishParams finish;
};

struct TailParams {
  const void* k;
  const void* v;
  int64_t sequence_stride;  // in values
  int64_t token_stride;
  int64_t head_stride;
};

inline constexpr int kMaxMergedPools = 8;

// The partial results of one pages kernel.
struct PoolPartials {
  PageLists lists;
  const float* values;
  const float* stats;
  int warps;
  int blocks;
  bool rotated;  // values are still rotated
};

struct MergeParams {
  BatchParams batch;
  RowParams rows;
  TailParams tail;
  float soft_cap;
  float sparse_threshold;
  const void* query_blocks;
  int pools;
  PoolPartials partials[kMaxMergedPools];
  OutputParams output;
};

}  // namespace turbokv::cuda
