// turbokvd from outside: start-up errors, drain, health, reflection, and its bound on memory.
#include <signal.h>

#include <atomic>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "client/admin_client.h"
#include "grpcpp/channel.h"
#include "grpcpp/generic/generic_stub.h"
#include "tests/integration/service_fixture.h"
#include "tests/integration/turbokvd_process.h"

namespace turbokv::testing {
namespace {

using ::testing::AllOf;
using ::testing::AnyOf;
using ::testing::HasSubstr;

// One exchange with a method whose stubs are not packaged: bytes in, bytes out.
absl::StatusOr<std::string> CallRaw(const std::shared_ptr<CacheChannel>& channel,
                                    const std::string& method, const std::string& request) {
  grpc::GenericStub stub(channel->grpc_channel());
  grpc::ClientContext context;
  grpc::CompletionQueue queue;
  const auto await = [&] {
    void* tag = nullptr;
    bool ok = false;
    return queue.Next(&tag, &ok) && ok;
  };
  auto call = stub.PrepareCall(&context, method, &queue);
  call->StartCall(nullptr);
  await();
  const grpc::Slice slice(request);
  call->WriteLast(grpc::ByteBuffer(&slice, 1), grpc::WriteOptions(), nullptr);
  await();
  grpc::ByteBuffer response;
  call->Read(&response, nullptr);
  const bool answered = await();
  grpc::Status status;
  call->Finish(&status, nullptr);
  await();
  if (!answered) return absl::UnknownError(status.error_message());
  grpc::Slice bytes;
  if (!response.DumpToSingleSlice(&bytes).ok()) return absl::UnknownError("unreadable");
  return std::string(reinterpret_cast<const char*>(bytes.begin()), bytes.size());
}

TEST(TurbokvdTest, HealthAndReflectionAnswer) {
  TurbokvdProcess server({"--memory", "64MiB"});
  const auto channel = server.Connect();
  const auto health = CallRaw(channel, "/grpc.health.v1.Health/Check", "");
  ASSERT_OK(health);
  EXPECT_EQ(*health, std::string("\x08\x01")) << "status: SERVING";
  // ServerReflectionRequest{list_services: "*"}
  const auto services = CallRaw(
      channel, "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", "\x3a\x01*");
  ASSERT_OK(services);
  EXPECT_THAT(*services, HasSubstr("turbokv.v1.CacheService"));
  EXPECT_THAT(*services, HasSubstr("turbokv.v1.AdminService"));
}

TEST(TurbokvdTest, PortInUseIsAStartUpError) {
  TurbokvdProcess first({"--memory", "64MiB"});
  const std::string address = absl::StrCat("127.0.0.1:", first.WaitForPort());
  TurbokvdProcess second({"--memory", "64MiB", "--listen", address});
  EXPECT_EQ(second.WaitForExit(), 1);
  EXPECT_THAT(second.log(), HasSubstr(absl::StrCat("cannot listen on ", address)));
  EXPECT_THAT(second.log(), HasSubstr("in use"));
}

TEST(TurbokvdTest, BadFlagIsAStartUpError) {
  TurbokvdProcess server({"--memory", "plenty"});
  EXPECT_EQ(server.WaitForExit(), 2);
  EXPECT_THAT(server.log(), HasSubstr("plenty"));
}

TEST(TurbokvdTest, SigtermDrains) {
  TurbokvdProcess server({"--memory", "64MiB", "--drain-timeout", "10s"});
  const auto channel = server.Connect();
  const CacheSpec raw_spec = TestSpec();
  const auto spec = Resolve(raw_spec);
  const Prompt prompt(raw_spec, 100, 1);
  auto writer = PrefillWriter::Open(channel, spec, prompt.token_ids(), {});
  ASSERT_OK(writer);
  ASSERT_OK((*writer)->WriteLayer(0, prompt.View(0)));
  ASSERT_TRUE(Eventually([&] { return AdminClient(channel).Stats()->active_stores == 1; }));

  server.Signal(SIGTERM);
  ASSERT_TRUE(Eventually([&] { return AdminClient(channel).Stats()->draining; }));
  const auto health = CallRaw(channel, "/grpc.health.v1.Health/Check", "");
  ASSERT_OK(health);
  EXPECT_EQ(*health, std::string("\x08\x02")) << "status: NOT_SERVING";
  DecodeReader reader(channel, spec);
  EXPECT_THAT(reader.Lookup(prompt.token_ids(), {}).status(),
              StatusIs(absl::StatusCode::kUnavailable, HasSubstr("draining")));
  EXPECT_THAT(StorePrompt(channel, spec, prompt).status(),
              StatusIs(absl::StatusCode::kUnavailable, HasSubstr("draining")));
  // What was under way goes on, and then the server ends.
  for (int layer = 1; layer < raw_spec.layers; ++layer) {
    ASSERT_OK((*writer)->WriteLayer(layer, prompt.View(layer)));
  }
  ASSERT_OK((*writer)->Finish());
  EXPECT_EQ(server.WaitForExit(), 0) << server.log();
}

TEST(TurbokvdTest, DrainTimeoutCutsWhatDoesNotEnd) {
  TurbokvdProcess server({"--memory", "64MiB", "--drain-timeout", "300ms"});
  const auto channel = server.Connect();
  const CacheSpec raw_spec = TestSpec();
  const auto spec = Resolve(raw_spec);
  const Prompt prompt(raw_spec, 100, 1);
  auto writer = PrefillWriter::Open(channel, spec, prompt.token_ids(), {});
  ASSERT_OK(writer);
  ASSERT_OK((*writer)->WriteLayer(0, prompt.View(0)));
  ASSERT_TRUE(Eventually([&] { return AdminClient(channel).Stats()->active_stores == 1; }));
  server.Signal(SIGTERM);
  EXPECT_EQ(server.WaitForExit(), 0) << server.log();
  EXPECT_FALSE((*writer)->Finish().ok());
}

// 64 stores at once into a pool that holds a few of them: memory stays within the budget and the
// constant of docs/operations.md, and every store ends well or is told to come later.
TEST(TurbokvdTest, ConcurrentStoresStayWithinMemory) {
  constexpr size_t kBudgetBytes = size_t{48} << 20;
  constexpr size_t kConstantBytes = size_t{1} << 30;
  TurbokvdProcess server({"--memory", "48MiB", "--slab-size", "8MiB"});
  CacheSpec raw_spec = TestSpec();
  raw_spec.layers = 4;
  raw_spec.kv_heads = 8;
  raw_spec.head_dim = 128;
  const auto spec = Resolve(raw_spec);
  const auto channel = server.Connect();
  std::atomic<int> stored{0}, shed{0}, failed{0};
  const Prompt prompt(raw_spec, 640, 1);
  std::vector<std::thread> threads;
  for (int i = 0; i < 64; ++i) {
    threads.emplace_back([&, i] {
      StoreOptions options;
      options.salt = absl::StrCat(i);  // blocks of its own
      const auto result = StorePrompt(channel, spec, prompt, options);
      ++(result.ok() ? stored : absl::IsResourceExhausted(result.status()) ? shed : failed);
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(failed, 0);
  EXPECT_EQ(stored + shed, 64);
  EXPECT_GT(stored, 0);
  EXPECT_LT(server.PeakMemoryBytes(), kBudgetBytes + kConstantBytes);
  const auto stats = AdminClient(channel).Stats();
  ASSERT_OK(stats);
  EXPECT_LE(stats->pool_used_bytes, static_cast<int64_t>(kBudgetBytes));
  EXPECT_EQ(stats->active_stores, 0);
  RecordProperty("peak_memory_mib", static_cast<int>(server.PeakMemoryBytes() >> 20));
  RecordProperty("stored", stored);
  std::printf("stored %d, shed %d, peak memory %zu MiB\n", stored.load(), shed.load(),
              server.PeakMemoryBytes() >> 20);
}

TEST(TurbokvdTest, AGpuThatIsNotThereStopsTheStart) {
  TurbokvdProcess server({"--gpu-memory", "1GiB", "--gpus", "15"});
  EXPECT_EQ(server.WaitForPort(), 0);
  EXPECT_EQ(server.WaitForExit(), 1);
  // Without CUDA the build says so.
  EXPECT_THAT(server.log(), AllOf(HasSubstr("cannot start"),
                                  AnyOf(HasSubstr("built without CUDA"), HasSubstr("GPU"))));
}

}  // namespace
}  // namespace turbokv::testing
