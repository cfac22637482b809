// A worker's end of a channel to the service: the gRPC stream that agrees on it and tells whether
// the service lives, and the channel.
//
//   NcclLinkOptions options{.api = api, .streams = CudaStreamOps(), .device_index = 0,
//                           .device_uuid = uuid, .peer_name = "decode-rank0"};
//   TURBOKV_ASSIGN_OR_RETURN(auto link, NcclLink::Open(cache_channel, options));
//   link->channel()->Enqueue(...);   // link->channel_id() names it in calls
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <thread>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "client/channel.h"
#include "client/nccl/nccl_channel.h"

namespace turbokv {

struct NcclLinkOptions {
  std::shared_ptr<const NcclApi> api;
  StreamOps* streams = nullptr;     // outlives the link
  int device_index = 0;             // as CUDA counts
  std::string device_uuid;          // of that device, "GPU-..."
  std::string peer_name;            // unique among the workers of this client, e.g. "decode-rank0"
  std::string service_device_uuid;  // empty: any
  absl::Duration connect_timeout = absl::Seconds(30);
  absl::Duration transfer_timeout = absl::Seconds(30);
};

// Threads: any. Two threads of its own watch the stream; when it breaks, or says nothing for 3
// seconds, the channel is aborted; when the channel breaks, the stream ends.
class NcclLink {
 public:
  // Waits until both ends are connected, at most connect_timeout. ALREADY_EXISTS: a worker of the
  // same name is connected; the rest as NcclService.Connect in transport.proto says, or what went
  // wrong at this end.
  static absl::StatusOr<std::unique_ptr<NcclLink>> Open(std::shared_ptr<CacheChannel> service,
                                                        const NcclLinkOptions& options);
  // Ends the channel and the stream.
  ~NcclLink();

  NcclLink(const NcclLink&) = delete;
  NcclLink& operator=(const NcclLink&) = delete;

  // May be kept for longer; it is dead then.
  const std::shared_ptr<NcclChannel>& channel() const { return channel_; }
  uint64_t channel_id() const { return channel_id_; }
  const std::string& service_device_uuid() const { return service_device_uuid_; }
  // The largest transfer of a store or a fetch that the service takes; 0: it takes none.
  size_t max_transfer_bytes() const { return max_transfer_bytes_; }
  // The first of `count` numbers of transfers that nobody else gets. The channel has one sequence
  // for both directions: each number must be used, or given up, at once and at both ends.
  uint64_t TakeSequences(uint64_t count) { return next_sequence_.fetch_add(count); }

  // OK while it works; then why it ended: the service's reason where it gave one.
  absl::Status status() const;

 private:
  class Stream;
  explicit NcclLink(std::shared_ptr<Stream> stream) : stream_(std::move(stream)) {}
  absl::Status Connect(const NcclLinkOptions& options);

  const std::shared_ptr<Stream> stream_;  // shared with callbacks of the channel
  std::shared_ptr<NcclChannel> channel_;
  uint64_t channel_id_ = 0;
  std::string service_device_uuid_;
  size_t max_transfer_bytes_ = 0;
  std::atomic<uint64_t> next_sequence_{0};
};

}  // namespace turbokv
