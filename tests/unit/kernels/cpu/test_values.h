// Inputs of the CPU kernels' tests: random and adversarial K and V, in any layout and type.
#pragma once

#include <cstdint>
#include <functional>
#include <random>
#include <string>
#include <vector>

#include "kernels/format/page_layout.h"
#include "kernels/kv_view.h"

namespace turbokv::testing {

enum class KvOrder { kNhd, kHnd };

// Owns K and V of `tokens` tokens.
class TestKv {
 public:
  // value(is_v, token, head, channel) is rounded to `type`.
  using ValueFn = std::function<float(bool is_v, int token, int head, int channel)>;
  TestKv(ValueType type, KvOrder order, int tokens, int kv_heads, int head_dim,
         const ValueFn& value);

  const KvView& view() const { return view_; }
  // As stored.
  void SetK(int token, int head, int channel, float value) { Set(k_, token, head, channel, value); }
  void SetV(int token, int head, int channel, float value) { Set(v_, token, head, channel, value); }

 private:
  void Set(std::vector<uint8_t>& bytes, int token, int head, int channel, float value);

  std::vector<uint8_t> k_;
  std::vector<uint8_t> v_;
  KvView view_;
};

// K with a large part common to all tokens, V of zero mean; reproducible.
TestKv::ValueFn GaussianValues(uint32_t seed);

struct NamedValues {
  std::string name;
  TestKv::ValueFn value;
};
// Constants, zeros, one-hot, alternating, steps at decision thresholds, denormals, huge values...
std::vector<NamedValues> AdversarialValues();

// Codecs that are implemented.
std::vector<Codec> ImplementedCodecs();

// A shape's layout; K mean wherever K takes one when `k_mean`.
PageLayout LayoutOf(int kv_heads, int head_dim, Codec k, Codec v, bool k_mean);

}  // namespace turbokv::testing
