// The NCCL channels of the service: who has which, and how many there may be.
//
// A channel belongs to one client of one tenant, and has a name of that client's choice (the rank
// of a worker). A second channel of the same name is refused while the first is open, rather than
// put in its place: two workers that were given the same rank would otherwise cut each other off
// for ever, and nobody would see why.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "base/mutex.h"
#include "client/nccl/nccl_channel.h"
#include "server/index/block_cache.h"
#include "server/nccl/transfer_turns.h"

namespace turbokv {

// Told of what happens, for metrics. Called with a lock held: only to count. Threads: any.
class ChannelObserver {
 public:
  virtual ~ChannelObserver() = default;
  virtual void ChannelReserved() = 0;
  virtual void ChannelClosed(const absl::Status& reason) = 0;
};

struct ChannelLimits {
  size_t max_channels = 256;            // of all clients, those that still end included
  size_t max_channels_per_tenant = 64;  // of them open
};

// A connected channel, with what its transfers share.
struct ServiceChannel {
  std::shared_ptr<NcclChannel> channel;
  std::shared_ptr<TransferTurns> turns;
  PoolId pool = kHostPool;  // of the service's GPU; kHostPool: its memory holds no pages
};

// Threads: any.
class ChannelRegistry {
 public:
  // `observer` may be null; it outlives this.
  explicit ChannelRegistry(ChannelLimits limits, ChannelObserver* observer = nullptr)
      : limits_(limits), observer_(observer) {}
  // Aborts and waits for what is left.
  ~ChannelRegistry();

  // Takes a name and gives out the id of the channel to be. Ids are never used again.
  // ALREADY_EXISTS  two workers with the same rank; the message names the peer
  // RESOURCE_EXHAUSTED  a limit
  absl::StatusOr<uint64_t> Reserve(const ClientIdentity& owner, absl::string_view peer_name);
  // The channel of a reserved id, whose end is the GPU of `pool`. One that was closed meanwhile is
  // aborted.
  void Attach(uint64_t channel_id, std::shared_ptr<NcclChannel> channel, PoolId pool = kHostPool);

  // NOT_FOUND: unknown, closed, or another client's; the three are not told apart.
  // UNAVAILABLE: it is still being connected, or has broken.
  absl::StatusOr<std::shared_ptr<NcclChannel>> Find(const ClientIdentity& owner,
                                                    uint64_t channel_id) const;

  absl::StatusOr<ServiceChannel> FindForTransfers(const ClientIdentity& owner,
                                                  uint64_t channel_id) const;

  // Aborts the channel and frees its name. Does not wait; without effect on an unknown id.
  void Close(uint64_t channel_id, const absl::Status& reason);
  // Close for all.
  void CloseAll(const absl::Status& reason);
  // Lets go of closed channels that have ended; call it now and then.
  void Reap();

  size_t open_channels() const;
  size_t ending_channels() const;

 private:
  struct Entry {
    ClientIdentity owner;
    std::string peer_name;
    ServiceChannel end;  // without a channel until attached
  };
  using Channels = std::vector<std::shared_ptr<NcclChannel>>;

  void CloseEntry(std::map<uint64_t, Entry>::iterator entry, const absl::Status& reason)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Closed channels that have ended: to be let go of without the lock.
  Channels TakeEnded() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const ChannelLimits limits_;
  ChannelObserver* const observer_;
  mutable Mutex mutex_;
  uint64_t next_id_ ABSL_GUARDED_BY(mutex_) = 1;
  std::map<uint64_t, Entry> entries_ ABSL_GUARDED_BY(mutex_);
  Channels ending_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace turbokv
