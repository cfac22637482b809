// A process that shares memory, to be killed: share_worker MODE SOCKET
//
//   serve   a share server over a FakeShareHost
//   stage   opens staging, and writes a slot over and over
//   read    maps a slab, and reads it over and over; tells its first byte for each line of input
//   fork    opens a session that a child inherits; tells the child's process id first
//   churn   opens sessions, maps, stages and closes, over and over
//
// Says "ready" when it is under way, and stops by itself after a minute.
#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <iostream>
#include <string>
#include <thread>

#include "base/logging.h"
#include "client/share/mapped_pool.h"
#include "client/share/share_session.h"
#include "server/share/share_server.h"
#include "tests/unit/server/share/fake_share_host.h"

namespace turbokv::testing {
namespace {

constexpr StagingGeometry kStaging = {.slot_bytes = uint64_t{1} << 20, .slots = 2};

template <typename T>
T Need(absl::StatusOr<T> value) {
  if (value.ok()) return *std::move(value);
  std::cerr << value.status() << std::endl;
  _exit(3);
}

void SayReady() { std::cout << "ready" << std::endl; }

std::shared_ptr<ShareSession> Connect(const std::string& path) {
  return Need(ShareSession::Connect({.path = path, .identity = {"t", "worker"}}));
}

void Serve(const std::string& path) {
  static FakeShareHost host;
  static const auto server = Need(ShareServer::Start({.path = path}, &host));
  SayReady();
}

[[noreturn]] void Stage(const std::string& path) {
  const auto session = Connect(path);
  const auto staging = Need(session->OpenStaging(kStaging));
  auto slot = Need(staging->AcquireSlot(absl::Now() + absl::Seconds(10)));
  for (uint8_t round = 1;; ++round) {
    std::memset(slot.bytes().data(), round, slot.bytes().size());
    if (round == 1) SayReady();
  }
}

void Read(const std::string& path) {
  const auto session = Connect(path);
  const auto pool = Need(MappedPool::Create(session, 0, FakeShareHost::kGeometry,
                                            Need(MakeHostSlabImporter(FakeShareHost::kGeometry))));
  if (!pool->Ensure(1, 0, 0).ok()) _exit(4);
  const auto bytes = Need(pool->Bytes(0, FakeShareHost::kGeometry.slab_bytes));
  std::atomic<uint64_t> sum = 0;
  std::thread reader([&] {
    while (true) {
      for (const uint8_t byte : bytes) sum += byte;
    }
  });
  SayReady();
  for (std::string line; std::getline(std::cin, line);) {
    std::cout << static_cast<int>(bytes[0]) << std::endl;
  }
  _exit(0);
}

void Fork(const std::string& path) {
  static const auto session = Connect(path);
  const pid_t child = fork();
  if (child == 0) {
    alarm(60);
    pause();
    _exit(0);
  }
  std::cout << child << std::endl;
  SayReady();
}

[[noreturn]] void Churn(const std::string& path) {
  for (int round = 0;; ++round) {
    const auto session = Connect(path);
    const auto pool =
        Need(MappedPool::Create(session, 0, FakeShareHost::kGeometry,
                                Need(MakeHostSlabImporter(FakeShareHost::kGeometry))));
    for (uint32_t slab = 0; slab < 4; ++slab) {
      if (!pool->Ensure(1, slab, 0).ok()) _exit(4);
    }
    const auto staging = Need(session->OpenStaging(kStaging));
    for (int i = 0; i < 2; ++i) {
      auto slot = Need(staging->AcquireSlot(absl::Now() + absl::Seconds(10)));
      std::memset(slot.bytes().data(), i, 4096);
      std::move(slot).Announce();
    }
    if (round == 0) SayReady();
  }
}

}  // namespace
}  // namespace turbokv::testing

int main(int argc, char** argv) {
  if (argc != 3) return 2;
  (void)turbokv::SetLogLevel("warning");
  const std::string mode = argv[1];
  alarm(60);
  if (mode == "serve") turbokv::testing::Serve(argv[2]);
  if (mode == "stage") turbokv::testing::Stage(argv[2]);
  if (mode == "read") turbokv::testing::Read(argv[2]);
  if (mode == "fork") turbokv::testing::Fork(argv[2]);
  if (mode == "churn") turbokv::testing::Churn(argv[2]);
  pause();
  return 0;
}
