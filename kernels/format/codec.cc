#include "kernels/format/codec.h"

#include <iterator>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "kernels/format/quote.h"

namespace turbokv {
namespace {

using enum NibbleOrder;
using enum ScaleKind;

constexpr CodecTraits kCodecs[] = {
    {Codec::kBf16, "bf16", 16, false, kNone, kAffine, true},
    {Codec::kFp16, "fp16", 16, false, kNone, kAffine, true},
    {Codec::kFp8E4m3, "fp8_e4m3", 8, false, kHeadFp32, kAffine, true},
    {Codec::kQ8_0, "q8_0", 8, false, kBlockFp16, kAffine, true},
    {Codec::kQ4_0, "q4_0", 4, false, kBlockFp16, kAffine, true},
    {Codec::kInt8, "int8", 8, true, kGroupStepMinFp16, kAffine, true},
    {Codec::kInt6, "int6", 6, true, kGroupStepMinFp16, kAffine, true},
    {Codec::kInt5, "int5", 5, true, kGroupStepMinFp16, kAffine, true},
    {Codec::kInt4, "int4", 4, true, kGroupStepMinFp16, kAffine, true},
    {Codec::kTurbo4, "turbo4", 4, true, kGroupFp16, kTable, true},
    {Codec::kTurbo3, "turbo3", 3, true, kGroupFp16, kTable, true},
    {Codec::kTurbo2, "turbo2", 2, true, kGroupFp16, kTable, true},
    {Codec::kTurbo3Tcq, "turbo3_tcq", 3, true, kGroupFp16, kTable, false},
    {Codec::kTurbo2Tcq, "turbo2_tcq", 2, true, kGroupFp16, kTable, false},
    {Codec::kTurbo4Tcq, "turbo4_tcq", 4, true, kGroupFp16, kTable, false},
    {Codec::kKlt4, "klt4", 4, true, kGroupFp16, kTable, false},
    {Codec::kKlt3, "klt3", 3, true, kGroupFp16, kTable, false},
    {Codec::kKlt2, "klt2", 2, true, kGroupFp16, kTable, false},
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
