// The C symbols of libfake_nccl.so: what of NCCL this project uses, over Unix sockets and host
// memory, for tests on machines without a GPU. Asynchronous as the library is in its non-blocking
// mode, which is the only one.
//
//   FAKE_NCCL_VERSION=21602            what ncclGetVersion says (22809 without it)
//   FAKE_NCCL_HANG_ON_PEER_DEATH=1     communicators made then do not notice that their peer died
#include <unistd.h>

#include <atomic>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "client/nccl/nccl_abi.h"
#include "tests/fakes/fake_nccl/fake_communicator.h"
#include "tests/fakes/fake_nccl/fake_socket.h"

using turbokv::kNcclConfigMagic;
using turbokv::kNcclInProgress;
using turbokv::kNcclInvalidArgument;
using turbokv::kNcclInvalidUsage;
using turbokv::kNcclSuccess;
using turbokv::kNcclSystemError;
using turbokv::NcclComm;
using turbokv::NcclConfig;
using turbokv::NcclResult;
using turbokv::NcclStream;
using turbokv::NcclUniqueId;
using turbokv::fake_nccl::Batch;
using turbokv::fake_nccl::Communicator;
using turbokv::fake_nccl::FakeStream;

namespace {

constexpr int kDefaultVersion = 22809;
constexpr char kIdPrefix[] = "turbokv-fake-nccl-";

// The sockets of ids whose rank 0 has not come yet.
struct Listeners {
  std::mutex mutex;
  std::map<std::string, int> by_name;
};
Listeners& GetListeners() {
  static Listeners* const listeners = new Listeners();
  return *listeners;
}

struct Group {
  int depth = 0;
  std::vector<std::pair<Communicator*, Batch>> batches;
};
// In the static block of each thread: ThreadSanitizer takes the memory that the loader gets for
// later ones for a race.
thread_local Group group __attribute__((tls_model("initial-exec")));

NcclResult Add(bool send, void* buffer, size_t count, int peer, NcclComm comm, NcclStream stream) {
  if (comm == nullptr || stream == nullptr || buffer == nullptr || peer < 0 || peer > 1) {
    return kNcclInvalidArgument;
  }
  auto* communicator = static_cast<Communicator*>(comm);
  if (group.depth == 0) return kNcclInvalidUsage;  // allowed by NCCL; not used here
  if (group.batches.empty() || group.batches.back().first != communicator) {
    group.batches.push_back({communicator, {static_cast<FakeStream*>(stream), {}}});
  }
  group.batches.back().second.operations.push_back({send, buffer, count});
  return kNcclSuccess;
}

}  // namespace

extern "C" {

NcclResult ncclGetVersion(int* version) {
  const char* text = std::getenv("FAKE_NCCL_VERSION");
  *version = text == nullptr ? kDefaultVersion : std::atoi(text);
  return kNcclSuccess;
}

NcclResult ncclGetUniqueId(NcclUniqueId* id) {
  static std::atomic<int> count{0};
  const std::string name = kIdPrefix + std::to_string(getpid()) + "-" + std::to_string(++count) +
                           "-" + std::to_string(std::random_device()());
  const int listener = turbokv::fake_nccl::Listen(name);
  if (listener < 0) return kNcclSystemError;
  *id = {};
  std::memcpy(id->bytes, name.data(), name.size());
  std::lock_guard<std::mutex> lock(GetListeners().mutex);
  GetListeners().by_name[name] = listener;
  return kNcclSuccess;
}

NcclResult ncclCommInitRankConfig(NcclComm* comm, int ranks, NcclUniqueId id, int rank,
                                  NcclConfig* config) {
  *comm = nullptr;
  if (ranks != 2 || rank < 0 || rank > 1) return kNcclInvalidArgument;
  if (config == nullptr || config->magic != kNcclConfigMagic || config->blocking != 0 ||
      config->size < offsetof(NcclConfig, cga_cluster_size)) {
    return kNcclInvalidArgument;
  }
  id.bytes[sizeof(id.bytes) - 1] = '\0';
  const std::string name = id.bytes;
  if (name.rfind(kIdPrefix, 0) != 0) return kNcclInvalidArgument;
  int listener = -1;
  if (rank == 0) {
    std::lock_guard<std::mutex> lock(GetListeners().mutex);
    const auto found = GetListeners().by_name.find(name);
    if (found == GetListeners().by_name.end()) return kNcclInvalidArgument;
    listener = found->second;
    GetListeners().by_name.erase(found);
  }
  *comm = new Communicator(rank, listener, name);
  return kNcclInProgress;
}

NcclResult ncclCommGetAsyncError(NcclComm comm, NcclResult* error) {
  if (comm == nullptr) return kNcclInvalidArgument;
  *error = static_cast<Communicator*>(comm)->State();
  return kNcclSuccess;
}

NcclResult ncclCommFinalize(NcclComm comm) {
  if (comm == nullptr) return kNcclInvalidArgument;
  static_cast<Communicator*>(comm)->Finalize();
  return kNcclInProgress;
}

NcclResult ncclCommDestroy(NcclComm comm) {
  delete static_cast<Communicator*>(comm);
  return kNcclSuccess;
}

NcclResult ncclCommAbort(NcclComm comm) {
  delete static_cast<Communicator*>(comm);
  return kNcclSuccess;
}

NcclResult ncclGroupStart() {
  ++group.depth;
  return kNcclSuccess;
}

NcclResult ncclGroupEnd() {
  if (group.depth == 0) return kNcclInvalidUsage;
  if (--group.depth > 0) return kNcclSuccess;
  for (auto& [communicator, batch] : group.batches) communicator->Launch(std::move(batch));
  const bool launched = !group.batches.empty();
  group.batches.clear();
  return launched ? kNcclInProgress : kNcclSuccess;
}

NcclResult ncclSend(const void* buffer, size_t count, int /*type*/, int peer, NcclComm comm,
                    NcclStream stream) {
  return Add(/*send=*/true, const_cast<void*>(buffer), count, peer, comm, stream);
}

NcclResult ncclRecv(void* buffer, size_t count, int /*type*/, int peer, NcclComm comm,
                    NcclStream stream) {
  return Add(/*send=*/false, buffer, count, peer, comm, stream);
}

const char* ncclGetErrorString(NcclResult result) {
  return result == turbokv::kNcclRemoteError ? "remote process exited or there was a network error"
                                             : "an error of the fake";
}

const char* ncclGetLastError(NcclComm comm) {
  return comm == nullptr ? "" : static_cast<Communicator*>(comm)->last_error();
}

}  // extern "C"
