#include "kernels/format/codec.h"

#include <iterator>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "kernels/format/quote.h"

namespace turbokv {
namespace {

constexpr CodecTraits Traits(Codec codec, absl::string_view name, bool implemented) {
  return {FactsOf(codec), codec, name, implemented};
}

constexpr CodecTraits kCodecs[] = {
    Traits(Codec::kBf16, "bf16", true),
    Traits(Codec::kFp16, "fp16", true),
    Traits(Codec::kFp8E4m3, "fp8_e4m3", true),
    Traits(Codec::kQ8_0, "q8_0", true),
    Traits(Codec::kQ4_0, "q4_0", true),
    Traits(Codec::kInt8, "int8", true),
    Traits(Codec::kInt6, "int6", true),
    Traits(Codec::kInt5, "int5", true),
    Traits(Codec::kInt4, "int4", true),
    Traits(Codec::kTurbo4, "turbo4", true),
    Traits(Codec::kTurbo3, "turbo3", true),
    Traits(Codec::kTurbo2, "turbo2", true),
    Traits(Codec::kTurbo3Tcq, "turbo3_tcq", false),
    Traits(Codec::kTurbo2Tcq, "turbo2_tcq", false),
    Traits(Codec::kTurbo4Tcq, "turbo4_tcq", false),
    Traits(Codec::kKlt4, "klt4", false),
    Traits(Codec::kKlt3, "klt3", false),
    Traits(Codec::kKlt2, "klt2", false),
};

// TraitsOf indexes the table by id.
constexpr bool IdsAreConsecutiveFromOne() {
  int id = 0;
  for (const CodecTraits& traits : kCodecs) {
    if (static_cast<int>(traits.codec) != ++id) return false;
  }
  return true;
}
static_assert(IdsAreConsecutiveFromOne());

}  // namespace

absl::Span<const CodecTraits> AllCodecs() { return kCodecs; }

const CodecTraits& TraitsOf(Codec codec) { return kCodecs[static_cast<int>(codec) - 1]; }

absl::StatusOr<Codec> CodecFromId(uint8_t id) {
  constexpr int kCount = std::size(kCodecs);
  if (id < 1 || id > kCount) {
    return absl::InvalidArgumentError(absl::StrCat("codec id ", id, " is not in 1..", kCount));
  }
  return static_cast<Codec>(id);
}

absl::StatusOr<Codec> CodecFromName(absl::string_view name) {
  for (const CodecTraits& traits : kCodecs) {
    if (traits.name == name) return traits.codec;
  }
  return absl::InvalidArgumentError(absl::StrCat(
      "unknown codec ", QuoteForMessage(name),
      "; known: ", absl::StrJoin(kCodecs, " ", [](std::string* out, const CodecTraits& traits) {
        absl::StrAppend(out, traits.name);
      })));
}

}  // namespace turbokv
