// A stream of a fake device: a thread that executes what is enqueued, in order.
#pragma once

#include <deque>
#include <functional>
#include <memory>
#include <thread>

#include "base/mutex.h"
#include "server/device/device.h"
#include "server/device/fake_faults.h"
#include "server/device/fake_memory.h"

namespace turbokv {

class FakeStream final : public DeviceStream {
 public:
  // Both outlive this.
  FakeStream(FakeMemory* memory, FakeFaults* faults);
  ~FakeStream() override;

  absl::Status CopyToDevice(uint8_t* device, const uint8_t* host, size_t bytes) override;
  absl::Status CopyToHost(uint8_t* host, const uint8_t* device, size_t bytes) override;
  absl::Status CopyPages(absl::Span<const DeviceCopy> copies) override;
  absl::Status Encode(const DeviceEncode& work, DeviceVerdict* verdict) override;
  absl::Status VerifyChecksums(const PageLayout& layout,
                               absl::Span<const uint8_t* const> device_pages,
                               DeviceVerdict* verdict) override;
  void Notify(std::function<void(absl::Status)> done) override;

 private:
  // What is enqueued is told whether the device still works.
  using Item = std::function<void(absl::Status)>;

  absl::Status EnqueueWork(std::function<void()> work);
  void Enqueue(Item item);
  void Run();
  // Sets `bad_page` to the larger of it and `page` where the page is bad.
  void EncodePage(const DeviceEncode& work, size_t page, int64_t* bad_page) const;
  bool IsIntact(const PageLayout& layout, const uint8_t* device_page) const;

  FakeMemory* const memory_;
  FakeFaults* const faults_;
  Mutex mutex_;
  CondVar changed_;
  std::deque<Item> items_ ABSL_GUARDED_BY(mutex_);
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread thread_;
};

}  // namespace turbokv
