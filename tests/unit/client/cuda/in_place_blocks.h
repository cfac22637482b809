// Blocks that the service's process writes and the worker's process expects: the same in both.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "client/cache_spec.h"

namespace turbokv::testing {

inline constexpr int64_t kInPlaceBlocks = 1024;

// 32 layers, 8 KV heads of 128, turbo4 K and turbo3 V (compiled ahead, so that no GPU machine needs
// NVRTC for it).
std::shared_ptr<const ResolvedSpec> InPlaceSpec();

// Makes blocks of a few different contents, encoded once; every page is sealed for its place.
class BlockMaker {
 public:
  explicit BlockMaker(std::shared_ptr<const ResolvedSpec> spec);

  std::vector<uint8_t> Page(int layer, int64_t block) const;
  std::vector<uint8_t> Block(int64_t block) const;  // layers follow each other

 private:
  const std::shared_ptr<const ResolvedSpec> spec_;
  std::vector<std::vector<uint8_t>> contents_;  // pages, all layers' alike
};

}  // namespace turbokv::testing
