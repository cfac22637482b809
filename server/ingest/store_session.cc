#include "server/ingest/store_session.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "server/ingest/page_sink.h"
#include "server/ingest/raw_sink.h"

namespace turbokv {
namespace {

std::vector<ReserveRequest> Reservations(const StorePlan& plan, PoolId pool) {
  std::vector<ReserveRequest> requests;
  requests.reserve(plan.block_keys.size() + 1);
  if (!plan.block_keys.empty()) {
    const auto geometry = EntryGeometry::ForBlock(*plan.spec);
    for (const Digest& key : plan.block_keys)
      requests.push_back({key, geometry, kPageTokens, pool});
  }
  if (plan.tail_key) {
    requests.push_back(
        {*plan.tail_key, EntryGeometry::ForTail(*plan.spec), plan.tail_tokens, kHostPool});
  }
  return requests;
}

// Bytes of a page that hold K: header and padding count as V's.
int64_t KeptKBytes(const PageLayout& layout) {
  return static_cast<int64_t>(layout.k_codes.size_bytes + layout.k_scales.size_bytes +
                              layout.k_mean.size_bytes) *
         layout.shape.kv_heads;
}

}  // namespace

absl::StatusOr<std::unique_ptr<StoreSession>> StoreSession::Open(
    const StoreEnvironment& environment, const ClientIdentity& owner, StorePlan plan,
    std::optional<PoolId> pool) {
  std::unique_ptr<StoreSession> session(new StoreSession(environment));
  StoreTarget& target = session->target_;
  target.plan = std::move(plan);
  const bool raw = target.plan.encoding == StoreEncoding::kRaw;
  if (raw) {
    TURBOKV_ASSIGN_OR_RETURN(session->staging_,
                             environment.staging->Take(target.plan.raw_page_bytes()));
  }
  TURBOKV_RETURN_IF_ERROR(session->ReserveEntries(owner, pool));
  if (raw) {
    session->sink_ =
        std::make_unique<RawSink>(&target, environment.encoder, &session->encode_time_);
  } else {
    session->sink_ = std::make_unique<PageSink>(&target);
  }
  return session;
}

// On the spec's device, or, where that has no room or fails, in the host memory behind it.
absl::Status StoreSession::ReserveEntries(const ClientIdentity& owner,
                                          std::optional<PoolId> wanted_pool) {
  DeviceSet* const devices = environment_.devices;
  const StorePlan& plan = target_.plan;
  if (wanted_pool) TURBOKV_RETURN_IF_ERROR(devices->CheckSpec(*wanted_pool, *plan.spec));
  PoolId pool =
      devices == nullptr ? kHostPool : wanted_pool.value_or(devices->PlacementOf(*plan.spec));
  absl::StatusOr<std::vector<PendingEntry>> entries =
      environment_.cache->Reserve(owner, Reservations(plan, pool));
  if (pool != kHostPool && !wanted_pool &&
      (absl::IsResourceExhausted(entries.status()) || absl::IsUnavailable(entries.status()) ||
       absl::IsInvalidArgument(entries.status()))) {
    pool = kHostPool;
    entries = environment_.cache->Reserve(owner, Reservations(plan, pool));
  }
  TURBOKV_RETURN_IF_ERROR(entries.status());
  target_.blocks = *std::move(entries);
  if (plan.tail_key) {
    target_.tail = std::move(target_.blocks.back());
    target_.blocks.pop_back();
  }
  target_.device = pool == kHostPool ? nullptr : devices->device(pool);
  return absl::OkStatus();
}

absl::Status StoreSession::Add(const StoreChunk& chunk) {
  CountReceived(chunk.bytes);
  return sink_->Add(chunk);
}

void StoreSession::CountReceived(size_t bytes) {
  received_bytes_ += static_cast<int64_t>(bytes);
  environment_.metrics->CountStoredBytes(static_cast<int64_t>(bytes));
}

absl::StatusOr<DeviceRun> StoreSession::AddRun(const BlockRun& run, size_t max_run_bytes) {
  const StorePlan& plan = target_.plan;
  TURBOKV_RETURN_IF_ERROR(sink_->Skip(run));
  DeviceRun checked;
  checked.encoding = plan.encoding;
  checked.layout = plan.spec->layer_layouts[run.layer];
  checked.type = plan.spec->spec.source_type;
  checked.first_block = static_cast<int64_t>(run.first_block);
  checked.identity.layer = run.layer;
  checked.identity.first_token =
      static_cast<uint64_t>(plan.first_token + checked.first_block * kPageTokens);
  checked.identity.spec_id = plan.spec->spec_id();
  const size_t page_bytes =
      plan.encoding == StoreEncoding::kRaw ? plan.raw_page_bytes() : checked.layout.page_bytes;
  checked.run_bytes = run.block_count * page_bytes;
  if (checked.run_bytes > max_run_bytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("layer ", run.layer, ": block_count ", run.block_count, " makes a run of ",
                     checked.run_bytes, " bytes; expected at most ", max_run_bytes));
  }
  for (uint32_t i = 0; i < run.block_count; ++i) {
    const PendingEntry& entry = target_.blocks[run.first_block + i];
    checked.device_pages.push_back(entry ? entry.page(static_cast<int>(run.layer)).data()
                                         : nullptr);
  }
  CountReceived(checked.run_bytes);
  return checked;
}

absl::StatusOr<StoreSummary> StoreSession::Finish() {
  TURBOKV_RETURN_IF_ERROR(sink_->Finish());
  const StorePlan& plan = target_.plan;
  std::vector<PendingEntry> entries;
  for (PendingEntry& block : target_.blocks) {
    if (block) entries.push_back(std::move(block));
  }
  const int64_t new_blocks = static_cast<int64_t>(entries.size());
  if (target_.tail) entries.push_back(std::move(target_.tail));
  const int64_t published = environment_.cache->Publish(std::move(entries));

  StoreSummary summary;
  // What somebody else published meanwhile is there as well: it counts as present.
  summary.stored_blocks = std::min(published, new_blocks);
  summary.present_blocks = plan.blocks() - summary.stored_blocks;
  summary.stored_tail = plan.tail_key.has_value();
  summary.raw_bytes = received_bytes_;
  if (plan.encoding == StoreEncoding::kPages) {
    summary.raw_bytes =
        plan.blocks() * plan.spec->spec.layers * static_cast<int64_t>(plan.raw_page_bytes());
  }
  summary.kept_bytes = summary.stored_blocks * static_cast<int64_t>(plan.spec->block_bytes());
  summary.encode_time = encode_time_;
  CountPages(summary.stored_blocks);
  return summary;
}

void StoreSession::CountPages(int64_t blocks) const {
  const int64_t raw_bytes = static_cast<int64_t>(target_.plan.raw_page_bytes()) / 2;
  for (const PageLayout& layout : target_.plan.spec->layer_layouts) {
    const int64_t k_bytes = KeptKBytes(layout);
    const int64_t v_bytes = static_cast<int64_t>(layout.page_bytes) - k_bytes;
    for (int64_t block = 0; block < blocks; ++block) {
      environment_.metrics->CountPage(PageTensor::kK, layout.shape.k_codec, raw_bytes, k_bytes);
      environment_.metrics->CountPage(PageTensor::kV, layout.shape.v_codec, raw_bytes, v_bytes);
    }
  }
}

}  // namespace turbokv
