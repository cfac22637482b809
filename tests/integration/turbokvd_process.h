// turbokvd as a child process.
#pragma once

#include <sys/types.h>

#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "base/mutex.h"
#include "client/channel.h"

namespace turbokv::testing {

class TurbokvdProcess {
 public:
  // `flags` after "--listen 127.0.0.1:0 --metrics-listen 127.0.0.1:0", unless they name these.
  explicit TurbokvdProcess(std::vector<std::string> flags);
  ~TurbokvdProcess();  // kills what still runs

  // Port of its "listening" line; 0 when it ended without one.
  int WaitForPort();
  void Signal(int signal);
  // Exit status, or -1 after twenty seconds.
  int WaitForExit();

  std::string log();
  size_t PeakMemoryBytes() const;  // VmHWM
  std::shared_ptr<CacheChannel> Connect(const std::string& client = "default");

 private:
  void ReadLog(int fd);

  pid_t pid_ = 0;
  int exit_status_ = -1;
  std::thread reader_;
  Mutex mutex_;
  CondVar changed_;
  std::string log_ ABSL_GUARDED_BY(mutex_);
  bool closed_ ABSL_GUARDED_BY(mutex_) = false;
};

}  // namespace turbokv::testing
