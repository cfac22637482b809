// Sequences that no model made, for load tests: the same for the same seed.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "kernels/kv_view.h"

namespace turbokv::cli {

struct SyntheticShape {
  int tokens = 2048;
  int layers = 8;
  int kv_heads = 8;
  int head_dim = 128;
  uint64_t seed = 1;
};

// Threads: may be read from any.
class SyntheticLoad {
 public:
  // INVALID_ARGUMENT: the values of one layer would take more memory than a load test should.
  static absl::Status Check(const SyntheticShape& shape);

  // Precondition: Check(shape).ok().
  explicit SyntheticLoad(const SyntheticShape& shape);

  // bf16 Gaussians, in the order [tokens][kv_heads][head_dim].
  KvView values() const;

  // Ids of sequence `index`; different sequences share no prefix of a block.
  std::vector<int32_t> TokenIds(int index) const;

 private:
  SyntheticShape shape_;
  std::vector<uint16_t> k_, v_;
};

}  // namespace turbokv::cli
