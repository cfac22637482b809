// Channels over the fake of NCCL.
#pragma once

#include <cstdlib>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/mutex.h"
#include "client/nccl/nccl_channel.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/fakes/fake_nccl/fake_stream_ops.h"

namespace turbokv::nccl_testing {

inline std::string FakeLibrary() { return absl::StrCat(TURBOKV_BINARY_DIR, "/libfake_nccl.so"); }

inline std::shared_ptr<const NcclApi> FakeApi() {
  absl::StatusOr<std::shared_ptr<const NcclApi>> api = NcclApi::Load(FakeLibrary());
  EXPECT_TRUE(api.ok()) << api.status();
  return *api;
}

inline StreamOps* FakeStreams() {
  static fake_nccl::FakeStreamOps* const ops = new fake_nccl::FakeStreamOps();
  return ops;
}

inline NcclUniqueId NewId() { return FakeApi()->NewUniqueId().value(); }

inline NcclChannelOptions OptionsFor(const NcclUniqueId& id, int rank) {
  NcclChannelOptions options;
  options.api = FakeApi();
  options.streams = FakeStreams();
  options.unique_id = id;
  options.rank = rank;
  options.peer = rank == 0 ? "the peer" : "the service";
  options.connect_timeout = absl::Seconds(10);
  options.transfer_timeout = absl::Seconds(20);
  return options;
}

// Both ends, connected.
struct Pair {
  std::unique_ptr<NcclChannel> service, peer;
};
inline Pair ConnectPair(absl::Duration transfer_timeout = absl::Seconds(20)) {
  const NcclUniqueId id = NewId();
  NcclChannelOptions options[2] = {OptionsFor(id, 0), OptionsFor(id, 1)};
  for (NcclChannelOptions& o : options) o.transfer_timeout = transfer_timeout;
  Pair pair;
  pair.service = NcclChannel::Start(options[0]);
  pair.peer = NcclChannel::Start(options[1]);
  const absl::Time deadline = absl::Now() + absl::Seconds(10);
  EXPECT_TRUE(pair.service->WaitConnected(deadline).ok());
  EXPECT_TRUE(pair.peer->WaitConnected(deadline).ok());
  return pair;
}

// Statuses of transfers, in the order in which they finished.
class Outcomes {
 public:
  NcclDone Record(uint64_t name) {
    return [this, name](const absl::Status& status) {
      MutexLock lock(&mutex_);
      names_.push_back(name);
      statuses_.push_back(status);
    };
  }
  std::vector<uint64_t> names() const {
    MutexLock lock(&mutex_);
    return names_;
  }
  std::vector<absl::Status> statuses() const {
    MutexLock lock(&mutex_);
    return statuses_;
  }

 private:
  mutable Mutex mutex_;
  std::vector<uint64_t> names_;
  std::vector<absl::Status> statuses_;
};

inline NcclPiece PieceOf(std::vector<uint8_t>* bytes) { return {bytes->data(), bytes->size()}; }

inline std::vector<uint8_t> Pattern(size_t bytes, uint32_t seed) {
  std::vector<uint8_t> pattern(bytes);
  for (size_t i = 0; i < bytes; ++i) {
    pattern[i] = static_cast<uint8_t>((i * 2654435761u + seed * 40503u) >> 7);
  }
  return pattern;
}

inline absl::Time Soon(absl::Duration wait = absl::Seconds(20)) { return absl::Now() + wait; }

}  // namespace turbokv::nccl_testing
