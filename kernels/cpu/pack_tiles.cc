// Codes, one byte or two each, into tiles.
#include "kernels/cpu/simd_targets.h"
// clang-format off
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/pack_tiles.cc"
#include "hwy/foreach_target.h"
// clang-format on
#include "kernels/cpu/encode_kernels.h"
#include "kernels/cpu/tiles-inl.h"

HWY_BEFORE_NAMESPACE();
namespace turbokv::cpu::HWY_NAMESPACE {

using WordTag = hn::ScalableTag<uint32_t>;
using WordVec = hn::Vec<WordTag>;
constexpr int kWordLanes = static_cast<int>(hn::MaxLanes(WordTag()));

HWY_INLINE WordVec Word(const uint32_t* tile, int word, int lane) {
  return hn::LoadU(WordTag(), tile + word * kTileLanes + lane);
}

HWY_INLINE void PutWord(WordVec value, uint32_t* tile, int word, int lane) {
  hn::StoreU(value, WordTag(), tile + word * kTileLanes + lane);
}

HWY_INLINE WordVec Mask(WordVec v, uint32_t mask) { return hn::And(v, hn::Set(WordTag(), mask)); }

// The low nibbles of the four bytes, in the lower half of the word.
HWY_INLINE WordVec GatherNibbles(WordVec bytes) {
  const auto pairs = Mask(hn::Or(bytes, hn::ShiftRight<4>(bytes)), 0x00ff00ffu);
  return Mask(hn::Or(pairs, hn::ShiftRight<8>(pairs)), 0xffffu);
}

// Nibble 4h + i: code (h, i) of n-tile n.
HWY_INLINE WordVec TableNibbles(const uint32_t* bytes, int n, int lane) {
  const auto lower = GatherNibbles(Word(bytes, 2 * n, lane));
  const auto upper = GatherNibbles(Word(bytes, 2 * n + 1, lane));
  return hn::Or(lower, hn::ShiftLeft<16>(upper));
}

// Nibble 2i + h: the low four bits of code (h, i) of n-tile n.
HWY_INLINE WordVec AffineNibbles(const uint32_t* bytes, int n, int lane) {
  const auto lower = Mask(Word(bytes, 2 * n, lane), 0x0f0f0f0fu);
  const auto upper = Mask(Word(bytes, 2 * n + 1, lane), 0x0f0f0f0fu);
  return hn::Or(lower, hn::ShiftLeft<4>(upper));
}

// Bit `bit` of every code, at bit position 8i + 2n + h.
HWY_INLINE WordVec BitPlane(const uint32_t* bytes, int bit, int lane) {
  auto plane = hn::Zero(WordTag());
  for (int nh = 0; nh < 8; ++nh) {
    const auto one = Mask(hn::ShiftRightSame(Word(bytes, nh, lane), bit), 0x01010101u);
    plane = hn::Or(plane, hn::ShiftLeftSame(one, nh));
  }
  return plane;
}

HWY_INLINE void Squeeze2(const uint32_t* bytes, int lane, uint32_t* tile) {
  for (int word = 0; word < 2; ++word) {
    const auto even = TableNibbles(bytes, 2 * word, lane);
    const auto odd = TableNibbles(bytes, 2 * word + 1, lane);
    PutWord(hn::Or(even, hn::ShiftLeft<2>(odd)), tile, word, lane);
  }
}

HWY_INLINE void Squeeze3(const uint32_t* bytes, int lane, uint32_t* tile) {
  const auto spread = TableNibbles(bytes, 3, lane);
  for (int word = 0; word < 3; ++word) {
    const auto bit = Mask(hn::ShiftRightSame(spread, word), 0x11111111u);
    PutWord(hn::Or(TableNibbles(bytes, word, lane), hn::ShiftLeft<3>(bit)), tile, word, lane);
  }
}

// Words of the byte tile to words of a tile of codes of `code_bits`, 2..6.
HWY_INLINE void Squeeze(const uint32_t* bytes, int code_bits, NibbleOrder order, uint32_t* tile) {
  for (int lane = 0; lane < kTileLanes; lane += kWordLanes) {
    if (code_bits == 2) {
      Squeeze2(bytes, lane, tile);
      continue;
    }
    if (code_bits == 3) {
      Squeeze3(bytes, lane, tile);
      continue;
    }
    for (int n = 0; n < 4; ++n) {
      PutWord(order == NibbleOrder::kTable ? TableNibbles(bytes, n, lane)
                                           : AffineNibbles(bytes, n, lane),
              tile, n, lane);
    }
    for (int bit = 4; bit < code_bits; ++bit) PutWord(BitPlane(bytes, bit, lane), tile, bit, lane);
  }
}

HWY_INLINE void PackTile(const CodecTraits& traits, TileKind kind,
                         const TileRows<const uint8_t>& rows, uint32_t* tile) {
  const hn::Full128<uint8_t> d;
  HWY_ALIGN uint32_t buffer[8 * kTileLanes];
  uint32_t* bytes = traits.code_bits == 8 ? tile : buffer;
  ForEachPiece(kind, [&](int n, int g, int h, int row) HWY_ATTR {
    auto* to = reinterpret_cast<uint8_t*>(bytes + (2 * n + h) * kTileLanes + 4 * g);
    hn::StoreU(hn::LoadU(d, rows.Row(row) + 16 * h), d, to);
  });
  if (traits.code_bits != 8) Squeeze(bytes, traits.code_bits, traits.nibble_order, tile);
}

// Word 2(2n + h) + (i >> 1), half i & 1.
HWY_INLINE void PackTile(const CodecTraits&, TileKind kind, const TileRows<const uint16_t>& rows,
                         uint32_t* tile) {
  const hn::Full128<uint32_t> d;
  ForEachPiece(kind, [&](int n, int g, int h, int row) HWY_ATTR {
    const auto* pairs = reinterpret_cast<const uint32_t*>(rows.Row(row) + 16 * h);
    const auto a = hn::LoadU(d, pairs);
    const auto b = hn::LoadU(d, pairs + 4);
    uint32_t* to = tile + 2 * (2 * n + h) * kTileLanes + 4 * g;
    hn::StoreU(hn::ConcatEven(d, b, a), d, to);
    hn::StoreU(hn::ConcatOdd(d, b, a), d, to + kTileLanes);
  });
}

template <class T>
void PackAll(Codec codec, TileKind kind, const T* codes, int tokens, int padded_dim,
             uint8_t* tiles) {
  const CodecTraits& traits = TraitsOf(codec);
  HWY_ALIGN T transposed[kTileSide * kTileSide];
  for (int token = 0; token < tokens; token += kTileTokens) {
    for (int channel = 0; channel < padded_dim; channel += kTileChannels) {
      TileRows<const T> rows{codes + token * padded_dim + channel, padded_dim};
      if (kind == TileKind::kV) {
        Transpose(rows, TileRows<T>{transposed, kTileSide});
        rows = {transposed, kTileSide};
      }
      uint8_t* tile = tiles + TileOffset(traits.code_bits, padded_dim, token, channel);
      PackTile(traits, kind, rows, reinterpret_cast<uint32_t*>(tile));
    }
  }
}

void PackTilesImpl(Codec codec, TileKind kind, const void* codes, int tokens, int padded_dim,
                   uint8_t* tiles) {
  if (TraitsOf(codec).code_bits == 16) {
    PackAll(codec, kind, static_cast<const uint16_t*>(codes), tokens, padded_dim, tiles);
  } else {
    PackAll(codec, kind, static_cast<const uint8_t*>(codes), tokens, padded_dim, tiles);
  }
}

}  // namespace turbokv::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace turbokv::cpu {

HWY_EXPORT(PackTilesImpl);

void PackTiles(Codec codec, TileKind kind, const void* codes, int tokens, int padded_dim,
               uint8_t* tiles) {
  HWY_DYNAMIC_DISPATCH(PackTilesImpl)(codec, kind, codes, tokens, padded_dim, tiles);
}

}  // namespace turbokv::cpu
#endif  // HWY_ONCE
