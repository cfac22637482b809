// Tiles into codes, one byte or two each: the reverse of pack_tiles.cc.
#include "kernels/cpu/simd_targets.h"
// clang-format off
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/unpack_tiles.cc"
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

HWY_INLINE WordVec Mask(WordVec v, uint32_t mask) { return hn::And(v, hn::Set(WordTag(), mask)); }

// The four nibbles of the lower half of the word, one a byte.
HWY_INLINE WordVec SpreadNibbles(WordVec nibbles) {
  const auto lower = Mask(nibbles, 0xffffu);
  const auto pairs = Mask(hn::Or(lower, hn::ShiftLeft<8>(lower)), 0x00ff00ffu);
  return Mask(hn::Or(pairs, hn::ShiftLeft<4>(pairs)), 0x0f0f0f0fu);
}

// Codes of n-tile n as a word of nibbles 4h + i, whatever their width up to 4 bits.
HWY_INLINE WordVec TableNibbles(const uint32_t* tile, int code_bits, int n, int lane) {
  if (code_bits == 4) return Word(tile, n, lane);
  if (code_bits == 2) {
    return Mask(hn::ShiftRightSame(Word(tile, n / 2, lane), 2 * (n & 1)), 0x33333333u);
  }
  if (n < 3) return Mask(Word(tile, n, lane), 0x77777777u);
  auto nibbles = hn::Zero(WordTag());
  for (int word = 0; word < 3; ++word) {
    const auto bit = Mask(hn::ShiftRight<3>(Word(tile, word, lane)), 0x11111111u);
    nibbles = hn::Or(nibbles, hn::ShiftLeftSame(bit, word));
  }
  return nibbles;
}

// Word 2n + h of the byte tile.
HWY_INLINE WordVec SpreadWord(const uint32_t* tile, const CodecTraits& traits, int n, int h,
                              int lane) {
  if (traits.nibble_order == NibbleOrder::kTable) {
    const auto nibbles = TableNibbles(tile, traits.code_bits, n, lane);
    return SpreadNibbles(hn::ShiftRightSame(nibbles, 16 * h));
  }
  auto bytes = Mask(hn::ShiftRightSame(Word(tile, n, lane), 4 * h), 0x0f0f0f0fu);
  for (int bit = 4; bit < traits.code_bits; ++bit) {
    const auto one = Mask(hn::ShiftRightSame(Word(tile, bit, lane), 2 * n + h), 0x01010101u);
    bytes = hn::Or(bytes, hn::ShiftLeftSame(one, bit));
  }
  return bytes;
}

HWY_INLINE void Spread(const uint32_t* tile, const CodecTraits& traits, uint32_t* bytes) {
  for (int n = 0; n < 4; ++n) {
    for (int h = 0; h < 2; ++h) {
      for (int lane = 0; lane < kTileLanes; lane += kWordLanes) {
        hn::StoreU(SpreadWord(tile, traits, n, h, lane), WordTag(),
                   bytes + (2 * n + h) * kTileLanes + lane);
      }
    }
  }
}

HWY_INLINE void UnpackTile(const CodecTraits& traits, TileKind kind, const uint32_t* tile,
                           const TileRows<uint8_t>& rows) {
  const hn::Full128<uint8_t> d;
  HWY_ALIGN uint32_t buffer[8 * kTileLanes];
  if (traits.code_bits != 8) Spread(tile, traits, buffer);
  const uint32_t* bytes = traits.code_bits == 8 ? tile : buffer;
  ForEachPiece(kind, [&](int n, int g, int h, int row) HWY_ATTR {
    const auto* from = reinterpret_cast<const uint8_t*>(bytes + (2 * n + h) * kTileLanes + 4 * g);
    hn::StoreU(hn::LoadU(d, from), d, rows.Row(row) + 16 * h);
  });
}

HWY_INLINE void UnpackTile(const CodecTraits&, TileKind kind, const uint32_t* tile,
                           const TileRows<uint16_t>& rows) {
  const hn::Full128<uint32_t> d;
  ForEachPiece(kind, [&](int n, int g, int h, int row) HWY_ATTR {
    const uint32_t* from = tile + 2 * (2 * n + h) * kTileLanes + 4 * g;
    const auto even = hn::LoadU(d, from);
    const auto odd = hn::LoadU(d, from + kTileLanes);
    auto* pairs = reinterpret_cast<uint32_t*>(rows.Row(row) + 16 * h);
    hn::StoreU(hn::InterleaveLower(d, even, odd), d, pairs);
    hn::StoreU(hn::InterleaveUpper(d, even, odd), d, pairs + 4);
  });
}

template <class T>
void UnpackAll(Codec codec, TileKind kind, const uint8_t* tiles, int tokens, int padded_dim,
               T* codes) {
  const CodecTraits& traits = TraitsOf(codec);
  HWY_ALIGN T transposed[kTileSide * kTileSide];
  for (int token = 0; token < tokens; token += kTileTokens) {
    for (int channel = 0; channel < padded_dim; channel += kTileChannels) {
      const uint8_t* tile = tiles + TileOffset(traits.code_bits, padded_dim, token, channel);
      const auto* words = reinterpret_cast<const uint32_t*>(tile);
      const TileRows<T> rows{codes + token * padded_dim + channel, padded_dim};
      if (kind == TileKind::kK) {
        UnpackTile(traits, kind, words, rows);
        continue;
      }
      UnpackTile(traits, kind, words, TileRows<T>{transposed, kTileSide});
      Transpose(TileRows<const T>{transposed, kTileSide}, rows);
    }
  }
}

void UnpackTilesImpl(Codec codec, TileKind kind, const uint8_t* tiles, int tokens, int padded_dim,
                     void* codes) {
  if (TraitsOf(codec).code_bits == 16) {
    UnpackAll(codec, kind, tiles, tokens, padded_dim, static_cast<uint16_t*>(codes));
  } else {
    UnpackAll(codec, kind, tiles, tokens, padded_dim, static_cast<uint8_t*>(codes));
  }
}

}  // namespace turbokv::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace turbokv::cpu {

HWY_EXPORT(UnpackTilesImpl);

void UnpackTiles(Codec codec, TileKind kind, const uint8_t* tiles, int tokens, int padded_dim,
                 void* codes) {
  HWY_DYNAMIC_DISPATCH(UnpackTilesImpl)(codec, kind, tiles, tokens, padded_dim, codes);
}

}  // namespace turbokv::cpu
#endif  // HWY_ONCE
