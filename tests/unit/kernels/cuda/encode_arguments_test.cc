// What cuda::EncodePages refuses, before anything touches a GPU.
#include <array>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/cuda/encode/check_arguments.h"
#include "kernels/cuda/encode/seal.h"

namespace turbokv::cuda {
namespace {

using ::testing::HasSubstr;

struct alignas(128) Memory {
  std::array<uint8_t, 512> bytes;
};

class EncodeArgumentsTest : public ::testing::Test {
 protected:
  // Never dereferenced.
  EncodeArguments Valid() {
    EncodeArguments arguments;
    arguments.pool = {
        {2, 128, Codec::kTurbo3, Codec::kTurbo3, true}, memory_.bytes.data(), 1 << 20, 4};
    arguments.source.k = memory_.bytes.data();
    arguments.source.v = memory_.bytes.data() + 16;
    arguments.source.token_stride = 256;
    arguments.source.head_stride = 128;
    arguments.pages = 1;
    arguments.page_ids = reinterpret_cast<const int32_t*>(memory_.bytes.data());
    arguments.workspace = memory_.bytes.data();
    return arguments;
  }
  template <class Change>
  void ExpectRefusal(Change change, const std::string& message) {
    EncodeArguments arguments = Valid();
    change(arguments);
    PageLayout layout;
    const absl::Status status = ValidateEncodeArguments(arguments, &layout);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << message;
    EXPECT_THAT(status.message(), HasSubstr(message));
  }

  Memory memory_;
};

TEST_F(EncodeArgumentsTest, NamesTheFieldItsValueAndTheLimit) {
  PageLayout layout;
  EXPECT_TRUE(ValidateEncodeArguments(Valid(), &layout).ok());
  ExpectRefusal([](EncodeArguments& a) { a.pages = -1; }, "pages is -1; it must be in 0..");
  ExpectRefusal([](EncodeArguments& a) { a.pages = 1 << 30; }, "pages is 1073741824");
  ExpectRefusal([](EncodeArguments& a) { a.page_ids = nullptr; }, "page_ids is null");
  ExpectRefusal([](EncodeArguments& a) { a.workspace = nullptr; }, "workspace is 0x0");
  ExpectRefusal([](EncodeArguments& a) { a.source.k = nullptr; }, "source.k is 0x0");
  ExpectRefusal(
      [](EncodeArguments& a) { a.source.v = static_cast<const uint8_t*>(a.source.k) + 2; },
      "source.v is 0x");
  ExpectRefusal([](EncodeArguments& a) { a.source.type = ValueType{9}; }, "source.type is 9");
  ExpectRefusal([](EncodeArguments& a) { a.source.token_stride = 257; },
                "source.token_stride is 257 values of 2 bytes");
  ExpectRefusal([](EncodeArguments& a) { a.source.head_stride = 4; },
                "source.head_stride is 4 values");
  ExpectRefusal(
      [](EncodeArguments& a) {
        a.source.slot_mapping = reinterpret_cast<const int64_t*>(a.source.k);
        a.source.block_tokens = 0;
      },
      "source.block_tokens is 0");
  ExpectRefusal(
      [](EncodeArguments& a) {
        a.source.slot_mapping = reinterpret_cast<const int64_t*>(a.source.k);
        a.source.block_tokens = 16;
        a.source.block_stride = 1;
      },
      "source.block_stride is 1 values");
  ExpectRefusal([](EncodeArguments& a) { a.pool.device_base = nullptr; }, "device_base");
  ExpectRefusal([](EncodeArguments& a) { a.pool.stride_bytes = 64; }, "stride_bytes");
}

TEST_F(EncodeArgumentsTest, SealingNamesTheField) {
  SealArguments arguments;
  arguments.pool = Valid().pool;
  arguments.pages = -5;
  EXPECT_THAT(SealPages(arguments, nullptr).message(), HasSubstr("pages is -5"));
  arguments.pages = 1;
  EXPECT_THAT(SealPages(arguments, nullptr).message(), HasSubstr("page_ids is null"));
  arguments.page_ids = Valid().page_ids;
  EXPECT_THAT(SealPages(arguments, nullptr).message(), HasSubstr("states is null"));
}

}  // namespace
}  // namespace turbokv::cuda
