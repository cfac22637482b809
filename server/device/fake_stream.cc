#include "server/device/fake_stream.h"

#include <algorithm>
#include <cstring>
#include <utility>
#include <vector>

#include "base/status_macros.h"
#include "kernels/cpu/codec.h"
#include "server/device/work_checks.h"

namespace turbokv {

FakeStream::FakeStream(FakeMemory* memory, FakeFaults* faults)
    : memory_(memory), faults_(faults), thread_([this] { Run(); }) {}

FakeStream::~FakeStream() {
  {
    MutexLock lock(&mutex_);
    stopping_ = true;
    changed_.notify_all();
  }
  thread_.join();
}

void FakeStream::Run() {
  while (true) {
    Item item;
    {
      MutexLock lock(&mutex_);
      while (items_.empty() && !stopping_) changed_.wait(mutex_);
      if (items_.empty()) return;
      item = std::move(items_.front());
      items_.pop_front();
    }
    item(faults_->BeforeWork());
  }
}

void FakeStream::Enqueue(Item item) {
  MutexLock lock(&mutex_);
  items_.push_back(std::move(item));
  changed_.notify_all();
}

absl::Status FakeStream::EnqueueWork(std::function<void()> work) {
  TURBOKV_RETURN_IF_ERROR(faults_->BeforeCall());
  Enqueue([work = std::move(work)](const absl::Status& health) {
    if (health.ok()) work();
  });
  return absl::OkStatus();
}

void FakeStream::Notify(std::function<void(absl::Status)> done) { Enqueue(std::move(done)); }

absl::Status FakeStream::CopyToDevice(uint8_t* device, const uint8_t* host, size_t bytes) {
  return EnqueueWork([=, this] { std::memcpy(memory_->Translate(device, bytes), host, bytes); });
}

absl::Status FakeStream::CopyToHost(uint8_t* host, const uint8_t* device, size_t bytes) {
  return EnqueueWork([=, this] { std::memcpy(host, memory_->Translate(device, bytes), bytes); });
}

absl::Status FakeStream::CopyPages(absl::Span<const DeviceCopy> copies) {
  TURBOKV_RETURN_IF_ERROR(CheckDeviceCopies(copies));
  return EnqueueWork([this, all = std::vector<DeviceCopy>(copies.begin(), copies.end())] {
    for (const DeviceCopy& copy : all) {
      std::memcpy(memory_->Translate(copy.to, copy.bytes),
                  memory_->Translate(copy.from, copy.bytes), copy.bytes);
    }
  });
}

absl::Status FakeStream::Encode(const DeviceEncode& work, DeviceVerdict* verdict) {
  TURBOKV_RETURN_IF_ERROR(CheckDeviceEncode(work));
  return EnqueueWork([this, work, verdict] {
    int64_t bad_page = -1;
    for (size_t i = 0; i < work.device_pages.size(); ++i) {
      if (work.device_pages[i] != nullptr) EncodePage(work, i, &bad_page);
    }
    if (verdict != nullptr && bad_page >= 0) verdict->bad_page = bad_page;
  });
}

void FakeStream::EncodePage(const DeviceEncode& work, size_t page, int64_t* bad_page) const {
  const PageShape& shape = work.layout.shape;
  const size_t value_bytes = ValueBytes(work.type);
  const auto first = static_cast<int64_t>(page) * kPageTokens;
  const size_t offset_bytes = static_cast<size_t>(first * work.token_stride) * value_bytes;
  const size_t source_bytes =
      static_cast<size_t>((kPageTokens - 1) * work.token_stride +
                          (shape.kv_heads - 1) * work.head_stride + shape.head_dim) *
      value_bytes;
  KvView kv;
  kv.type = work.type;
  kv.k = memory_->Translate(work.device_k + offset_bytes, source_bytes);
  kv.v = memory_->Translate(work.device_v + offset_bytes, source_bytes);
  kv.token_stride = static_cast<ptrdiff_t>(work.token_stride);
  kv.head_stride = static_cast<ptrdiff_t>(work.head_stride);
  kv.tokens = kPageTokens;
  PageIdentity identity = work.identity;
  identity.first_token += static_cast<uint64_t>(first);
  uint8_t* const to = memory_->Translate(work.device_pages[page], work.layout.page_bytes);
  const absl::Status status =
      cpu::EncodePage(work.layout, identity, kv, {to, work.layout.page_bytes});
  if (!status.ok()) *bad_page = std::max(*bad_page, static_cast<int64_t>(page));
}

absl::Status FakeStream::VerifyChecksums(const PageLayout& layout,
                                         absl::Span<const uint8_t* const> device_pages,
                                         DeviceVerdict* verdict) {
  TURBOKV_RETURN_IF_ERROR(CheckDeviceShape(layout.shape));
  TURBOKV_RETURN_IF_ERROR(CheckDevicePages(device_pages, /*may_be_null=*/false));
  std::vector<const uint8_t*> pages(device_pages.begin(), device_pages.end());
  return EnqueueWork([this, layout, verdict, pages = std::move(pages)] {
    for (size_t i = 0; i < pages.size(); ++i) {
      if (!IsIntact(layout, pages[i])) verdict->bad_page = static_cast<int64_t>(i);
    }
  });
}

bool FakeStream::IsIntact(const PageLayout& layout, const uint8_t* device_page) const {
  const absl::StatusOr<PageView> view =
      ParsePage({memory_->Translate(device_page, layout.page_bytes), layout.page_bytes});
  return view.ok() && view->layout.shape == layout.shape && VerifyChecksum(*view).ok();
}

}  // namespace turbokv
