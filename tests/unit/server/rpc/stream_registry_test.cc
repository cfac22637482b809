#include "server/rpc/stream_registry.h"

#include "absl/time/clock.h"
#include "gtest/gtest.h"

namespace turbokv {
namespace {

class FakeStream : public WatchedStream {
 public:
  void OnStalled() override { ++stalls; }
  using WatchedStream::Touch;
  int stalls = 0;
};

TEST(StreamRegistryTest, ShedsWhatIsBeyondItsLimit) {
  StreamRegistry registry("stores", 2);
  FakeStream first, second, third;
  EXPECT_TRUE(registry.Add(&first).ok());
  EXPECT_TRUE(registry.Add(&second).ok());
  const absl::Status shed = registry.Add(&third);
  EXPECT_EQ(shed.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(shed.message(), "2 stores are under way; the limit is 2");
  registry.Remove(&third);  // was never in
  EXPECT_EQ(registry.active(), 2);
  registry.Remove(&first);
  EXPECT_TRUE(registry.Add(&third).ok());
}

TEST(StreamRegistryTest, EndsOnlyWhatDoesNotMove) {
  StreamRegistry registry("fetches", 8);
  FakeStream moving, still;
  ASSERT_TRUE(registry.Add(&moving).ok());
  ASSERT_TRUE(registry.Add(&still).ok());
  absl::SleepFor(absl::Milliseconds(30));
  moving.Touch();
  registry.EndStalled(absl::Milliseconds(20));
  EXPECT_EQ(moving.stalls, 0);
  EXPECT_EQ(still.stalls, 1);
  registry.Remove(&still);
  absl::SleepFor(absl::Milliseconds(30));
  registry.EndStalled(absl::Hours(1));
  EXPECT_EQ(still.stalls, 1);
  EXPECT_EQ(moving.stalls, 0);
}

}  // namespace
}  // namespace turbokv
