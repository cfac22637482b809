// NCCL, loaded when it is wanted: no build links it, and a machine without it gets a status.
#pragma once

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "client/nccl/nccl_abi.h"

namespace turbokv {

// The environment variable that names the library, and what is loaded without it.
inline constexpr char kNcclLibraryVariable[] = "TURBOKV_NCCL_LIBRARY";
inline constexpr char kNcclDefaultLibrary[] = "libnccl.so.2";

// Threads: any; Load where no other thread reads or writes the environment, best early in main.
class NcclApi {
 public:
  // Loads `path`; empty: what the environment variable names, else libnccl.so.2 by the system's
  // search path. NVLink multicast (NCCL_NVLS_ENABLE) is turned off unless the environment says
  // otherwise: two ranks have no use for it, and its set-up fails on hosts that restrict it.
  //
  // NOT_FOUND          the library is not there or cannot be loaded
  // FAILED_PRECONDITION  it lacks a function, or is older than 2.18
  // Messages name the path, what was found and what is needed.
  static absl::StatusOr<std::shared_ptr<const NcclApi>> Load(absl::string_view path = "");

  NcclApi(const NcclApi&) = delete;
  NcclApi& operator=(const NcclApi&) = delete;

  const NcclFunctions& functions() const { return functions_; }
  const std::string& path() const { return path_; }
  int version() const { return version_; }  // 22809
  std::string version_text() const;         // "2.28.9"

  // An id for one communicator, made by its rank 0. It lets whoever has it join: give it to the
  // peer alone.
  absl::StatusOr<NcclUniqueId> NewUniqueId() const;

  // OK, or `result` in words: "CALL: ncclRemoteError (...)", with the library's last error.
  // `comm` may be null. UNAVAILABLE for what the peer or the system did, INTERNAL for the rest.
  absl::Status ToStatus(NcclResult result, absl::string_view call, NcclComm comm) const;

 private:
  NcclApi() = default;
  absl::Status Resolve(void* library);

  NcclFunctions functions_;
  std::string path_;
  int version_ = 0;
};

// "2.18.0" of 21800.
std::string NcclVersionText(int version);

}  // namespace turbokv
