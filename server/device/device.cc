#include "server/device/device.h"

#include <memory>
#include <utility>

#include "base/mutex.h"

namespace turbokv {
namespace {

// Shared by who waits and by the callback, which may still be in here when the wait is over.
struct Arrival {
  Mutex mutex;
  CondVar arrived;
  bool done ABSL_GUARDED_BY(mutex) = false;
  absl::Status status ABSL_GUARDED_BY(mutex);
};

}  // namespace

absl::Status DeviceStream::Wait() {
  const auto arrival = std::make_shared<Arrival>();
  Notify([arrival](absl::Status status) {
    MutexLock lock(&arrival->mutex);
    arrival->done = true;
    arrival->status = std::move(status);
    arrival->arrived.notify_all();
  });
  MutexLock lock(&arrival->mutex);
  while (!arrival->done) arrival->arrived.wait(arrival->mutex);
  return arrival->status;
}

}  // namespace turbokv
