// Speed of a channel between two GPUs of this host, each in a process of its own: send (GPU 0 to
// GPU 1) and receive, by message size, as one piece and scattered.
//
//   nccl_channel_bench [--limit_gb_s=450] [--smoke]
//
// Prints one line a case: bytes, pieces, GB/s each way, and the share of --limit_gb_s (one
// direction of NVLink of an H100 or H200). Time is that of kTransfers transfers in flight one after
// the other, taken at GPU 0, after kWarmUps of the same kind. --smoke does two small cases.
#include <cuda_runtime_api.h>
#include <spawn.h>
#include <sys/wait.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "absl/time/clock.h"
#include "base/status_macros.h"
#include "client/nccl/cuda_stream_ops.h"
#include "client/nccl/nccl_channel.h"

extern char** environ;

namespace turbokv {
namespace {

constexpr int kWarmUps = 3;
constexpr int kTransfers = 20;
constexpr size_t kMaxBytes = size_t{1} << 30;

struct Case {
  size_t bytes = 0;
  size_t pieces = 1;
};

// The same at both ends, which run them in this order.
std::vector<Case> Cases(bool smoke) {
  if (smoke) return {{4096, 1}, {1 << 20, 16}};
  std::vector<Case> cases;
  for (size_t bytes = 64 << 10; bytes <= kMaxBytes; bytes *= 4) cases.push_back({bytes, 1});
  for (size_t pieces : {16, 64, 256, 1024, 4096}) cases.push_back({size_t{256} << 20, pieces});
  return cases;
}

// Every other run of the buffer, so that pieces do not touch.
std::vector<NcclPiece> Cut(uint8_t* device, const Case& what) {
  const size_t each = what.bytes / what.pieces;
  std::vector<NcclPiece> pieces;
  for (size_t i = 0; i < what.pieces; ++i) pieces.push_back({device + 2 * i * each, each});
  return pieces;
}

absl::Status RunTransfers(NcclChannel* channel, NcclDirection direction,
                          const std::vector<NcclPiece>& pieces, int count) {
  for (int i = 0; i < count; ++i) {
    TURBOKV_RETURN_IF_ERROR(direction == NcclDirection::kSend ? channel->Send(pieces, nullptr)
                                                              : channel->Receive(pieces, nullptr));
  }
  return channel->Wait(absl::Now() + absl::Minutes(2));
}

absl::StatusOr<double> MeasureGbPerSecond(NcclChannel* channel, NcclDirection direction,
                                          const Case& what, uint8_t* device) {
  const std::vector<NcclPiece> pieces = Cut(device, what);
  TURBOKV_RETURN_IF_ERROR(RunTransfers(channel, direction, pieces, kWarmUps));
  const absl::Time start = absl::Now();
  TURBOKV_RETURN_IF_ERROR(RunTransfers(channel, direction, pieces, kTransfers));
  return static_cast<double>(what.bytes) * kTransfers / absl::ToDoubleSeconds(absl::Now() - start) /
         1e9;
}

absl::Status Run(const NcclUniqueId& id, std::shared_ptr<const NcclApi> api, int rank,
                 const std::vector<Case>& cases, double limit_gb_s) {
  void* device = nullptr;
  if (cudaSetDevice(rank) != cudaSuccess || cudaMalloc(&device, kMaxBytes) != cudaSuccess) {
    return absl::InternalError(absl::StrCat("GPU ", rank, ": no ", kMaxBytes, " bytes"));
  }
  NcclChannelOptions options;
  options.api = std::move(api);
  options.streams = CudaStreamOps();
  options.unique_id = id;
  options.rank = rank;
  options.device_index = rank;
  options.peer = absl::StrCat("GPU ", 1 - rank);
  TURBOKV_ASSIGN_OR_RETURN(const std::unique_ptr<NcclChannel> channel,
                           NcclChannel::Connect(std::move(options)));
  const NcclDirection first = rank == 0 ? NcclDirection::kSend : NcclDirection::kReceive;
  const NcclDirection second = rank == 0 ? NcclDirection::kReceive : NcclDirection::kSend;
  for (const Case& what : cases) {
    auto* bytes = static_cast<uint8_t*>(device);
    TURBOKV_ASSIGN_OR_RETURN(const double sent,
                             MeasureGbPerSecond(channel.get(), first, what, bytes));
    TURBOKV_ASSIGN_OR_RETURN(const double received,
                             MeasureGbPerSecond(channel.get(), second, what, bytes));
    if (rank != 0) continue;
    std::printf("%11zu bytes %5zu pieces  send %7.2f GB/s (%.2f)  receive %7.2f GB/s (%.2f)\n",
                what.bytes, what.pieces, sent, sent / limit_gb_s, received, received / limit_gb_s);
    std::fflush(stdout);
  }
  channel->Close(absl::Seconds(10));
  cudaFree(device);
  return absl::OkStatus();
}

int Fail(const absl::Status& status) {
  std::fprintf(stderr, "%s\n", status.ToString().c_str());
  return 1;
}

int Main(int argc, char** argv) {
  bool smoke = false;
  double limit_gb_s = 450;
  std::string peer_id;
  for (int i = 1; i < argc; ++i) {
    absl::string_view argument = argv[i];
    if (argument == "--smoke") smoke = true;
    if (absl::ConsumePrefix(&argument, "--limit_gb_s=")) limit_gb_s = std::atof(argument.data());
    if (absl::ConsumePrefix(&argument, "--peer=")) peer_id = absl::HexStringToBytes(argument);
  }
  int gpus = 0;
  if (cudaGetDeviceCount(&gpus) != cudaSuccess || gpus < 2) {
    std::printf("skipped: two GPUs are needed; here: %d\n", gpus);
    return 0;
  }
  const auto api = NcclApi::Load();
  if (!api.ok()) return Fail(api.status());
  NcclUniqueId id = {};
  if (!peer_id.empty()) {
    peer_id.copy(id.bytes, sizeof(id.bytes));
    const absl::Status status = Run(id, *api, 1, Cases(smoke), limit_gb_s);
    return status.ok() ? 0 : Fail(status);
  }
  std::printf("NCCL %s (%s)\n", (*api)->version_text().c_str(), (*api)->path().c_str());
  const auto new_id = (*api)->NewUniqueId();
  if (!new_id.ok()) return Fail(new_id.status());
  id = *new_id;
  std::string program = "/proc/self/exe";
  std::string peer = absl::StrCat(
      "--peer=", absl::BytesToHexString(absl::string_view(id.bytes, sizeof(id.bytes))));
  std::string smoke_flag = "--smoke";
  char* arguments[] = {program.data(), peer.data(), smoke ? smoke_flag.data() : nullptr, nullptr};
  pid_t pid = -1;
  if (posix_spawn(&pid, program.c_str(), nullptr, nullptr, arguments, environ) != 0) {
    return Fail(absl::InternalError("the peer's process cannot be started"));
  }
  const absl::Status status = Run(id, *api, 0, Cases(smoke), limit_gb_s);
  waitpid(pid, nullptr, 0);
  return status.ok() ? 0 : Fail(status);
}

}  // namespace
}  // namespace turbokv

int main(int argc, char** argv) { return turbokv::Main(argc, argv); }
