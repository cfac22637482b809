#include "server/ingest/store_plan.h"

#include <cstring>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "server/ingest/staging_budget.h"

namespace turbokv {
namespace {

absl::Status Invalid(absl::string_view field, uint64_t value, absl::string_view expected) {
  return absl::InvalidArgumentError(absl::StrCat(field, " is ", value, "; expected ", expected));
}

absl::Status CheckTokens(const StoreAnnouncement& announcement) {
  constexpr uint64_t kMaxTokens = kMaxBlocksPerRequest * kPageTokens;
  if (announcement.first_token > kMaxTokenPosition) {
    return Invalid("first_token", announcement.first_token,
                   absl::StrCat("at most ", kMaxTokenPosition));
  }
  if (announcement.first_token % kPageTokens != 0) {
    return Invalid("first_token", announcement.first_token,
                   absl::StrCat("a multiple of ", kPageTokens));
  }
  if (announcement.token_count == 0 || announcement.token_count > kMaxTokens) {
    return Invalid("token_count", announcement.token_count, absl::StrCat("1..", kMaxTokens));
  }
  if (announcement.tail_key.empty() && announcement.token_count % kPageTokens != 0) {
    return Invalid("token_count", announcement.token_count,
                   absl::StrCat("a multiple of ", kPageTokens, " (no tail_key is set)"));
  }
  const uint64_t key_bytes = announcement.token_count / kPageTokens * sizeof(Digest);
  if (announcement.block_keys.size() != key_bytes) {
    return Invalid("the length of block_keys", announcement.block_keys.size(),
                   absl::StrCat(key_bytes, ", 32 for each full block of ", announcement.token_count,
                                " tokens"));
  }
  return absl::OkStatus();
}

absl::Status PlanTail(const StoreAnnouncement& announcement, StorePlan* plan) {
  if (announcement.tail_key.empty()) return absl::OkStatus();
  if (announcement.tail_key.size() != sizeof(Digest)) {
    return Invalid("the length of tail_key", announcement.tail_key.size(), "0 or 32");
  }
  if (plan->encoding != StoreEncoding::kRaw) {
    return absl::InvalidArgumentError("tail_key is set: a tail needs the raw encoding");
  }
  const int64_t end = plan->first_token + plan->token_count;
  plan->tail_begin = PackedBlocks(end) * kPageTokens;
  plan->tail_tokens = static_cast<int>(end - plan->tail_begin);
  if (plan->tail_begin < plan->first_token) {
    return absl::InvalidArgumentError(absl::StrCat(
        "first_token ", plan->first_token, " lies inside the tail, which begins at token ",
        plan->tail_begin, " of ", end, "; expected first_token 0 or 256 tokens and more"));
  }
  plan->tail_key.emplace();
  std::memcpy(plan->tail_key->data(), announcement.tail_key.data(), sizeof(Digest));
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::vector<Digest>> SplitKeys(absl::string_view field, absl::string_view keys) {
  if (keys.size() % sizeof(Digest) != 0 || keys.size() / sizeof(Digest) > kMaxBlocksPerRequest) {
    return Invalid(absl::StrCat("the length of ", field), keys.size(),
                   absl::StrCat("32 for each key, at most ", kMaxBlocksPerRequest, " keys"));
  }
  std::vector<Digest> digests(keys.size() / sizeof(Digest));
  if (!digests.empty()) std::memcpy(digests.data(), keys.data(), keys.size());
  return digests;
}

absl::StatusOr<StorePlan> PlanStore(const StoreAnnouncement& announcement) {
  TURBOKV_RETURN_IF_ERROR(CheckTokens(announcement));
  StorePlan plan;
  TURBOKV_ASSIGN_OR_RETURN(ResolvedSpec spec, ResolveSpec(announcement.spec));
  plan.spec = std::make_shared<const ResolvedSpec>(std::move(spec));
  if (plan.raw_page_bytes() > kMaxRawPageBytes) {
    return Invalid("the size of a raw page (128 tokens x kv_heads x head_dim, K and V)",
                   plan.raw_page_bytes(), absl::StrCat("at most ", kMaxRawPageBytes));
  }
  plan.encoding = announcement.encoding;
  plan.first_token = static_cast<int64_t>(announcement.first_token);
  plan.token_count = static_cast<int64_t>(announcement.token_count);
  TURBOKV_ASSIGN_OR_RETURN(plan.block_keys, SplitKeys("block_keys", announcement.block_keys));
  TURBOKV_RETURN_IF_ERROR(PlanTail(announcement, &plan));
  return plan;
}

}  // namespace turbokv
