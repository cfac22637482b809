// NcclService over real sockets, with the fake of NCCL beneath both ends.
#include "server/rpc/nccl_service.h"

#include <atomic>
#include <thread>

#include "client/nccl/nccl_link.h"
#include "grpcpp/security/server_credentials.h"
#include "grpcpp/server_builder.h"
#include "tests/unit/client/nccl/nccl_testing.h"

namespace turbokv {
namespace {

using nccl_testing::FakeApi;
using nccl_testing::FakeStreams;
using nccl_testing::Outcomes;
using nccl_testing::Pattern;
using nccl_testing::PieceOf;
using nccl_testing::Soon;
using ::testing::AllOf;
using ::testing::HasSubstr;

bool Eventually(const std::function<bool()>& condition, absl::Duration wait = absl::Seconds(10)) {
  for (const absl::Time end = absl::Now() + wait; absl::Now() < end;) {
    if (condition()) return true;
    absl::SleepFor(absl::Milliseconds(10));
  }
  return condition();
}

NcclEnvironment TestEnvironment() {
  NcclEnvironment environment;
  environment.api = FakeApi();
  environment.streams = FakeStreams();
  environment.devices = {{0, "GPU-service-0"}, {1, "GPU-service-1"}};
  environment.connect_timeout = absl::Seconds(5);
  return environment;
}

// A server with NcclService alone, and its tick.
class NcclServiceTest : public ::testing::Test {
 protected:
  void StartServer(NcclEnvironment environment) {
    ServerConfig config;
    config.memory_bytes = size_t{64} << 20;
    auto state = ServiceState::Create(config, {});
    ASSERT_TRUE(state.ok()) << state.status();
    state_ = *std::move(state);
    service_ = std::make_unique<NcclServiceImpl>(state_.get(), std::move(environment));
    grpc::ServerBuilder builder;
    builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port_);
    builder.RegisterService(service_.get());
    server_ = builder.BuildAndStart();
    ticker_ = std::thread([this] {
      while (!stopping_) {
        service_->Tick();
        absl::SleepFor(absl::Milliseconds(100));
      }
    });
  }
  void TearDown() override {
    if (server_ == nullptr) return;
    server_->Shutdown(absl::ToChronoTime(absl::Now() + absl::Seconds(1)));
    server_->Wait();
    stopping_ = true;
    ticker_.join();
  }

  std::shared_ptr<CacheChannel> Client(const std::string& tenant = "default") {
    ChannelOptions options;
    options.address = absl::StrCat("127.0.0.1:", port_);
    options.tenant = tenant;
    return CacheChannel::Connect(options).value();
  }
  static NcclLinkOptions LinkOptions(const std::string& peer_name) {
    NcclLinkOptions options;
    options.api = FakeApi();
    options.streams = FakeStreams();
    options.device_uuid = "GPU-peer";
    options.peer_name = peer_name;
    options.connect_timeout = absl::Seconds(10);
    return options;
  }

  std::unique_ptr<ServiceState> state_;
  std::unique_ptr<NcclServiceImpl> service_;
  std::unique_ptr<grpc::Server> server_;
  std::atomic<bool> stopping_{false};
  std::thread ticker_;
  int port_ = 0;
};

TEST_F(NcclServiceTest, ConnectsAndMovesBytes) {
  StartServer(TestEnvironment());
  auto link = NcclLink::Open(Client(), LinkOptions("rank0"));
  ASSERT_TRUE(link.ok()) << link.status();
  EXPECT_EQ((*link)->service_device_uuid(), "GPU-service-0");
  const auto service_end = service_->channels().Find({}, (*link)->channel_id());
  ASSERT_TRUE(service_end.ok()) << service_end.status();
  std::vector<uint8_t> sent = Pattern(1 << 20, 5);
  std::vector<uint8_t> received(sent.size());
  ASSERT_TRUE((*service_end)->Enqueue(0, NcclDirection::kSend, {PieceOf(&sent)}, nullptr).ok());
  ASSERT_TRUE(
      (*link)->channel()->Enqueue(0, NcclDirection::kReceive, {PieceOf(&received)}, nullptr).ok());
  ASSERT_TRUE((*link)->channel()->Wait(Soon()).ok());
  ASSERT_TRUE((*service_end)->Wait(Soon()).ok());
  EXPECT_EQ(received, sent);
  EXPECT_TRUE((*link)->status().ok());
}

TEST_F(NcclServiceTest, LivesOnHeartbeats) {
  StartServer(TestEnvironment());
  auto link = NcclLink::Open(Client(), LinkOptions("rank0"));
  ASSERT_TRUE(link.ok()) << link.status();
  absl::SleepFor(kNcclSilence + absl::Seconds(1));
  EXPECT_TRUE((*link)->status().ok()) << (*link)->status();
  EXPECT_EQ(service_->channels().open_channels(), 1u);
}

TEST_F(NcclServiceTest, FreesTheChannelWhenTheClientCloses) {
  StartServer(TestEnvironment());
  auto link = NcclLink::Open(Client(), LinkOptions("rank0"));
  ASSERT_TRUE(link.ok()) << link.status();
  std::shared_ptr<NcclChannel> kept = (*link)->channel();
  link->reset();
  EXPECT_FALSE(kept->status().ok());
  EXPECT_TRUE(Eventually([&] {
    return service_->channels().open_channels() == 0 &&
           service_->channels().ending_channels() == 0 && service_->streams().active() == 0;
  }));
  auto again = NcclLink::Open(Client(), LinkOptions("rank0"));
  EXPECT_TRUE(again.ok()) << again.status();
}

TEST_F(NcclServiceTest, EndsTheStreamWhenTheChannelBreaks) {
  StartServer(TestEnvironment());
  auto link = NcclLink::Open(Client(), LinkOptions("rank0"));
  ASSERT_TRUE(link.ok()) << link.status();
  (*service_->channels().Find({}, (*link)->channel_id()))->Abort("a test of the service's end");
  EXPECT_TRUE(Eventually([&] { return !(*link)->status().ok(); }, absl::Seconds(5)));
  EXPECT_EQ((*link)->status().code(), absl::StatusCode::kUnavailable) << (*link)->status();
  EXPECT_TRUE(Eventually([&] { return (*link)->channel()->ended(); }, absl::Seconds(5)));
  EXPECT_TRUE(Eventually([&] { return service_->channels().open_channels() == 0; }));
}

TEST_F(NcclServiceTest, RefusesASecondWorkerOfTheSameName) {
  StartServer(TestEnvironment());
  auto first = NcclLink::Open(Client(), LinkOptions("rank0"));
  ASSERT_TRUE(first.ok()) << first.status();
  const absl::Status second = NcclLink::Open(Client(), LinkOptions("rank0")).status();
  EXPECT_EQ(second.code(), absl::StatusCode::kAlreadyExists);
  EXPECT_THAT(std::string(second.message()), HasSubstr("two workers with the same rank"));
  EXPECT_TRUE((*first)->status().ok());
  EXPECT_TRUE(NcclLink::Open(Client("other"), LinkOptions("rank0")).ok());
}

TEST_F(NcclServiceTest, KeepsTenantsApart) {
  StartServer(TestEnvironment());
  auto link = NcclLink::Open(Client("one"), LinkOptions("rank0"));
  ASSERT_TRUE(link.ok()) << link.status();
  EXPECT_TRUE(service_->channels().Find({"one", "default"}, (*link)->channel_id()).ok());
  EXPECT_EQ(service_->channels().Find({"two", "default"}, (*link)->channel_id()).status().code(),
            absl::StatusCode::kNotFound);
}

TEST_F(NcclServiceTest, RefusesWhatNcclCannotConnect) {
  StartServer(TestEnvironment());
  NcclLinkOptions options = LinkOptions("rank0");
  options.device_uuid = "GPU-service-0";
  options.service_device_uuid = "GPU-service-0";
  absl::Status status = NcclLink::Open(Client(), options).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(status.message()), HasSubstr("does not connect a GPU with itself"));
  options.service_device_uuid = "";
  auto other = NcclLink::Open(Client(), options);
  ASSERT_TRUE(other.ok()) << other.status();
  EXPECT_EQ((*other)->service_device_uuid(), "GPU-service-1");
  status = NcclLink::Open(Client(), LinkOptions("no spaces")).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr("peer_name"));
}

TEST_F(NcclServiceTest, RefusesAnotherVersion) {
  StartServer(TestEnvironment());
  setenv("FAKE_NCCL_VERSION", "22703", 1);
  NcclLinkOptions options = LinkOptions("rank0");
  unsetenv("FAKE_NCCL_VERSION");
  const absl::Status status = NcclLink::Open(Client(), options).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(status.message()), AllOf(HasSubstr("22703"), HasSubstr("22809")));
}

TEST_F(NcclServiceTest, SaysWhyThereAreNoChannels) {
  NcclEnvironment environment;
  environment.available = absl::FailedPreconditionError("no GPU here");
  StartServer(std::move(environment));
  const absl::Status status = NcclLink::Open(Client(), LinkOptions("rank0")).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(status.message()), HasSubstr("no GPU here"));
}

// The client's side of the stream by hand.
struct RawCall {
  explicit RawCall(const CacheChannel& channel)
      : stub(v1::NcclService::NewStub(channel.grpc_channel())), call(stub->Connect(&context)) {}
  void Hello() {
    v1::ConnectRequest request;
    request.mutable_hello()->set_peer_name("rank0");
    request.mutable_hello()->set_device_uuid("GPU-peer");
    request.mutable_hello()->set_nccl_version(22809);
    EXPECT_TRUE(call->Write(request));
  }
  grpc::Status Drain() {
    v1::ConnectResponse response;
    while (call->Read(&response)) responses.push_back(response);
    return call->Finish();
  }
  grpc::ClientContext context;
  std::unique_ptr<v1::NcclService::Stub> stub;
  std::unique_ptr<grpc::ClientReaderWriter<v1::ConnectRequest, v1::ConnectResponse>> call;
  std::vector<v1::ConnectResponse> responses;
};

TEST_F(NcclServiceTest, EndsAStreamThatIsSilent) {
  StartServer(TestEnvironment());
  const auto client = Client();
  RawCall call(*client);
  call.Hello();
  const absl::Time start = absl::Now();
  const grpc::Status status = call.Drain();
  EXPECT_EQ(status.error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_THAT(status.error_message(), HasSubstr("no heartbeat for 3s"));
  EXPECT_LT(absl::Now() - start, absl::Seconds(5));
  ASSERT_FALSE(call.responses.empty());
  EXPECT_EQ(call.responses[0].open().unique_id().size(), kNcclUniqueIdBytes);
  EXPECT_TRUE(Eventually([&] { return service_->channels().open_channels() == 0; }));
}

// A worker that vanishes in the middle of a transfer, which NCCL does not notice.
TEST_F(NcclServiceTest, AbortsTransfersWhenTheClientVanishes) {
  setenv("FAKE_NCCL_HANG_ON_PEER_DEATH", "1", 1);
  StartServer(TestEnvironment());
  const auto client = Client();
  RawCall call(*client);
  call.Hello();
  v1::ConnectResponse response;
  ASSERT_TRUE(call.call->Read(&response));
  const uint64_t channel_id = response.open().channel_id();
  NcclChannelOptions options = nccl_testing::OptionsFor({}, 1);
  response.open().unique_id().copy(options.unique_id.bytes, kNcclUniqueIdBytes);
  const auto peer = NcclChannel::Connect(options);
  unsetenv("FAKE_NCCL_HANG_ON_PEER_DEATH");
  ASSERT_TRUE(peer.ok()) << peer.status();
  ASSERT_TRUE(Eventually([&] { return service_->channels().Find({}, channel_id).ok(); }));
  const std::shared_ptr<NcclChannel> service_end = *service_->channels().Find({}, channel_id);
  std::vector<uint8_t> bytes(64 << 20);
  Outcomes outcomes;
  for (uint64_t i = 0; i < 3; ++i) {
    ASSERT_TRUE(service_end->Send({PieceOf(&bytes)}, outcomes.Record(i)).ok());
  }
  absl::SleepFor(absl::Milliseconds(100));
  call.context.TryCancel();
  const absl::Status status = service_end->Wait(Soon(absl::Seconds(5)));
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(status.message()),
              AllOf(HasSubstr("default/default/rank0"), HasSubstr("the client has gone")));
  EXPECT_THAT(outcomes.statuses(), AllOf(testing::SizeIs(3), testing::Each(status)));
  EXPECT_EQ(service_->channels().open_channels(), 0u);
}

TEST_F(NcclServiceTest, RefusesMessagesOutOfTurn) {
  StartServer(TestEnvironment());
  const auto client = Client();
  {
    RawCall call(*client);
    v1::ConnectRequest request;
    request.mutable_heartbeat();
    call.call->Write(request);
    EXPECT_THAT(call.Drain().error_message(), HasSubstr("the first message is not `hello`"));
  }
  {
    RawCall call(*client);
    call.Hello();
    call.Hello();
    EXPECT_THAT(call.Drain().error_message(), HasSubstr("a second `hello`"));
  }
  {
    RawCall call(*client);
    call.call->Write(v1::ConnectRequest());
    EXPECT_THAT(call.Drain().error_message(), HasSubstr("neither `hello` nor `heartbeat`"));
  }
}

}  // namespace
}  // namespace turbokv
