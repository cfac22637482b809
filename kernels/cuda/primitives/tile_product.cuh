// Tensor-core products with the code tiles of a page as the B operand (kernels/format/tile.h).
//
//   scores:  rows of 16-bit Q (A)  x  tile of K, 32 channels x 32 tokens
//   values:  rows of 16-bit P (A)  x  tile of V, 32 tokens x 32 channels
//
// A holds eight rows in two parts: rows 0..7 the high part of each number, rows 8..15 the low part
// (bytes for int8 products, the rounded value and what is left of it for fp16 and bf16). So lane
// 4g + t ends with columns 2t and 2t + 1 of row g: high parts in c[0], c[1], low parts in c[2],
// c[3].
#pragma once

#include "kernels/cuda/primitives/page_format.cuh"
#include "kernels/cuda/primitives/ptx.cuh"

namespace turbokv::cuda {

enum class Product { kInt8, kFp16, kBf16 };

constexpr Product ProductOf(Codec codec) {
  if (codec == Codec::kBf16) return Product::kBf16;
  return codec == Codec::kFp16 || codec == Codec::kFp8E4m3 ? Product::kFp16 : Product::kInt8;
}

// Affine codes are used as they are, 0..2^N-1; all others as signed numbers.
constexpr bool HasSignedCodes(Codec codec) { return !IsAffine(codec); }

// The A operand that meets one tile: one k-step of 32 for int8, two of 16 (channels or tokens
// 0..15, 16..31) otherwise. Words: high part of numbers 4t.., low part, high and low part of the
// second half.
template <Product kProduct>
struct RowFragment {
  static constexpr int kParts = kProduct == Product::kInt8 ? 1 : 2;
  Words4 parts[kParts];
};

template <Product kProduct>
struct AccumulatorOf {
  using Type = float;
};
template <>
struct AccumulatorOf<Product::kInt8> {
  using Type = int;
};

// What a lane's high and low parts amount to: of 16-bit integers, or of floats.
TURBOKV_DEVICE float Combine(int high, int low) { return static_cast<float>(high * 256 + low); }
TURBOKV_DEVICE float Combine(float high, float low) { return high + low; }

// A lane's code words of one tile, in shared memory: word r is words[32 r].
struct TileWordsOf {
  const uint32_t* words;
  TURBOKV_DEVICE uint32_t operator[](int r) const { return words[kWarpLanes * r]; }
};

// The bytes of a table of up to eight integers, entries first..first+3, plus `offset`.
constexpr uint32_t TableWord(Codec codec, int first, int offset) {
  const IntegerTable table = IntegerTableOf(codec);
  uint32_t word = 0;
  for (int i = 0; i < 4; ++i) {
    const int entry = first + i;
    if (entry >= 2 * table.count) break;
    const int value = entry < table.count ? -table.magnitudes[table.count - 1 - entry]
                                          : table.magnitudes[entry - table.count];
    word |= static_cast<uint32_t>((value + offset) & 0xff) << (8 * i);
  }
  return word;
}

// Selectors of n-tile n for a table of four or eight entries: one nibble a code.
template <Codec kCodec>
TURBOKV_DEVICE uint32_t TableSelectors(const TileWordsOf& words, int n) {
  if constexpr (FactsOf(kCodec).code_bits == 2) {
    const uint32_t word = words[n / 2];
    return (n % 2 == 0 ? word : word >> 2) & 0x33333333u;
  } else {
    if (n < 3) return words[n] & 0x77777777u;
    uint32_t selectors = (words[0] >> 3) & 0x11111111u;
    selectors = AndOr(words[1] >> 2, 0x22222222u, selectors);
    return AndOr(words[2] >> 1, 0x44444444u, selectors);
  }
}

// The codes (h, 0..3) of n-tile n as bytes, for codecs without a table.
template <Codec kCodec>
TURBOKV_DEVICE uint32_t CodeBytesOf(const TileWordsOf& words, int n, int h) {
  constexpr int kBits = FactsOf(kCodec).code_bits;
  if constexpr (kBits == 8) {
    return words[2 * n + h];
  } else {
    const uint32_t nibbles = (h == 0 ? words[n] : words[n] >> 4) & 0x0f0f0f0fu;
    if constexpr (kCodec == Codec::kQ4_0) {  // code - 8, without borrows between bytes
      return ((nibbles | 0x80808080u) - 0x08080808u) ^ 0x80808080u;
    }
    uint32_t bytes = nibbles;
    for (int plane = 0; plane < kBits - 4; ++plane) {
      // The plane's bit of code (h, i) is bit 8 i + 2 n + h; it belongs at 8 i + 4 + plane.
      const int shift = 2 * n + h - (4 + plane);
      const uint32_t word = words[4 + plane];
      const uint32_t aligned = shift >= 0 ? word >> shift : word << -shift;
      bytes = AndOr(aligned, 0x10101010u << plane, bytes);
    }
    return bytes;
  }
}

// c[row tile][n] += a[row tile] x n-tile n of the tile, n = 0..3.
template <Codec kCodec, bool kSignedA, int kRowTiles>
TURBOKV_DEVICE void MultiplyTile(
    const TileWordsOf& words, const RowFragment<ProductOf(kCodec)>* const (&a)[kRowTiles],
    typename AccumulatorOf<ProductOf(kCodec)>::Type (&c)[kRowTiles][4][4]) {
  constexpr bool kSignedB = HasSignedCodes(kCodec);
  const auto multiply = [&](int n, uint32_t b0, uint32_t b1) {
#pragma unroll
    for (int r = 0; r < kRowTiles; ++r) {
      if constexpr (ProductOf(kCodec) == Product::kInt8) {
        MultiplyInt8<kSignedA, kSignedB>(c[r][n], a[r]->parts[0], b0, b1);
      }
    }
  };
  [[maybe_unused]] const auto multiply_half = [&](int n, int h, uint32_t b0, uint32_t b1) {
#pragma unroll
    for (int r = 0; r < kRowTiles; ++r) {
      if constexpr (ProductOf(kCodec) != Product::kInt8) {
        MultiplyHalf<ProductOf(kCodec) == Product::kBf16>(c[r][n], a[r]->parts[h], b0, b1);
      }
    }
  };
#pragma unroll
  for (int n = 0; n < 4; ++n) {
    if constexpr (kCodec == Codec::kTurbo4) {
      // Sixteen entries are two tables of eight. A selector's bit 3 makes PRMT give the sign of an
      // entry: -1 from the lower table, whose entries are negative, where the code is of the upper
      // half; 0 from the upper table, looked up with bit 3 flipped, where it is of the lower. So
      // the two add up to the value if the upper table is one too large, and the tensor cores add
      // them: that is cheaper than selecting.
      constexpr uint32_t kLower[2] = {TableWord(kCodec, 0, 0), TableWord(kCodec, 4, 0)};
      constexpr uint32_t kUpper[2] = {TableWord(kCodec, 8, 1), TableWord(kCodec, 12, 1)};
      const uint32_t selectors = words[n];
      const uint32_t flipped = selectors ^ 0x88888888u;
      multiply(n, Permute(kLower[0], kLower[1], selectors),
               Permute(kLower[0], kLower[1], selectors >> 16));
      multiply(n, Permute(kUpper[0], kUpper[1], flipped),
               Permute(kUpper[0], kUpper[1], flipped >> 16));
    } else if constexpr (IsTurbo(kCodec)) {
      constexpr uint32_t kTable[2] = {TableWord(kCodec, 0, 0), TableWord(kCodec, 4, 0)};
      const uint32_t selectors = TableSelectors<kCodec>(words, n);
      multiply(n, Permute(kTable[0], kTable[1], selectors),
               Permute(kTable[0], kTable[1], selectors >> 16));
    } else if constexpr (ProductOf(kCodec) == Product::kInt8) {
      multiply(n, CodeBytesOf<kCodec>(words, n, 0), CodeBytesOf<kCodec>(words, n, 1));
    } else if constexpr (kCodec == Codec::kFp8E4m3) {
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        const uint32_t word = words[2 * n + h];
        multiply_half(n, h, Fp8PairToHalves(word), Fp8PairToHalves(word >> 16));
      }
    } else {
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        multiply_half(n, h, words[2 * (2 * n + h)], words[2 * (2 * n + h) + 1]);
      }
    }
  }
}

}  // namespace turbokv::cuda
