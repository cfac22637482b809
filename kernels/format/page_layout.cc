#include "kernels/format/page_layout.h"

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "base/status_macros.h"

namespace turbokv {
namespace {

absl::Status CheckImplemented(absl::string_view tensor, Codec codec) {
  if (TraitsOf(codec).implemented) return absl::OkStatus();
  return absl::UnimplementedError(
      absl::StrCat(tensor, " codec ", CodecName(codec), " is not implemented yet"));
}

absl::Status Validate(const PageShape& shape) {
  TURBOKV_RETURN_IF_ERROR(ValidateHeadDim(shape.head_dim));
  if (shape.kv_heads < 1 || shape.kv_heads > kMaxKvHeads) {
    return absl::InvalidArgumentError(
        absl::StrCat("kv_heads ", shape.kv_heads, " is not in 1..", kMaxKvHeads));
  }
  TURBOKV_RETURN_IF_ERROR(CheckImplemented("k", shape.k_codec));
  TURBOKV_RETURN_IF_ERROR(CheckImplemented("v", shape.v_codec));
  if (shape.k_mean && TraitsOf(shape.k_codec).scale_kind == ScaleKind::kNone) {
    return absl::InvalidArgumentError(absl::StrCat("k codec ", CodecName(shape.k_codec),
                                                   " is not quantized: it takes no K mean"));
  }
  return absl::OkStatus();
}

// Appends a section of `size_bytes`, aligned, at *end_bytes.
Section Append(size_t size_bytes, size_t* end_bytes) {
  const Section section{*end_bytes, size_bytes};
  const size_t units = (size_bytes + kSectionAlignmentBytes - 1) / kSectionAlignmentBytes;
  *end_bytes += units * kSectionAlignmentBytes;
  return section;
}

}  // namespace

size_t CodeBytes(Codec codec, int head_dim) {
  return size_t{kPageTokens} * PaddedHeadDim(codec, head_dim) * TraitsOf(codec).code_bits / 8;
}

size_t ScaleBytes(Codec codec, int head_dim) {
  constexpr size_t kFp16RowBytes = size_t{kPageTokens} * 2;
  switch (TraitsOf(codec).scale_kind) {
    case ScaleKind::kNone:
      return 0;
    case ScaleKind::kHeadFp32:
      return 4;
    case ScaleKind::kBlockFp16:
      return PaddedHeadDim(codec, head_dim) / kScaleBlockChannels * kFp16RowBytes;
    case ScaleKind::kGroupFp16:
      return GroupsOf(head_dim).count * kFp16RowBytes;
    case ScaleKind::kGroupStepMinFp16:
      return 2 * GroupsOf(head_dim).count * kFp16RowBytes;
  }
  return 0;
}

absl::StatusOr<PageLayout> PageLayout::For(const PageShape& shape) {
  TURBOKV_RETURN_IF_ERROR(Validate(shape));
  PageLayout layout;
  layout.shape = shape;
  layout.k_padded_dim = PaddedHeadDim(shape.k_codec, shape.head_dim);
  layout.v_padded_dim = PaddedHeadDim(shape.v_codec, shape.head_dim);
  size_t end_bytes = 0;
  layout.k_codes = Append(CodeBytes(shape.k_codec, shape.head_dim), &end_bytes);
  layout.k_scales = Append(ScaleBytes(shape.k_codec, shape.head_dim), &end_bytes);
  layout.k_mean = Append(shape.k_mean ? size_t{2} * shape.head_dim : 0, &end_bytes);
  layout.v_codes = Append(CodeBytes(shape.v_codec, shape.head_dim), &end_bytes);
  layout.v_scales = Append(ScaleBytes(shape.v_codec, shape.head_dim), &end_bytes);
  layout.slice_bytes = end_bytes;
  layout.page_bytes = layout.SliceOffset(shape.kv_heads);
  return layout;
}

double BitsPerValue(const PageLayout& layout) {
  const double values = 2.0 * kPageTokens * layout.shape.kv_heads * layout.shape.head_dim;
  return 8.0 * layout.page_bytes / values;
}

}  // namespace turbokv
