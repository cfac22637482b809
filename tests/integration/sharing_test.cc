// Stores and fetches by memory that the server and its clients share.
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <filesystem>
#include <thread>

#include "absl/strings/str_cat.h"
#include "client/shared_fetch.h"
#include "client/shared_memory.h"
#include "client/wire/call_context.h"
#include "client/wire/spec_conversion.h"
#include "server/device/fake_device.h"
#include "tests/integration/service_fixture.h"
#include "turbokv/v1/cache.grpc.pb.h"

namespace turbokv::testing {
namespace {

using ::testing::HasSubstr;

class SharingTest : public ::testing::Test {
 protected:
  SharingTest() { std::filesystem::create_directory(directory_); }
  ~SharingTest() override {
    channel_ = nullptr;
    server_ = nullptr;
    std::filesystem::remove_all(directory_);
  }

  std::string SocketPath() const { return directory_ + "/share.sock"; }

  void Start(std::vector<std::unique_ptr<Device>> devices = {}) {
    ServerConfig config = TestConfig();
    config.share_socket = SocketPath();
    config.gpu_memory.bytes = size_t{16} << 20;
    server_ = StartServer(config, std::move(devices));
    channel_ = Connect();
  }

  absl::StatusOr<std::shared_ptr<CacheChannel>> TryConnect(std::optional<Road> transport,
                                                           const std::string& tenant = "default") {
    ChannelOptions options;
    options.address = absl::StrCat("127.0.0.1:", server_->port());
    options.tenant = tenant;
    options.transport = transport;
    return CacheChannel::Connect(options);
  }
  std::shared_ptr<CacheChannel> Connect(std::optional<Road> transport = std::nullopt) {
    return TryConnect(transport).value();
  }

  CacheUsage Usage() { return server_->cache().Usage(); }

  const std::string directory_ =
      absl::StrCat(::testing::TempDir(), "/turbokv_sharing_test.", getpid());
  const CacheSpec raw_spec_ = TestSpec();
  const std::shared_ptr<const ResolvedSpec> spec_ = Resolve(raw_spec_);
  std::unique_ptr<Server> server_;
  std::shared_ptr<CacheChannel> channel_;
};

void ExpectEqualLayers(const std::vector<LayerCopy>& a, const std::vector<LayerCopy>& b) {
  ASSERT_EQ(a.size(), b.size());
  for (size_t layer = 0; layer < a.size(); ++layer) {
    EXPECT_EQ(a[layer].pages, b[layer].pages) << "layer " << layer;
    EXPECT_EQ(a[layer].tail_pages, b[layer].tail_pages) << "layer " << layer;
  }
}

TEST_F(SharingTest, GivesTheSameBytesAsGrpc) {
  Start();
  EXPECT_EQ(channel_->roads().taken, Road::kShm) << channel_->roads().why;
  const auto by_grpc = Connect(Road::kGrpc);
  for (const char* policy : {"balanced", "turbo3", "k=q8_0,v=turbo4", "bf16"}) {
    for (int64_t tokens : {1, 128, 300, 700}) {
      CacheSpec raw_spec = raw_spec_;
      raw_spec.policy = policy;
      raw_spec.head_dim = 128;
      const auto spec = Resolve(raw_spec);
      const Prompt prompt(raw_spec, tokens, static_cast<uint32_t>(tokens));
      const auto stored = StorePrompt(channel_, spec, prompt);
      ASSERT_OK(stored);
      EXPECT_EQ(stored->road, Road::kShm);
      EXPECT_EQ(stored->stored_blocks, tokens / kPageTokens);
      DecodeReader in_place(channel_, spec);
      DecodeReader streamed(by_grpc, spec);
      ASSERT_OK(in_place.Lookup(prompt.token_ids(), {}));
      ASSERT_OK(streamed.Lookup(prompt.token_ids(), {}));
      const auto shared = FetchAll(&in_place);
      const auto copied = FetchAll(&streamed);
      ASSERT_OK(shared);
      ASSERT_OK(copied);
      EXPECT_EQ(in_place.last_road(), Road::kShm);
      EXPECT_EQ(streamed.last_road(), Road::kGrpc);
      EXPECT_EQ(in_place.fetched_bytes(), streamed.fetched_bytes());
      ExpectEqualLayers(*shared, *copied);
    }
  }
}

TEST_F(SharingTest, StoresEncodedPagesAndKvLargerThanASlot) {
  Start();
  CacheSpec raw_spec = raw_spec_;
  raw_spec.kv_heads = 8;
  raw_spec.head_dim = 256;
  raw_spec.source_type = ValueType::kFp32;
  raw_spec.policy = "bf16";
  const auto spec = Resolve(raw_spec);
  const Prompt prompt(raw_spec, 256, 1);
  ASSERT_OK(StorePrompt(channel_, spec, prompt));
  DecodeReader reader(channel_, spec);
  ASSERT_OK(reader.Lookup(prompt.token_ids(), {}));
  const auto layers = FetchAll(&reader);
  ASSERT_OK(layers);

  const Prompt other(raw_spec, 256, 2);
  auto writer = PrefillWriter::OpenPages(channel_, spec, other.token_ids(), {});
  ASSERT_OK(writer);
  for (int layer = 0; layer < raw_spec.layers; ++layer) {
    for (int64_t block = 0; block < 2; ++block) {
      const auto page = ReferencePage(*spec, spec->layer_layouts[layer], other, layer,
                                      block * kPageTokens, (block + 1) * kPageTokens);
      ASSERT_OK((*writer)->WritePage(layer, block, page));  // copied: the page may go
    }
  }
  const auto stored = (*writer)->Finish();
  ASSERT_OK(stored);
  EXPECT_EQ(stored->stored_blocks, 2);
  EXPECT_EQ(stored->road, Road::kShm);
}

TEST_F(SharingTest, PagesAreTheServersOwnMemory) {
  Start();
  const Prompt prompt(raw_spec_, 300, 1);
  ASSERT_OK(StorePrompt(channel_, spec_, prompt));
  DecodeReader reader(channel_, spec_);
  const auto match = reader.Lookup(prompt.token_ids(), {});
  ASSERT_OK(match);
  const auto lease = *server_->cache().FindLease({}, match->lease_id);
  uint8_t* const server_page = const_cast<uint8_t*>(lease->blocks[1].page(0).data());
  FetchOptions first_layer;
  first_layer.layer_count = 1;
  const auto status = reader.Fetch(first_layer, [&](const FetchedLayer& layer) {
    EXPECT_NE(layer.pages[1].data(), server_page) << "mapped a second time";
    server_page[500] ^= 1;  // a byte of the codes
    EXPECT_EQ(std::memcmp(layer.pages[1].data(), server_page, layer.pages[1].size()), 0);
    server_page[500] ^= 1;
    return absl::OkStatus();
  });
  ASSERT_OK(status);
}

TEST_F(SharingTest, APageThatIsReplacedWhileItIsReadIsDataLoss) {
  Start();
  const Prompt prompt(raw_spec_, 300, 1);
  ASSERT_OK(StorePrompt(channel_, spec_, prompt));
  DecodeReader reader(channel_, spec_);
  const auto match = reader.Lookup(prompt.token_ids(), {});
  ASSERT_OK(match);
  const auto lease = *server_->cache().FindLease({}, match->lease_id);
  PageHeader header;
  uint8_t* const page = const_cast<uint8_t*>(lease->blocks[1].page(0).data());
  std::memcpy(&header, page, sizeof(header));
  const absl::Status status = reader.Fetch({}, [&](const FetchedLayer&) {
    ++header.generation;
    std::memcpy(page, &header, sizeof(header));
    return absl::OkStatus();
  });
  EXPECT_THAT(status, StatusIs(absl::StatusCode::kDataLoss, HasSubstr("layer 0, page 1 changed")));
}

TEST_F(SharingTest, DamagedPagesAreNotDelivered) {
  Start();
  const Prompt prompt(raw_spec_, 300, 1);
  ASSERT_OK(StorePrompt(channel_, spec_, prompt));
  DecodeReader reader(channel_, spec_);
  const auto match = reader.Lookup(prompt.token_ids(), {});
  ASSERT_OK(match);
  const auto lease = *server_->cache().FindLease({}, match->lease_id);
  const_cast<uint8_t*>(lease->blocks[0].page(1).data())[777] ^= 1;
  EXPECT_THAT(FetchAll(&reader).status(),
              StatusIs(absl::StatusCode::kDataLoss, HasSubstr("layer 1, block 0")));
  EXPECT_EQ(reader.Lookup(prompt.token_ids(), {})->blocks, 0) << "the server has dropped it";
}

TEST_F(SharingTest, AnEndedLeaseGivesNothing) {
  Start();
  const Prompt prompt(raw_spec_, 300, 1);
  ASSERT_OK(StorePrompt(channel_, spec_, prompt));
  DecodeReader reader(channel_, spec_);
  LookupOptions lookup;
  lookup.lease = absl::Milliseconds(20);
  ASSERT_OK(reader.Lookup(prompt.token_ids(), lookup));
  absl::SleepFor(absl::Milliseconds(60));
  EXPECT_EQ(FetchAll(&reader).status().code(), absl::StatusCode::kNotFound);
}

TEST_F(SharingTest, ForgedPlacesAreRefused) {
  Start();
  const Prompt prompt(raw_spec_, 256, 1);
  ASSERT_OK(StorePrompt(channel_, spec_, prompt));
  DecodeReader reader(channel_, spec_);
  const auto match = reader.Lookup(prompt.token_ids(), {});
  ASSERT_OK(match);
  const auto lease = *server_->cache().FindLease({}, match->lease_id);
  const Place first = lease->blocks[0].place();
  const Place second = lease->blocks[1].place();
  const auto memory = channel_->shared_memory();
  const uint64_t slab_bytes = memory->host_pool().geometry().slab_bytes;
  const auto layer_of = [&](uint32_t pool, uint64_t offset_bytes, uint32_t generation) {
    const SharedPlace places[] = {{0, first.offset_bytes, first.generation},
                                  {pool, offset_bytes, generation}};
    auto fetch = SharedFetch::Open(memory, match->lease_id, spec_, {0, 2, 0}, places);
    return fetch.ok() ? fetch->Layer(0).status() : fetch.status();
  };
  EXPECT_TRUE(layer_of(0, second.offset_bytes, second.generation).ok());
  for (const uint64_t offset_bytes :
       {second.offset_bytes + 64, second.offset_bytes + 128, slab_bytes - 128, slab_bytes * 8,
        ~uint64_t{0}, ~uint64_t{127}}) {
    EXPECT_FALSE(layer_of(0, offset_bytes, second.generation).ok()) << offset_bytes;
  }
  EXPECT_EQ(layer_of(1, second.offset_bytes, 0).code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(layer_of(0, second.offset_bytes + 5 * slab_bytes, 0).code(),
            absl::StatusCode::kNotFound)
      << "a slab that the lease has nothing in";
}

// A store whose one chunk is `staged`, as a hostile client would send it.
absl::Status SendStaged(const CacheChannel& channel, const ResolvedSpec& spec, uint64_t session_id,
                        const v1::StagedBytes& staged) {
  const auto stub = v1::CacheService::NewStub(channel.grpc_channel());
  grpc::ClientContext context;
  PrepareCall(channel, absl::Seconds(10), &context);
  v1::StoreResponse response;
  const auto stream = stub->Store(&context, &response);
  v1::StoreRequest open;
  *open.mutable_open()->mutable_spec() = ToProto(spec.spec);
  open.mutable_open()->set_encoding(v1::STORE_ENCODING_RAW);
  open.mutable_open()->set_token_count(kPageTokens);
  open.mutable_open()->set_block_keys(std::string(32, 'k'));
  open.mutable_open()->set_share_session(session_id);
  v1::StoreRequest chunk;
  chunk.mutable_chunk()->set_token_count(kPageTokens);
  *chunk.mutable_chunk()->mutable_staged() = staged;
  stream->Write(open);
  stream->Write(chunk);
  stream->WritesDone();
  const grpc::Status status = stream->Finish();
  return absl::Status(static_cast<absl::StatusCode>(status.error_code()), status.error_message());
}

TEST_F(SharingTest, GarbageInStagedChunksIsRefusedAndHarmsNobody) {
  Start();
  const auto memory = channel_->shared_memory();
  ASSERT_OK(memory->Staging());
  const uint64_t page_bytes = kPageTokens * spec_->raw_token_bytes();
  struct Staged {
    uint32_t slot;
    uint64_t offset;
    uint64_t size;
  };
  for (const Staged& staged :
       {Staged{~0u, 0, page_bytes}, Staged{16, 0, page_bytes}, Staged{0, ~uint64_t{0}, page_bytes},
        Staged{0, 0, ~uint64_t{0}}, Staged{0, 0, 0}, Staged{0, 0, page_bytes - 1},
        Staged{0, (uint64_t{1} << 20) - 8, page_bytes}}) {
    v1::StagedBytes message;
    message.set_slot(staged.slot);
    message.set_offset(staged.offset);
    message.set_size(staged.size);
    EXPECT_EQ(SendStaged(*channel_, *spec_, memory->session_id(), message).code(),
              absl::StatusCode::kInvalidArgument)
        << staged.slot << " " << staged.offset << " " << staged.size;
  }
  EXPECT_TRUE(Eventually([&] { return Usage().pending_entries == 0 && Usage().used_bytes == 0; }));
  ASSERT_OK(StorePrompt(Connect(), spec_, Prompt(raw_spec_, 300, 1)));
}

TEST_F(SharingTest, TakesTheRoadItIsToldTo) {
  Start();
  EXPECT_EQ(Connect(Road::kGrpc)->roads().taken, Road::kGrpc);
  EXPECT_EQ(Connect(Road::kShm)->roads().taken, Road::kShm);
  EXPECT_THAT(TryConnect(Road::kCuda).status(),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("works in host memory")));
}

TEST_F(SharingTest, WithoutASocketAutoTakesGrpcAndShmSaysWhy) {
  server_ = StartServer(TestConfig());
  EXPECT_EQ(Connect()->roads().taken, Road::kGrpc);
  EXPECT_THAT(TryConnect(Road::kShm).status(),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("share_socket")));
}

TEST_F(SharingTest, ASocketThatIsGoneMeansGrpc) {
  Start();
  unlink(SocketPath().c_str());
  const auto channel = Connect();
  EXPECT_EQ(channel->roads().taken, Road::kGrpc);
  EXPECT_THAT(channel->roads().why, HasSubstr("share.sock"));
}

TEST_F(SharingTest, BlocksOfADeviceComeToHostMemoryForIt) {
  std::vector<std::unique_ptr<Device>> devices;
  devices.push_back(std::make_unique<FakeDevice>());
  Start(std::move(devices));
  const Prompt prompt(raw_spec_, 700, 1);
  ASSERT_OK(StorePrompt(channel_, spec_, prompt));
  EXPECT_EQ(Usage().pools[1].blocks, 5);
  DecodeReader reader(channel_, spec_);
  ASSERT_OK(reader.Lookup(prompt.token_ids(), {}));
  EXPECT_EQ(Usage().pools[0].blocks, 5);
  ASSERT_OK(FetchAll(&reader));
  EXPECT_EQ(reader.last_road(), Road::kShm);
}

TEST_F(SharingTest, BlocksThatALeaseKeepsOnADeviceComeByGrpc) {
  std::vector<std::unique_ptr<Device>> devices;
  devices.push_back(std::make_unique<FakeDevice>());
  Start(std::move(devices));
  const Prompt prompt(raw_spec_, 700, 1);
  ASSERT_OK(StorePrompt(channel_, spec_, prompt));
  DecodeReader holder(Connect(Road::kGrpc), spec_);
  ASSERT_OK(holder.Lookup(prompt.token_ids(), {}));
  DecodeReader reader(channel_, spec_);
  ASSERT_OK(reader.Lookup(prompt.token_ids(), {}));
  ASSERT_OK(FetchAll(&reader));
  EXPECT_EQ(reader.last_road(), Road::kGrpc);
}

// Calls as another client would make them.
class RawCaller {
 public:
  explicit RawCaller(std::shared_ptr<CacheChannel> channel)
      : channel_(std::move(channel)), stub_(v1::CacheService::NewStub(channel_->grpc_channel())) {}

  grpc::Status Lookup(const ResolvedSpec& spec, uint64_t share_session) {
    grpc::ClientContext context;
    PrepareCall(*channel_, absl::Seconds(10), &context);
    v1::LookupRequest request;
    request.set_spec_fingerprint(spec.fingerprint.data(), spec.fingerprint.size());
    request.set_share_session(share_session);
    v1::LookupResponse response;
    return stub_->Lookup(&context, request, &response);
  }

 private:
  const std::shared_ptr<CacheChannel> channel_;
  const std::unique_ptr<v1::CacheService::Stub> stub_;
};

TEST_F(SharingTest, ASessionIsItsClientsAlone) {
  Start();
  const auto memory = channel_->shared_memory();
  ASSERT_NE(memory, nullptr);
  EXPECT_TRUE(RawCaller(channel_).Lookup(*spec_, memory->session_id()).ok());
  const auto other = TryConnect(Road::kGrpc, "other").value();
  EXPECT_EQ(RawCaller(other).Lookup(*spec_, memory->session_id()).error_code(),
            grpc::StatusCode::PERMISSION_DENIED);
  EXPECT_EQ(RawCaller(channel_).Lookup(*spec_, memory->session_id() + 1).error_code(),
            grpc::StatusCode::PERMISSION_DENIED);
}

TEST_F(SharingTest, AStoreThatFailsLeavesASessionThatWorks) {
  Start();
  Prompt bad(raw_spec_, 5000, 1);
  const uint16_t infinity = 0x7f80;  // bf16
  std::memcpy(bad.MutableK(0, 200, 0, 3), &infinity, sizeof(infinity));
  for (int i = 0; i < 3; ++i) {
    EXPECT_THAT(StorePrompt(channel_, spec_, bad).status(),
                StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("token 200")));
  }
  EXPECT_TRUE(Eventually([&] { return Usage().pending_entries == 0; }));
  const auto stored = StorePrompt(channel_, spec_, Prompt(raw_spec_, 5000, 2));
  ASSERT_OK(stored);
  EXPECT_EQ(stored->road, Road::kShm);
}

TEST_F(SharingTest, AnAbandonedStoreLeavesNothing) {
  Start();
  const Prompt prompt(raw_spec_, 700, 1);
  {
    auto writer = PrefillWriter::Open(channel_, spec_, prompt.token_ids(), {});
    ASSERT_OK(writer);
    ASSERT_OK((*writer)->WriteLayer(0, prompt.View(0)));
  }
  EXPECT_TRUE(Eventually([&] { return Usage().pending_entries == 0 && Usage().used_bytes == 0; }));
  ASSERT_OK(StorePrompt(channel_, spec_, prompt));
}

TEST_F(SharingTest, AKilledReadersLeasesEndAtOnce) {
  Start();
  ASSERT_OK(StorePrompt(channel_, spec_, Prompt(raw_spec_, 300, 1)));
  int out[2];
  ASSERT_EQ(pipe(out), 0);
  const std::string port = absl::StrCat(server_->port());
  const std::string binary = absl::StrCat(TURBOKV_BINARY_DIR, "/sharing_reader");
  const pid_t child = fork();
  if (child == 0) {
    dup2(out[1], STDOUT_FILENO);
    execl(binary.c_str(), binary.c_str(), port.c_str(), nullptr);
    _exit(1);
  }
  close(out[1]);
  char answer = 0;
  ASSERT_EQ(read(out[0], &answer, 1), 1) << "it died before it read a page";
  EXPECT_EQ(Usage().leases, 1);
  kill(child, SIGKILL);
  waitpid(child, nullptr, 0);
  EXPECT_TRUE(Eventually([&] { return Usage().leases == 0; }));
  close(out[0]);
}

TEST_F(SharingTest, AServerThatIsStartedAgainIsSharedWithAgain) {
  Start();
  const Prompt prompt(raw_spec_, 300, 1);
  ASSERT_OK(StorePrompt(channel_, spec_, prompt));
  DecodeReader reader(channel_, spec_);
  ASSERT_OK(reader.Lookup(prompt.token_ids(), {}));
  FetchedLayer kept;
  ASSERT_OK(reader.Fetch({}, [&](const FetchedLayer& layer) {
    if (layer.layer == 0) kept = layer;
    return absl::OkStatus();
  }));
  const std::vector<uint8_t> page(kept.pages[0].begin(), kept.pages[0].end());

  ServerConfig config = TestConfig();
  config.listen = absl::StrCat("127.0.0.1:", server_->port());
  config.share_socket = SocketPath();
  server_ = nullptr;
  EXPECT_TRUE(std::equal(page.begin(), page.end(), kept.pages[0].begin()))
      << "what was mapped stays readable";
  EXPECT_THAT(reader.Lookup(prompt.token_ids(), {}).status(),
              StatusIs(absl::StatusCode::kUnavailable, HasSubstr("")));
  server_ = StartServer(config);
  EXPECT_TRUE(Eventually([&] { return StorePrompt(channel_, spec_, prompt).ok(); }));
  EXPECT_TRUE(Eventually([&] { return channel_->shared_memory() != nullptr; }));
  ASSERT_OK(reader.Lookup(prompt.token_ids(), {}));
  ASSERT_OK(FetchAll(&reader));
  EXPECT_EQ(reader.last_road(), Road::kShm);
}

int64_t OpenFiles() {
  int64_t count = 0;
  for ([[maybe_unused]] const auto& entry : std::filesystem::directory_iterator("/proc/self/fd")) {
    ++count;
  }
  return count;
}

TEST_F(SharingTest, ManyAtOnceLeaveNothingBehind) {
  Start();
  ASSERT_OK(StorePrompt(channel_, spec_, Prompt(raw_spec_, 300, 1000)));
  const int64_t files_before = OpenFiles();
  {
    std::vector<std::thread> threads;
    std::atomic<int> failures{0};
    const absl::Time end = absl::Now() + absl::Seconds(3);
    for (uint32_t i = 0; i < 24; ++i) {
      threads.emplace_back([&, i] {
        const auto channel = Connect();
        for (uint32_t round = 0; absl::Now() < end; ++round) {
          const Prompt prompt(raw_spec_, 300, 1 + i + 24 * (round % 3));
          const auto stored = StorePrompt(channel, spec_, prompt);
          if (!stored.ok() && !absl::IsResourceExhausted(stored.status())) ++failures;
        }
      });
      threads.emplace_back([&, i] {
        const auto channel = Connect();
        while (absl::Now() < end) {
          DecodeReader reader(channel, spec_);
          const Prompt prompt(raw_spec_, 300, 1 + i);
          const auto match = reader.Lookup(prompt.token_ids(), {});
          if (!match.ok() || (match->blocks > 0 && !FetchAll(&reader).ok())) ++failures;
        }
      });
    }
    for (std::thread& thread : threads) thread.join();
    EXPECT_EQ(failures, 0);
  }
  EXPECT_TRUE(Eventually([&] { return Usage().leases == 0 && Usage().pending_entries == 0; }));
  EXPECT_TRUE(Eventually([&] { return OpenFiles() <= files_before; }))
      << OpenFiles() << " files, before " << files_before;
}

}  // namespace
}  // namespace turbokv::testing
