// The dequantizing kernels' arithmetic and indices on the host, thread by thread: no GPU needed.
#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <random>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"
#include "kernels/cuda/dequantize/decode_token.cuh"
#include "kernels/cuda/dequantize/exact_codes.cuh"
#include "kernels/format/rotation.h"
#include "kernels/format/small_floats.h"
#include "kernels/format/tile.h"
#include "tests/unit/kernels/cuda/dequantize_oracle.h"

namespace turbokv::cuda {
namespace {

using turbokv::testing::AdversarialValues;
using turbokv::testing::GaussianValues;
using turbokv::testing::LayoutOf;
using turbokv::testing::NamedValues;

struct alignas(128) Stage {
  uint8_t bytes[kStageBytes];
};

// What the thread block of a unit does, but for where the values go.
template <Codec kCodec, int kChannels, bool kIsV>
class UnitEmulator {
 public:
  UnitEmulator(const PageView& page, int head, int unit) : page_(page), unit_(unit) {
    const PageLayout& layout = page.layout;
    slice_ = page.Slice(head);
    codes_ = slice_ + (kIsV ? layout.v_codes : layout.k_codes).offset_bytes;
    scales_ = slice_ + (kIsV ? layout.v_scales : layout.k_scales).offset_bytes;
    if constexpr (IsTurbo(kCodec)) {
      const auto centroids = TurboCentroids(kCodec);
      for (size_t i = 0; i < centroids.size(); ++i) {
        table_[i] = static_cast<float>(centroids[i] * CentroidScale(kChannels));
      }
    }
    for (int c = 0; c < kChannels && !kIsV && layout.shape.k_mean; ++c) {
      const uint8_t* mean = slice_ + layout.k_mean.offset_bytes + 2 * (unit * kChannels + c);
      mean_[c] = HalfToFloat(mean[0] | mean[1] << 8);
    }
  }

  // Expects the page's values.
  void Check(const testing::DecodedTensor& expected, int head) {
    for (int warp = 0; warp < kPageTokens / kTileTokens; ++warp) {
      StageWarp(warp);
      for (int lane = 0; lane < 32; ++lane) {
        const int token = kTileTokens * warp + LaneToken<kIsV>(lane);
        if (token >= expected.tokens()) continue;
        float values[kChannels];
        DecodeLane(lane, token, values);
        for (int c = 0; c < kChannels; ++c) {
          const std::string complaint =
              expected.Complaint(ValueType::kFp32, token, head, unit_ * kChannels + c, values[c]);
          ASSERT_TRUE(complaint.empty()) << complaint;
        }
      }
    }
  }

 private:
  void StageWarp(int warp) {
    constexpr int kWords = FactsOf(kCodec).code_bits;
    constexpr int kTiles = kChannels / kTileChannels;
    const int units = page_.layout.shape.head_dim / kChannels;
    const uint8_t* tiles = codes_ + (warp * units + unit_) * kTiles * TileBytes(kCodec);
    std::memset(stage_.bytes, 0xff, sizeof(stage_.bytes));
    for (int lane = 0; lane < 32; ++lane) {
      for (int tile = 0; tile < kTiles; ++tile) {
        uint32_t words[kWords];
        for (int r = 0; r < kWords; ++r) {
          std::memcpy(&words[r], tiles + 4 * ((tile * kWords + r) * 32 + lane), 4);
        }
        StageTile<kCodec, kIsV>(words, lane, tile, stage_.bytes);
      }
    }
  }

  void DecodeLane(int lane, int token, float (&values)[kChannels]) {
    const TokenFactors factors = ReadFactors<kCodec, kChannels>(scales_, unit_, token);
    DecodeToken<kCodec, kChannels, kIsV>(stage_.bytes, lane, table_, factors, values);
    Finish<kCodec, kChannels, kIsV>(values, factors.post, mean_);
    const int exponent = kIsV ? page_.header.v_exponent : page_.header.k_exponent;
    if (exponent != 0 || kCodec == Codec::kFp8E4m3) ApplyExponent(values, exponent);
  }

  const PageView& page_;
  const int unit_;
  const uint8_t* slice_;
  const uint8_t* codes_;
  const uint8_t* scales_;
  float table_[16] = {};
  float mean_[kChannels] = {};
  Stage stage_;
};

template <Codec kCodec, int kHeadDim>
void ExpectReferenceValues(const PageView& page) {
  constexpr int kChannels = UnitChannels(kCodec, kHeadDim);
  const testing::DecodedTensor k(page.bytes, /*is_v=*/false);
  const testing::DecodedTensor v(page.bytes, /*is_v=*/true);
  for (int head = 0; head < page.layout.shape.kv_heads; ++head) {
    for (int unit = 0; unit < kHeadDim / kChannels; ++unit) {
      UnitEmulator<kCodec, kChannels, false>(page, head, unit).Check(k, head);
      UnitEmulator<kCodec, kChannels, true>(page, head, unit).Check(v, head);
    }
  }
}

template <Codec kCodec, int kHeadDim>
void ExpectReferenceValues() {
  SCOPED_TRACE(absl::StrCat(CodecName(kCodec), " ", kHeadDim));
  for (bool k_mean : {false, true}) {
    const PageLayout layout = LayoutOf(2, kHeadDim, kCodec, kCodec, k_mean);
    for (int tokens : {5, 128}) {
      const auto pages =
          testing::ReferencePages(layout, ValueType::kFp32, GaussianValues(tokens), 1, tokens);
      ExpectReferenceValues<kCodec, kHeadDim>(*ParsePage(pages[0]));
    }
  }
  if (kHeadDim != 128) return;
  const PageLayout layout = LayoutOf(1, kHeadDim, kCodec, kCodec, true);
  for (const NamedValues& values : AdversarialValues()) {
    SCOPED_TRACE(values.name);
    const auto pages = testing::ReferencePages(layout, ValueType::kFp32, values.value, 1);
    ExpectReferenceValues<kCodec, kHeadDim>(*ParsePage(pages[0]));
  }
}

template <Codec kCodec>
void ExpectReferenceValuesOfEveryHeadDim() {
  ExpectReferenceValues<kCodec, 64>();
  ExpectReferenceValues<kCodec, 128>();
  ExpectReferenceValues<kCodec, 256>();
}

TEST(DequantizeArithmeticTest, UnrotatedValuesAreTheReferences) {
  ExpectReferenceValuesOfEveryHeadDim<Codec::kBf16>();
  ExpectReferenceValuesOfEveryHeadDim<Codec::kFp16>();
  ExpectReferenceValuesOfEveryHeadDim<Codec::kFp8E4m3>();
  ExpectReferenceValuesOfEveryHeadDim<Codec::kQ8_0>();
  ExpectReferenceValuesOfEveryHeadDim<Codec::kQ4_0>();
}

TEST(DequantizeArithmeticTest, IntValuesAreTheReferences) {
  ExpectReferenceValuesOfEveryHeadDim<Codec::kInt8>();
  ExpectReferenceValuesOfEveryHeadDim<Codec::kInt6>();
  ExpectReferenceValuesOfEveryHeadDim<Codec::kInt5>();
  ExpectReferenceValuesOfEveryHeadDim<Codec::kInt4>();
}

TEST(DequantizeArithmeticTest, TurboValuesAreTheReferences) {
  ExpectReferenceValuesOfEveryHeadDim<Codec::kTurbo4>();
  ExpectReferenceValuesOfEveryHeadDim<Codec::kTurbo3>();
  ExpectReferenceValuesOfEveryHeadDim<Codec::kTurbo2>();
}

TEST(DequantizeArithmeticTest, HalvesAndFp8ConvertExactly) {
  for (uint32_t bits = 0; bits < 0x10000; ++bits) {
    if ((bits & 0x7c00) == 0x7c00) continue;  // infinities and NaNs are not stored
    ASSERT_EQ(HalfToFloat(bits), Fp16ToFloat(static_cast<uint16_t>(bits))) << bits;
  }
  const TokenFactors none{};
  for (uint32_t bits = 0; bits < 0x100; ++bits) {
    if ((bits & 0x7f) == 0x7f) continue;
    ASSERT_EQ((CodeValue<Codec::kFp8E4m3>(bits, nullptr, none, 0)),
              Fp8E4m3ToFloat(static_cast<uint8_t>(bits)));
  }
}

TEST(DequantizeArithmeticTest, SingleCodesAreReadAsTilesAreDefined) {
  std::mt19937 rng(1);
  for (Codec codec : turbokv::testing::ImplementedCodecs()) {
    const CodecFacts facts = FactsOf(codec);
    std::vector<uint32_t> words(32 * facts.code_bits);
    for (uint32_t& word : words) word = static_cast<uint32_t>(rng());
    const auto* tile = reinterpret_cast<const uint8_t*>(words.data());
    for (bool is_v : {false, true}) {
      for (int token = 0; token < kTileTokens; ++token) {
        for (int channel = 0; channel < kTileChannels; ++channel) {
          const TilePosition position =
              PositionInTile(is_v ? TileKind::kV : TileKind::kK, token, channel);
          ASSERT_EQ(ReadTileCode(words.data(), facts, PlaceInTile(is_v, token, channel)),
                    GetCode(tile, facts.code_bits, facts.nibble_order, position))
              << CodecName(codec) << " token " << token << " channel " << channel;
        }
      }
    }
  }
}

// The largest number of different words in one bank, of the words at `offsets`.
int BankConflicts(const std::vector<int>& offsets) {
  std::array<std::vector<int>, 32> banks;
  for (int offset : offsets) {
    std::vector<int>& bank = banks[offset / 4 % 32];
    if (std::find(bank.begin(), bank.end(), offset / 4) == bank.end()) bank.push_back(offset / 4);
  }
  size_t most = 0;
  for (const std::vector<int>& bank : banks) most = std::max(most, bank.size());
  return static_cast<int>(most);
}

TEST(DequantizeArithmeticTest, LanesDoNotMeetInBanks) {
  for (int tile = 0; tile < 4; ++tile) {
    for (int j = 0; j < 8; ++j) {
      std::vector<int> k, v;
      for (int lane = 0; lane < 32; ++lane) {
        k.push_back(StagedOffset<false, false>(lane, tile, j >> 1, j & 1));
        v.push_back(StagedOffset<true, false>(lane, tile, j >> 1, j & 1));
      }
      EXPECT_EQ(BankConflicts(k), 1);
      EXPECT_EQ(BankConflicts(v), 1);
    }
  }
  // 16-byte accesses: eight lanes at a time, a column of eight rows or a row of eight chunks.
  for (int first = 0; first < 32; first += 8) {
    for (int chunk = 0; chunk < 8; ++chunk) {
      std::vector<int> column, row;
      for (int i = 0; i < 8; ++i) {
        for (int word = 0; word < 4; ++word) {
          column.push_back(ChunkOffset(first + i, chunk) + 4 * word);
          row.push_back(ChunkOffset(first + chunk, i) + 4 * word);
        }
      }
      EXPECT_EQ(BankConflicts(column), 1);
      EXPECT_EQ(BankConflicts(row), 1);
    }
  }
}

}  // namespace
}  // namespace turbokv::cuda
