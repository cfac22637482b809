#include "client/cli/synthetic_load.h"

#include <random>

#include "absl/strings/str_cat.h"
#include "kernels/format/small_floats.h"

namespace turbokv::cli {
namespace {

constexpr int64_t kMaxLayerBytes = int64_t{8} << 30;
constexpr int32_t kVocabulary = 128'000;

std::vector<uint16_t> Gaussians(size_t count, uint64_t seed) {
  std::mt19937_64 random(seed);
  std::normal_distribution<float> normal;
  std::vector<uint16_t> values(count);
  for (uint16_t& value : values) value = FloatToBf16(normal(random));
  return values;
}

size_t TensorValues(const SyntheticShape& shape) {
  return static_cast<size_t>(shape.tokens) * shape.kv_heads * shape.head_dim;
}

}  // namespace

absl::Status SyntheticLoad::Check(const SyntheticShape& shape) {
  const int64_t layer_bytes = static_cast<int64_t>(TensorValues(shape)) * 2 * 2;
  if (layer_bytes > kMaxLayerBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("a layer of ", shape.tokens, " tokens x ", shape.kv_heads, " KV heads x ",
                     shape.head_dim, " takes ", layer_bytes, " bytes, above the limit of ",
                     kMaxLayerBytes, " of this load generator"));
  }
  return absl::OkStatus();
}

SyntheticLoad::SyntheticLoad(const SyntheticShape& shape)
    : shape_(shape),
      k_(Gaussians(TensorValues(shape), shape.seed)),
      v_(Gaussians(TensorValues(shape), shape.seed + 1)) {}

KvView SyntheticLoad::values() const {
  return NhdView(ValueType::kBf16, k_.data(), v_.data(), shape_.tokens, shape_.kv_heads,
                 shape_.head_dim);
}

std::vector<int32_t> SyntheticLoad::TokenIds(int index) const {
  std::mt19937_64 random(shape_.seed * 1'000'003 + static_cast<uint64_t>(index));
  std::vector<int32_t> ids(shape_.tokens);
  for (int32_t& id : ids) id = static_cast<int32_t>(random() % kVocabulary);
  return ids;
}

}  // namespace turbokv::cli
