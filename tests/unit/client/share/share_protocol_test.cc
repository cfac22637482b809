#include "client/share/share_protocol.h"

#include <cstring>
#include <random>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace turbokv {
namespace {

using ::testing::ElementsAreArray;
using ::testing::HasSubstr;

std::string Message(const absl::Status& status) { return std::string(status.message()); }

PlacedSlab SomeSlab() {
  PlacedSlab slab;
  slab.memory.kind = ShareKind::kCudaIpc;
  for (size_t i = 0; i < kIpcHandleBytes; ++i) slab.memory.ipc_handle[i] = 200 - i;
  slab.geometry = {.slab_bytes = 1 << 20, .slab_count = 64};
  slab.generation = 9;
  return slab;
}

TEST(ShareProtocolTest, RequestsRoundTrip) {
  const std::string longest(64, 'n');
  const auto hello = DecodeShareRequest(EncodeShareRequest(ShareIdentity{longest, "w-1"}));
  ASSERT_TRUE(hello.ok()) << hello.status();
  EXPECT_EQ(std::get<ShareIdentity>(*hello).tenant, longest);
  EXPECT_EQ(std::get<ShareIdentity>(*hello).client, "w-1");
  const auto map = DecodeShareRequest(EncodeShareRequest(MapSlabRequest{~uint64_t{0} - 1, 2, 3}));
  ASSERT_TRUE(map.ok()) << map.status();
  EXPECT_EQ(std::get<MapSlabRequest>(*map).lease_id, ~uint64_t{0} - 1);
  EXPECT_EQ(std::get<MapSlabRequest>(*map).pool, 2);
  EXPECT_EQ(std::get<MapSlabRequest>(*map).slab, 3);
  const auto open = DecodeShareRequest(EncodeShareRequest(OpenStagingRequest{{8192, 5}}));
  ASSERT_TRUE(open.ok()) << open.status();
  EXPECT_EQ(std::get<OpenStagingRequest>(*open).geometry, (StagingGeometry{8192, 5}));
}

TEST(ShareProtocolTest, LayoutIsFrozen) {
  const uint8_t expected[] = {'T',  'K', 'V', 'S', 1, 0, 3, 0,  // magic, version, type
                              0x08, 7,   6,   5,   4, 3, 2, 1,  // lease
                              2,    0,   0,   0,   3, 0, 0, 0};
  EXPECT_THAT(EncodeShareRequest(MapSlabRequest{0x0102030405060708, 2, 3}),
              ElementsAreArray(expected));
}

TEST(ShareProtocolTest, RepliesRoundTrip) {
  EXPECT_EQ(*DecodeHelloReply(EncodeHelloReply(uint64_t{77})), 77);
  const auto slab = DecodeMapSlabReply(EncodeMapSlabReply(SomeSlab()));
  ASSERT_TRUE(slab.ok()) << slab.status();
  EXPECT_EQ(slab->memory.kind, ShareKind::kCudaIpc);
  EXPECT_EQ(slab->memory.fd, -1);
  EXPECT_EQ(std::memcmp(slab->memory.ipc_handle, SomeSlab().memory.ipc_handle, kIpcHandleBytes), 0);
  EXPECT_EQ(slab->geometry, SomeSlab().geometry);
  EXPECT_EQ(slab->generation, 9);
  EXPECT_EQ(*DecodeOpenStagingReply(EncodeOpenStagingReply(StagingGeometry{4096, 3})),
            (StagingGeometry{4096, 3}));
}

TEST(ShareProtocolTest, RepliesCarryEveryCodeAndABoundedPrintableReason) {
  for (int code = 1; code <= 16; ++code) {
    const absl::Status sent(static_cast<absl::StatusCode>(code), absl::StrCat("reason ", code));
    const absl::Status received = DecodeMapSlabReply(EncodeMapSlabReply(sent)).status();
    EXPECT_EQ(received.message(), sent.message());
    EXPECT_EQ(received.code(), sent.code() == absl::StatusCode::kInternal
                                   ? absl::StatusCode::kUnknown
                                   : sent.code());
  }
  const auto received =
      DecodeHelloReply(EncodeHelloReply(absl::NotFoundError("\x1b[31m" + std::string(1000, 'x'))));
  EXPECT_EQ(received.status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(received.status().message().size(), kMaxShareReasonBytes);
  EXPECT_THAT(Message(received.status()), HasSubstr("?[31mxxx"));
}

TEST(ShareProtocolTest, RefusesNamesThatAreNoNames) {
  for (const char* name : {"", "a/b", "a b", "x\n"}) {
    const auto request = DecodeShareRequest(EncodeShareRequest(ShareIdentity{name, "c"}));
    EXPECT_EQ(request.status().code(), absl::StatusCode::kInvalidArgument) << name;
    EXPECT_THAT(Message(request.status()), HasSubstr("tenant"));
  }
  std::vector<uint8_t> message = EncodeShareRequest(ShareIdentity{"t", "c"});
  message[8] = 65;  // bytes of the tenant's name
  EXPECT_THAT(Message(DecodeShareRequest(message).status()), HasSubstr("65 bytes: more than 64"));
  message[11] = 255;
  EXPECT_FALSE(DecodeShareRequest(message).ok());
}

TEST(ShareProtocolTest, RefusesOtherVersionsTypesAndReservedBits) {
  std::vector<uint8_t> message = EncodeShareRequest(OpenStagingRequest{{4096, 1}});
  const auto with = [&](size_t at, uint8_t value) {
    std::vector<uint8_t> changed = message;
    changed[at] = value;
    return DecodeShareRequest(changed).status();
  };
  EXPECT_EQ(with(4, 2).code(), absl::StatusCode::kUnimplemented);
  EXPECT_THAT(Message(with(4, 2)), HasSubstr("version 2: this build speaks 1"));
  EXPECT_THAT(Message(with(6, 2)), HasSubstr("type 2, which is no request"));
  EXPECT_THAT(Message(with(6, 1)), HasSubstr("with 24 bytes instead of 144"));
  EXPECT_THAT(Message(with(0, 0)), HasSubstr("begins with"));
  EXPECT_THAT(Message(with(23, 1)), HasSubstr("reserved"));
}

TEST(ShareProtocolTest, ShortAndLongMessagesAreErrors) {
  const std::vector<std::vector<uint8_t>> requests = {EncodeShareRequest(ShareIdentity{}),
                                                      EncodeShareRequest(MapSlabRequest{}),
                                                      EncodeShareRequest(OpenStagingRequest{})};
  for (std::vector<uint8_t> message : requests) {
    for (size_t size = 0; size < message.size(); ++size) {
      EXPECT_FALSE(DecodeShareRequest(absl::MakeConstSpan(message).first(size)).ok()) << size;
    }
    message.push_back(0);
    EXPECT_FALSE(DecodeShareRequest(message).ok());
  }
  const std::vector<uint8_t> reply = EncodeMapSlabReply(SomeSlab());
  for (size_t size = 0; size < reply.size(); ++size) {
    EXPECT_EQ(DecodeMapSlabReply(absl::MakeConstSpan(reply).first(size)).status().code(),
              absl::StatusCode::kInternal);
  }
}

TEST(ShareProtocolTest, RefusesMemoryOfNoKind) {
  PlacedSlab slab = SomeSlab();
  slab.memory.kind = ShareKind::kNone;
  EXPECT_EQ(DecodeMapSlabReply(EncodeMapSlabReply(slab)).status().code(),
            absl::StatusCode::kInternal);
  slab.memory.kind = static_cast<ShareKind>(5);
  EXPECT_THAT(Message(DecodeMapSlabReply(EncodeMapSlabReply(slab)).status()),
              HasSubstr("memory of kind 5"));
}

TEST(ShareProtocolTest, AnyBytesDecodeToSomethingOrAnError) {
  std::mt19937 random(1);
  for (int round = 0; round < 50000; ++round) {
    std::vector<uint8_t> bytes(random() % (kMaxShareMessageBytes + 1));
    for (uint8_t& byte : bytes) byte = static_cast<uint8_t>(random());
    // Mostly past the header, with a size that fits.
    static constexpr size_t kSizes[] = {144, 272, 24, kMaxShareMessageBytes, 24, 280};
    const int type = static_cast<int>(random() % 6);
    if (round % 4 != 0) {
      bytes.resize(kSizes[type]);
      const uint8_t header[] = {'T', 'K', 'V', 'S', 1, 0, static_cast<uint8_t>(type + 1), 0};
      std::memcpy(bytes.data(), header, sizeof(header));
      if (round % 8 == 1 && bytes.size() > 24) std::memset(bytes.data() + 8, 0, 16);
    }
    (void)DecodeShareRequest(bytes);
    (void)DecodeHelloReply(bytes);
    (void)DecodeMapSlabReply(bytes);
    (void)DecodeOpenStagingReply(bytes);
  }
}

}  // namespace
}  // namespace turbokv
