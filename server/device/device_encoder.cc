#include "server/device/device_encoder.h"

#include <algorithm>
#include <utility>

#include "absl/memory/memory.h"
#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/status_macros.h"
#include "kernels/cpu/non_finite.h"

namespace turbokv {
namespace {

// Of K (or V) of a raw page.
size_t TensorBytes(const EncodeRequest& request) {
  const PageShape& shape = request.targets[0].layout->shape;
  return size_t{kPageTokens} * shape.kv_heads * shape.head_dim * ValueBytes(request.type);
}

// Whether both can be in one batch, if their tokens follow each other.
bool OfOneRun(const EncodeRequest& a, const EncodeRequest& b) {
  return a.type == b.type && a.identity.layer == b.identity.layer &&
         a.identity.generation == b.identity.generation &&
         a.identity.spec_id == b.identity.spec_id &&
         std::equal(a.targets.begin(), a.targets.end(), b.targets.begin(), b.targets.end(),
                    [](const EncodeTarget& x, const EncodeTarget& y) {
                      return x.layout->shape == y.layout->shape;
                    });
}

// OK when all values are finite.
absl::Status CheckFinite(const EncodeRequest& request) {
  const PageShape& shape = request.targets[0].layout->shape;
  const KvView kv =
      NhdView(request.type, request.slot.data(), request.slot.data() + TensorBytes(request),
              kPageTokens, shape.kv_heads, shape.head_dim);
  const std::string where =
      cpu::DescribeNonFinite(kv, shape, static_cast<int64_t>(request.identity.first_token));
  if (where.empty()) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("layer ", request.identity.layer, ": ", where));
}

}  // namespace

absl::StatusOr<std::unique_ptr<DeviceEncoder>> DeviceEncoder::Create(
    Device* device, const DeviceEncoderOptions& options) {
  if (options.max_page_bytes == 0 || options.lanes < 1 || options.pages_per_batch < 1) {
    return absl::InvalidArgumentError(
        absl::StrCat("encoder of ", options.lanes, " lanes of ", options.pages_per_batch,
                     " pages of ", options.max_page_bytes, " bytes: all must be positive"));
  }
  auto encoder = absl::WrapUnique(new DeviceEncoder(options));
  TURBOKV_RETURN_IF_ERROR(encoder->MakeLanes(device));
  encoder->thread_ = std::thread([raw = encoder.get()] { raw->Run(); });
  return encoder;
}

absl::Status DeviceEncoder::MakeLanes(Device* device) {
  MutexLock lock(&mutex_);
  for (int i = 0; i < options_.lanes; ++i) {
    auto lane = std::make_unique<Lane>();
    TURBOKV_ASSIGN_OR_RETURN(lane->device_staging,
                             device->AllocateDevice(options_.max_page_bytes *
                                                    static_cast<size_t>(options_.pages_per_batch)));
    TURBOKV_ASSIGN_OR_RETURN(lane->stream, device->MakeStream());
    idle_.push_back(lane.get());
    lanes_.push_back(std::move(lane));
  }
  return absl::OkStatus();
}

DeviceEncoder::~DeviceEncoder() {
  {
    MutexLock lock(&mutex_);
    stopping_ = true;
    changed_.notify_all();
  }
  if (thread_.joinable()) thread_.join();
}

void DeviceEncoder::Submit(EncodeRequest request, EncodeCompletion* completion) {
  Check(bool{request.slot}, "a raw page lies in a staging slot");
  Check(!request.targets.empty(), "a raw page has a target");
  const size_t page_bytes = 2 * TensorBytes(request);
  Check(page_bytes <= options_.max_page_bytes && page_bytes <= request.slot.size_bytes(),
        "a raw page fits its slots");
  completion->Begin();
  MutexLock lock(&mutex_);
  waiting_.push_back({std::move(request), completion});
  changed_.notify_all();
}

DeviceEncoder::Stats DeviceEncoder::stats() const {
  MutexLock lock(&mutex_);
  Stats stats = stats_;
  stats.waiting_pages = static_cast<int64_t>(waiting_.size());
  return stats;
}

void DeviceEncoder::Run() {
  while (Step()) {
  }
}

bool DeviceEncoder::Step() {
  Lane* arrived = nullptr;
  Lane* lane = nullptr;
  {
    MutexLock lock(&mutex_);
    while (arrived_.empty() && (waiting_.empty() || idle_.empty())) {
      if (stopping_ && waiting_.empty() && idle_.size() == lanes_.size()) return false;
      changed_.wait(mutex_);
    }
    if (!arrived_.empty()) {
      arrived = arrived_.front();
      arrived_.erase(arrived_.begin());
    } else {
      lane = idle_.back();
      idle_.pop_back();
      lane->batch = TakeBatchLocked();
    }
  }
  if (lane != nullptr) {
    Launch(lane);
    return true;
  }
  Finish(arrived);
  MutexLock lock(&mutex_);
  idle_.push_back(arrived);
  return true;
}

std::vector<DeviceEncoder::Page> DeviceEncoder::TakeBatchLocked() {
  std::vector<Page> batch;
  batch.push_back(std::move(waiting_.front()));
  waiting_.pop_front();
  // What follows was submitted later: one pass finds it, past pages of other stores.
  for (auto page = waiting_.begin();
       page != waiting_.end() && batch.size() < static_cast<size_t>(options_.pages_per_batch);) {
    const Page& last = batch.back();
    if (page->completion == last.completion && OfOneRun(page->request, last.request) &&
        page->request.identity.first_token == last.request.identity.first_token + kPageTokens) {
      batch.push_back(std::move(*page));
      page = waiting_.erase(page);
    } else {
      ++page;
    }
  }
  return batch;
}

void DeviceEncoder::Launch(Lane* lane) {
  const absl::Status enqueued = Enqueue(lane);
  // Even after an error: what was enqueued before it still reads the slots.
  lane->stream->Notify([this, lane, enqueued](const absl::Status& status) {
    MutexLock lock(&mutex_);
    lane->status = enqueued.ok() ? status : enqueued;
    arrived_.push_back(lane);
    changed_.notify_all();
  });
}

absl::Status DeviceEncoder::Enqueue(Lane* lane) {
  const EncodeRequest& first = lane->batch[0].request;
  const PageShape& shape = first.targets[0].layout->shape;
  const size_t tensor_bytes = TensorBytes(first);
  uint8_t* device_k = lane->device_staging->data();
  uint8_t* device_v = device_k + lane->batch.size() * tensor_bytes;
  lane->verdicts.assign(first.targets.size(), {});

  DeviceEncode work;
  work.type = first.type;
  work.device_k = device_k;
  work.device_v = device_v;
  work.token_stride = int64_t{shape.kv_heads} * shape.head_dim;
  work.head_stride = shape.head_dim;
  work.identity = first.identity;
  for (const Page& page : lane->batch) {
    const uint8_t* raw = page.request.slot.data();
    TURBOKV_RETURN_IF_ERROR(lane->stream->CopyToDevice(device_k, raw, tensor_bytes));
    TURBOKV_RETURN_IF_ERROR(lane->stream->CopyToDevice(device_v, raw + tensor_bytes, tensor_bytes));
    device_k += tensor_bytes;
    device_v += tensor_bytes;
  }
  for (size_t target = 0; target < first.targets.size(); ++target) {
    work.layout = *first.targets[target].layout;
    work.device_pages.clear();
    for (const Page& page : lane->batch) {
      work.device_pages.push_back(page.request.targets[target].device_page);
    }
    TURBOKV_RETURN_IF_ERROR(lane->stream->Encode(work, &lane->verdicts[target]));
  }
  return absl::OkStatus();
}

void DeviceEncoder::Finish(Lane* lane) {
  absl::Status error = lane->status;
  int64_t bad_page = -1;
  for (const DeviceVerdict& verdict : lane->verdicts) {
    bad_page = std::max(bad_page, verdict.bad_page);
  }
  if (error.ok() && bad_page >= 0) {
    // The verdict names the last such page; what a client should read about is the first.
    for (const Page& page : lane->batch) {
      error = CheckFinite(page.request);
      if (!error.ok()) break;
    }
    if (error.ok()) {
      const PageIdentity& identity = lane->batch[static_cast<size_t>(bad_page)].request.identity;
      error = absl::InvalidArgumentError(absl::StrCat("layer ", identity.layer,
                                                      ": a value of the page at token ",
                                                      identity.first_token, " is not finite"));
    }
  }
  EncodeCompletion* const completion = lane->batch[0].completion;
  const auto pages = static_cast<int64_t>(lane->batch.size());
  lane->batch.clear();  // and with it the slots
  {
    MutexLock lock(&mutex_);
    stats_.pages += static_cast<uint64_t>(pages);
    ++stats_.batches;
  }
  completion->End(pages, error);
}

}  // namespace turbokv
