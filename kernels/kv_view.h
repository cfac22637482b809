// Raw keys and values in a caller's memory, as kernels read and write them.
#pragma once

#include <cstddef>
#include <cstdint>

namespace turbokv {

// Persisted in cache specs: never renumber.
enum class ValueType : uint8_t { kBf16 = 1, kFp16 = 2, kFp32 = 3 };

constexpr size_t ValueBytes(ValueType type) { return type == ValueType::kFp32 ? 4 : 2; }

// K and V of `tokens` tokens of one layer: value (t, h, c) is at index
// t * token_stride + h * head_stride + c, both strides in values. Borrowed memory.
//   NHD [tokens][kv_heads][head_dim]:  token_stride = kv_heads * head_dim, head_stride = head_dim
//   HND [kv_heads][tokens][head_dim]:  token_stride = head_dim, head_stride = tokens * head_dim
// Pointers need only the alignment of their value type.
struct KvView {
  ValueType type = ValueType::kBf16;
  const void* k = nullptr;
  const void* v = nullptr;
  ptrdiff_t token_stride = 0;
  ptrdiff_t head_stride = 0;
  int tokens = 0;
};

inline KvView NhdView(ValueType type, const void* k, const void* v, int tokens, int kv_heads,
                      int head_dim) {
  return {type, k, v, ptrdiff_t{kv_heads} * head_dim, head_dim, tokens};
}

// Where decoded float values go; the same indexing.
struct KvOutput {
  float* k = nullptr;  // null: K is not wanted
  float* v = nullptr;
  ptrdiff_t token_stride = 0;
  ptrdiff_t head_stride = 0;
};

}  // namespace turbokv
