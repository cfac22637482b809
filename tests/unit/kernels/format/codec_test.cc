#include "kernels/format/codec.h"

#include <set>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/format/head_groups.h"

namespace turbokv {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

// Persisted: a change here is a change of the format.
TEST(CodecTest, IdsAreFrozen) {
  const std::pair<int, const char*> frozen[] = {
      {1, "bf16"},    {2, "fp16"},    {3, "fp8_e4m3"},    {4, "q8_0"},        {5, "q4_0"},
      {6, "int8"},    {7, "int6"},    {8, "int5"},        {9, "int4"},        {10, "turbo4"},
      {11, "turbo3"}, {12, "turbo2"}, {13, "turbo3_tcq"}, {14, "turbo2_tcq"}, {15, "turbo4_tcq"},
      {16, "klt4"},   {17, "klt3"},   {18, "klt2"}};
  EXPECT_EQ(AllCodecs().size(), std::size(frozen));
  for (const auto& [id, name] : frozen) {
    const absl::StatusOr<Codec> codec = CodecFromId(static_cast<uint8_t>(id));
    ASSERT_TRUE(codec.ok()) << codec.status();
    EXPECT_EQ(CodecName(*codec), name);
    EXPECT_EQ(*CodecFromName(name), *codec);
    EXPECT_EQ(TraitsOf(*codec).codec, *codec);
  }
}

TEST(CodecTest, UnknownIdsAndNamesAreRefused) {
  EXPECT_EQ(CodecFromId(0).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(CodecFromId(19).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(CodecFromId(255).status().code(), absl::StatusCode::kInvalidArgument);
  const absl::Status status = CodecFromName("turbo5\n").status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(status.message(), AllOf(HasSubstr("\"turbo5\\n\""), HasSubstr("q8_0")));
}

TEST(HeadGroupsTest, GroupsCoverTheHead) {
  for (int head_dim : kHeadDims) {
    const HeadGroups groups = GroupsOf(head_dim);
    EXPECT_GE(groups.padded_dim(), head_dim);
    EXPECT_LE(groups.padded_dim(), kMaxHeadDim);
    for (int group = 0; group < groups.count; ++group) {
      EXPECT_TRUE(groups.channels[group] == 64 || groups.channels[group] == 128);
    }
    EXPECT_EQ(PaddedHeadDim(Codec::kTurbo3, head_dim), groups.padded_dim());
    EXPECT_EQ(PaddedHeadDim(Codec::kQ8_0, head_dim) % kTileChannels, 0);
    EXPECT_LT(PaddedHeadDim(Codec::kQ8_0, head_dim) - head_dim, kTileChannels);
  }
  EXPECT_EQ(GroupsOf(192).begin(1), 128);
  EXPECT_EQ(GroupsOf(192).channels[1], 64);
}

TEST(HeadGroupsTest, OtherHeadDimsAreRefused) {
  for (int head_dim : {-1, 0, 32, 65, 127, 129, 512}) {
    const absl::Status status = ValidateHeadDim(head_dim);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(status.message(), HasSubstr("64, 80, 96, 112, 128, 192, 256"));
  }
}

}  // namespace
}  // namespace turbokv
