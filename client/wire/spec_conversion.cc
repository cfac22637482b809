#include "client/wire/spec_conversion.h"

#include <limits>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "kernels/format/codec.h"

namespace turbokv {
namespace {

static_assert(static_cast<int>(ValueType::kBf16) == v1::VALUE_TYPE_BF16);
static_assert(static_cast<int>(ValueType::kFp16) == v1::VALUE_TYPE_FP16);
static_assert(static_cast<int>(ValueType::kFp32) == v1::VALUE_TYPE_FP32);

absl::StatusOr<int> ToInt(absl::string_view field, uint32_t value) {
  if (value > static_cast<uint32_t>(std::numeric_limits<int>::max())) {
    return absl::InvalidArgumentError(
        absl::StrCat("spec.", field, " is ", value, ", beyond every limit"));
  }
  return static_cast<int>(value);
}

absl::Status Expect(absl::string_view field, uint32_t value, uint32_t expected) {
  if (value == expected) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("spec.", field, " is ", value, "; this server speaks ", expected));
}

}  // namespace

v1::CacheSpec ToProto(const CacheSpec& spec) {
  v1::CacheSpec proto;
  proto.set_model_id(spec.model_id);
  proto.set_model_revision(spec.model_revision);
  proto.set_adapter(spec.adapter);
  proto.set_layers(spec.layers);
  proto.set_kv_heads(spec.kv_heads);
  proto.set_head_dim(spec.head_dim);
  proto.set_source_type(static_cast<v1::ValueType>(spec.source_type));
  proto.set_rope(spec.rope);
  proto.set_rank(spec.rank);
  proto.set_world_size(spec.world_size);
  proto.set_page_tokens(kPageTokens);
  proto.set_format_version(kFormatVersion);
  proto.set_policy(spec.policy);
  return proto;
}

absl::StatusOr<CacheSpec> FromProto(const v1::CacheSpec& proto) {
  TURBOKV_RETURN_IF_ERROR(Expect("format_version", proto.format_version(), kFormatVersion));
  TURBOKV_RETURN_IF_ERROR(Expect("page_tokens", proto.page_tokens(), kPageTokens));
  if (proto.source_type() < v1::VALUE_TYPE_BF16 || proto.source_type() > v1::VALUE_TYPE_FP32) {
    return absl::InvalidArgumentError(absl::StrCat("spec.source_type is ",
                                                   static_cast<int>(proto.source_type()),
                                                   "; expected 1 (bf16), 2 (fp16) or 3 (fp32)"));
  }
  CacheSpec spec;
  spec.model_id = proto.model_id();
  spec.model_revision = proto.model_revision();
  spec.adapter = proto.adapter();
  TURBOKV_ASSIGN_OR_RETURN(spec.layers, ToInt("layers", proto.layers()));
  TURBOKV_ASSIGN_OR_RETURN(spec.kv_heads, ToInt("kv_heads", proto.kv_heads()));
  TURBOKV_ASSIGN_OR_RETURN(spec.head_dim, ToInt("head_dim", proto.head_dim()));
  spec.source_type = static_cast<ValueType>(proto.source_type());
  spec.rope = proto.rope();
  TURBOKV_ASSIGN_OR_RETURN(spec.rank, ToInt("rank", proto.rank()));
  TURBOKV_ASSIGN_OR_RETURN(spec.world_size, ToInt("world_size", proto.world_size()));
  spec.policy = proto.policy();
  return spec;
}

}  // namespace turbokv
