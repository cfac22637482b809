#include "server/ingest/distortion.h"

#include <cmath>

#include "absl/strings/str_cat.h"
#include "kernels/cpu/codec.h"
#include "kernels/format/small_floats.h"

namespace turbokv {
namespace {

// Calls visit(token, head, channel, value) for every value of K or V.
template <typename VisitFn>
void ForEachValue(const KvView& kv, const void* values, const PageShape& shape, VisitFn visit) {
  for (int token = 0; token < kv.tokens; ++token) {
    for (int head = 0; head < shape.kv_heads; ++head) {
      const int64_t row = token * kv.token_stride + head * kv.head_stride;
      for (int channel = 0; channel < shape.head_dim; ++channel) {
        visit(token, head, channel, ValueAt(kv.type, values, row + channel));
      }
    }
  }
}

std::string FirstNonFinite(absl::string_view tensor, const KvView& kv, const void* values,
                           const PageShape& shape, int64_t first_token) {
  std::string found;
  ForEachValue(kv, values, shape, [&](int token, int head, int channel, float value) {
    if (std::isfinite(value) || !found.empty()) return;
    found = absl::StrCat(tensor, " of token ", first_token + token, ", head ", head, ", channel ",
                         channel, " is ", std::isnan(value) ? "NaN" : "infinite");
  });
  return found;
}

}  // namespace

float ValueAt(ValueType type, const void* values, int64_t index) {
  switch (type) {
    case ValueType::kBf16:
      return Bf16ToFloat(static_cast<const uint16_t*>(values)[index]);
    case ValueType::kFp16:
      return Fp16ToFloat(static_cast<const uint16_t*>(values)[index]);
    case ValueType::kFp32:
      break;
  }
  return static_cast<const float*>(values)[index];
}

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
  ForEachValue(kv, tensor == PageTensor::kK ? kv.k : kv.v, shape,
               [&](int token, int head, int channel, float value) {
                 const double decoded =
                     (*scratch)[token * token_stride + head * shape.head_dim + channel];
                 error += (decoded - value) * (decoded - value);
                 energy += double{value} * value;
               });
  return energy > 0 ? error / energy : 0;
}

std::string DescribeNonFinite(const KvView& kv, const PageShape& shape, int64_t first_token) {
  std::string found = FirstNonFinite("K", kv, kv.k, shape, first_token);
  return found.empty() ? FirstNonFinite("V", kv, kv.v, shape, first_token) : found;
}

}  // namespace turbokv
