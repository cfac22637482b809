#include "server/ingest/distortion.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "absl/base/casts.h"
#include "absl/strings/str_cat.h"
#include "kernels/cpu/codec.h"
#include "kernels/format/head_groups.h"
#include "kernels/format/small_floats.h"

namespace turbokv {
namespace {

// Values [index, index + count) of K or V as floats.
void LoadRow(ValueType type, const void* values, int64_t index, int count, float* out) {
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

std::string FirstNonFinite(absl::string_view tensor, const KvView& kv, const void* values,
                           const PageShape& shape, int64_t first_token) {
  std::string found;
  ForEachRow(kv, values, shape, [&](int token, int head, const float* row) {
    const float* bad = std::find_if_not(row, row + shape.head_dim,
                                        [](float value) { return std::isfinite(value); });
    if (bad == row + shape.head_dim || !found.empty()) return;
    found = absl::StrCat(tensor, " of token ", first_token + token, ", head ", head, ", channel ",
                         bad - row, " is ", std::isnan(*bad) ? "NaN" : "infinite");
  });
  return found;
}

}  // namespace

double RelativeMse(PageTensor tensor, const KvView& kv, const PageView& page,
                   std::vector<float>* scratch) {
  const PageShape& shape = page.layout.shape;
  const ptrdiff_t token_stride = ptrdiff_t{shape.kv_heads} * shape.head_dim;
  scratch->resize(kPageTokens * token_stride);
  KvOutput output;
  (tensor == PageTensor::kK ? output.k : output.v) = scratch->data();
  output.token_stride = token_stride;
  output.head_stride = shape.head_dim;
  cpu::DecodePage(page, output);

  double error = 0;
  double energy = 0;
  ForEachRow(kv, tensor == PageTensor::kK ? kv.k : kv.v, shape,
             [&](int token, int head, const float* row) {
               const float* decoded =
                   scratch->data() + token * token_stride + head * shape.head_dim;
               for (int i = 0; i < shape.head_dim; ++i) {
                 const double difference = double{decoded[i]} - row[i];
                 error += difference * difference;
                 energy += double{row[i]} * row[i];
               }
             });
  return energy > 0 ? error / energy : 0;
}

std::string DescribeNonFinite(const KvView& kv, const PageShape& shape, int64_t first_token) {
  std::string found = FirstNonFinite("K", kv, kv.k, shape, first_token);
  return found.empty() ? FirstNonFinite("V", kv, kv.v, shape, first_token) : found;
}

}  // namespace turbokv
