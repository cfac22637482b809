// A service with fake GPUs and the fake of NCCL, and workers of it whose "GPU" is host memory.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "client/nccl/nccl_fetch.h"
#include "client/nccl/nccl_link.h"
#include "client/nccl/nccl_prefill.h"
#include "server/device/fake_device.h"
#include "tests/fakes/fake_nccl/fake_stream_ops.h"
#include "tests/integration/service_fixture.h"

namespace turbokv::testing {

// Streams of fake devices: the fake of NCCL reaches their memory as the device does.
class FakeDeviceStreams final : public StreamOps {
 public:
  void Add(FakeDevice* device) { devices_.push_back(device); }
  absl::StatusOr<std::unique_ptr<ChannelStream>> MakeStream(int device_index) override;

 private:
  std::vector<FakeDevice*> devices_;  // by index
};

class NcclDataTest : public ::testing::Test {
 protected:
  static constexpr size_t kMaxTransferBytes = size_t{1} << 20;
  static constexpr uint32_t kLanes = 3;

  void Start(int devices = 1, size_t pool_bytes = size_t{16} << 20,
             absl::Duration transfer_timeout = absl::Seconds(20));
  void TearDown() override;

  std::shared_ptr<NcclLink> Link(const std::string& peer_name = "rank0");
  int64_t BlocksIn(PoolId pool) { return server_->cache().Usage().pools[pool].blocks; }
  uint32_t LanesInUse();
  // No pages pending, no lanes taken, within five seconds.
  void ExpectAllFreed();

  absl::StatusOr<StoreResult> Store(std::shared_ptr<NcclLink> link, const Prompt& prompt,
                                    const StoreOptions& options = {});
  // The blocks of a prompt as they come over the link, and the tail.
  absl::StatusOr<std::vector<LayerCopy>> Fetch(NcclLink* link, const Prompt& prompt,
                                               const FetchOptions& options = {});
  // By gRPC.
  absl::StatusOr<std::vector<LayerCopy>> FetchByGrpc(const Prompt& prompt);
  // Looks the prompt up by gRPC and compares every page with the reference's.
  void ExpectStored(const Prompt& prompt);

  const CacheSpec raw_spec_ = TestSpec();
  const std::shared_ptr<const ResolvedSpec> spec_ = Resolve(raw_spec_);
  std::vector<FakeDevice*> devices_;  // the server's
  FakeDeviceStreams streams_;
  std::unique_ptr<Server> server_;
  std::shared_ptr<CacheChannel> channel_;
};

}  // namespace turbokv::testing
