// How the codes of a tile become float vectors, one struct a kind of code.
//
// A reader's Load fetches what one n-tile of `Lanes(d)` adjacent tile lanes needs; Value<kIndex>
// turns code kIndex = 4h + i of every lane into a float: a centroid, an integer, or the value
// itself. Scales are applied by the caller. kHasIntegerCodebook: the codes are nibbles 4h + i of
// words, looked up in IntegerCodebookOf(codec) by integer_dot-inl.h.

#if defined(KERNELS_CPU_CODE_READERS_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef KERNELS_CPU_CODE_READERS_INL_H_
#undef KERNELS_CPU_CODE_READERS_INL_H_
#else
#define KERNELS_CPU_CODE_READERS_INL_H_
#endif

#include "hwy/highway.h"
#include "kernels/cpu/load_values-inl.h"
#include "kernels/format/tile.h"

HWY_BEFORE_NAMESPACE();
namespace turbokv::cpu::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

using FloatTag = hn::ScalableTag<float>;
using WordTag = hn::RebindToUnsigned<FloatTag>;
using FloatVec = hn::Vec<FloatTag>;
using WordVec = hn::Vec<WordTag>;

// Looks up the low bits of every lane in a table of kEntries (8 or 16) floats; other bits are
// ignored.
template <int kEntries>
class FloatTable {
 public:
  explicit FloatTable(const float* table) : table_(table) {
    if constexpr (kLanes >= kEntries) {
      HWY_ALIGN float repeated[kLanes];
      for (int i = 0; i < kLanes; ++i) repeated[i] = table[i % kEntries];
      low_ = hn::Load(FloatTag(), repeated);
      high_ = low_;
    } else if constexpr (2 * kLanes == kEntries) {
      low_ = hn::LoadU(FloatTag(), table);
      high_ = hn::LoadU(FloatTag(), table + kLanes);
    } else {
      low_ = high_ = hn::Zero(FloatTag());
    }
  }

  HWY_INLINE FloatVec Lookup(WordVec index) const {
    const FloatTag d;
    const WordTag du;
    if constexpr (kLanes >= kEntries) {
      return hn::TableLookupLanes(low_, hn::IndicesFromVec(d, InRange(index, kLanes)));
    } else if constexpr (2 * kLanes == kEntries) {
      const auto lanes = hn::IndicesFromVec(d, InRange(index, kLanes));
      const auto is_high = hn::TestBit(index, hn::Set(du, static_cast<uint32_t>(kLanes)));
      return hn::IfThenElse(hn::RebindMask(d, is_high), hn::TableLookupLanes(high_, lanes),
                            hn::TableLookupLanes(low_, lanes));
    } else {
      const auto masked = hn::And(index, hn::Set(du, static_cast<uint32_t>(kEntries - 1)));
      return hn::GatherIndex(d, table_, hn::BitCast(hn::RebindToSigned<FloatTag>(), masked));
    }
  }

 private:
  static constexpr int kLanes = static_cast<int>(hn::MaxLanes(FloatTag()));

  // The hardware ignores the other bits; only Highway's debug checks do not.
  static HWY_INLINE WordVec InRange(WordVec index, int entries) {
#if HWY_IS_DEBUG_BUILD || HWY_TARGET == HWY_EMU128 || !HWY_ARCH_X86
    return hn::And(index, hn::Set(WordTag(), static_cast<uint32_t>(entries - 1)));
#else
    (void)entries;
    return index;
#endif
  }

  const float* table_;
  FloatVec low_;
  FloatVec high_;
};

HWY_INLINE WordVec LoadWord(const uint32_t* tile, int word) {
  return hn::LoadU(WordTag(), tile + kTileLanes * word);
}

// 2-bit codes.
class Table2Reader {
 public:
  static constexpr bool kHasIntegerCodebook = true;
  explicit Table2Reader(const float* table) : table_(table) {}
  using State = WordVec;
  HWY_INLINE State Load(const uint32_t* tile, int n) const {
    return hn::ShiftRightSame(LoadWord(tile, n / 2), 2 * (n & 1));
  }
  template <int kIndex>
  HWY_INLINE FloatVec Value(const State& word) const {
    return table_.Lookup(hn::ShiftRight<4 * kIndex>(word));
  }

 private:
  FloatTable<8> table_;  // entries repeat after four
};

// 3-bit codes: those of n-tile 3 are spread over the spare bits of the other three's words.
class Table3Reader {
 public:
  static constexpr bool kHasIntegerCodebook = true;
  explicit Table3Reader(const float* table) : table_(table) {}
  using State = WordVec;
  HWY_INLINE State Load(const uint32_t* tile, int n) const {
    if (n < 3) return LoadWord(tile, n);
    const WordTag du;
    const auto bit = [&](int word) {
      return hn::And(hn::ShiftRightSame(LoadWord(tile, word), 3 - word),
                     hn::Set(du, 0x11111111u << word));
    };
    return hn::Or(hn::Or(bit(0), bit(1)), bit(2));
  }
  template <int kIndex>
  HWY_INLINE FloatVec Value(const State& word) const {
    return table_.Lookup(hn::ShiftRight<4 * kIndex>(word));
  }

 private:
  FloatTable<8> table_;
};

template <NibbleOrder kOrder>
class Table4Reader {
 public:
  static constexpr bool kHasIntegerCodebook = kOrder == NibbleOrder::kTable;
  explicit Table4Reader(const float* table) : table_(table) {}
  using State = WordVec;
  HWY_INLINE State Load(const uint32_t* tile, int n) const { return LoadWord(tile, n); }
  template <int kIndex>
  HWY_INLINE FloatVec Value(const State& word) const {
    constexpr int kNibble =
        kOrder == NibbleOrder::kTable ? kIndex : 2 * (kIndex & 3) + (kIndex >> 2);
    return table_.Lookup(hn::ShiftRight<4 * kNibble>(word));
  }

 private:
  FloatTable<16> table_;
};

// Codes of one n-tile as bytes, four to a lane: half h in bytes[h].
struct ByteState {
  WordVec bytes[2];
};

template <int kIndex>
HWY_INLINE WordVec ByteOf(const ByteState& state) {
  const auto shifted = hn::ShiftRight<8 * (kIndex & 3)>(state.bytes[kIndex >> 2]);
  return hn::And(shifted, hn::Set(WordTag(), 0xffu));
}

HWY_INLINE FloatVec ToFloat(WordVec word) {
  return hn::ConvertTo(FloatTag(), hn::BitCast(hn::RebindToSigned<FloatTag>(), word));
}

// 5- and 6-bit unsigned codes: nibbles and bit planes.
template <int kPlanes>
class PlaneReader {
 public:
  static constexpr bool kHasIntegerCodebook = false;
  explicit PlaneReader(const float*) {}
  using State = ByteState;
  HWY_INLINE State Load(const uint32_t* tile, int n) const {
    const WordTag du;
    const WordVec nibbles = LoadWord(tile, n);
    State state;
    for (int h = 0; h < 2; ++h) {
      state.bytes[h] = hn::And(hn::ShiftRightSame(nibbles, 4 * h), hn::Set(du, 0x0f0f0f0fu));
      for (int b = 0; b < kPlanes; ++b) {
        const auto bit =
            hn::And(hn::ShiftRightSame(LoadWord(tile, 4 + b), 2 * n + h), hn::Set(du, 0x01010101u));
        state.bytes[h] = hn::Or(state.bytes[h], hn::ShiftLeftSame(bit, 4 + b));
      }
    }
    return state;
  }
  template <int kIndex>
  HWY_INLINE FloatVec Value(const State& state) const {
    return ToFloat(ByteOf<kIndex>(state));
  }
};

class ByteReader {
 public:
  static constexpr bool kHasIntegerCodebook = false;
  explicit ByteReader(const float*) {}
  using State = ByteState;
  HWY_INLINE State Load(const uint32_t* tile, int n) const {
    return {{LoadWord(tile, 2 * n), LoadWord(tile, 2 * n + 1)}};
  }
};

class UnsignedByteReader : public ByteReader {
 public:
  using ByteReader::ByteReader;
  template <int kIndex>
  HWY_INLINE FloatVec Value(const State& state) const {
    return ToFloat(ByteOf<kIndex>(state));
  }
};

class SignedByteReader : public ByteReader {
 public:
  using ByteReader::ByteReader;
  template <int kIndex>
  HWY_INLINE FloatVec Value(const State& state) const {
    const hn::RebindToSigned<FloatTag> di;
    const auto at_top = hn::ShiftLeft<24 - 8 * (kIndex & 3)>(state.bytes[kIndex >> 2]);
    return hn::ConvertTo(FloatTag(), hn::ShiftRight<24>(hn::BitCast(di, at_top)));
  }
};

class Fp8Reader : public ByteReader {
 public:
  using ByteReader::ByteReader;
  template <int kIndex>
  HWY_INLINE FloatVec Value(const State& state) const {
    const auto at_top = hn::ShiftLeft<24 - 8 * (kIndex & 3)>(
        hn::And(state.bytes[kIndex >> 2], hn::Set(WordTag(), 0xffu << (8 * (kIndex & 3)))));
    return WidenSmallFloat<4>(FloatTag(), at_top, 0x1p120f);
  }
};

// 16-bit codes, two to a word.
class HalfWordReader {
 public:
  static constexpr bool kHasIntegerCodebook = false;
  explicit HalfWordReader(const float*) {}
  struct State {
    WordVec words[4];  // [h][i >> 1]
  };
  HWY_INLINE State Load(const uint32_t* tile, int n) const {
    return {{LoadWord(tile, 4 * n), LoadWord(tile, 4 * n + 1), LoadWord(tile, 4 * n + 2),
             LoadWord(tile, 4 * n + 3)}};
  }

 protected:
  // The code in the upper half of each lane.
  template <int kIndex>
  static HWY_INLINE WordVec AtTop(const State& state) {
    const WordVec word = state.words[kIndex >> 1];
    if constexpr (kIndex & 1) return hn::And(word, hn::Set(WordTag(), 0xffff0000u));
    return hn::ShiftLeft<16>(word);
  }
};

class Bf16Reader : public HalfWordReader {
 public:
  using HalfWordReader::HalfWordReader;
  template <int kIndex>
  HWY_INLINE FloatVec Value(const State& state) const {
    return hn::BitCast(FloatTag(), AtTop<kIndex>(state));
  }
};

class Fp16Reader : public HalfWordReader {
 public:
  using HalfWordReader::HalfWordReader;
  template <int kIndex>
  HWY_INLINE FloatVec Value(const State& state) const {
    return WidenSmallFloat<3>(FloatTag(), AtTop<kIndex>(state), 0x1p112f);
  }
};

// Calls fn(reader) with the reader of `codec`; `table` has 16 entries where the codec needs one.
template <class Fn>
HWY_INLINE void WithReader(Codec codec, const float* table, const Fn& fn) {
  switch (codec) {
    case Codec::kTurbo2:
      return fn(Table2Reader(table));
    case Codec::kTurbo3:
      return fn(Table3Reader(table));
    case Codec::kTurbo4:
      return fn(Table4Reader<NibbleOrder::kTable>(table));
    case Codec::kInt4:
    case Codec::kQ4_0:
      return fn(Table4Reader<NibbleOrder::kAffine>(table));
    case Codec::kInt5:
      return fn(PlaneReader<1>(table));
    case Codec::kInt6:
      return fn(PlaneReader<2>(table));
    case Codec::kInt8:
      return fn(UnsignedByteReader(table));
    case Codec::kQ8_0:
      return fn(SignedByteReader(table));
    case Codec::kFp8E4m3:
      return fn(Fp8Reader(table));
    case Codec::kFp16:
      return fn(Fp16Reader(table));
    default:
      return fn(Bf16Reader(table));
  }
}

}  // namespace turbokv::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // KERNELS_CPU_CODE_READERS_INL_H_
