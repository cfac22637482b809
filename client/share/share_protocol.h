// What goes over the socket between turbokvd and a process of its host: fixed layouts,
// little-endian, one request and one reply at a time.
//
//   client                                server
//   Hello {tenant, client}           -->
//                                    <--  HelloReply {status, session id}
//   MapSlab {lease, pool, slab}      -->
//                                    <--  MapSlabReply {status, slab}          + its descriptor
//   OpenStaging {slots, slot bytes}  -->
//                                    <--  OpenStagingReply {status, geometry}  + a memfd
//
// Each message is one packet. A peer that breaks the protocol is disconnected; a request that is
// well-formed and cannot be served gets its reason. Neither side trusts the other: every Decode
// takes any bytes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <variant>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "client/share/shared_slab.h"
#include "client/share/shared_staging.h"

namespace turbokv {

inline constexpr uint32_t kShareMagic = 0x53564b54;  // "TKVS"
inline constexpr uint16_t kShareVersion = 1;
// No message is longer; a receiver's buffer.
inline constexpr size_t kMaxShareMessageBytes = 352;
// Reasons are cut to this.
inline constexpr size_t kMaxShareReasonBytes = 248;

// Who a process says it is; as in the metadata of gRPC calls (client/wire/identity.h).
struct ShareIdentity {
  std::string tenant = "default";
  std::string client = "default";
};

struct MapSlabRequest {
  uint64_t lease_id = 0;  // one that holds an entry in this slab
  uint32_t pool = 0;
  uint32_t slab = 0;
};

struct OpenStagingRequest {
  StagingGeometry geometry;
};

using ShareRequest = std::variant<ShareIdentity, MapSlabRequest, OpenStagingRequest>;

std::vector<uint8_t> EncodeShareRequest(const ShareRequest& request);
// INVALID_ARGUMENT says what is wrong; UNIMPLEMENTED: another version of the protocol.
absl::StatusOr<ShareRequest> DecodeShareRequest(absl::Span<const uint8_t> message);

// Replies. A failure carries `status` (its message cut to kMaxShareReasonBytes) and nothing else.
// Decoding returns the server's failure as it is, with a message of printable characters; INTERNAL
// for a server that breaks the protocol (one that the server sends becomes UNKNOWN).
std::vector<uint8_t> EncodeHelloReply(const absl::StatusOr<uint64_t>& session_id);
absl::StatusOr<uint64_t> DecodeHelloReply(absl::Span<const uint8_t> message);

// The descriptor travels beside the message: `memory.fd` is not encoded, and -1 when decoded.
std::vector<uint8_t> EncodeMapSlabReply(const absl::StatusOr<PlacedSlab>& slab);
absl::StatusOr<PlacedSlab> DecodeMapSlabReply(absl::Span<const uint8_t> message);

std::vector<uint8_t> EncodeOpenStagingReply(const absl::StatusOr<StagingGeometry>& geometry);
absl::StatusOr<StagingGeometry> DecodeOpenStagingReply(absl::Span<const uint8_t> message);

// Whether a slab of this kind comes with a descriptor.
bool HasDescriptor(ShareKind kind);

}  // namespace turbokv
