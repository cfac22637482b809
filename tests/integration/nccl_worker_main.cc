// A worker in a process of its own, for tests that kill it. Prints a line once it is at work.
//
//   nccl_test_worker LIBRARY ADDRESS store          stores one prompt after the other
//   nccl_test_worker LIBRARY ADDRESS fetch          fetches one again and again
//   nccl_test_worker LIBRARY ADDRESS store-early    announces a transfer whose turn never comes
//   nccl_test_worker LIBRARY ADDRESS fetch-silent   asks for pages and does not receive them
#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <string>
#include <utility>
#include <vector>

#include "base/status_macros.h"
#include "client/nccl/nccl_fetch.h"
#include "client/nccl/nccl_prefill.h"
#include "client/wire/bulk_message.h"
#include "client/wire/fetch_call.h"
#include "tests/fakes/fake_nccl/fake_stream_ops.h"
#include "tests/integration/service_fixture.h"

namespace turbokv::testing {
namespace {

constexpr int64_t kTokens = 60 * kPageTokens;

class Worker {
 public:
  Worker(std::shared_ptr<CacheChannel> channel, std::shared_ptr<NcclLink> link)
      : channel_(std::move(channel)), link_(std::move(link)) {}

  absl::Status Store(uint32_t seed) {
    const Prompt prompt(spec_->spec, kTokens, seed);
    StoreOptions options;
    options.store_tail = false;
    TURBOKV_ASSIGN_OR_RETURN(
        const std::unique_ptr<NcclPrefill> store,
        NcclPrefill::Open(channel_, link_, spec_, prompt.token_ids(), options));
    for (int layer = 0; layer < spec_->spec.layers; ++layer) {
      const KvView run = prompt.View(layer);
      TURBOKV_RETURN_IF_ERROR(store->WriteLayer(layer, static_cast<const uint8_t*>(run.k),
                                                static_cast<const uint8_t*>(run.v), {}));
      AtWork();
    }
    return store->Finish().status();
  }

  absl::Status StoreEarly() {
    const Prompt prompt(spec_->spec, kTokens, 1);
    StoreOptions options;
    options.store_tail = false;
    TURBOKV_ASSIGN_OR_RETURN(
        const std::unique_ptr<NcclPrefill> store,
        NcclPrefill::Open(channel_, link_, spec_, prompt.token_ids(), options));
    link_->TakeSequences(1);  // that nobody uses
    const KvView run = prompt.View(0);
    TURBOKV_RETURN_IF_ERROR(store->WriteLayer(0, static_cast<const uint8_t*>(run.k),
                                              static_cast<const uint8_t*>(run.v), {}));
    AtWork();
    while (true) pause();
  }

  absl::Status Fetch() {
    TURBOKV_RETURN_IF_ERROR(Store(1));
    const Prompt prompt(spec_->spec, kTokens, 1);
    DecodeReader reader(channel_, spec_);
    LookupOptions lookup;
    lookup.device_uuid = link_->service_device_uuid();
    TURBOKV_ASSIGN_OR_RETURN(const Match match, reader.Lookup(prompt.token_ids(), lookup));
    std::vector<std::vector<uint8_t>> memory;
    std::vector<uint8_t*> device_layers;
    for (const PageLayout& layout : spec_->layer_layouts) {
      memory.emplace_back(match.blocks * layout.page_bytes);
      device_layers.push_back(memory.back().data());
    }
    while (true) {
      TURBOKV_RETURN_IF_ERROR(
          FetchOverNccl(channel_, link_.get(), spec_, match, {}, device_layers, nullptr));
      AtWork();
    }
  }

  absl::Status FetchSilently() {
    TURBOKV_RETURN_IF_ERROR(Store(1));
    const Prompt prompt(spec_->spec, kTokens, 1);
    DecodeReader reader(channel_, spec_);
    TURBOKV_ASSIGN_OR_RETURN(const Match match, reader.Lookup(prompt.token_ids(), {}));
    const auto pages = static_cast<uint32_t>(match.blocks * spec_->spec.layers);
    v1::FetchRequest request;
    request.set_lease_id(match.lease_id);
    request.mutable_nccl()->set_channel_id(link_->channel_id());
    request.mutable_nccl()->set_first_sequence(link_->TakeSequences(pages));
    request.mutable_nccl()->set_transfer_count(pages);
    request.mutable_nccl()->set_pages_per_transfer(1);
    FetchCall call(channel_, absl::InfiniteDuration(), request);
    grpc::ByteBuffer message;
    if (!call.Read(&message)) return call.Finish();
    std::printf("at work\n");
    std::fflush(stdout);
    while (true) pause();
  }

 private:
  void AtWork() {
    std::printf("at work\n");
    std::fflush(stdout);
  }

  const std::shared_ptr<CacheChannel> channel_;
  const std::shared_ptr<NcclLink> link_;
  const std::shared_ptr<const ResolvedSpec> spec_ = Resolve(TestSpec());
};

absl::Status Main(const std::string& library, const std::string& address, const std::string& mode) {
  TURBOKV_ASSIGN_OR_RETURN(const auto api, NcclApi::Load(library));
  ChannelOptions channel_options;
  channel_options.address = address;
  TURBOKV_ASSIGN_OR_RETURN(const auto channel, CacheChannel::Connect(channel_options));
  static fake_nccl::FakeStreamOps streams;
  NcclLinkOptions options;
  options.api = api;
  options.streams = &streams;
  options.device_uuid = "GPU-worker";
  options.peer_name = "killed";
  TURBOKV_ASSIGN_OR_RETURN(std::shared_ptr<NcclLink> link, NcclLink::Open(channel, options));
  Worker worker(channel, std::move(link));
  if (mode == "fetch") return worker.Fetch();
  if (mode == "fetch-silent") return worker.FetchSilently();
  if (mode == "store-early") return worker.StoreEarly();
  for (uint32_t seed = 1;; ++seed) TURBOKV_RETURN_IF_ERROR(worker.Store(seed));
}

}  // namespace
}  // namespace turbokv::testing

int main(int argc, char** argv) {
  if (argc != 4) return 2;
  // A test that has what it wants no longer reads.
  signal(SIGPIPE, SIG_IGN);
  const absl::Status status = turbokv::testing::Main(argv[1], argv[2], argv[3]);
  std::fprintf(stderr, "%s\n", status.ToString().c_str());
  return 1;
}
