#include <set>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "base/status_macros.h"
#include "kernels/format/policy.h"
#include "kernels/format/quote.h"

namespace turbokv {
namespace {

constexpr int kMaxExactTokens = 1 << 24;  // of recent= and sinks=, far beyond what will ever be

absl::string_view Trim(absl::string_view text) { return absl::StripAsciiWhitespace(text); }

absl::Status Malformed(absl::string_view expected, absl::string_view found) {
  return absl::InvalidArgumentError(
      absl::StrCat("policy: expected ", expected, ", found ", QuoteForMessage(found)));
}

absl::StatusOr<int> ParseNumber(absl::string_view what, absl::string_view text, int max) {
  const absl::string_view digits = Trim(text);
  int value = 0;
  bool only_digits = !digits.empty();
  for (char c : digits) only_digits = only_digits && absl::ascii_isdigit(c);
  if (!only_digits) return Malformed(what, text);
  if (!absl::SimpleAtoi(digits, &value) || value > max) {
    return absl::InvalidArgumentError(
        absl::StrCat("policy: ", what, " ", QuoteForMessage(digits), " is not in 0..", max));
  }
  return value;
}

absl::StatusOr<Codec> ParseCodec(absl::string_view text) {
  absl::StatusOr<Codec> codec = CodecFromName(Trim(text));
  if (codec.ok()) return codec;
  return absl::InvalidArgumentError(absl::StrCat("policy: ", codec.status().message()));
}

const Preset* FindPreset(absl::string_view name) {
  for (const Preset& preset : PolicyPresets()) {
    if (preset.name == name) return &preset;
  }
  return nullptr;
}

std::string PresetNames() {
  return absl::StrJoin(PolicyPresets(), " ", [](std::string* out, const Preset& preset) {
    absl::StrAppend(out, preset.name);
  });
}

}  // namespace

// Recursive descent by splitting: the grammar has no nesting.
class PolicyParser {
 public:
  absl::StatusOr<Policy> Parse(absl::string_view text) {
    if (absl::StrContains(text, '=')) {
      TURBOKV_RETURN_IF_ERROR(ParseRules(text));
    } else if (absl::StrContains(text, ':')) {
      TURBOKV_RETURN_IF_ERROR(ParseLlamaForm(text));
    } else {
      TURBOKV_RETURN_IF_ERROR(ParseName(Trim(text)));
    }
    return std::move(policy_);
  }

 private:
  absl::Status ParseRules(absl::string_view text) {
    bool is_first = true;
    for (absl::string_view rule : absl::StrSplit(text, ';')) {
      TURBOKV_RETURN_IF_ERROR(ParseRule(rule, is_first));
      is_first = false;
    }
    return absl::OkStatus();
  }

  absl::Status ParseRule(absl::string_view text, bool is_first) {
    if (Trim(text).empty()) {
      return absl::InvalidArgumentError(
          "policy: a rule is empty; rules are separated by one ';', with none at the end");
    }
    Policy::Rule rule;
    absl::string_view assignments = text;
    const size_t colon = text.find(':');
    const bool layered = colon != absl::string_view::npos;
    if (layered) {
      TURBOKV_ASSIGN_OR_RETURN(rule.layers, ParseLayers(text.substr(0, colon)));
      assignments = text.substr(colon + 1);
    }
    std::set<absl::string_view> seen;
    for (absl::string_view assignment : absl::StrSplit(assignments, ',')) {
      const size_t equals = assignment.find('=');
      if (equals == absl::string_view::npos) {
        return Malformed("key=value (a layer list ends with ':')", Trim(assignment));
      }
      const absl::string_view key = Trim(assignment.substr(0, equals));
      const absl::string_view value = Trim(assignment.substr(equals + 1));
      if (!seen.insert(key).second) {
        return absl::InvalidArgumentError(absl::StrCat(
            "policy: key ", QuoteForMessage(key), " is twice in ", QuoteForMessage(Trim(text))));
      }
      TURBOKV_RETURN_IF_ERROR(ParseAssignment(key, value, is_first && !layered, &rule));
    }
    if (rule.has_k || rule.has_v) policy_.rules_.push_back(std::move(rule));
    return absl::OkStatus();
  }

  absl::Status ParseAssignment(absl::string_view key, absl::string_view value, bool may_be_global,
                               Policy::Rule* rule) {
    if (key == "k") {
      rule->has_k = true;
      TURBOKV_ASSIGN_OR_RETURN(rule->k, ParseCodec(value));
      return absl::OkStatus();
    }
    if (key == "v") {
      rule->has_v = true;
      TURBOKV_ASSIGN_OR_RETURN(rule->v, ParseCodec(value));
      return absl::OkStatus();
    }
    if (key != "policy" && key != "kmean" && key != "recent" && key != "sinks") {
      return absl::InvalidArgumentError(absl::StrCat(
          "policy: unknown key ", QuoteForMessage(key),
          "; known: k v, and in the first, unlayered rule: policy kmean recent sinks"));
    }
    if (!may_be_global) {
      return absl::InvalidArgumentError(
          absl::StrCat("policy: key \"", key,
                       "\" holds for all layers: it may be only in the first rule, and "
                       "there without layers"));
    }
    return ParseGlobal(key, value);
  }

  absl::Status ParseGlobal(absl::string_view key, absl::string_view value) {
    if (key == "policy") {
      const Preset* preset = FindPreset(value);
      if (preset == nullptr) {
        return absl::InvalidArgumentError(absl::StrCat(
            "policy: unknown preset ", QuoteForMessage(value), "; known: ", PresetNames()));
      }
      return ParseRules(preset->rules);  // pushed before the rule that names it: that one wins
    }
    if (key == "kmean") {
      if (value != "on" && value != "off") return Malformed("kmean=on or kmean=off", value);
      policy_.k_mean_ = value == "on";
      return absl::OkStatus();
    }
    int* tokens = key == "recent" ? &policy_.recent_tokens_ : &policy_.sink_tokens_;
    TURBOKV_ASSIGN_OR_RETURN(
        *tokens, ParseNumber(absl::StrCat("a count of tokens for ", key), value, kMaxExactTokens));
    return absl::OkStatus();
  }

  static absl::StatusOr<std::vector<Policy::LayerRange>> ParseLayers(absl::string_view text) {
    std::vector<Policy::LayerRange> layers;
    for (absl::string_view range : absl::StrSplit(text, ',')) {
      TURBOKV_ASSIGN_OR_RETURN(layers.emplace_back(), ParseRange(range));
    }
    return layers;
  }

  static absl::StatusOr<Policy::LayerRange> ParseRange(absl::string_view text) {
    const std::pair<absl::string_view, absl::string_view> ends =
        absl::StrSplit(text, absl::MaxSplits('-', 1));
    const bool is_single = !absl::StrContains(text, '-');
    Policy::LayerRange range{};
    TURBOKV_ASSIGN_OR_RETURN(range.first, ParseNumber("a layer", ends.first, kMaxLayers - 1));
    range.last = range.first;
    if (is_single) return range;
    TURBOKV_ASSIGN_OR_RETURN(range.last, ParseNumber("a layer", ends.second, kMaxLayers - 1));
    if (range.last < range.first) {
      return Malformed("layers first-last with first <= last", Trim(text));
    }
    return range;
  }

  // A part without a colon is one more range of the codec before it.
  absl::Status ParseLlamaForm(absl::string_view text) {
    policy_.covers_all_layers_ = false;
    for (absl::string_view part : absl::StrSplit(text, ',')) {
      absl::string_view range = part;
      const size_t colon = part.find(':');
      if (colon != absl::string_view::npos) {
        Policy::Rule rule;
        rule.has_k = rule.has_v = true;
        TURBOKV_ASSIGN_OR_RETURN(rule.k, ParseCodec(part.substr(0, colon)));
        rule.v = rule.k;
        policy_.rules_.push_back(std::move(rule));
        range = part.substr(colon + 1);
      } else if (policy_.rules_.empty()) {
        return Malformed("codec:layers", Trim(part));
      }
      TURBOKV_ASSIGN_OR_RETURN(policy_.rules_.back().layers.emplace_back(), ParseRange(range));
    }
    return absl::OkStatus();
  }

  absl::Status ParseName(absl::string_view name) {
    if (const Preset* preset = FindPreset(name)) return ParseRules(preset->rules);
    Policy::Rule rule;
    rule.has_k = rule.has_v = true;
    const absl::StatusOr<Codec> codec = CodecFromName(name);
    if (!codec.ok()) {
      return absl::InvalidArgumentError(
          absl::StrCat("policy: expected a preset (", PresetNames(),
                       "), a codec, or rules such as \"k=q8_0,v=turbo4;0-1:k=bf16\"; ",
                       codec.status().message()));
    }
    rule.k = rule.v = *codec;
    policy_.rules_.push_back(std::move(rule));
    return absl::OkStatus();
  }

  Policy policy_;
};

absl::StatusOr<Policy> Policy::Parse(absl::string_view text) {
  if (text.size() > kMaxPolicyBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("policy: it has ", text.size(), " bytes; the limit is ", kMaxPolicyBytes));
  }
  return PolicyParser().Parse(text);
}

}  // namespace turbokv
