// Messages between turbokvd and processes of its host: whatever the other side sends is refused
// with a message, or is a request or reply that encodes to the same bytes again.
#include <cstddef>
#include <cstdint>
#include <vector>

#include "client/share/share_protocol.h"
#include "tests/fuzz/require.h"

namespace {

using turbokv::Require;

// A reason that a server gives may be empty, but is bounded.
void CheckError(const absl::Status& status) {
  Require(status.message().size() < 1000, "errors stay short");
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const absl::Span<const uint8_t> message(data, size);
  if (const auto request = turbokv::DecodeShareRequest(message); !request.ok()) {
    CheckError(request.status());
    Require(!request.status().message().empty(), "every error of decoding says something");
  } else {
    const std::vector<uint8_t> again = turbokv::EncodeShareRequest(*request);
    Require(again.size() == size, "a request has one size");
    Require(turbokv::DecodeShareRequest(again).ok(), "what was decoded can be sent");
  }
  if (const auto reply = turbokv::DecodeHelloReply(message); !reply.ok()) {
    CheckError(reply.status());
  }
  if (const auto reply = turbokv::DecodeMapSlabReply(message); !reply.ok()) {
    CheckError(reply.status());
  } else {
    Require(reply->memory.fd == -1, "a descriptor does not come from a message");
    Require(reply->memory.kind != turbokv::ShareKind::kNone, "decoded memory can be mapped");
  }
  if (const auto reply = turbokv::DecodeOpenStagingReply(message); !reply.ok()) {
    CheckError(reply.status());
  }
  return 0;
}
