// Fused decode attention on packed pages in GPU memory, merged with the exact tail.
//
// Same definition as kernels/attention.h. Token j of a sequence has position j: packed tokens first
// (whole pages), then the tail. Sums are float: V whose sum over the tokens attended to
// exceeds 1e38 comes out as infinity or not a number.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "kernels/attention.h"
#include "kernels/cuda/page_pool.h"

namespace turbokv::cuda {

inline constexpr int kMaxDecodeQueries = 8;
inline constexpr int kMaxGroupSize = 16;  // query heads a KV head
inline constexpr int kMaxTailTokens = 255;
inline constexpr int kMaxPagePools = 8;  // pairs of codecs in one batch

// What is fixed when kernels are chosen and the workspace is sized.
struct AttentionConfig {
  AttentionShape shape;
  int queries = 1;    // of each sequence, 1..8
  int max_batch = 1;  // sequences
  int max_pages = 1;  // of one sequence: the width of block_tables
  // Pages of each pool, K and V codecs and K mean, in the order of AttentionArguments::pools.
  std::vector<PageShape> pools;
  ValueType value_type = ValueType::kBf16;  // of q and out
  ValueType tail_type = ValueType::kBf16;   // bf16 or fp16
  // Thread blocks of the pages kernel; 0: one a multiprocessor. The result is deterministic for a
  // given number and batch, and differs by rounding between numbers.
  int blocks = 0;
};

// The uncompressed last tokens of every sequence: value (sequence, t, h, c) at index
// sequence * sequence_stride + t * token_stride + h * head_stride + c. Pointers and strides in
// bytes are multiples of 16. V of every token that tail_tokens counts must be finite, seen or not.
struct DeviceTail {
  const void* k = nullptr;
  const void* v = nullptr;
  int64_t sequence_stride = 0;
  int64_t token_stride = 0;
  int64_t head_stride = 0;
};

// All pointers are device memory unless said otherwise.
struct AttentionArguments {
  int batch = 0;                           // 1..max_batch
  const PagePool* pools = nullptr;         // host memory, one for each of AttentionConfig::pools
  const int32_t* block_tables = nullptr;   // [batch][max_pages] page ids; rest is never read
  const uint8_t* page_pools = nullptr;     // [batch][max_pages] index into pools; null: all 0
  const int32_t* packed_tokens = nullptr;  // [batch], multiples of 128
  const int32_t* tail_tokens = nullptr;    // [batch], 0..255; null: no tails
  // [batch][queries]; null: the last `queries` tokens. Negative: sees nothing; beyond the last
  // token: sees all.
  const int32_t* query_positions = nullptr;
  DeviceTail tail;
  const void* q = nullptr;             // [batch][queries][q_heads][head_dim], 16-byte aligned
  void* out = nullptr;                 // likewise
  float* lse = nullptr;                // [batch][queries][q_heads], natural logarithm; may be null
  const float* sink_logits = nullptr;  // [q_heads] or null
  float softmax_scale = 1.0f;
  float soft_cap = 0.0f;
  int64_t window_tokens = 0;
  float sparse_v_threshold = 0.0f;
  void* workspace = nullptr;  // workspace_bytes() bytes, 256-byte aligned; one call at a time
};

// Kernels chosen for one configuration on the current device. Immutable; calls of Run may come from
// any thread.
class DecodeAttention {
 public:
  // Compiles pairs of codecs that are not compiled ahead (a second or more, cached on disk): call
  // it at start-up. INVALID_ARGUMENT, UNIMPLEMENTED name what cannot be had.
  static absl::StatusOr<std::unique_ptr<DecodeAttention>> Create(const AttentionConfig& config);
  virtual ~DecodeAttention() = default;

  virtual size_t workspace_bytes() const = 0;

  // Enqueues the launches and returns: no allocation, no synchronisation; may be captured into a
  // CUDA graph, whose replays see the lengths and tables that the device memory then holds.
  // Debug builds check page ids (outside of captures), which synchronises.
  virtual absl::Status Run(const AttentionArguments& arguments, cudaStream_t stream) const = 0;

  // INVALID_ARGUMENT names the first page id or pool index out of range, packed_tokens that is no
  // multiple of 128 or exceeds max_pages, or a tail that is too long. Synchronises the stream.
  virtual absl::Status CheckTables(const AttentionArguments& arguments,
                                   cudaStream_t stream) const = 0;
};

}  // namespace turbokv::cuda
