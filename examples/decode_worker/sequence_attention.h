// The model's attention during decode: fused, on a sequence's packed pages and its tail.
#pragma once

#include <functional>

#include "client/sequence_cache.h"
#include "examples/llama/attention.h"

namespace turbokv::examples {

class SequenceAttention : public LayerAttention {
 public:
  // `before_layer` (may be null) is called before a layer of `cache` is used.
  using BeforeLayer = std::function<absl::Status(int layer)>;

  SequenceAttention(const LlamaConfig& config, SequenceCache* cache,
                    BeforeLayer before_layer = nullptr)
      : config_(config), cache_(cache), before_layer_(std::move(before_layer)) {}

  // Appends the tokens that the cache does not hold yet, then attends. INVALID_ARGUMENT: the batch
  // begins after the cache's end.
  absl::Status Attend(const LayerBatch& batch) override;

 private:
  absl::Status AttendChunk(const LayerBatch& chunk);

  const LlamaConfig& config_;
  SequenceCache* const cache_;
  const BeforeLayer before_layer_;
};

}  // namespace turbokv::examples
