// A connection to turbokvd.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "base/mutex.h"
#include "client/road.h"

namespace grpc {
class Channel;
}  // namespace grpc

namespace turbokv {

class SharedMemory;

struct ChannelOptions {
  std::string address = "127.0.0.1:7070";  // host:port, or unix:/path
  std::string tenant = "default";
  std::string client_id = "default";
  absl::Duration connect_timeout = absl::Seconds(5);
  std::optional<Road> transport;  // not set: the best that both ends have
  std::string share_socket;       // not empty: its path here, if that is not the server's
};

// Lets the heap of this process keep the memory of received chunks: giving it back and faulting it
// in again costs as much as receiving into it. Call it early in main; a program that does not is
// only slower.
void TuneHeapForBulk();

// Shared by any number of writers and readers, on any threads.
class CacheChannel {
 public:
  // Connects, and chooses a road, which a log line tells. UNAVAILABLE names the address when nobody
  // answers in connect_timeout; INVALID_ARGUMENT for a malformed tenant or client id;
  // FAILED_PRECONDITION: options.transport is not to be had.
  static absl::StatusOr<std::shared_ptr<CacheChannel>> Connect(const ChannelOptions& options);

  // By gRPC alone.
  explicit CacheChannel(ChannelOptions options, std::shared_ptr<grpc::Channel> channel);
  ~CacheChannel();

  const ChannelOptions& options() const { return options_; }
  const std::shared_ptr<grpc::Channel>& grpc_channel() const { return channel_; }
  // "tenant/client", the value of the metadata key turbokv-tenant.
  std::string identity() const { return options_.tenant + "/" + options_.client_id; }

  // As chosen by Connect.
  const RoadReport& roads() const { return roads_; }

  // Memory shared with the server, opened anew if the server was started again. Null: calls go by
  // gRPC; a warning has said why if that was not what Connect chose.
  std::shared_ptr<SharedMemory> shared_memory();
  // This memory is of no more use: its session is not known any more, or slots of it are lost.
  void DropSharedMemory(const SharedMemory* memory);

 private:
  absl::Status ChooseRoad();
  absl::StatusOr<std::shared_ptr<SharedMemory>> OpenSharedMemory(RoadFacts* facts) const;

  const ChannelOptions options_;
  const std::shared_ptr<grpc::Channel> channel_;
  RoadReport roads_;
  Mutex mutex_;
  std::shared_ptr<SharedMemory> shared_memory_ ABSL_GUARDED_BY(mutex_);
  absl::Time next_attempt_ ABSL_GUARDED_BY(mutex_) = absl::InfinitePast();
};

}  // namespace turbokv
