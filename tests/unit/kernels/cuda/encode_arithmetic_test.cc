// The arithmetic of the encoding kernels on the host: no GPU needed.
#include <cmath>
#include <cstring>
#include <random>
#include <vector>

#include "gtest/gtest.h"
#include "kernels/cuda/encode/codebook.cuh"
#include "kernels/cuda/encode/crc32c.cuh"
#include "kernels/cuda/encode/exact_math.cuh"
#include "kernels/cuda/encode/pack.cuh"
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
