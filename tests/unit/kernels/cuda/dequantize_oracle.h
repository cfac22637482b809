// What DequantizePages promises about its values, from the reference.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "kernels/format/page_header.h"
#include "kernels/kv_view.h"
#include "tests/unit/kernels/cpu/test_values.h"

namespace turbokv::cuda::testing {

// Pages of `tokens` tokens each, encoded by the reference. Page i is layer 3, generation 7 + i,
// begins at token 4096 + 128 i.
std::vector<std::vector<uint8_t>> ReferencePages(const PageLayout& layout, ValueType type,
                                                 const turbokv::testing::TestKv::ValueFn& values,
                                                 int pages, int tokens = kPageTokens);

// K or V of a page as the reference decodes it.
class DecodedTensor {
 public:
  DecodedTensor(absl::Span<const uint8_t> page, bool is_v);

  int tokens() const { return tokens_; }
  float Value(int token, int head, int channel) const {
    return values_[(token * heads_ + head) * head_dim_ + channel];
  }
  // Empty if `value`, of the given type, is what DequantizePages may return; otherwise why not.
  std::string Complaint(ValueType type, int token, int head, int channel, float value) const;

 private:
  int tokens_, heads_, head_dim_;
  std::vector<float> values_;
  std::vector<double> tolerances_;  // [tokens][heads]
};

}  // namespace turbokv::cuda::testing
