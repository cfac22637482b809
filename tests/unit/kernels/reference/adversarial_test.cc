// Values that break naive quantizers: zeros, denormals, huge norms, spikes, constants.
#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "tests/unit/kernels/reference/test_values.h"

namespace turbokv {
namespace {

using testing::Decode;
using testing::Decoded;
using testing::Encode;
using testing::Gaussian;
using testing::ImplementedCodecs;
using testing::RelativeMse;
using testing::ShapeFor;
using testing::TestKv;
using testing::ValueFunction;
using testing::ValuePosition;

struct Input {
  std::string name;
  ValueFunction value;
  // Relative MSE of the coarsest codec; codecs of fewer than 8 bits are allowed this much.
  double bound;
};

double Spike(const ValuePosition& p) { return p.channel == p.token % 64 ? -7.25 : 0.0; }
double Ramp(const ValuePosition& p) { return 0.25 * p.channel - 3.0; }

std::vector<Input> Inputs() {
  const auto scaled_by_token = [](double base) {
    return [base, normal = Gaussian(3)](const ValuePosition& p) {
      return normal(p) * std::pow(base, p.token % 16);
    };
  };
  return {
      {"Zeros", testing::Constant(0), 0},
      {"NegativeZeros", testing::Constant(-0.0), 0},
      {"Ones", testing::Constant(1), 0.2},
      {"Constant", testing::Constant(-1234.5), 0.2},
      {"OneHot", Spike, 0.8},
      {"Ramp", Ramp, 0.2},
      {"SmallestDenormal", testing::Constant(0x1p-149), 1.0},
      {"Denormals", Gaussian(5, 1e-40), 0.2},
      {"Tiny", Gaussian(5, 1e-20), 0.2},
      {"BelowFp16", Gaussian(5, 1e-6), 0.2},
      {"AboveFp16", Gaussian(5, 1e5), 0.2},
      {"Huge", Gaussian(5, 5e36), 0.2},
      {"Largest", testing::Constant(3.3e38), 0.2},
      {"AlternatingLargest",
       [](const ValuePosition& p) { return (p.token + p.channel) % 2 == 0 ? 3.3e38 : -3.3e38; },
       0.2},
      {"TokensOfManySizes", scaled_by_token(10), 0.2},
      {"TokensDyingOut", scaled_by_token(1e-3), 0.2},
  };
}

class AdversarialTest : public ::testing::TestWithParam<Input> {};

INSTANTIATE_TEST_SUITE_P(CodecTest, AdversarialTest, ::testing::ValuesIn(Inputs()),
                         [](const ::testing::TestParamInfo<Input>& row) { return row.param.name; });

TEST_P(AdversarialTest, RoundTripsSensiblyInEveryCodec) {
  for (int head_dim : {64, 80, 192}) {
    const TestKv kv(ValueType::kFp32, 33, 2, head_dim, GetParam().value);
    for (Codec codec : ImplementedCodecs()) {
      for (bool k_mean : {false, true}) {
        const Decoded decoded = Decode(Encode(ShapeFor(codec, codec, kv, k_mean), kv));
        for (PageTensor tensor : {PageTensor::kK, PageTensor::kV}) {
          const std::vector<float>& values = decoded.of(tensor);
          ASSERT_TRUE(std::all_of(values.begin(), values.end(),
                                  [](float value) { return std::isfinite(value); }))
              << CodecName(codec) << " head_dim " << head_dim;
          EXPECT_LE(RelativeMse(kv, decoded, tensor), GetParam().bound)
              << CodecName(codec) << " head_dim " << head_dim << " mean " << k_mean;
        }
      }
    }
  }
}

// Alternating signs at the largest norm make the centred vectors longer than the page's exponent
// reckons with: scales saturate instead of turning infinite.
TEST(AdversarialTest, CentredVectorsMayBeLongerThanTheirPage) {
  const TestKv kv(ValueType::kFp32, 128, 1, 128, [](const ValuePosition& p) {
    if (p.channel != 3) return 0.0;
    return p.token == 0 ? -32767.0 : 32767.0;
  });
  for (Codec codec : ImplementedCodecs()) {
    const Decoded decoded = Decode(Encode(ShapeFor(codec, codec, kv), kv));
    for (float value : decoded.k) ASSERT_TRUE(std::isfinite(value)) << CodecName(codec);
    EXPECT_LT(RelativeMse(kv, decoded, PageTensor::kK), 0.02) << CodecName(codec);
  }
}

TEST(AdversarialTest, HugeBf16ValuesThatRoundUpStayFinite) {
  const TestKv kv(ValueType::kFp32, 1, 1, 64, testing::Constant(std::numeric_limits<float>::max()));
  const Decoded decoded = Decode(Encode(ShapeFor(Codec::kBf16, Codec::kBf16, kv), kv));
  for (float value : decoded.k) EXPECT_EQ(value, Bf16ToFloat(0x7f7f));
}

}  // namespace
}  // namespace turbokv
