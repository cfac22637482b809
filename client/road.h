// The ways by which pages and K/V travel between a client and turbokvd. gRPC carries the agreement
// about them on every road.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace turbokv {

enum class Road : uint8_t {
  kGrpc,  // through the connection
  kShm,   // host memory that both map (docs/sharing.md)
  kCuda,  // GPU memory that both map
  kNccl,  // from GPU to GPU (docs/nccl.md)
};
inline constexpr std::array<Road, 4> kAllRoads = {Road::kGrpc, Road::kShm, Road::kCuda,
                                                  Road::kNccl};

// "grpc", "shm", "cuda", "nccl".
absl::string_view RoadName(Road road);

// A road's name, or "auto": none in particular. INVALID_ARGUMENT lists them.
absl::StatusOr<std::optional<Road>> ParseTransport(absl::string_view text);

// What is known of both ends when a road is chosen.
struct RoadFacts {
  absl::Status described;    // the server told what it has; UNIMPLEMENTED: an older one
  bool same_host = false;    // both ends run under one kernel
  std::string share_socket;  // the server's; empty: it shares nothing
  absl::Status share;        // of opening it; meaningful with same_host and a socket
};

struct RoadReport {
  Road taken = Road::kGrpc;
  std::string why;
  std::array<absl::Status, kAllRoads.size()> available;  // by Road: OK, or why not

  const absl::Status& of(Road road) const { return available[static_cast<size_t>(road)]; }
};

// The best road for a client that works in host memory, or `wanted` where it is set.
// FAILED_PRECONDITION: that one is not to be had, and why.
absl::StatusOr<RoadReport> ChooseRoad(const RoadFacts& facts, std::optional<Road> wanted);

}  // namespace turbokv
