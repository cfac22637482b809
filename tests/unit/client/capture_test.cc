#include "client/capture.h"

#include <map>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/unit/client/safetensors_builder.h"
#include "tests/unit/client/temp_dir.h"

namespace turbokv {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

constexpr int kKvHeads = 2;
constexpr int kTokens = 3;
constexpr int kHeadDim = 64;

// A capture of two layers that tests then spoil.
class CaptureTest : public ::testing::Test {
 protected:
  CaptureTest() : values_(16 * kTokens * kHeadDim), ids_{5, 6, 7} {
    for (size_t i = 0; i < values_.size(); ++i) values_[i] = static_cast<uint16_t>(i);
    for (const char* name : {"layers.0.k", "layers.0.v", "layers.1.k", "layers.1.v"}) {
      Put(name, TensorType::kBf16, {kKvHeads, kTokens, kHeadDim});
    }
    Put("layers.1.q", TensorType::kBf16, {4, 2, kHeadDim});
    tensors_["token_ids"] = TensorOf(TensorType::kI32, {kTokens}, ids_);
  }

  // Bytes are borrowed from values_, whatever the shape needs of them.
  void Put(const std::string& name, TensorType type, std::vector<int64_t> shape) {
    Tensor tensor{type, std::move(shape), {}};
    tensor.bytes = AsBytes(values_).subspan(0, tensor.elements() * TensorTypeBytes(type));
    tensors_[name] = tensor;
  }

  absl::StatusOr<Capture> Open() {
    const std::string path = dir_.Path("c.safetensors");
    if (absl::Status status = WriteSafetensors(path, tensors_); !status.ok()) return status;
    return OpenCapture(path);
  }

  void ExpectRefused(const std::string& tensor, const std::string& reason) {
    const absl::Status status = Open().status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
    EXPECT_THAT(std::string(status.message()),
                AllOf(HasSubstr("c.safetensors: "), HasSubstr(tensor), HasSubstr(reason)));
  }

  TempDir dir_;
  std::vector<uint16_t> values_;
  std::vector<int32_t> ids_;
  std::map<std::string, Tensor> tensors_;
};

TEST_F(CaptureTest, ReadsShapesIdsAndViews) {
  const absl::StatusOr<Capture> capture = Open();
  ASSERT_TRUE(capture.ok()) << capture.status();
  EXPECT_EQ(capture->layers, 2);
  EXPECT_EQ(capture->kv_heads, kKvHeads);
  EXPECT_EQ(capture->tokens, kTokens);
  EXPECT_EQ(capture->head_dim, kHeadDim);
  EXPECT_EQ(capture->q_heads, 4);
  EXPECT_EQ(capture->q_tokens, 2);
  EXPECT_EQ(capture->type, ValueType::kBf16);
  EXPECT_EQ(capture->token_ids, ids_);
  EXPECT_FALSE(capture->layer[0].q.has_value());
  EXPECT_TRUE(capture->layer[1].q.has_value());

  // Value (token 2, head 1, channel 5) of [head][token][channel].
  const KvView view = capture->View(1, 2, 1);
  EXPECT_EQ(view.tokens, 1);
  EXPECT_EQ(static_cast<const uint16_t*>(view.k)[view.head_stride + 5],
            (1 * kTokens + 2) * kHeadDim + 5);
}

TEST_F(CaptureTest, AlignsWhatTheFileDoesNot) {
  // A header whose length puts the data at an odd offset.
  const std::string entry = R"({"dtype":"BF16","shape":[1,1,64],"data_offsets":)";
  std::string json =
      "{\"layers.0.k\":" + entry + "[0,128]},\"layers.0.v\":" + entry + "[128,256]}}";
  if ((json.size() + 8) % 2 == 0) json.push_back(' ');
  std::string data;
  for (int i = 0; i < 256; ++i) data.push_back(static_cast<char>(i));
  const absl::StatusOr<Capture> capture =
      OpenCapture(dir_.Write("odd.safetensors", SafetensorsBytes(json, data)));
  ASSERT_TRUE(capture.ok()) << capture.status();
  const KvView view = capture->View(0);
  EXPECT_EQ(reinterpret_cast<uintptr_t>(view.k) % 2, 0);
  EXPECT_EQ(reinterpret_cast<uintptr_t>(view.v) % 2, 0);
  EXPECT_EQ(static_cast<const uint8_t*>(view.v)[3], 131);
}

TEST_F(CaptureTest, TokenIdsAndQueriesAreOptional) {
  tensors_.erase("token_ids");
  tensors_.erase("layers.1.q");
  const absl::StatusOr<Capture> capture = Open();
  ASSERT_TRUE(capture.ok()) << capture.status();
  EXPECT_TRUE(capture->token_ids.empty());
  EXPECT_EQ(capture->q_heads, 0);
}

TEST_F(CaptureTest, WideTokenIdsMustFit) {
  std::vector<int64_t> wide = {1, 2, 3};
  tensors_["token_ids"] = TensorOf(TensorType::kI64, {kTokens}, wide);
  ASSERT_TRUE(Open().ok());
  wide[1] = int64_t{1} << 31;
  ExpectRefused("token_ids", "id 1 is 2147483648");
  wide[1] = -1;
  ExpectRefused("token_ids", "id 1 is -1");
}

TEST_F(CaptureTest, RefusesWhatDoesNotFitTogether) {
  const auto saved = tensors_;
  const auto expect = [&](const std::string& name, TensorType type, std::vector<int64_t> shape,
                          const std::string& reason) {
    Put(name, type, std::move(shape));
    ExpectRefused(name, reason);
    tensors_ = saved;
  };
  expect("layers.1.v", TensorType::kF16, {kKvHeads, kTokens, kHeadDim}, "type F16 differs");
  expect("layers.1.v", TensorType::kBf16, {kKvHeads, kTokens - 1, kHeadDim}, "shape [2, 2, 64]");
  expect("layers.0.k", TensorType::kBf16, {kKvHeads, kTokens},
         "is not [kv_heads, tokens, head_dim]");
  expect("layers.0.k", TensorType::kU8, {kKvHeads, kTokens, kHeadDim}, "type U8");
  expect("layers.0.k", TensorType::kBf16, {kKvHeads, kTokens, 63}, "63");
  expect("layers.0.k", TensorType::kBf16, {kKvHeads, 0, kHeadDim}, "tokens is 0");
  expect("layers.0.k", TensorType::kBf16, {0, kTokens, kHeadDim}, "kv_heads is 0");
  expect("layers.1.q", TensorType::kBf16, {3, 2, kHeadDim}, "3 query heads");
  expect("layers.1.q", TensorType::kBf16, {4, kTokens + 1, kHeadDim}, "4 query rows");
  expect("layers.1.q", TensorType::kI32, {4, 2, kHeadDim}, "type I32");
  expect("layers.1.q", TensorType::kBf16, {4, 2, 128}, "head_dim = 64");
  expect("token_ids", TensorType::kI32, {kTokens + 1}, "4 ids for 3 tokens");
  expect("token_ids", TensorType::kBf16, {kTokens}, "I32 or I64");
  expect("layers.1024.k", TensorType::kBf16, {kKvHeads, kTokens, kHeadDim}, "not in 0..1023");
}

TEST_F(CaptureTest, QueriesOfAllLayersAgree) {
  Put("layers.0.q", TensorType::kBf16, {2, 2, kHeadDim});
  ExpectRefused("layers.1.q", "differs from [2, 2, 64]");
}

TEST_F(CaptureTest, NamesTheMissingTensor) {
  const auto saved = tensors_;
  for (const char* name : {"layers.0.k", "layers.0.v", "layers.1.k"}) {
    tensors_.erase(name);
    ExpectRefused(name, "is missing");
    tensors_ = saved;
  }
  tensors_ = {{"token_ids", saved.at("token_ids")}};
  ExpectRefused("", "not a capture");
}

}  // namespace
}  // namespace turbokv
