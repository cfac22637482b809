#include "kernels/cuda/page_pool.h"

#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace turbokv::cuda {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

// Valid: 8 heads of turbo3, 128 + 8 x 13056 bytes a page. The memory is never touched.
PagePool ValidPool() {
  return {.shape = {8, 128, Codec::kTurbo3, Codec::kTurbo3, true},
          .device_base = reinterpret_cast<uint8_t*>(0x10000),
          .stride_bytes = 128 + 8 * 13056,
          .page_count = 100};
}

std::string MessageOf(const PagePool& pool, absl::StatusCode code) {
  const absl::Status status = ValidatePagePool(pool, nullptr);
  EXPECT_EQ(status.code(), code) << status;
  return std::string(status.message());
}

TEST(PagePoolTest, ValidPoolGivesItsLayout) {
  PageLayout layout;
  ASSERT_EQ(ValidatePagePool(ValidPool(), &layout), absl::OkStatus());
  EXPECT_EQ(layout.slice_bytes, 13056u);
  EXPECT_EQ(layout.shape, ValidPool().shape);
  EXPECT_EQ(ValidatePagePool(ValidPool(), nullptr), absl::OkStatus());
}

TEST(PagePoolTest, AcceptsTheLimits) {
  PagePool pool = ValidPool();
  pool.page_count = 0;
  EXPECT_EQ(ValidatePagePool(pool, nullptr), absl::OkStatus());
  pool.page_count = (int64_t{1} << 31) - 1;
  EXPECT_EQ(ValidatePagePool(pool, nullptr), absl::OkStatus());
  pool.stride_bytes += 128;
  EXPECT_EQ(ValidatePagePool(pool, nullptr), absl::OkStatus());
  for (const int head_dim : {64, 256}) {
    pool.shape.head_dim = head_dim;
    pool.stride_bytes = 1 << 20;
    EXPECT_EQ(ValidatePagePool(pool, nullptr), absl::OkStatus()) << head_dim;
  }
}

TEST(PagePoolTest, NamesTheShapeThatIsNone) {
  PagePool pool = ValidPool();
  pool.shape.head_dim = 100;
  EXPECT_THAT(MessageOf(pool, absl::StatusCode::kInvalidArgument),
              AllOf(HasSubstr("head_dim"), HasSubstr("100")));
  pool = ValidPool();
  pool.shape.kv_heads = 0;
  EXPECT_THAT(MessageOf(pool, absl::StatusCode::kInvalidArgument),
              AllOf(HasSubstr("kv_heads"), HasSubstr("0")));
  pool = ValidPool();
  pool.shape.k_codec = Codec::kTurbo3Tcq;
  EXPECT_THAT(MessageOf(pool, absl::StatusCode::kUnimplemented), HasSubstr("turbo3_tcq"));
}

TEST(PagePoolTest, NamesTheHeadDimWithoutKernels) {
  for (const int head_dim : {80, 96, 112, 192}) {
    PagePool pool = ValidPool();
    pool.shape.head_dim = head_dim;
    EXPECT_THAT(
        MessageOf(pool, absl::StatusCode::kUnimplemented),
        AllOf(HasSubstr("head_dim " + std::to_string(head_dim)), HasSubstr("64, 128 and 256")));
  }
}

TEST(PagePoolTest, NamesTheAddress) {
  PagePool pool = ValidPool();
  pool.device_base = nullptr;
  EXPECT_THAT(MessageOf(pool, absl::StatusCode::kInvalidArgument),
              AllOf(HasSubstr("device_base"), HasSubstr("0x0"), HasSubstr("128-byte aligned")));
  pool.device_base = reinterpret_cast<uint8_t*>(0x10040);
  EXPECT_THAT(MessageOf(pool, absl::StatusCode::kInvalidArgument),
              AllOf(HasSubstr("device_base"), HasSubstr("0x10040")));
}

TEST(PagePoolTest, NamesTheStride) {
  constexpr int64_t kPageBytes = 128 + 8 * 13056;
  for (const int64_t stride : {int64_t{0}, int64_t{-128}, int64_t{64}, kPageBytes + 64}) {
    PagePool pool = ValidPool();
    pool.stride_bytes = stride;
    EXPECT_THAT(MessageOf(pool, absl::StatusCode::kInvalidArgument),
                AllOf(HasSubstr("stride_bytes"), HasSubstr(std::to_string(stride))));
  }
}

TEST(PagePoolTest, NamesTheCount) {
  for (const int64_t count : {int64_t{-1}, int64_t{1} << 31}) {
    PagePool pool = ValidPool();
    pool.page_count = count;
    EXPECT_THAT(
        MessageOf(pool, absl::StatusCode::kInvalidArgument),
        AllOf(HasSubstr("page_count"), HasSubstr(std::to_string(count)), HasSubstr("2^31-1")));
  }
}

}  // namespace
}  // namespace turbokv::cuda
