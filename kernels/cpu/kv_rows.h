// Raw K/V of any type, row by row as floats.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>

#include "absl/base/casts.h"
#include "kernels/format/head_groups.h"
#include "kernels/format/page_layout.h"
#include "kernels/format/small_floats.h"
#include "kernels/kv_view.h"

namespace turbokv::cpu {

// Values [index, index + count) of K or V as floats.
inline void LoadRow(ValueType type, const void* values, int64_t index, int count, float* out) {
  const auto* halves = static_cast<const uint16_t*>(values) + index;
  switch (type) {
    case ValueType::kBf16:
      for (int i = 0; i < count; ++i) {
        out[i] = absl::bit_cast<float>(static_cast<uint32_t>(halves[i]) << 16);
      }
      return;
    case ValueType::kFp16:
      for (int i = 0; i < count; ++i) out[i] = Fp16ToFloat(halves[i]);
      return;
    case ValueType::kFp32:
      std::copy_n(static_cast<const float*>(values) + index, count, out);
      return;
  }
}

// Calls visit(token, head, row) for every token and head of K or V; row has head_dim values.
template <typename VisitFn>
void ForEachRow(const KvView& kv, const void* values, const PageShape& shape, VisitFn visit) {
  std::array<float, kMaxHeadDim> row;
  for (int token = 0; token < kv.tokens; ++token) {
    for (int head = 0; head < shape.kv_heads; ++head) {
      LoadRow(kv.type, values, token * kv.token_stride + head * kv.head_stride, shape.head_dim,
              row.data());
      visit(token, head, row.data());
    }
  }
}

}  // namespace turbokv::cpu
