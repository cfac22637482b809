#include "server/ingest/device_page_io.h"

#include <utility>

#include "absl/memory/memory.h"
#include "base/status_macros.h"

namespace turbokv {
namespace {

constexpr int kStreams = 4;

}  // namespace

absl::StatusOr<std::unique_ptr<DevicePageIo>> DevicePageIo::Create(Device* device) {
  auto io = absl::WrapUnique(new DevicePageIo);
  for (int i = 0; i < kStreams; ++i) {
    TURBOKV_ASSIGN_OR_RETURN(io->streams_.emplace_back(), device->MakeStream());
  }
  MutexLock lock(&io->mutex_);
  for (const auto& stream : io->streams_) io->idle_.push_back(stream.get());
  return io;
}

absl::Status DevicePageIo::WithStream(const std::function<absl::Status(DeviceStream*)>& enqueue) {
  DeviceStream* stream = nullptr;
  {
    MutexLock lock(&mutex_);
    while (idle_.empty()) returned_.wait(mutex_);
    stream = idle_.back();
    idle_.pop_back();
  }
  const absl::Status status = enqueue(stream);
  {
    MutexLock lock(&mutex_);
    idle_.push_back(stream);
  }
  returned_.notify_one();
  return status;
}

absl::Status DevicePageIo::Read(absl::Span<const DeviceRead> reads) {
  return WithStream([reads](DeviceStream* stream) {
    absl::Status status;
    for (const DeviceRead& read : reads) {
      status = stream->CopyToHost(read.host, read.device, read.bytes);
      if (!status.ok()) break;
    }
    status.Update(stream->Wait());  // also after an error: what was enqueued writes host memory
    return status;
  });
}

absl::Status DevicePageIo::Write(absl::Span<const DeviceWrite> writes) {
  return WithStream([writes](DeviceStream* stream) {
    absl::Status status;
    for (const DeviceWrite& write : writes) {
      status = stream->CopyToDevice(write.device, write.host, write.bytes);
      if (!status.ok()) break;
    }
    status.Update(stream->Wait());
    return status;
  });
}

void DevicePageIo::Upload(StagingRing::Slot slot, size_t bytes, uint8_t* device,
                          EncodeCompletion* completion) {
  completion->Begin();
  // std::function wants to be copied; the slot does not.
  auto held = std::make_shared<StagingRing::Slot>(std::move(slot));
  const absl::Status enqueued = WithStream([&](DeviceStream* stream) {
    const absl::Status status = stream->CopyToDevice(device, held->data(), bytes);
    stream->Notify([held, completion, status](const absl::Status& done) {
      held->reset();
      completion->End(1, status.ok() ? done : status);
    });
    return status;
  });
  enqueued.IgnoreError();  // told to `completion`
}

}  // namespace turbokv
