// What of turbokvd holds blocks in GPU memory and shares them, in a process of its own: started
// anew from this binary, since CUDA does not survive a fork.
#pragma once

#include <sys/types.h>

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "client/share/shared_slab.h"
#include "client/share/unique_fd.h"

namespace turbokv::testing {

struct LeasedPlaces {
  uint64_t lease_id = 0;
  std::vector<SharedPlace> places;
};

class InPlaceService {
 public:
  // Starts it and waits until it has written its blocks. UNAVAILABLE: it ended before.
  static absl::StatusOr<std::unique_ptr<InPlaceService>> Start(const std::string& socket_path);
  ~InPlaceService();  // kills it

  // What LookupResponse would say of the first `blocks` blocks.
  absl::StatusOr<LeasedPlaces> Lookup(int64_t blocks);
  void Kill();
  pid_t pid() const { return pid_; }

 private:
  pid_t pid_ = -1;
  UniqueFd to_service_, from_service_;
};

}  // namespace turbokv::testing
