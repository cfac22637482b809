// turbokvd in a child process.
#pragma once

#include <sys/types.h>

#include <string>

#include "absl/status/statusor.h"
#include "server/config/config.h"

namespace turbokv::bench {

// Ends the program with the reason unless `value` is OK.
void Require(const absl::Status& status);
template <typename T>
T Require(absl::StatusOr<T> value) {
  Require(value.status());
  return *std::move(value);
}

// Forked before this process uses gRPC or a GPU; ends with this object.
class ServerProcess {
 public:
  // With gpu_memory, the GPUs of this machine hold pages, if the build has CUDA.
  explicit ServerProcess(const ServerConfig& config);
  ~ServerProcess();

  int port() const { return port_; }

 private:
  pid_t child_ = 0;
  int life_ = 0;  // the child ends when this is closed
  int port_ = 0;
};

}  // namespace turbokv::bench
