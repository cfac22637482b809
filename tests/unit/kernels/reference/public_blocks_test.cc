// The turbo codecs against a second, independent implementation of the public block formats: dense
// Hadamard matrix, nearest centroid by distance, bits packed by the description of the blocks.
#include <algorithm>
#include <array>
#include <cmath>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "kernels/format/llama_blocks.h"
#include "tests/unit/kernels/reference/test_values.h"

namespace turbokv {
namespace {

using testing::Encode;
using testing::Gaussian;
using testing::Parse;
using testing::ShapeFor;
using testing::TestKv;
using testing::ValueFunction;

constexpr int kChannels = 128;

// Negative-mask, LSB first, as published.
std::array<double, kChannels> Signs(const std::string& hex) {
  std::array<double, kChannels> signs;
  for (int i = 0; i < kChannels; ++i) {
    const int byte = std::stoi(hex.substr(i / 8 * 2, 2), nullptr, 16);
    signs[i] = byte & (1 << (i % 8)) ? -1 : 1;
  }
  return signs;
}

std::vector<double> Centroids(int bits) {
  std::vector<double> half;
  if (bits == 2) half = {.039994, .133462};
  if (bits == 3) half = {.021460, .065717, .117832, .190685};
  if (bits == 4) half = {.011353, .034311, .058069, .083317, .111065, .143047, .182907, .241556};
  std::vector<double> all;
  for (auto it = half.rbegin(); it != half.rend(); ++it) all.push_back(-*it);
  all.insert(all.end(), half.begin(), half.end());
  return all;
}

std::vector<uint8_t> PublicBlock(int bits, const std::vector<double>& values) {
  static const auto s1 = Signs("59036ae44959f842bb3bc6a4a950f249");
  static const auto s2 = Signs("90eeac16dc8f623f7a35a5b76265a5be");
  double squares = 0;
  for (double value : values) squares += value * value;
  const double norm = std::sqrt(squares);
  const double divisor = norm > 1e-10 ? norm : 1.0;
  const std::vector<double> centroids = Centroids(bits);
  std::vector<int> codes(kChannels);
  double centroid_squares = 0;
  for (int row = 0; row < kChannels; ++row) {
    double sum = 0;
    for (int column = 0; column < kChannels; ++column) {
      const double term = s1[column] * values[column] / divisor;
      sum += __builtin_popcount(row & column) % 2 == 0 ? term : -term;
    }
    const double y = s2[row] * sum / std::sqrt(128.0);
    for (size_t code = 0; code + 1 < centroids.size(); ++code) {
      // Published midpoints have six digits, halves rounded away from zero.
      const double middle = (centroids[code] + centroids[code + 1]) / 2;
      const double threshold = std::round(middle * 1e6 + std::copysign(1e-3, middle)) / 1e6;
      if (y >= threshold) codes[row] = static_cast<int>(code) + 1;
    }
    centroid_squares += centroids[codes[row]] * centroids[codes[row]];
  }
  const uint16_t stored = DoubleToFp16(norm / std::sqrt(centroid_squares));
  std::vector<uint8_t> block(2 + 16 * bits);
  block[0] = static_cast<uint8_t>(stored & 0xff);
  block[1] = static_cast<uint8_t>(stored >> 8);
  for (int i = 0; i < kChannels; ++i) {
    if (bits == 4) {
      block[2 + i / 2] |= codes[i] << (4 * (i % 2));
    } else {
      block[2 + i / 4] |= (codes[i] & 3) << (2 * (i % 4));
      if (bits == 3) block[34 + i / 8] |= (codes[i] >> 2) << (i % 8);
    }
  }
  return block;
}

void ExpectPublicBlocks(const TestKv& kv) {
  const int groups = kv.head_dim() / kChannels;
  for (Codec codec : {Codec::kTurbo2, Codec::kTurbo3, Codec::kTurbo4}) {
    const int bits = TraitsOf(codec).code_bits;
    const std::vector<uint8_t> page = Encode(ShapeFor(codec, codec, kv, false), kv);
    const PageView view = Parse(page);
    ASSERT_EQ(view.header.k_exponent, 0);
    for (int head = 0; head < kv.kv_heads(); ++head) {
      std::vector<uint8_t> blocks(*LlamaBlockBytes(codec) * kv.tokens() * groups);
      ASSERT_TRUE(PageToLlamaBlocks(view, PageTensor::kK, head, absl::MakeSpan(blocks)).ok());
      std::vector<uint8_t> expected;
      for (int token = 0; token < kv.tokens(); ++token) {
        for (int group = 0; group < groups; ++group) {
          std::vector<double> values(kChannels);
          for (int c = 0; c < kChannels; ++c) {
            values[c] = kv.Get({PageTensor::kK, token, head, group * kChannels + c});
          }
          const std::vector<uint8_t> block = PublicBlock(bits, values);
          expected.insert(expected.end(), block.begin(), block.end());
        }
      }
      EXPECT_EQ(blocks, expected) << CodecName(codec) << " head " << head;
    }
  }
}

TEST(PublicBlocksTest, GaussiansOfAllSourceTypes) {
  for (ValueType type : {ValueType::kFp32, ValueType::kBf16, ValueType::kFp16}) {
    ExpectPublicBlocks(TestKv(type, 128, 2, 128, Gaussian(41)));
  }
}

TEST(PublicBlocksTest, TwoGroupsAndPartialPages) {
  ExpectPublicBlocks(TestKv(ValueType::kFp32, 37, 1, 256, Gaussian(43)));
}

TEST(PublicBlocksTest, LargeAndSmallNorms) {
  ExpectPublicBlocks(TestKv(ValueType::kFp32, 32, 1, 128, Gaussian(47, 1000)));
  ExpectPublicBlocks(TestKv(ValueType::kFp32, 32, 1, 128, Gaussian(53, 1e-3)));
}

// Token t is scaled by 10^-t: from ordinary through fp16's subnormals to the zero norm.
TEST(PublicBlocksTest, NormsOfEverySize) {
  const ValueFunction normal = Gaussian(59);
  ExpectPublicBlocks(TestKv(
      ValueType::kFp32, 45, 1, 128,
      [&normal](const testing::ValuePosition& p) { return normal(p) * std::pow(10.0, -p.token); }));
}

TEST(PublicBlocksTest, ZerosAndSpikes) {
  ExpectPublicBlocks(TestKv(ValueType::kFp32, 128, 1, 128, [](const testing::ValuePosition& p) {
    if (p.token == 0) return 0.0;
    if (p.channel != p.token) return 0.0;
    return p.token % 2 == 0 ? 3.0 : -5.0;
  }));
}

}  // namespace
}  // namespace turbokv
