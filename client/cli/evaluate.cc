#include "client/cli/evaluate.h"

#include <utility>

#include "base/status_macros.h"
#include "client/cli/layer_pages.h"

namespace turbokv::cli {
namespace {

double RelativeMse(const std::vector<float>& exact, const std::vector<float>& quantized) {
  double error_energy = 0;
  double energy = 0;
  for (size_t i = 0; i < exact.size(); ++i) {
    const double error = static_cast<double>(quantized[i]) - exact[i];
    error_energy += error * error;
    energy += static_cast<double>(exact[i]) * exact[i];
  }
  return error_energy == 0 ? 0 : error_energy / energy;
}

absl::StatusOr<LayerQuality> EvaluateLayer(const Capture& capture, int layer,
                                           const LayerCodecs& codecs) {
  TURBOKV_ASSIGN_OR_RETURN(const std::vector<PageBytes> pages, EncodeLayer(capture, layer, codecs));
  LayerValues quantized(capture.kv_heads, capture.tokens, capture.head_dim);
  int64_t first_token = 0;
  for (const PageBytes& page : pages) {
    TURBOKV_RETURN_IF_ERROR(DecodeInto(page, first_token, &quantized));
    first_token += kPageTokens;
  }
  LayerValues exact(capture.kv_heads, capture.tokens, capture.head_dim);
  TURBOKV_ASSIGN_OR_RETURN(exact.k, ToFloats(capture.layer[layer].k));
  TURBOKV_ASSIGN_OR_RETURN(exact.v, ToFloats(capture.layer[layer].v));

  LayerQuality quality;
  quality.codecs = codecs;
  TURBOKV_ASSIGN_OR_RETURN(const PageView page, ParsePage(pages.front()));
  quality.bits_per_value = BitsPerValue(page.layout);
  quality.k_relative_mse = RelativeMse(exact.k, quantized.k);
  quality.v_relative_mse = RelativeMse(exact.v, quantized.v);
  if (capture.layer[layer].q) {
    Queries queries{capture.q_heads, capture.q_tokens, {}};
    TURBOKV_ASSIGN_OR_RETURN(queries.values, ToFloats(*capture.layer[layer].q));
    quality.attention = CompareAttention(queries, exact, quantized);
  }
  return quality;
}

}  // namespace

absl::StatusOr<std::vector<LayerQuality>> EvaluateCapture(
    const Capture& capture, const std::vector<LayerCodecs>& codecs, ThreadPool* pool,
    const std::function<void()>& on_layer_done) {
  std::vector<absl::StatusOr<LayerQuality>> results(codecs.size());
  ParallelFor(pool, codecs.size(), [&](size_t layer) {
    results[layer] = EvaluateLayer(capture, static_cast<int>(layer), codecs[layer]);
    on_layer_done();
  });
  std::vector<LayerQuality> layers;
  for (absl::StatusOr<LayerQuality>& result : results) {
    TURBOKV_RETURN_IF_ERROR(result.status());
    layers.push_back(*std::move(result));
  }
  return layers;
}

MeanQuality MeanOf(const std::vector<LayerQuality>& layers) {
  MeanQuality mean;
  AttentionFidelity attention;
  int with_queries = 0;
  for (const LayerQuality& layer : layers) {
    mean.bits_per_value += layer.bits_per_value / layers.size();
    mean.k_relative_mse += layer.k_relative_mse / layers.size();
    mean.v_relative_mse += layer.v_relative_mse / layers.size();
    if (!layer.attention) continue;
    ++with_queries;
    attention.output_error += layer.attention->output_error;
    attention.attention_kld += layer.attention->attention_kld;
  }
  if (with_queries > 0) {
    attention.output_error /= with_queries;
    attention.attention_kld /= with_queries;
    mean.attention = attention;
  }
  return mean;
}

}  // namespace turbokv::cli
