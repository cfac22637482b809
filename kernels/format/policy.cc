#include "kernels/format/policy.h"

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/types/span.h"
#include "base/status_macros.h"

namespace turbokv {
namespace {

constexpr int kRecentTokens = 128;
constexpr int kSinkTokens = 0;

constexpr Preset kPresets[] = {
    {"safe", "k=int6,v=int6", "a third or less of FP8's divergence, at 6.3 bits a value"},
    {"balanced", "k=int5,v=int5", "about FP8's divergence at two thirds of its size; the default"},
    {"compact", "k=turbo4,v=turbo3", "the smallest that is still worth using for most models"},
};

absl::Status CheckImplemented(absl::string_view tensor, int layer, Codec codec) {
  if (TraitsOf(codec).implemented) return absl::OkStatus();
  return absl::UnimplementedError(absl::StrCat("policy: ", tensor, " codec ", CodecName(codec),
                                               " of layer ", layer, " is not implemented yet"));
}

absl::Status CheckOnly(absl::string_view key, int value, int implemented) {
  if (value == implemented) return absl::OkStatus();
  return absl::UnimplementedError(absl::StrCat(
      "policy: ", key, "=", value, " is not implemented yet; only ", key, "=", implemented, " is"));
}

std::string LayersText(size_t first, size_t last) {
  return first == last ? absl::StrCat(first) : absl::StrCat(first, "-", last);
}

}  // namespace

absl::Span<const Preset> PolicyPresets() { return kPresets; }

absl::StatusOr<std::vector<LayerCodecs>> Policy::Expand(int layers) const {
  if (layers < 1 || layers > kMaxLayers) {
    return absl::InvalidArgumentError(
        absl::StrCat("policy: layers ", layers, " is not in 1..", kMaxLayers));
  }
  TURBOKV_RETURN_IF_ERROR(CheckOnly("recent", recent_tokens_, kRecentTokens));
  TURBOKV_RETURN_IF_ERROR(CheckOnly("sinks", sink_tokens_, kSinkTokens));

  std::vector<LayerCodecs> expanded(layers);
  std::vector<bool> named(layers, covers_all_layers_);
  for (const Rule& rule : rules_) {
    const std::vector<LayerRange> all_layers = {{0, layers - 1}};
    for (const LayerRange& range : rule.layers.empty() ? all_layers : rule.layers) {
      if (range.last >= layers) {
        return absl::InvalidArgumentError(absl::StrCat("policy: it names layer ", range.last,
                                                       ", and there are ", layers, " layers, 0..",
                                                       layers - 1));
      }
      for (int layer = range.first; layer <= range.last; ++layer) {
        if (rule.has_k) expanded[layer].k = rule.k;
        if (rule.has_v) expanded[layer].v = rule.v;
        named[layer] = true;
      }
    }
  }
  for (int layer = 0; layer < layers; ++layer) {
    LayerCodecs& codecs = expanded[layer];
    if (!named[layer]) {
      return absl::InvalidArgumentError(
          absl::StrCat("policy: layer ", layer, " of ", layers,
                       " has no codec; the form codec:layers names every layer"));
    }
    TURBOKV_RETURN_IF_ERROR(CheckImplemented("k", layer, codecs.k));
    TURBOKV_RETURN_IF_ERROR(CheckImplemented("v", layer, codecs.v));
    codecs.k_mean = k_mean_ && TraitsOf(codecs.k).scale_kind != ScaleKind::kNone;
  }
  return expanded;
}

std::string CanonicalPolicy(const std::vector<LayerCodecs>& layers) {
  std::vector<std::string> runs;
  for (size_t first = 0; first < layers.size();) {
    const LayerCodecs& codecs = layers[first];
    size_t end = first + 1;
    while (end < layers.size() && layers[end] == codecs) ++end;
    runs.push_back(absl::StrCat(LayersText(first, end - 1), ":k=", CodecName(codecs.k), ",v=",
                                CodecName(codecs.v), ",kmean=", codecs.k_mean ? "on" : "off"));
    first = end;
  }
  return absl::StrJoin(runs, ";");
}

}  // namespace turbokv
