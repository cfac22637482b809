#include "client/cli/llama_file.h"

#include <cmath>

#include "client/cli/layer_pages.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/format/rotation.h"
#include "kernels/format/small_floats.h"
#include "tests/unit/client/cli/tiny_capture.h"

namespace turbokv::cli {
namespace {

using ::testing::HasSubstr;

constexpr int kTokens = 200;  // a full page and an unfilled one
constexpr int kLayers = 2;

class LlamaFileTest : public ::testing::Test {
 protected:
  LlamaFileTest() : capture_(*OpenCapture(WriteShortCapture(dir_, kLayers, kTokens))) {}

  absl::Status Write(const std::string& policy) {
    return WriteLlamaFile(capture_, *Policy::Parse(policy)->Expand(kLayers), blocks_path_, [] {})
        .status();
  }

  absl::StatusOr<ConvertSummary> Read(const std::string& path,
                                      const std::optional<Policy>& policy = std::nullopt) {
    return ReadLlamaFile(*SafetensorsFile::Open(path), policy, values_path_, [] {});
  }

  // Values as our own pages hold them.
  LayerValues PageValues(int layer, const LayerCodecs& codecs) {
    LayerValues values(capture_.kv_heads, capture_.tokens, capture_.head_dim);
    int64_t first = 0;
    const std::vector<PageBytes> pages = *EncodeLayer(capture_, layer, codecs);
    for (const PageBytes& page : pages) {
      EXPECT_TRUE(DecodeInto(page, first, &values).ok());
      first += kPageTokens;
    }
    return values;
  }

  TempDir dir_;
  Capture capture_;
  std::string blocks_path_ = dir_.Path("blocks.safetensors");
  std::string values_path_ = dir_.Path("values.safetensors");
};

TEST_F(LlamaFileTest, RoundTripsLosslessly) {
  for (const auto& [k, v] :
       {std::pair(Codec::kTurbo4, Codec::kTurbo2), std::pair(Codec::kTurbo3, Codec::kTurbo4),
        std::pair(Codec::kTurbo2, Codec::kTurbo3)}) {
    const LayerCodecs codecs{k, v, /*k_mean=*/false};
    // K mean is left out although the policy would have it.
    ASSERT_TRUE(Write("k=" + std::string(CodecName(k)) + ",v=" + std::string(CodecName(v))).ok());
    const absl::StatusOr<ConvertSummary> summary = Read(blocks_path_);
    ASSERT_TRUE(summary.ok()) << summary.status();
    EXPECT_EQ(summary->codecs, std::vector<LayerCodecs>(kLayers, codecs));
    const Capture back = *OpenCapture(values_path_);
    EXPECT_EQ(back.token_ids, capture_.token_ids);
    EXPECT_EQ(back.type, ValueType::kFp32);
    for (int layer = 0; layer < kLayers; ++layer) {
      const LayerValues expected = PageValues(layer, codecs);
      EXPECT_EQ(*ToFloats(back.layer[layer].k), expected.k);
      EXPECT_EQ(*ToFloats(back.layer[layer].v), expected.v);
    }
  }
}

TEST_F(LlamaFileTest, BlocksHaveThePublicLayout) {
  ASSERT_TRUE(Write("turbo4").ok());
  const SafetensorsFile file = *SafetensorsFile::Open(blocks_path_);
  const Tensor blocks = *file.Get("layers.1.k");
  EXPECT_EQ(blocks.type, TensorType::kU8);
  EXPECT_EQ(blocks.shape, (std::vector<int64_t>{2, kTokens, 66}));
  EXPECT_EQ(file.metadata().at("layers.1.k"), "turbo4");
  EXPECT_EQ(file.metadata().at("head_dim"), "128");

  // Head 1, token 199: fp16 norm, then codes, low nibble first; the code vector times the norm has
  // the length of the key.
  const uint8_t* block = blocks.bytes.data() + (1 * kTokens + 199) * 66;
  const double norm = Fp16ToFloat(static_cast<uint16_t>(block[0] | block[1] << 8));
  const absl::Span<const double> centroids = TurboCentroids(Codec::kTurbo4);
  const std::vector<float> k = *ToFloats(capture_.layer[1].k);
  const float* key = k.data() + (1 * kTokens + 199) * 128;
  double rotated_first = 0, code_energy = 0, key_energy = 0;
  for (int c = 0; c < 128; ++c) {
    // Row 0 of the Hadamard matrix is all ones.
    rotated_first += RotationSign(kRotationSigns1, c) * key[c] / std::sqrt(128.0);
    const int code = c % 2 == 0 ? block[2 + c / 2] & 15 : block[2 + c / 2] >> 4;
    code_energy += std::pow(centroids[code] * norm, 2);
    key_energy += key[c] * key[c];
  }
  rotated_first *= RotationSign(kRotationSigns2, 0);
  EXPECT_NEAR(code_energy / key_energy, 1.0, 2e-3);
  EXPECT_NEAR(centroids[block[2] & 15] * norm, rotated_first, 0.03 * std::sqrt(key_energy));
}

TEST_F(LlamaFileTest, CodecComesFromTheBlockSizeWhenTheMetadataIsGone) {
  ASSERT_TRUE(Write("k=turbo2,v=turbo4").ok());
  const SafetensorsFile file = *SafetensorsFile::Open(blocks_path_);
  const std::string bare = dir_.Path("bare.safetensors");
  ASSERT_TRUE(WriteSafetensors(bare, file.tensors()).ok());
  const absl::StatusOr<ConvertSummary> summary = Read(bare);
  ASSERT_TRUE(summary.ok()) << summary.status();
  EXPECT_EQ(summary->codecs[0].k, Codec::kTurbo2);
  EXPECT_EQ(summary->codecs[1].v, Codec::kTurbo4);
}

TEST_F(LlamaFileTest, APolicyThatContradictsTheBytesIsRefused) {
  ASSERT_TRUE(Write("turbo4").ok());
  const absl::Status status = Read(blocks_path_, *Policy::Parse("turbo3")).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()),
              HasSubstr("layers.0.k: 66 bytes a vector are not 1 or 2 turbo3"));
}

TEST_F(LlamaFileTest, RefusesCodecsWithoutPublicBlocks) {
  const absl::Status status = Write("k=turbo4,v=int5");
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr("layers.0.v: codec int5"));
  EXPECT_FALSE(std::filesystem::exists(blocks_path_));
}

TEST_F(LlamaFileTest, RefusesTensorsThatAreNoBlocks) {
  const std::vector<uint8_t> bytes(2 * 4 * 66);
  const auto refusal = [&](const std::string& name, TensorType type, std::vector<int64_t> shape) {
    Tensor tensor{type, std::move(shape), {}};
    tensor.bytes = AsBytes(bytes).subspan(0, tensor.elements() * TensorTypeBytes(type));
    std::map<std::string, Tensor> tensors = {
        {"layers.0.k", TensorOf(TensorType::kU8, {2, 4, 66}, bytes)},
        {"layers.0.v", TensorOf(TensorType::kU8, {2, 4, 66}, bytes)}};
    tensors[name] = tensor;
    const std::string path = dir_.Path("bad.safetensors");
    EXPECT_TRUE(WriteSafetensors(path, tensors).ok());
    return std::string(Read(path).status().message());
  };
  EXPECT_THAT(refusal("layers.0.k", TensorType::kBf16, {2, 1, 66}),
              HasSubstr("layers.0.k: not U8"));
  EXPECT_THAT(refusal("layers.0.k", TensorType::kU8, {8, 66}), HasSubstr("layers.0.k: not U8"));
  EXPECT_THAT(refusal("layers.0.v", TensorType::kU8, {2, 4, 65}), HasSubstr("65 bytes a vector"));
  EXPECT_THAT(refusal("layers.0.v", TensorType::kU8, {2, 4, 0}), HasSubstr("0 bytes a vector"));
  EXPECT_THAT(refusal("layers.0.v", TensorType::kU8, {1, 4, 66}), HasSubstr("K is 2 heads"));
  EXPECT_THAT(refusal("layers.0.v", TensorType::kU8, {2, 2, 132}), HasSubstr("V is 2 x 2 x 256"));
  EXPECT_THAT(refusal("layers.1.k", TensorType::kU8, {2, 4, 66}), HasSubstr("layers.1.v"));
}

}  // namespace
}  // namespace turbokv::cli
