// Codecs: how one K or V vector becomes bytes. Values and numbers: docs/formats/codecs.md.
#pragma once

#include <cstdint>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "kernels/format/codec_id.h"

namespace turbokv {

struct CodecTraits : CodecFacts {
  Codec codec;
  absl::string_view name;
  bool implemented;
};

// Every codec of the enum, implemented or not.
absl::Span<const CodecTraits> AllCodecs();

// Precondition: `codec` is a value of the enum.
const CodecTraits& TraitsOf(Codec codec);

// The codec stored as `id`; INVALID_ARGUMENT for an unknown id.
absl::StatusOr<Codec> CodecFromId(uint8_t id);

// The codec called `name` ("turbo3"); INVALID_ARGUMENT lists the known names. Says nothing about
// whether it is implemented.
absl::StatusOr<Codec> CodecFromName(absl::string_view name);

inline absl::string_view CodecName(Codec codec) { return TraitsOf(codec).name; }

}  // namespace turbokv
