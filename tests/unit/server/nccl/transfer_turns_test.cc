#include "server/nccl/transfer_turns.h"

#include <atomic>
#include <string>
#include <thread>

#include "absl/time/clock.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace turbokv {
namespace {

using ::testing::HasSubstr;

absl::Status Wait(TransferTurns* turns, uint64_t sequence,
                  absl::Duration timeout = absl::Seconds(10)) {
  return turns->Wait(sequence, absl::Now() + timeout, [] { return absl::OkStatus(); });
}

TEST(TransferTurnsTest, GoInOrder) {
  TransferTurns turns;
  EXPECT_TRUE(Wait(&turns, 0).ok());
  std::atomic<bool> passed{false};
  std::thread later([&] {
    EXPECT_TRUE(Wait(&turns, 2).ok());
    EXPECT_TRUE(passed);
  });
  turns.Pass(1);  // given up
  passed = true;
  turns.Pass(0);
  later.join();
}

TEST(TransferTurnsTest, NameTheNumberThatIsMissing) {
  TransferTurns turns;
  turns.Pass(0);
  turns.Pass(2);
  const absl::Status status = Wait(&turns, 3, absl::Milliseconds(30));
  EXPECT_EQ(status.code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_THAT(std::string(status.message()), HasSubstr("transfer 3 waits for transfer 1"));
}

TEST(TransferTurnsTest, RefuseANumberTwice) {
  TransferTurns turns;
  turns.Pass(0);
  turns.Pass(2);
  for (const uint64_t used : {0, 2}) {
    const absl::Status status = Wait(&turns, used);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(status.message()), HasSubstr("announced before"));
  }
}

TEST(TransferTurnsTest, EndWhenCancelled) {
  TransferTurns turns;
  const absl::Status status = turns.Wait(
      5, absl::InfiniteFuture(), [] { return absl::CancelledError("the client has gone"); });
  EXPECT_EQ(status.code(), absl::StatusCode::kCancelled);
}

}  // namespace
}  // namespace turbokv
