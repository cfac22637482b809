// A connection to turbokvd.
#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"

namespace grpc {
class Channel;
}  // namespace grpc

namespace turbokv {

struct ChannelOptions {
  std::string address = "127.0.0.1:7070";  // host:port, or unix:/path
  std::string tenant = "default";
  std::string client_id = "default";
  absl::Duration connect_timeout = absl::Seconds(5);
};

// Lets the heap of this process keep the memory of received chunks: giving it back and faulting it
// in again costs as much as receiving into it. Call it early in main; a program that does not is
// only slower.
void TuneHeapForBulk();

// Shared by any number of writers and readers, on any threads.
class CacheChannel {
 public:
  // Connects. UNAVAILABLE names the address when nobody answers in connect_timeout;
  // INVALID_ARGUMENT for a malformed tenant or client id.
  static absl::StatusOr<std::shared_ptr<CacheChannel>> Connect(const ChannelOptions& options);

  explicit CacheChannel(ChannelOptions options, std::shared_ptr<grpc::Channel> channel);

  const ChannelOptions& options() const { return options_; }
  const std::shared_ptr<grpc::Channel>& grpc_channel() const { return channel_; }
  // "tenant/client", the value of the metadata key turbokv-tenant.
  std::string identity() const { return options_.tenant + "/" + options_.client_id; }

 private:
  ChannelOptions options_;
  std::shared_ptr<grpc::Channel> channel_;
};

}  // namespace turbokv
