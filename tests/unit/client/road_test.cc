#include "client/road.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace turbokv {
namespace {

using ::testing::HasSubstr;

RoadFacts Sharing() {
  RoadFacts facts;
  facts.same_host = true;
  facts.share_socket = "/run/turbokv/share.sock";
  return facts;
}

TEST(Road, NamesAreReadBack) {
  for (const Road road : kAllRoads) {
    const auto parsed = ParseTransport(RoadName(road));
    ASSERT_TRUE(parsed.ok()) << parsed.status();
    EXPECT_EQ(*parsed, road);
  }
  const auto any = ParseTransport("auto");
  ASSERT_TRUE(any.ok()) << any.status();
  EXPECT_FALSE(any->has_value());
  for (const char* text : {"", "GRPC", "shm ", "tcp"}) {
    EXPECT_EQ(ParseTransport(text).status().code(), absl::StatusCode::kInvalidArgument) << text;
  }
}

TEST(Road, ChoosesByWhatBothEndsHave) {
  RoadFacts old_server = Sharing(), other_host = Sharing(), no_socket = Sharing(),
            refused = Sharing();
  old_server.described = absl::UnimplementedError("no Describe");
  other_host.same_host = false;
  no_socket.share_socket = "";
  refused.share = absl::ResourceExhaustedError("64 sessions, the limit");
  const struct {
    const char* name;
    RoadFacts facts;
    const char* why_not_shm;  // null: it is to be had
  } cases[] = {
      {"sharing", Sharing(), nullptr},
      {"old server", old_server, "no Describe"},
      {"other host", other_host, "another host"},
      {"no socket", no_socket, "share_socket"},
      {"refused", refused, "64 sessions"},
  };
  for (const auto& test : cases) {
    SCOPED_TRACE(test.name);
    // A better road that is missing never fails auto, nor gRPC.
    const auto any = ChooseRoad(test.facts, std::nullopt);
    ASSERT_TRUE(any.ok()) << any.status();
    const auto grpc = ChooseRoad(test.facts, Road::kGrpc);
    ASSERT_TRUE(grpc.ok()) << grpc.status();
    EXPECT_EQ(grpc->taken, Road::kGrpc);
    EXPECT_TRUE(any->of(Road::kGrpc).ok());

    const auto shm = ChooseRoad(test.facts, Road::kShm);
    if (test.why_not_shm == nullptr) {
      EXPECT_EQ(any->taken, Road::kShm);
      EXPECT_TRUE(any->of(Road::kShm).ok());
      ASSERT_TRUE(shm.ok()) << shm.status();
      EXPECT_EQ(shm->taken, Road::kShm);
    } else {
      EXPECT_EQ(any->taken, Road::kGrpc);
      EXPECT_THAT(any->why, HasSubstr(test.why_not_shm));
      EXPECT_THAT(std::string(any->of(Road::kShm).message()), HasSubstr(test.why_not_shm));
      EXPECT_EQ(shm.status().code(), absl::StatusCode::kFailedPrecondition);
      EXPECT_THAT(std::string(shm.status().message()), HasSubstr(test.why_not_shm));
    }
  }
}

TEST(Road, DeviceRoadsAreNotForClientsInHostMemory) {
  for (const Road road : {Road::kCuda, Road::kNccl}) {
    const auto chosen = ChooseRoad(Sharing(), road);
    EXPECT_EQ(chosen.status().code(), absl::StatusCode::kFailedPrecondition);
    EXPECT_THAT(std::string(chosen.status().message()), HasSubstr(std::string(RoadName(road))));
  }
}

}  // namespace
}  // namespace turbokv
