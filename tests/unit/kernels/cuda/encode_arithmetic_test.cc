// The arithmetic of the encoding kernels on the host: no GPU needed.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <random>
#include <vector>

#include "gtest/gtest.h"
#include "kernels/cuda/encode/centroid_counts.cuh"
#include "kernels/cuda/encode/centroid_squares.cuh"
#include "kernels/cuda/encode/codebook.cuh"
#include "kernels/cuda/encode/crc32c.cuh"
#include "kernels/cuda/encode/exact_math.cuh"
#include "kernels/cuda/encode/pack.cuh"
#include "kernels/cuda/encode/transform_passes.cuh"
#include "kernels/cuda/encode/turbo_quantizer.cuh"
#include "kernels/format/crc32c.h"
#include "kernels/format/exponent.h"
#include "kernels/format/rotation.h"
#include "kernels/format/small_floats.h"
#include "kernels/format/tile.h"

namespace turbokv::cuda {
namespace {

TEST(EncodeArithmeticTest, CodebooksAreThoseOfTheFormat) {
  for (Codec codec : {Codec::kTurbo2, Codec::kTurbo3, Codec::kTurbo4}) {
    for (int channels : {64, 128}) {
      const Codebook book = CodebookOf(codec, channels);
      const double scale = CentroidScale(channels);
      const auto thresholds = TurboThresholds(codec);
      ASSERT_EQ(book.thresholds_count, static_cast<int>(thresholds.size()));
      for (size_t i = 0; i < thresholds.size(); ++i) {
        EXPECT_EQ(book.thresholds[i], thresholds[i] * scale);
      }
      for (size_t i = 0; i < TurboCentroids(codec).size(); ++i) {
        const double centroid = TurboCentroids(codec)[i] * scale;
        EXPECT_EQ(book.squares[i], centroid * centroid);
      }
    }
  }
  EXPECT_EQ(kRoot128, std::sqrt(128.0));
  for (int i = 0; i < 128; ++i) {
    EXPECT_EQ(FirstSigns(i / 32) >> (i % 32) & 1, RotationSign(kRotationSigns1, i) < 0);
    EXPECT_EQ(SecondSigns(i / 32) >> (i % 32) & 1, RotationSign(kRotationSigns2, i) < 0);
  }
}

// Every value next to a threshold or far from it gets its code, or is known to be in doubt.
template <int kBits>
void CheckTurboCells() {
  const Codebook book = CodebookOf(kTurboCodec<kBits>, 128);
  for (int ratio = 0; ratio < kTurboRatios; ++ratio) {
    const TurboTable table = TurboTableOf(kTurboCodec<kBits>, ratio);
    const double guard = kTurboGuard * TurboRatio(ratio);
    const TurboScaling scaling = TurboScalingOf(1.0f, TurboGain(ratio));
    const auto check = [&](float value) {
      TurboCodeWord word;
      for (int i = 0; i < 8; ++i) word.Add(i % 2 ? -value : value, scaling, TurboCellReader(table));
      uint32_t certain = kAllCertain;
      const uint32_t codes = word.Finish(certain);
      for (int i = 0; i < 2; ++i) {
        const double exact = i ? -double{value} : double{value};
        int code = 0;
        double nearest = 1;
        for (int k = 0; k < book.thresholds_count; ++k) {
          code += book.thresholds[k] <= exact;
          nearest = std::min(nearest, std::abs(exact - book.thresholds[k]));
        }
        const bool is_certain = certain >> (4 * i) & 2;
        // Thresholds in the table are up to 3.5 half ulps off; rounding of the distance.
        ASSERT_FALSE(is_certain && nearest < guard - 4.5 * kHalfUlp) << exact;
        ASSERT_TRUE(is_certain || nearest < 1.01 * guard + 4.5 * kHalfUlp) << exact;
        const int found = static_cast<int>(codes >> (4 * i) & 15);
        ASSERT_TRUE(!is_certain || found == code) << exact;
        // Those in doubt have one of the threshold's two codes.
        ASSERT_LE(std::abs(found - code), 1) << exact;
        ASSERT_EQ(ExactTurboCode(exact, 1.0f, TurboCellReader(table), book.thresholds),
                  static_cast<uint32_t>(code));
        ASSERT_EQ(codes >> (4 * i) & 15, codes >> (4 * i + 24 - 8 * i) & 15);
      }
    };
    for (double value = 0; value <= 1.0001; value += 1.37e-4) check(static_cast<float>(value));
    for (int k = 0; k < book.thresholds_count; ++k) {
      for (double distance = 0.3 * kHalfUlp; distance < 0.01; distance *= 1.11) {
        check(static_cast<float>(book.thresholds[k] + distance));
        check(static_cast<float>(book.thresholds[k] - distance));
      }
    }
  }
}

TEST(EncodeArithmeticTest, FindsTurboCodesThroughCells) {
  CheckTurboCells<2>();
  CheckTurboCells<3>();
  CheckTurboCells<4>();
}

// Doubles next to a threshold, of groups of both sizes.
TEST(EncodeArithmeticTest, FindsExactTurboCodesThroughCells) {
  const TurboTable table = TurboTableOf(Codec::kTurbo4, 0);
  for (int channels : {64, 128}) {
    const Codebook book = CodebookOf(Codec::kTurbo4, channels);
    const float inverse_scale = channels == 64 ? 0.70710678f : 1.0f;
    for (int k = 0; k < book.thresholds_count; ++k) {
      const double threshold = book.thresholds[k];
      const auto code_of = [&](double value) {
        return ExactTurboCode(value, inverse_scale, TurboCellReader(table), book.thresholds);
      };
      const auto above = static_cast<uint32_t>(k + 1);
      EXPECT_EQ(code_of(threshold), above);
      EXPECT_EQ(code_of(std::nextafter(threshold, 1.0)), above);
      EXPECT_EQ(code_of(std::nextafter(threshold, -1.0)), above - 1);
    }
  }
}

// H of a group, its stages in the order of their strides, through passes.
template <int kPerLane>
void CheckTransformPasses() {
  using Passes = TransformPasses<kPerLane>;
  constexpr int kChannels = 32 * kPerLane;
  std::mt19937 rng(kPerLane);
  std::vector<double> expected(kChannels);
  for (double& value : expected) value = std::ldexp(static_cast<double>(rng()), rng() % 60);
  std::vector<double> actual = expected;
  for (int stride = 1; stride < kChannels; stride *= 2) {
    for (int i = 0; i < kChannels; ++i) {
      if (i & stride) continue;
      const double a = expected[i], b = expected[i + stride];
      expected[i] = a + b;
      expected[i + stride] = a - b;
    }
  }
  for (int pass = 0; pass < Passes::kCount; ++pass) {
    for (int lane = 0; lane < 32; ++lane) {
      for (int stride = Passes::FirstStride(pass); stride < kPerLane; stride *= 2) {
        for (int k = 0; k < kPerLane; ++k) {
          if (k & stride) continue;
          double& low = actual[Passes::Channel(pass, lane, k)];
          double& high = actual[Passes::Channel(pass, lane, k + stride)];
          const double a = low, b = high;
          low = a + b;
          high = a - b;
        }
      }
    }
  }
  EXPECT_EQ(actual, expected);
  for (int lane = 0; lane < 32; ++lane) {
    for (int k = 0; k < kPerLane; ++k) EXPECT_EQ(Passes::Channel(0, lane, k), kPerLane * lane + k);
  }
}

TEST(EncodeArithmeticTest, TransformsInPasses) {
  CheckTransformPasses<2>();
  CheckTransformPasses<4>();
}

template <int kBits>
void CheckCentroidSums() {
  const Codebook book = CodebookOf(kTurboCodec<kBits>, 128);
  std::mt19937 rng(kBits);
  for (int round = 0; round < 1000; ++round) {
    // Some rounds have one code only.
    const uint32_t same = static_cast<uint32_t>(rng());
    uint32_t words[4];
    double sums[2] = {};  // of two and of four words
    for (int word = 0; word < 4; ++word) {
      words[word] = 0;
      for (int j = 0; j < 8; ++j) {
        const uint32_t code = (round % 4 == 0 ? same : static_cast<uint32_t>(rng())) % (1 << kBits);
        words[word] |= code << (4 * j);
        if (word < 2) sums[0] += book.squares[code];
        sums[1] += book.squares[code];
      }
    }
    const uint32_t two[2] = {words[0], words[1]};
    ASSERT_NEAR(CentroidSquares<kBits>::Sum(two) * kSquareUnit, sums[0], 16 * kSquareUnit);
    ASSERT_NEAR(CentroidSquares<kBits>::Sum(words) * kSquareUnit, sums[1], 32 * kSquareUnit);

    uint32_t blocks[4][4];
    double by_token[8] = {};
    for (auto& block : blocks) {
      for (uint32_t& word : block) {
        word = 0;
        for (int j = 0; j < 8; ++j) {
          const uint32_t code =
              (round % 4 == 0 ? same : static_cast<uint32_t>(rng())) % (1 << kBits);
          word |= code << (4 * j);
          by_token[j] += book.squares[code];
        }
      }
    }
    typename CentroidCounts<kBits>::Words counts;
    CentroidCounts<kBits>::Count(blocks, counts);
    for (int j = 0; j < 8; ++j) {
      ASSERT_NEAR(CentroidCounts<kBits>::SumOfSquares(counts[j / 4], j % 4, 16), by_token[j], 1e-6);
    }
  }
}

TEST(EncodeArithmeticTest, SumsSquaresOfCentroids) {
  CheckCentroidSums<2>();
  CheckCentroidSums<3>();
  CheckCentroidSums<4>();
}

TEST(EncodeArithmeticTest, PacksLanesAsTilesAreDefined) {
  std::mt19937 rng(1);
  for (int bits : {2, 3, 4, 5, 6, 8, 16}) {
    for (NibbleOrder order : {NibbleOrder::kTable, NibbleOrder::kAffine}) {
      if (order == NibbleOrder::kTable && bits > 4) continue;
      if (order == NibbleOrder::kAffine && bits < 4) continue;
      for (int lane = 0; lane < 32; ++lane) {
        std::vector<uint8_t> tile(TileBytes(bits));
        uint16_t codes[32];
        for (int j = 0; j < 32; ++j) {
          codes[j] = static_cast<uint16_t>(rng() & ((1u << bits) - 1));
          PutCode(tile.data(), bits, order, {lane, j}, codes[j]);
        }
        uint32_t words[16];
        PackLane(bits, order, codes, words);
        for (int r = 0; r < bits; ++r) {
          uint32_t expected;
          std::memcpy(&expected, &tile[4 * (32 * r + lane)], 4);
          ASSERT_EQ(words[r], expected) << bits << " bits, word " << r;
        }
      }
    }
  }
}

TEST(EncodeArithmeticTest, RoundsToSmallFloatsAsTheFormatDoes) {
  for (uint64_t bits = 0; bits < uint64_t{1} << 32; bits += 4093) {
    const float value = FloatOf(static_cast<uint32_t>(bits));
    if (!std::isfinite(value)) continue;
    ASSERT_EQ(FiniteBf16(value), FloatToFiniteBf16(value)) << value;
    ASSERT_EQ(Fp8OfFloat(value), FloatToFp8E4m3(value)) << value;
  }
  for (int code = 0; code < 126; ++code) {  // and between neighbours, where ties are
    const float middle = 0.5f * (Fp8E4m3ToFloat(code) + Fp8E4m3ToFloat(code + 1));
    for (float value : {middle, std::nextafter(middle, 0.0f), std::nextafter(middle, 1e9f)}) {
      ASSERT_EQ(Fp8OfFloat(value), FloatToFp8E4m3(value)) << value;
      ASSERT_EQ(Fp8OfFloat(-value), FloatToFp8E4m3(-value)) << value;
    }
  }
}

TEST(EncodeArithmeticTest, FindsTheExponentsOfTheFormat) {
  for (int power = -298; power <= 264; ++power) {
    for (double factor : {1.0, 1.7, 2.0 - 0x1p-52}) {
      const double norm = std::ldexp(factor, power);
      EXPECT_EQ(ExponentOfSquaredNorm(norm), PageExponent(Codec::kTurbo3, false, norm)) << norm;
    }
  }
  EXPECT_EQ(ExponentOfSquaredNorm(0), 0);
  EXPECT_EQ(PowerOfTwo(-150), 0x1p-150);
}

// Of bf16 numbers whose magnitudes and shifts make sums round in double.
TEST(EncodeArithmeticTest, SumsScaledDoublesAsDoubles) {
  std::mt19937 rng(3);
  for (int exponents : {1, 12, 60, 254}) {
    for (int lowest : {0, 254 - exponents}) {
      double expected = 0;
      double scaled = 0;
      for (int i = 0; i < 128; ++i) {
        const uint32_t exponent = lowest + rng() % (exponents + 1);
        const auto bits = static_cast<uint16_t>((rng() & 1) << 15 | exponent << 7 | (rng() & 0x7f));
        const uint64_t upper =
            static_cast<uint32_t>(ScaledDoubleOfBf16(static_cast<int16_t>(bits)));
        const double term = __builtin_bit_cast(double, upper << 32);
        ASSERT_EQ(term * kScaledDoubleUnit, double{Bf16ToFloat(bits)}) << bits;
        expected += Bf16ToFloat(bits);
        scaled += term;
      }
      EXPECT_EQ(scaled * kScaledDoubleUnit, expected) << exponents << " exponents, from " << lowest;
    }
  }
}

// SealKernel's CRC, thread after thread.
uint32_t BlockCrc(std::vector<uint8_t> page) {
  for (int i = 0; i < 4; ++i) page[i] = static_cast<uint8_t>(~page[i]);
  const CrcPlan plan = MakeCrcPlan(static_cast<int64_t>(page.size()));
  static const CrcRowShift table = MakeCrcRowShift();
  static const CrcLaneShifts lane_shifts = MakeCrcLaneShifts();
  uint32_t crc = ~0u;
  for (int warp = 0; warp < kCrcWarps; ++warp) {
    for (int lane = 0; lane < 32; ++lane) {
      CrcFold fold;
      for (int begin = 0; begin < plan.rows_per_warp; begin += 32) {
        uint32_t rows[32] = {};
        for (int k = 0; k < 32; ++k) {
          const int64_t row = FirstRow(plan, warp) + begin + k;
          if (row >= 0) std::memcpy(&rows[k], &page[row * kCrcRowBytes + 4 * lane], 4);
        }
        fold.Add(rows);
      }
      uint32_t rest = 0;
      for (int k = 0; k < 32; ++k) rest = ShiftRow(table, rest) ^ fold.Rest(k);
      crc ^= CrcProduct(CrcProduct(rest, lane_shifts.powers[lane]), plan.warp_shifts[warp]);
    }
  }
  return crc;
}

TEST(EncodeArithmeticTest, ComputesCrc32cInPieces) {
  std::mt19937 rng(2);
  for (size_t rows : {1u, 2u, 31u, 33u, 255u, 256u, 257u, 818u, 2048u}) {
    std::vector<uint8_t> page(rows * kCrcRowBytes);
    for (uint8_t& byte : page) byte = static_cast<uint8_t>(rng());
    EXPECT_EQ(BlockCrc(page), Crc32c(page)) << rows << " rows";
  }
}

}  // namespace
}  // namespace turbokv::cuda
