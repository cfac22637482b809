#include "kernels/format/tile.h"

#include <array>
#include <cstring>
#include <random>
#include <set>
#include <vector>

#include "gtest/gtest.h"

namespace turbokv {
namespace {

constexpr int kSide = 32;
using Matrix = std::array<std::array<int, kSide>, kSide>;  // [token][channel]

constexpr int kWidths[] = {2, 3, 4, 5, 6, 7, 8, 16};

Matrix RandomCodes(int code_bits, uint32_t seed) {
  std::mt19937 random(seed);
  Matrix codes;
  for (auto& row : codes) {
    for (int& code : row) code = static_cast<int>(random() & ((1u << code_bits) - 1));
  }
  return codes;
}

std::vector<uint8_t> Pack(TileKind kind, int code_bits, NibbleOrder order, const Matrix& codes) {
  std::vector<uint8_t> tile(TileBytes(code_bits));
  for (int token = 0; token < kSide; ++token) {
    for (int channel = 0; channel < kSide; ++channel) {
      PutCode(tile.data(), code_bits, order, PositionInTile(kind, token, channel),
              static_cast<uint32_t>(codes[token][channel]));
    }
  }
  return tile;
}

uint32_t WordOf(const std::vector<uint8_t>& tile, int row, int lane) {
  uint32_t word;
  std::memcpy(&word, tile.data() + 4 * (kTileLanes * row + lane), sizeof(word));
  return word;
}

TEST(TileTest, PositionsAreABijection) {
  for (TileKind kind : {TileKind::kK, TileKind::kV}) {
    std::set<std::pair<int, int>> seen;
    for (int token = 0; token < kSide; ++token) {
      for (int channel = 0; channel < kSide; ++channel) {
        const TilePosition position = PositionInTile(kind, token, channel);
        EXPECT_GE(position.lane, 0);
        EXPECT_LT(position.lane, kTileLanes);
        EXPECT_GE(position.code, 0);
        EXPECT_LT(position.code, 32);
        seen.insert({position.lane, position.code});
      }
    }
    EXPECT_EQ(seen.size(), 1024u);
  }
}

// The formulas of tile.h, read from lane and code number to token and channel.
TEST(TileTest, PositionsFollowTheDocumentedFormulas) {
  for (int lane = 0; lane < 32; ++lane) {
    for (int code = 0; code < 32; ++code) {
      const int g = lane / 4, t = lane % 4;
      const int n = code / 8, h = code / 4 % 2, i = code % 4;
      const int k_token = 4 * (g >> 1) + 2 * (n & 1) + (g & 1) + 16 * (n >> 1);
      const TilePosition k = PositionInTile(TileKind::kK, k_token, 16 * h + 4 * t + i);
      EXPECT_EQ(k.lane, lane);
      EXPECT_EQ(k.code, code);
      const TilePosition v = PositionInTile(TileKind::kV, 16 * h + 4 * t + i, 8 * n + g);
      EXPECT_EQ(v.lane, lane);
      EXPECT_EQ(v.code, code);
    }
  }
}

TEST(TileTest, CodesOfEveryWidthRoundTripAndFillTheTile) {
  for (int code_bits : kWidths) {
    for (NibbleOrder order : {NibbleOrder::kTable, NibbleOrder::kAffine}) {
      for (TileKind kind : {TileKind::kK, TileKind::kV}) {
        const Matrix codes = RandomCodes(code_bits, 7);
        const std::vector<uint8_t> tile = Pack(kind, code_bits, order, codes);
        for (int token = 0; token < kSide; ++token) {
          for (int channel = 0; channel < kSide; ++channel) {
            EXPECT_EQ(GetCode(tile.data(), code_bits, order, PositionInTile(kind, token, channel)),
                      static_cast<uint32_t>(codes[token][channel]));
          }
        }
        Matrix ones;
        for (auto& row : ones) row.fill((1 << code_bits) - 1);
        EXPECT_EQ(Pack(kind, code_bits, order, ones),
                  std::vector<uint8_t>(TileBytes(code_bits), 0xff));
      }
    }
  }
}

// How a kernel takes four codes a byte each out of the words, by masks alone.
uint32_t FourBytes(const std::vector<uint8_t>& tile, int code_bits, int lane, int n, int h) {
  if (code_bits == 8) return WordOf(tile, 2 * n + h, lane);
  uint32_t bytes = (WordOf(tile, n, lane) >> (4 * h)) & 0x0f0f0f0f;
  for (int plane = 0; plane < code_bits - 4; ++plane) {
    bytes |= ((WordOf(tile, 4 + plane, lane) >> (2 * n + h)) & 0x01010101) << (4 + plane);
  }
  return bytes;
}

TEST(TileTest, AffineWordsUnpackByMasks) {
  for (int code_bits : {4, 5, 6, 7, 8}) {
    const std::vector<uint8_t> tile =
        Pack(TileKind::kK, code_bits, NibbleOrder::kAffine, RandomCodes(code_bits, 11));
    for (int lane = 0; lane < 32; ++lane) {
      for (int n = 0; n < 4; ++n) {
        for (int h = 0; h < 2; ++h) {
          const uint32_t bytes = FourBytes(tile, code_bits, lane, n, h);
          for (int i = 0; i < 4; ++i) {
            EXPECT_EQ(
                (bytes >> (8 * i)) & 0xff,
                GetCode(tile.data(), code_bits, NibbleOrder::kAffine, {lane, 8 * n + 4 * h + i}));
          }
        }
      }
    }
  }
}

TEST(TileTest, TableWordsUnpackByNibbles) {
  const auto code_of = [](const std::vector<uint8_t>& tile, int bits, int lane, int code) {
    return GetCode(tile.data(), bits, NibbleOrder::kTable, {lane, code});
  };
  const auto pack = [](int bits) {
    return Pack(TileKind::kV, bits, NibbleOrder::kTable, RandomCodes(bits, 13));
  };
  const std::vector<uint8_t> two = pack(2), three = pack(3), four = pack(4);
  for (int lane = 0; lane < 32; ++lane) {
    for (int c = 0; c < 8; ++c) {
      uint32_t last = 0;
      for (int n = 0; n < 4; ++n) {
        EXPECT_EQ((WordOf(two, n / 2, lane) >> (4 * c + 2 * (n & 1))) & 3,
                  code_of(two, 2, lane, 8 * n + c));
        EXPECT_EQ((WordOf(four, n, lane) >> (4 * c)) & 15, code_of(four, 4, lane, 8 * n + c));
        if (n == 3) break;
        EXPECT_EQ((WordOf(three, n, lane) >> (4 * c)) & 7, code_of(three, 3, lane, 8 * n + c));
        last |= ((WordOf(three, n, lane) >> (4 * c + 3)) & 1) << n;
      }
      EXPECT_EQ(last, code_of(three, 3, lane, 24 + c));
    }
  }
}

// One `mma.m16n8k32`: A is 16 x 32, B is 32 x 8, as fragments of 32 lanes.
//   A, lane (g, t): [row 0: g, 1: g + 8][half][i] = A(row, 16 half + 4 t + i)
//   B, lane (g, t): [half][i] = B(16 half + 4 t + i, g)
//   C, lane (g, t): [row 0: g, 1: g + 8][j] = C(row, 2 t + j)
struct FragmentA {
  int at[32][2][2][4];
};
struct FragmentB {
  int at[32][2][4];
};
struct FragmentC {
  int at[32][2][2] = {};
};

FragmentC Multiply(const FragmentA& a, const FragmentB& b) {
  FragmentC c;
  for (int lane = 0; lane < 32; ++lane) {
    const int g = lane / 4, t = lane % 4;
    for (int row = 0; row < 2; ++row) {
      for (int j = 0; j < 2; ++j) {
        const int column = 2 * t + j;
        for (int k = 0; k < 32; ++k) {
          const int half = k / 16, quad = k % 16 / 4, i = k % 4;
          c.at[lane][row][j] += a.at[4 * g + quad][row][half][i] * b.at[4 * column + quad][half][i];
        }
      }
    }
  }
  return c;
}

FragmentB OperandB(const std::vector<uint8_t>& tile, int code_bits, int n) {
  FragmentB b;
  for (int lane = 0; lane < 32; ++lane) {
    for (int h = 0; h < 2; ++h) {
      for (int i = 0; i < 4; ++i) {
        b.at[lane][h][i] = static_cast<int>(
            GetCode(tile.data(), code_bits, NibbleOrder::kTable, {lane, 8 * n + 4 * h + i}));
      }
    }
  }
  return b;
}

// Scores S = Q K^T by fragments; S's accumulators taken as they lie for the A operand of S V.
TEST(TileTest, ScoresAreTheOperandOfTheProductWithV) {
  constexpr int kBits = 3;
  const Matrix k_codes = RandomCodes(kBits, 17);
  const Matrix v_codes = RandomCodes(kBits, 19);
  const std::vector<uint8_t> k = Pack(TileKind::kK, kBits, NibbleOrder::kTable, k_codes);
  const std::vector<uint8_t> v = Pack(TileKind::kV, kBits, NibbleOrder::kTable, v_codes);
  std::mt19937 random(23);
  int q[16][32];
  FragmentA q_fragment;
  for (int row = 0; row < 16; ++row) {
    for (int channel = 0; channel < 32; ++channel) {
      q[row][channel] = static_cast<int>(random() % 21) - 10;
      const int lane = 4 * (row % 8) + channel % 16 / 4;
      q_fragment.at[lane][row / 8][channel / 16][channel % 4] = q[row][channel];
    }
  }

  FragmentA scores;
  for (int n = 0; n < 4; ++n) {
    const FragmentC c = Multiply(q_fragment, OperandB(k, kBits, n));
    for (int lane = 0; lane < 32; ++lane) {
      for (int row = 0; row < 2; ++row) {
        for (int j = 0; j < 2; ++j) {
          scores.at[lane][row][n >> 1][2 * (n & 1) + j] = c.at[lane][row][j];
        }
      }
    }
  }
  for (int n = 0; n < 4; ++n) {
    const FragmentC c = Multiply(scores, OperandB(v, kBits, n));
    for (int lane = 0; lane < 32; ++lane) {
      for (int row = 0; row < 2; ++row) {
        for (int j = 0; j < 2; ++j) {
          const int query = lane / 4 + 8 * row;
          const int channel = 8 * n + 2 * (lane % 4) + j;
          int expected = 0;
          for (int token = 0; token < 32; ++token) {
            int score = 0;
            for (int d = 0; d < 32; ++d) score += q[query][d] * k_codes[token][d];
            expected += score * v_codes[token][channel];
          }
          EXPECT_EQ(c.at[lane][row][j], expected) << "query " << query << " channel " << channel;
        }
      }
    }
  }
}

TEST(TileTest, OffsetsGoByTokenBlockThenChannelGroup) {
  EXPECT_EQ(TileOffset(3, 128, 31, 31), 0u);
  EXPECT_EQ(TileOffset(3, 128, 0, 32), 384u);
  EXPECT_EQ(TileOffset(3, 128, 32, 0), 4 * 384u);
  EXPECT_EQ(TileOffset(3, 128, 127, 127), 15 * 384u);
  EXPECT_EQ(TileOffset(6, 96, 64, 64), (2 * 3 + 2) * 768u);
}

}  // namespace
}  // namespace turbokv
