// The peer of a channel in a process of its own, for tests that kill it.
//
//   nccl_test_peer LIBRARY ID_HEX echo COUNT BYTES    receives and sends back, COUNT times
//   nccl_test_peer LIBRARY ID_HEX silent              connects, says "connected", does nothing more
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include "absl/strings/escaping.h"
#include "absl/time/clock.h"
#include "client/nccl/nccl_channel.h"
#include "tests/fakes/fake_nccl/fake_stream_ops.h"

namespace turbokv {
namespace {

int Fail(const absl::Status& status) {
  std::fprintf(stderr, "%s\n", status.ToString().c_str());
  return 1;
}

int Echo(NcclChannel* channel, int count, size_t bytes) {
  std::vector<uint8_t> buffer(bytes);
  for (int i = 0; i < count; ++i) {
    absl::Status status = channel->Receive({{buffer.data(), bytes}}, nullptr);
    if (status.ok()) status = channel->Send({{buffer.data(), bytes}}, nullptr);
    if (!status.ok()) return Fail(status);
  }
  const absl::Status status = channel->Wait(absl::Now() + absl::Seconds(60));
  if (!status.ok()) return Fail(status);
  channel->Close(absl::Seconds(10));
  return 0;
}

int Main(int argc, char** argv) {
  if (argc < 4) return 2;
  const absl::StatusOr<std::shared_ptr<const NcclApi>> api = NcclApi::Load(argv[1]);
  if (!api.ok()) return Fail(api.status());
  fake_nccl::FakeStreamOps streams;
  NcclChannelOptions options;
  options.api = *api;
  options.streams = &streams;
  options.rank = 1;
  options.peer = "the test";
  const std::string id = absl::HexStringToBytes(argv[2]);
  if (id.size() != sizeof(options.unique_id.bytes)) return 2;
  id.copy(options.unique_id.bytes, id.size());
  absl::StatusOr<std::unique_ptr<NcclChannel>> channel = NcclChannel::Connect(std::move(options));
  if (!channel.ok()) return Fail(channel.status());
  std::printf("connected\n");
  std::fflush(stdout);
  if (std::string(argv[3]) == "echo" && argc == 6) {
    return Echo(channel->get(), std::atoi(argv[4]), static_cast<size_t>(std::atoll(argv[5])));
  }
  while (true) pause();
}

}  // namespace
}  // namespace turbokv

int main(int argc, char** argv) { return turbokv::Main(argc, argv); }
