#include "client/road.h"

#include "absl/strings/str_cat.h"

namespace turbokv {
namespace {

constexpr absl::string_view kAuto = "auto";

absl::Status ShmAvailable(const RoadFacts& facts) {
  if (!facts.described.ok()) {
    return absl::FailedPreconditionError(
        absl::StrCat("the server does not tell what it shares: ", facts.described.message()));
  }
  if (!facts.same_host) return absl::FailedPreconditionError("the server runs on another host");
  if (facts.share_socket.empty()) {
    return absl::FailedPreconditionError("the server shares no memory (its setting share_socket)");
  }
  return facts.share;
}

// Not by this class of clients, whatever the server has.
absl::Status DeviceOnly(absl::string_view how) {
  return absl::FailedPreconditionError(
      absl::StrCat("this client works in host memory; a worker on a GPU uses ", how));
}

}  // namespace

absl::string_view RoadName(Road road) {
  constexpr std::array<absl::string_view, kAllRoads.size()> kNames = {"grpc", "shm", "cuda",
                                                                      "nccl"};
  return kNames[static_cast<size_t>(road)];
}

absl::StatusOr<std::optional<Road>> ParseTransport(absl::string_view text) {
  if (text == kAuto) return std::optional<Road>();
  for (const Road road : kAllRoads) {
    if (text == RoadName(road)) return std::optional<Road>(road);
  }
  return absl::InvalidArgumentError(
      absl::StrCat("'", text, "': expected auto, grpc, shm, cuda or nccl"));
}

absl::StatusOr<RoadReport> ChooseRoad(const RoadFacts& facts, std::optional<Road> wanted) {
  RoadReport report;
  report.available[static_cast<size_t>(Road::kShm)] = ShmAvailable(facts);
  report.available[static_cast<size_t>(Road::kCuda)] = DeviceOnly("client/device_match.h");
  report.available[static_cast<size_t>(Road::kNccl)] = DeviceOnly("client/nccl/nccl_link.h");
  if (wanted) {
    if (!report.of(*wanted).ok()) {
      return absl::FailedPreconditionError(absl::StrCat(
          "transport ", RoadName(*wanted), " is not to be had: ", report.of(*wanted).message()));
    }
    report.taken = *wanted;
    report.why = "asked for";
  } else if (report.of(Road::kShm).ok()) {
    report.taken = Road::kShm;
    report.why = "the server shares memory with this host";
  } else {
    report.why = std::string(report.of(Road::kShm).message());
  }
  return report;
}

}  // namespace turbokv
