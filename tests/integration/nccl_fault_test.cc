// What can go wrong with transfers: peers that lie, stop or die, and devices that break. Nothing is
// left of it within five seconds, and others are served.
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "client/wire/bulk_message.h"
#include "client/wire/spec_conversion.h"
#include "client/wire/store_call.h"
#include "tests/integration/nccl_data_fixture.h"

namespace turbokv::testing {
namespace {

using ::testing::AllOf;
using ::testing::AnyOf;
using ::testing::HasSubstr;

constexpr int64_t kBlocks = 8;

class NcclFaultTest : public NcclDataTest {
 protected:
  // A store call by hand: announces what the test says.
  class RawStore {
   public:
    RawStore(std::shared_ptr<CacheChannel> channel, const ResolvedSpec& spec, const Prompt& prompt,
             uint64_t channel_id)
        : call_(std::move(channel), absl::Seconds(30)) {
      const std::vector<Digest> keys = BlockKeys(spec.fingerprint, "", prompt.token_ids());
      v1::StoreRequest request;
      v1::StoreOpen* open = request.mutable_open();
      *open->mutable_spec() = ToProto(spec.spec);
      open->set_encoding(v1::STORE_ENCODING_RAW);
      open->set_token_count(keys.size() * kPageTokens);
      open->set_block_keys(keys.data(), keys.size() * sizeof(Digest));
      open->set_nccl_channel_id(channel_id);
      call_.Write(BuildBulkMessage(request, {})).IgnoreError();
    }
    void Announce(uint64_t sequence, uint32_t layer, uint64_t first_block, uint32_t block_count) {
      v1::StoreRequest request;
      request.mutable_chunk()->set_layer(layer);
      v1::NcclRun* run = request.mutable_chunk()->mutable_nccl();
      run->set_sequence(sequence);
      run->set_first_block(first_block);
      run->set_block_count(block_count);
      call_.Write(BuildBulkMessage(request, {})).IgnoreError();  // Finish tells
    }
    absl::Status Finish() { return call_.Finish().status(); }

   private:
    StoreCall call_;
  };

  RawStore MakeRawStore(uint64_t channel_id, const std::string& tenant = "default") {
    return RawStore(ConnectTo(*server_, tenant), *spec_, prompt_, channel_id);
  }
  absl::Status Announced(uint64_t channel_id, uint32_t layer, uint64_t first_block,
                         uint32_t block_count) {
    RawStore store = MakeRawStore(channel_id);
    store.Announce(0, layer, first_block, block_count);
    return store.Finish();
  }
  void ExpectOthersAreServed() {
    const Prompt other(raw_spec_, 5 * kPageTokens + 3, 77);
    const auto link = Link("other");
    ASSERT_OK(Store(link, other));
    ASSERT_OK(Fetch(link.get(), other));
  }

  const Prompt prompt_{raw_spec_, kBlocks* kPageTokens, 1};
};

TEST_F(NcclFaultTest, RefusesWhatIsNoRun) {
  Start();
  const auto refuses = [&](uint32_t layer, uint64_t first_block, uint32_t block_count,
                           const std::string& why) {
    const auto link = Link();
    EXPECT_THAT(Announced(link->channel_id(), layer, first_block, block_count),
                StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr(why)));
  };
  refuses(0, 1, 2, "expected first_block 0, got 1");
  refuses(0, 0, 0, "block_count is 0 at first_block 0; expected 1..8");
  refuses(0, 0, 9, "block_count is 9");
  refuses(0, 0, 5000, "block_count is 5000; expected 1..4096");
  refuses(1, 0, 8, "layer 0 missing");
  refuses(7, 0, 8, "layer");
  RawStore without = MakeRawStore(0);
  without.Announce(0, 0, 0, 8);
  EXPECT_THAT(without.Finish(), StatusIs(absl::StatusCode::kInvalidArgument,
                                         HasSubstr("`open` named no nccl_channel_id")));
  ExpectAllFreed();
}

TEST_F(NcclFaultTest, RefusesTheChannelOfAnotherTenant) {
  Start();
  const auto link = Link();
  RawStore store = MakeRawStore(link->channel_id(), "other");
  EXPECT_THAT(store.Finish(), StatusIs(absl::StatusCode::kNotFound, HasSubstr("channel_id")));
  ASSERT_OK(Store(link, prompt_));
}

TEST_F(NcclFaultTest, EndsAChannelWhosePeerAnnouncesAndDoesNotSend) {
  Start(1, size_t{16} << 20, absl::Seconds(1));
  const auto link = Link();
  RawStore store = MakeRawStore(link->channel_id());
  store.Announce(0, 0, 0, kBlocks);
  // The client says nothing more, and does not close either.
  EXPECT_TRUE(Eventually([&] { return server_->metrics().active_stores() == 1; }));
  ExpectAllFreed();
  EXPECT_THAT(store.Finish(),
              StatusIs(absl::StatusCode::kUnavailable, HasSubstr("did not finish within 1s")));
  EXPECT_TRUE(Eventually([&] { return !link->status().ok(); }));
  ExpectOthersAreServed();
}

TEST_F(NcclFaultTest, ATransferThatIsNotAnnouncedEndsTheStoreThatWaits) {
  Start(1, size_t{16} << 20, absl::Seconds(1));
  const auto link = Link();
  RawStore store = MakeRawStore(link->channel_id());
  store.Announce(3, 0, 0, kBlocks);
  EXPECT_THAT(store.Finish(), StatusIs(absl::StatusCode::kDeadlineExceeded,
                                       HasSubstr("transfer 3 waits for transfer 0")));
  ExpectAllFreed();
}

TEST_F(NcclFaultTest, ANumberTwiceEndsTheStore) {
  Start();
  const auto link = Link();
  ASSERT_OK(Store(link, prompt_));
  RawStore store = MakeRawStore(link->channel_id());
  const Prompt other(raw_spec_, kBlocks * kPageTokens, 2);
  store.Announce(0, 0, 0, kBlocks);
  EXPECT_THAT(store.Finish(), StatusIs(absl::StatusCode::kInvalidArgument,
                                       HasSubstr("transfer 0 was announced before")));
  ExpectAllFreed();
}

TEST_F(NcclFaultTest, SizesThatDoNotMatchEndTheChannel) {
  Start();
  std::vector<uint8_t> bytes(1000);  // until the channel has ended
  const auto link = Link();
  ASSERT_OK(link->channel()->Enqueue(link->TakeSequences(1), NcclDirection::kSend,
                                     {{bytes.data(), bytes.size()}}, nullptr));
  RawStore store = MakeRawStore(link->channel_id());
  store.Announce(0, 0, 0, kBlocks);
  EXPECT_THAT(store.Finish(), StatusIs(absl::StatusCode::kUnavailable, HasSubstr("1000 bytes")));
  ExpectAllFreed();
  ExpectOthersAreServed();
}

TEST_F(NcclFaultTest, ADeviceThatBreaksInTheMiddleOfAStoreLeavesNothing) {
  Start();
  const auto link = Link();
  devices_[0]->faults().Hold();
  absl::StatusOr<StoreResult> stored = absl::UnknownError("not done");
  std::thread writer([&] { stored = Store(link, Prompt(raw_spec_, 60 * kPageTokens, 3)); });
  devices_[0]->faults().AwaitHeld(1);
  devices_[0]->faults().Break(absl::InternalError("unspecified launch failure"));
  devices_[0]->faults().Release();
  writer.join();
  EXPECT_FALSE(stored.ok());
  ExpectAllFreed();
  EXPECT_TRUE(Eventually([&] { return server_->cache().Usage().pools[1].lost; }));
  EXPECT_EQ(server_->cache().Usage().used_bytes, 0u);
}

TEST_F(NcclFaultTest, LanesThatAreTakenHoldTheSenderBack) {
  Start();
  const auto link = Link();
  devices_[0]->faults().Hold();
  absl::StatusOr<StoreResult> stored = absl::UnknownError("not done");
  const Prompt prompt(raw_spec_, 60 * kPageTokens, 3);  // 24 transfers for 3 lanes
  std::thread writer([&] { stored = Store(link, prompt); });
  EXPECT_TRUE(Eventually([&] { return LanesInUse() == kLanes; }));
  absl::SleepFor(absl::Milliseconds(100));
  EXPECT_EQ(LanesInUse(), kLanes) << "it waits";
  devices_[0]->faults().Release();
  writer.join();
  ASSERT_OK(stored);
  ExpectStored(prompt);
}

TEST_F(NcclFaultTest, AStoreThatIsGivenUpLeavesNothing) {
  Start();
  const auto link = Link();
  {
    const auto store = NcclPrefill::Open(channel_, link, spec_, prompt_.token_ids(), {});
    ASSERT_OK(store);
    const KvView run = prompt_.View(0);
    ASSERT_OK((*store)->WriteLayer(
        0, static_cast<const uint8_t*>(run.k), static_cast<const uint8_t*>(run.v),
        prompt_.View(0, (*store)->run_blocks() * kPageTokens, prompt_.tokens())));
  }
  ExpectAllFreed();
  EXPECT_EQ(server_->cache().Usage().used_bytes, 0u);
  ExpectOthersAreServed();
}

// A worker in a process of its own, which is killed.
class WorkerProcess {
 public:
  WorkerProcess(int port, const std::string& mode) {
    const std::string binary = absl::StrCat(TURBOKV_BINARY_DIR, "/nccl_test_worker");
    std::vector<std::string> arguments = {binary,
                                          absl::StrCat(TURBOKV_BINARY_DIR, "/libfake_nccl.so"),
                                          absl::StrCat("127.0.0.1:", port), mode};
    std::vector<char*> argv;
    for (std::string& argument : arguments) argv.push_back(argument.data());
    argv.push_back(nullptr);
    int output[2];
    if (pipe(output) != 0) std::abort();
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, output[1], STDOUT_FILENO);
    posix_spawn_file_actions_addclose(&actions, output[0]);
    if (posix_spawn(&pid_, argv[0], &actions, nullptr, argv.data(), environ) != 0) std::abort();
    posix_spawn_file_actions_destroy(&actions);
    close(output[1]);
    char byte = 0;
    started_ = read(output[0], &byte, 1) == 1;
    close(output[0]);
  }
  ~WorkerProcess() { Kill(); }
  bool started() const { return started_; }
  void Kill() {
    if (pid_ == 0) return;
    kill(pid_, SIGKILL);
    waitpid(pid_, nullptr, 0);
    pid_ = 0;
  }

 private:
  pid_t pid_ = 0;
  bool started_ = false;
};

// NCCL notices nothing, as between GPUs of one host.
class NcclKillTest : public NcclFaultTest, public ::testing::WithParamInterface<const char*> {
 protected:
  void SetUp() override { setenv("FAKE_NCCL_HANG_ON_PEER_DEATH", "1", 1); }
  void TearDown() override {
    NcclFaultTest::TearDown();
    unsetenv("FAKE_NCCL_HANG_ON_PEER_DEATH");
  }
};

TEST_P(NcclKillTest, AWorkerThatIsKilledLeavesNothing) {
  Start();
  for (int round = 0; round < 3; ++round) {
    WorkerProcess worker(server_->port(), GetParam());
    ASSERT_TRUE(worker.started());
    absl::SleepFor(absl::Milliseconds(30 + 41 * round));
    worker.Kill();
    ExpectAllFreed();
    EXPECT_TRUE(Eventually([&] {
      return server_->nccl_service().channels().open_channels() == 0 &&
             server_->nccl_service().channels().ending_channels() == 0;
    }));
  }
  ExpectOthersAreServed();
}

INSTANTIATE_TEST_SUITE_P(Modes, NcclKillTest,
                         ::testing::Values("store", "fetch", "store-early", "fetch-silent"),
                         [](const auto& mode) {
                           std::string name = mode.param;
                           std::replace(name.begin(), name.end(), '-', '_');
                           return name;
                         });

}  // namespace
}  // namespace turbokv::testing
