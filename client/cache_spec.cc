#include "client/cache_spec.h"

#include <openssl/evp.h>

#include <algorithm>
#include <bit>
#include <cstdlib>
#include <cstring>
#include <memory>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"

namespace turbokv {
namespace {

static_assert(std::endian::native == std::endian::little, "integers are hashed as they are");

// SHA-256 of what is added, piece by piece. OpenSSL fails here only without memory or without the
// algorithm: neither is an input's fault, so both end the process.
class Sha256 {
 public:
  Sha256() : context_(EVP_MD_CTX_new(), &EVP_MD_CTX_free) {
    static const EVP_MD* const kAlgorithm = EVP_MD_fetch(nullptr, "SHA256", nullptr);
    Require(context_ != nullptr && kAlgorithm != nullptr &&
            EVP_DigestInit_ex2(context_.get(), kAlgorithm, nullptr) == 1);
  }

  void AddBytes(const void* data, size_t size) {
    Require(EVP_DigestUpdate(context_.get(), data, size) == 1);
  }
  void AddText(absl::string_view text) { AddBytes(text.data(), text.size()); }
  void AddDigest(const Digest& digest) { AddBytes(digest.data(), digest.size()); }
  void AddUint32(uint32_t value) { AddBytes(&value, sizeof(value)); }
  // Length first, so that no two sequences of fields run together the same way.
  void AddField(absl::string_view text) {
    AddUint32(static_cast<uint32_t>(text.size()));
    AddText(text);
  }
  void AddTokens(absl::Span<const int32_t> token_ids) {
    AddBytes(token_ids.data(), token_ids.size() * sizeof(int32_t));
  }

  // Ends this digest and begins the next.
  Digest Finish() {
    Digest digest;
    unsigned int size = 0;
    Require(EVP_DigestFinal_ex(context_.get(), digest.data(), &size) == 1 &&
            size == digest.size() && EVP_DigestInit_ex2(context_.get(), nullptr, nullptr) == 1);
    return digest;
  }

 private:
  static void Require(bool succeeded) {
    if (!succeeded) std::abort();
  }

  std::unique_ptr<EVP_MD_CTX, decltype(&EVP_MD_CTX_free)> context_;
};

absl::Status CheckText(absl::string_view field, absl::string_view text) {
  if (text.size() <= kMaxSpecTextBytes) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("spec: ", field, " has ", text.size(),
                                                 " bytes; the limit is ", kMaxSpecTextBytes));
}

absl::Status CheckRange(absl::string_view field, int64_t value, int64_t min, int64_t max) {
  if (value >= min && value <= max) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("spec: ", field, " ", value, " is not in ", min, "..", max));
}

absl::Status CheckFields(const CacheSpec& spec) {
  if (spec.model_id.empty()) return absl::InvalidArgumentError("spec: model_id is empty");
  TURBOKV_RETURN_IF_ERROR(CheckText("model_id", spec.model_id));
  TURBOKV_RETURN_IF_ERROR(CheckText("model_revision", spec.model_revision));
  TURBOKV_RETURN_IF_ERROR(CheckText("adapter", spec.adapter));
  TURBOKV_RETURN_IF_ERROR(CheckText("rope", spec.rope));
  TURBOKV_RETURN_IF_ERROR(CheckRange("layers", spec.layers, 1, kMaxLayers));
  TURBOKV_RETURN_IF_ERROR(CheckRange("kv_heads", spec.kv_heads, 1, kMaxKvHeads));
  if (const absl::Status status = ValidateHeadDim(spec.head_dim); !status.ok()) {
    return absl::InvalidArgumentError(absl::StrCat("spec: ", status.message()));
  }
  TURBOKV_RETURN_IF_ERROR(CheckRange("source_type", static_cast<int>(spec.source_type),
                                     static_cast<int>(ValueType::kBf16),
                                     static_cast<int>(ValueType::kFp32)));
  TURBOKV_RETURN_IF_ERROR(CheckRange("world_size", spec.world_size, 1, kMaxWorldSize));
  return CheckRange("rank", spec.rank, 0, spec.world_size - 1);
}

absl::StatusOr<std::vector<PageLayout>> LayoutsOf(const CacheSpec& spec,
                                                  const std::vector<LayerCodecs>& layers) {
  std::vector<PageLayout> layouts;
  layouts.reserve(layers.size());
  size_t block_bytes = 0;
  for (const LayerCodecs& codecs : layers) {
    TURBOKV_ASSIGN_OR_RETURN(layouts.emplace_back(),
                             PageLayout::For(ShapeOf(codecs, spec.kv_heads, spec.head_dim)));
    block_bytes += layouts.back().page_bytes;
  }
  if (block_bytes > kMaxBlockBytes) {
    return absl::InvalidArgumentError(absl::StrCat(
        "spec: a block of ", spec.layers, " layers, ", spec.kv_heads, " KV heads and head_dim ",
        spec.head_dim, " has ", block_bytes, " bytes; the limit is ", kMaxBlockBytes));
  }
  return layouts;
}

// Tails are kept as the source gave them; fp32 sources are rounded to bf16.
PageShape TailShape(const CacheSpec& spec) {
  const Codec codec = spec.source_type == ValueType::kFp16 ? Codec::kFp16 : Codec::kBf16;
  return {spec.kv_heads, spec.head_dim, codec, codec, /*k_mean=*/false};
}

Digest FingerprintOf(const CacheSpec& spec, const std::vector<LayerCodecs>& layers) {
  Sha256 hash;
  hash.AddField("turbokv cache spec");
  hash.AddUint32(kFormatVersion);
  hash.AddField(spec.model_id);
  hash.AddField(spec.model_revision);
  hash.AddField(spec.adapter);
  hash.AddUint32(spec.layers);
  hash.AddUint32(spec.kv_heads);
  hash.AddUint32(spec.head_dim);
  hash.AddUint32(static_cast<uint32_t>(spec.source_type));
  hash.AddField(spec.rope);
  hash.AddUint32(spec.rank);
  hash.AddUint32(spec.world_size);
  hash.AddUint32(kPageTokens);
  hash.AddField(CanonicalPolicy(layers));
  return hash.Finish();
}

Digest RootParent(const Digest& fingerprint, absl::string_view salt, Sha256* hash) {
  hash->AddDigest(fingerprint);
  hash->AddText(salt);
  return hash->Finish();
}

}  // namespace

uint64_t ResolvedSpec::spec_id() const {
  uint64_t id;
  std::memcpy(&id, fingerprint.data(), sizeof(id));
  return id;
}

size_t ResolvedSpec::raw_token_bytes() const {
  return size_t{2} * spec.kv_heads * spec.head_dim * ValueBytes(spec.source_type);
}

size_t ResolvedSpec::block_bytes() const {
  size_t bytes = 0;
  for (const PageLayout& layout : layer_layouts) bytes += layout.page_bytes;
  return bytes;
}

absl::StatusOr<ResolvedSpec> ResolveSpec(const CacheSpec& spec) {
  TURBOKV_RETURN_IF_ERROR(CheckFields(spec));
  ResolvedSpec resolved;
  resolved.spec = spec;
  TURBOKV_ASSIGN_OR_RETURN(const Policy policy, Policy::Parse(spec.policy));
  TURBOKV_ASSIGN_OR_RETURN(resolved.layer_codecs, policy.Expand(spec.layers));
  TURBOKV_ASSIGN_OR_RETURN(resolved.layer_layouts, LayoutsOf(spec, resolved.layer_codecs));
  TURBOKV_ASSIGN_OR_RETURN(resolved.tail_layout, PageLayout::For(TailShape(spec)));
  resolved.fingerprint = FingerprintOf(spec, resolved.layer_codecs);
  return resolved;
}

std::vector<Digest> BlockKeys(const Digest& fingerprint, absl::string_view salt,
                              absl::Span<const int32_t> token_ids) {
  std::vector<Digest> keys;
  keys.reserve(token_ids.size() / kPageTokens);
  Sha256 hash;
  Digest parent = RootParent(fingerprint, salt, &hash);
  for (; token_ids.size() >= kPageTokens; token_ids.remove_prefix(kPageTokens)) {
    hash.AddDigest(parent);
    hash.AddTokens(token_ids.subspan(0, kPageTokens));
    parent = hash.Finish();
    keys.push_back(parent);
  }
  return keys;
}

Digest TailKey(const Digest& fingerprint, absl::string_view salt,
               absl::Span<const Digest> block_keys, absl::Span<const int32_t> token_ids) {
  Sha256 hash;
  const Digest parent =
      block_keys.empty() ? RootParent(fingerprint, salt, &hash) : block_keys.back();
  hash.AddText("turbokv tail");
  hash.AddDigest(parent);
  hash.AddTokens(token_ids.subspan(std::min(token_ids.size(), block_keys.size() * kPageTokens)));
  return hash.Finish();
}

}  // namespace turbokv
