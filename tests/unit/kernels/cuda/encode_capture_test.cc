// K and V of a real model, encoded on the GPU: the reference's bytes.
#include <algorithm>

#include "client/safetensors.h"
#include "tests/unit/kernels/cpu/test_values.h"
#include "tests/unit/kernels/cuda/encode_harness.h"

namespace turbokv::cuda {
namespace {

using turbokv::testing::ImplementedCodecs;
using turbokv::testing::KvOrder;
using turbokv::testing::LayoutOf;
using turbokv::testing::TestKv;

class EncodeCaptureTest : public testing::GpuTest {};

TEST_F(EncodeCaptureTest, WritesTheReferencesBytes) {
  const auto file =
      SafetensorsFile::Open(TURBOKV_SOURCE_DIR "/examples/data/captures/tiny-d128.safetensors");
  ASSERT_TRUE(file.ok()) << file.status();
  const Tensor shape = *file->Get("layers.0.k");  // [kv_heads, tokens, head_dim]
  const std::vector<float> k = *ToFloats(shape);
  const std::vector<float> v = *ToFloats(*file->Get("layers.0.v"));
  const auto heads = static_cast<int>(shape.shape[0]);
  const auto captured_tokens = static_cast<int>(shape.shape[1]);
  const auto head_dim = static_cast<int>(shape.shape[2]);
  const int tokens = std::min(captured_tokens, 512) / kPageTokens * kPageTokens;
  ASSERT_GE(tokens, kPageTokens);
  for (ValueType type : {ValueType::kBf16, ValueType::kFp16, ValueType::kFp32}) {
    const TestKv kv(type, KvOrder::kNhd, tokens, heads, head_dim,
                    [&](bool is_v, int token, int head, int channel) {
                      return (is_v ? v : k)[(head * captured_tokens + token) * head_dim + channel];
                    });
    for (Codec codec : ImplementedCodecs()) {
      for (bool k_mean : {false, true}) {
        testing::ExpectReferencePages(LayoutOf(heads, head_dim, codec, codec, k_mean), kv.view());
      }
    }
  }
}

}  // namespace
}  // namespace turbokv::cuda
