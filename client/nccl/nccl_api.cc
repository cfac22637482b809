#include "client/nccl/nccl_api.h"

#include <dlfcn.h>

#include <cstdlib>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"

namespace turbokv {
namespace {

// Looks `name` up; false when the library has none.
template <typename Function>
bool LookUp(void* library, const char* name, Function* function) {
  *function = reinterpret_cast<Function>(dlsym(library, name));
  return *function != nullptr;
}

std::string LibraryPath(absl::string_view path) {
  if (!path.empty()) return std::string(path);
  const char* variable = std::getenv(kNcclLibraryVariable);
  if (variable != nullptr && *variable != '\0') return variable;
  return kNcclDefaultLibrary;
}

const char* ResultName(NcclResult result) {
  switch (result) {
    case kNcclSuccess:
      return "ncclSuccess";
    case kNcclUnhandledCudaError:
      return "ncclUnhandledCudaError";
    case kNcclSystemError:
      return "ncclSystemError";
    case kNcclInternalError:
      return "ncclInternalError";
    case kNcclInvalidArgument:
      return "ncclInvalidArgument";
    case kNcclInvalidUsage:
      return "ncclInvalidUsage";
    case kNcclRemoteError:
      return "ncclRemoteError";
    case kNcclInProgress:
      return "ncclInProgress";
  }
  return "an unknown result";
}

}  // namespace

std::string NcclVersionText(int version) {
  return absl::StrCat(version / 10000, ".", version / 100 % 100, ".", version % 100);
}

absl::StatusOr<std::shared_ptr<const NcclApi>> NcclApi::Load(absl::string_view path) {
  std::shared_ptr<NcclApi> api(new NcclApi());
  api->path_ = LibraryPath(path);
  setenv("NCCL_NVLS_ENABLE", "0", /*overwrite=*/0);
  // Never closed: the library keeps threads and state for the process's life.
  void* library = dlopen(api->path_.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) {
    const char* reason = dlerror();
    return absl::NotFoundError(absl::StrCat(
        "NCCL library '", api->path_, "' cannot be loaded: ", reason == nullptr ? "" : reason,
        "; needed: libnccl.so.2 of version ", NcclVersionText(kNcclMinimumVersion),
        " or later, on the library path or named by ", kNcclLibraryVariable));
  }
  TURBOKV_RETURN_IF_ERROR(api->Resolve(library));
  return std::shared_ptr<const NcclApi>(std::move(api));
}

absl::Status NcclApi::Resolve(void* library) {
  const auto missing = [this](absl::string_view name) {
    return absl::FailedPreconditionError(absl::StrCat(
        "NCCL library '", path_, "' (version ",
        version_ == 0 ? "unknown" : NcclVersionText(version_), ") has no function ", name,
        "; needed: version ", NcclVersionText(kNcclMinimumVersion), " or later"));
  };
  // The version first: an old library is told from a broken one.
  if (!LookUp(library, "ncclGetVersion", &functions_.GetVersion)) return missing("ncclGetVersion");
  const NcclResult result = functions_.GetVersion(&version_);
  if (result != kNcclSuccess) {
    return absl::FailedPreconditionError(
        absl::StrCat("NCCL library '", path_, "': ncclGetVersion failed: ", ResultName(result)));
  }
  if (version_ < kNcclMinimumVersion) {
    return absl::FailedPreconditionError(
        absl::StrCat("NCCL library '", path_, "' has version ", NcclVersionText(version_),
                     "; needed: ", NcclVersionText(kNcclMinimumVersion), " or later"));
  }
#define TURBOKV_NCCL_LOOK_UP(name) \
  if (!LookUp(library, "nccl" #name, &functions_.name)) return missing("nccl" #name)
  TURBOKV_NCCL_LOOK_UP(GetUniqueId);
  TURBOKV_NCCL_LOOK_UP(CommInitRankConfig);
  TURBOKV_NCCL_LOOK_UP(CommGetAsyncError);
  TURBOKV_NCCL_LOOK_UP(CommFinalize);
  TURBOKV_NCCL_LOOK_UP(CommDestroy);
  TURBOKV_NCCL_LOOK_UP(CommAbort);
  TURBOKV_NCCL_LOOK_UP(GroupStart);
  TURBOKV_NCCL_LOOK_UP(GroupEnd);
  TURBOKV_NCCL_LOOK_UP(Send);
  TURBOKV_NCCL_LOOK_UP(Recv);
  TURBOKV_NCCL_LOOK_UP(GetErrorString);
  TURBOKV_NCCL_LOOK_UP(GetLastError);
#undef TURBOKV_NCCL_LOOK_UP
  return absl::OkStatus();
}

std::string NcclApi::version_text() const { return NcclVersionText(version_); }

absl::StatusOr<NcclUniqueId> NcclApi::NewUniqueId() const {
  NcclUniqueId id = {};
  TURBOKV_RETURN_IF_ERROR(ToStatus(functions_.GetUniqueId(&id), "ncclGetUniqueId", nullptr));
  return id;
}

absl::Status NcclApi::ToStatus(NcclResult result, absl::string_view call, NcclComm comm) const {
  if (result == kNcclSuccess) return absl::OkStatus();
  const char* words = functions_.GetErrorString(result);
  const char* last = functions_.GetLastError(comm);
  std::string message =
      absl::StrCat(call, ": ", ResultName(result), " (", words == nullptr ? "" : words, ")");
  if (last != nullptr && *last != '\0') absl::StrAppend(&message, ": ", last);
  if (result == kNcclRemoteError || result == kNcclSystemError) {
    return absl::UnavailableError(message);
  }
  return absl::InternalError(message);
}

}  // namespace turbokv
