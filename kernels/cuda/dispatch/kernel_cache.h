// Compiled kernels on disk, so that a process does not compile what an earlier one did.
//
// A file is a header (magic, size, CRC32C) and the image. It appears by a rename, so a reader sees
// all of it or nothing; what a crash of the machine or a bad disk leaves is told by the checksum
// and counts as absent. Code is loaded from here, so nobody else may be able to write it: a
// directory or file of another user, or one that group or others may write, is not used.
#pragma once

#include <atomic>
#include <optional>
#include <string>
#include <utility>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace turbokv::cuda {

class KernelCache {
 public:
  // An empty `directory` caches nothing. Nothing is touched before the first call.
  explicit KernelCache(std::string directory) : directory_(std::move(directory)) {}

  // What was written as `name`, if it is there and whole.
  std::optional<std::string> Read(absl::string_view name);

  // Makes the directory (mode 0700) if needed. A directory that cannot be used is no error, only
  // slow: the first time, a warning in the log.
  void Write(absl::string_view name, absl::string_view image);

 private:
  void WarnOnce(const absl::Status& status);

  const std::string directory_;
  std::atomic<bool> warned_ = false;
};

// $TURBOKV_KERNEL_CACHE, else $XDG_CACHE_HOME/turbokv, else $HOME/.cache/turbokv, else empty. An
// empty variable counts as unset.
std::string KernelCacheDirectory();

}  // namespace turbokv::cuda
