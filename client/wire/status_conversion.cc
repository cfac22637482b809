#include "client/wire/status_conversion.h"

#include "absl/strings/str_cat.h"

namespace turbokv {

absl::Status FromGrpcStatus(const grpc::Status& status, absl::string_view attempted) {
  if (status.ok()) return absl::OkStatus();
  // The two enumerations agree by design; what a peer makes up beyond them is UNKNOWN.
  const int code = status.error_code();
  const bool known = code > 0 && code <= grpc::StatusCode::UNAUTHENTICATED;
  return absl::Status(known ? static_cast<absl::StatusCode>(code) : absl::StatusCode::kUnknown,
                      absl::StrCat(attempted, ": ", status.error_message()));
}

}  // namespace turbokv
