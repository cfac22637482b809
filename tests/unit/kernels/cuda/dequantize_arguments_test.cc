// What cuda::DequantizePages and cuda::RecodePages refuse, before anything touches a GPU.
#include <array>
#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/cuda/dequantize/dequantize.h"

namespace turbokv::cuda {
namespace {

using ::testing::HasSubstr;

struct alignas(128) Memory {
  std::array<uint8_t, 512> bytes;
};

class DequantizeArgumentsTest : public ::testing::Test {
 protected:
  // Never dereferenced.
  DequantizeArguments Valid() {
    DequantizeArguments arguments;
    arguments.pool = Pool();
    arguments.page_ids = Ids();
    arguments.pages = 1;
    arguments.sink.k = memory_.bytes.data();
    arguments.sink.v = memory_.bytes.data() + 16;
    arguments.sink.token_stride = 256;
    arguments.sink.head_stride = 128;
    return arguments;
  }
  RecodeArguments ValidRecode() {
    RecodeArguments arguments;
    arguments.from = Pool();
    arguments.to = Pool();
    arguments.from_page_ids = Ids();
    arguments.to_page_ids = Ids();
    arguments.pages = 1;
    arguments.workspace = memory_.bytes.data();
    return arguments;
  }
  template <class Change>
  void ExpectRefusal(Change change, const std::string& message) {
    DequantizeArguments arguments = Valid();
    change(arguments);
    Expect(DequantizePages(arguments, nullptr), message);
  }
  template <class Change>
  void ExpectRecodeRefusal(Change change, const std::string& message) {
    RecodeArguments arguments = ValidRecode();
    change(arguments);
    Expect(RecodePages(arguments, nullptr), message);
  }

 private:
  PagePool Pool() {
    return {{2, 128, Codec::kTurbo3, Codec::kTurbo3, true}, memory_.bytes.data(), 1 << 20, 4};
  }
  const int32_t* Ids() { return reinterpret_cast<const int32_t*>(memory_.bytes.data()); }
  static void Expect(const absl::Status& status, const std::string& message) {
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << message;
    EXPECT_THAT(status.message(), HasSubstr(message));
  }

  Memory memory_;
};

TEST_F(DequantizeArgumentsTest, NoPagesNeedNothing) {
  DequantizeArguments arguments = Valid();
  arguments.pages = 0;
  arguments.page_ids = nullptr;
  EXPECT_TRUE(DequantizePages(arguments, nullptr).ok());
  RecodeArguments recode = ValidRecode();
  recode.pages = 0;
  recode.workspace = nullptr;
  EXPECT_TRUE(RecodePages(recode, nullptr).ok());
  EXPECT_EQ(RecodeWorkspaceBytes(0, recode.to.shape), 0u);
}

TEST_F(DequantizeArgumentsTest, DequantizeNamesTheFieldItsValueAndTheLimit) {
  using Arguments = DequantizeArguments;
  ExpectRefusal([](Arguments& a) { a.pages = -1; }, "pages is -1; it must be in 0..");
  ExpectRefusal([](Arguments& a) { a.pool.stride_bytes = 64; }, "stride_bytes of a page pool");
  ExpectRefusal([](Arguments& a) { a.page_ids = nullptr; }, "page_ids is null");
  ExpectRefusal([](Arguments& a) { a.sink.k = a.sink.v = nullptr; },
                "sink.k and sink.v are both null");
  ExpectRefusal([](Arguments& a) { a.sink.k = static_cast<uint8_t*>(a.sink.k) + 2; },
                "sink.k is 0x");
  ExpectRefusal([](Arguments& a) { a.sink.v = static_cast<uint8_t*>(a.sink.v) + 8; },
                "sink.v is 0x");
  ExpectRefusal([](Arguments& a) { a.sink.type = ValueType{9}; }, "sink.type is 9");
  ExpectRefusal([](Arguments& a) { a.sink.token_stride = 257; },
                "sink.token_stride is 257 values of 2 bytes");
  ExpectRefusal([](Arguments& a) { a.sink.head_stride = -128; }, "sink.head_stride is -128");
  ExpectRefusal([](Arguments& a) { a.sink.slot_mapping = reinterpret_cast<int64_t*>(a.sink.k); },
                "sink.block_tokens is 0");
  ExpectRefusal(
      [](Arguments& a) {
        a.sink.slot_mapping = reinterpret_cast<int64_t*>(a.sink.k);
        a.sink.block_tokens = 16;
        a.sink.block_stride = 4;
      },
      "sink.block_stride is 4");
}

TEST_F(DequantizeArgumentsTest, RecodeNamesTheFieldItsValueAndTheLimit) {
  using Arguments = RecodeArguments;
  ExpectRecodeRefusal([](Arguments& a) { a.pages = 1 << 30; }, "pages is 1073741824");
  ExpectRecodeRefusal([](Arguments& a) { a.to.shape.kv_heads = 4; },
                      "from has kv_heads 2, to has 4");
  ExpectRecodeRefusal([](Arguments& a) { a.from.shape.head_dim = 64; },
                      "from has head_dim 64, to has 128");
  ExpectRecodeRefusal([](Arguments& a) { a.from_page_ids = nullptr; }, "from_page_ids is null");
  ExpectRecodeRefusal([](Arguments& a) { a.to_page_ids = nullptr; }, "to_page_ids is null");
  ExpectRecodeRefusal([](Arguments& a) { a.workspace = nullptr; }, "workspace is null");
  ExpectRecodeRefusal([](Arguments& a) { a.workspace = static_cast<uint8_t*>(a.workspace) + 4; },
                      "workspace is 0x");
}

}  // namespace
}  // namespace turbokv::cuda
