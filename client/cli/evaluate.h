// What a policy does to a capture, measured offline: every token is quantized, the last, unfilled
// page included.
#pragma once

#include <functional>
#include <optional>
#include <vector>

#include "absl/status/statusor.h"
#include "base/thread_pool.h"
#include "client/capture.h"
#include "client/cli/attention_fidelity.h"
#include "kernels/format/policy.h"

namespace turbokv::cli {

struct LayerQuality {
  LayerCodecs codecs;
  double bits_per_value = 0;  // of full pages, headers and alignment included
  // Squared error over the energy of the values as they were given.
  double k_relative_mse = 0;
  double v_relative_mse = 0;
  std::optional<AttentionFidelity> attention;  // where the capture has queries
};

// Quality of every layer. `codecs` has an entry for each. `on_layer_done` is called from any of the
// pool's threads.
absl::StatusOr<std::vector<LayerQuality>> EvaluateCapture(
    const Capture& capture, const std::vector<LayerCodecs>& codecs, ThreadPool* pool,
    const std::function<void()>& on_layer_done);

// Means over the layers (over those with queries).
struct MeanQuality {
  double bits_per_value = 0;
  double k_relative_mse = 0;
  double v_relative_mse = 0;
  std::optional<AttentionFidelity> attention;
};
MeanQuality MeanOf(const std::vector<LayerQuality>& layers);

}  // namespace turbokv::cli
