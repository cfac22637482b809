// The rotation's signs as lanes use them: tables that blocks copy into shared memory.
#pragma once

#include "kernels/cuda/encode/fragments.cuh"
#include "kernels/cuda/encode/lane_codes.cuh"
#include "kernels/cuda/encode/load_page.cuh"

namespace turbokv::cuda {

// Sign bits that s1 flips in the values that lane (.., t) reads of J: [J][t].
template <int kChannels>
struct FirstFlips {
  Words2 pairs[kChannels / 16][4];
};

template <int kChannels>
struct alignas(16) SignTables {
  FirstFlips<kChannels> flips;
  uint32_t of_lanes[kWarpLanes];  // LaneSigns
};

template <int kChannels, bool kIsV>
constexpr SignTables<kChannels> MakeSignTables() {
  SignTables<kChannels> tables{};
  for (int block = 0; block < kChannels / 16; ++block) {
    for (int t = 0; t < 4; ++t) {
      const int channel = 16 * block + 4 * t;
      const uint32_t signs = FirstSigns(block / 2);
      tables.flips.pairs[block][t] = {FlipPair(signs, channel), FlipPair(signs, channel + 2)};
    }
  }
  for (int lane = 0; lane < kWarpLanes; ++lane) {
    tables.of_lanes[lane] = LaneSigns<kChannels, kIsV>(lane);
  }
  return tables;
}
template <int kChannels, bool kIsV>
__device__ const SignTables<kChannels> kSignTables = MakeSignTables<kChannels, kIsV>();

// The tables are there after WaitForCopies and a barrier.
template <int kChannels, bool kIsV>
TURBOKV_DEVICE void StartToLoadSigns(SignTables<kChannels>& tables) {
  constexpr int kPieces = sizeof(tables) / 16;
  static_assert(sizeof(tables) % 16 == 0 && kPieces <= kEncodeThreads);
  const auto* from = reinterpret_cast<const uint8_t*>(&kSignTables<kChannels, kIsV>);
  auto* to = reinterpret_cast<uint8_t*>(&tables);
  if (threadIdx.x < kPieces) CopyAsync16(to + 16 * threadIdx.x, from + 16 * threadIdx.x);
}

}  // namespace turbokv::cuda
