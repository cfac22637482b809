// Policies: which codec each layer's K and V take when they are stored.
//
//   policy   = rules | llama | name
//   rules    = rule { ";" rule }
//   rule     = [ layers ":" ] key "=" value { "," key "=" value }
//   layers   = range { "," range },  range = first [ "-" last ]         (inclusive)
//   keys     k, v            a codec name
//            policy          a preset name, only in the first, unlayered rule
//            kmean           on | off, only in the first, unlayered rule
//            recent          tokens of the exact tail, likewise (128 is what is implemented)
//            sinks           tokens of exact first pages, likewise (0 is what is implemented)
//   llama    = codec ":" layers { "," codec ":" layers }                 (K and V alike)
//   name     = a preset or a codec (K and V alike)
//
// Examples: "k=q8_0,v=turbo4;0-1,30-31:k=bf16,v=bf16", "turbo3:0-31,q8_0:32-39", "balanced".
// The last rule that matches a layer wins, key by key. K and V default to the default policy's.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "kernels/format/codec.h"
#include "kernels/format/page_layout.h"

namespace turbokv {

inline constexpr absl::string_view kDefaultPolicy = "balanced";
inline constexpr int kMaxLayers = 1024;
inline constexpr size_t kMaxPolicyBytes = 4096;

struct LayerCodecs {
  Codec k = Codec::kInt5;
  Codec v = Codec::kInt5;
  bool k_mean = true;  // false where K is unquantized or kmean=off

  bool operator==(const LayerCodecs&) const = default;
};

struct Preset {
  absl::string_view name;
  absl::string_view rules;
  absl::string_view summary;
};
absl::Span<const Preset> PolicyPresets();

// A parsed policy for any number of layers.
class Policy {
 public:
  // Untrusted input. INVALID_ARGUMENT quotes the offending part and says what is expected there.
  static absl::StatusOr<Policy> Parse(absl::string_view text);

  // The codecs of layers 0..layers-1. INVALID_ARGUMENT: a rule names a layer >= `layers`, or (the
  // llama form) a layer has no codec. UNIMPLEMENTED: a layer takes a codec, a `recent` or a `sinks`
  // that is not implemented yet; the message names it.
  absl::StatusOr<std::vector<LayerCodecs>> Expand(int layers) const;

  int recent_tokens() const { return recent_tokens_; }
  int sink_tokens() const { return sink_tokens_; }

 private:
  struct LayerRange {
    int first;
    int last;
  };
  struct Rule {
    std::vector<LayerRange> layers;  // empty: every layer
    bool has_k = false;
    bool has_v = false;
    Codec k = Codec::kInt5;
    Codec v = Codec::kInt5;
  };
  friend class PolicyParser;

  std::vector<Rule> rules_;
  bool covers_all_layers_ = true;  // false for the llama form: every layer must be named
  bool k_mean_ = true;
  int recent_tokens_ = 128;
  int sink_tokens_ = 0;
};

// The canonical text of an expansion, hashed into cache-spec fingerprints: equal policies written
// differently give equal text, e.g. "0-3:k=int5,v=int5,kmean=on".
std::string CanonicalPolicy(const std::vector<LayerCodecs>& layers);

inline PageShape ShapeOf(const LayerCodecs& codecs, int kv_heads, int head_dim) {
  return {kv_heads, head_dim, codecs.k, codecs.v, codecs.k_mean};
}

}  // namespace turbokv
