// The CRC32C of a page by a block of kCrcBlockThreads threads, its header apart: that is where the
// checksum is, which counts as zero.
#pragma once

#include "kernels/cuda/encode/crc32c.cuh"
#include "kernels/cuda/primitives/page_format.cuh"

namespace turbokv::cuda {

inline constexpr int kCrcBlockThreads = kCrcWarps * kWarpLanes;
inline constexpr int kHeaderWords = kPageHeaderBytes / 4;
inline constexpr int kChecksumWord = 3;
static_assert(kPageHeaderBytes == kCrcRowBytes, "a header is a row");

// A copy in every translation unit that computes CRCs.
static __constant__ const CrcRowShift kRowShift = MakeCrcRowShift();
static __constant__ const CrcLaneShifts kLaneShifts = MakeCrcLaneShifts();

// Into shared memory, where lanes look entries up that differ.
TURBOKV_DEVICE void LoadRowShift(CrcRowShift& table) {
  for (int i = threadIdx.x; i < 4 * 256; i += kCrcBlockThreads) {
    table.entries[i / 256][i % 256] = kRowShift.entries[i / 256][i % 256];
  }
}

// The share of a warp's rows in the page's CRC; row 0 is in `header`. The same in every lane.
TURBOKV_DEVICE uint32_t CrcOfWarp(const CrcPlan& plan, const uint8_t* page, const uint32_t* header,
                                  const CrcRowShift& table) {
  const int lane = threadIdx.x % kWarpLanes;
  const int warp = threadIdx.x / kWarpLanes;
  const auto* words = reinterpret_cast<const uint32_t*>(page) + lane;
  const int first_row = static_cast<int>(FirstRow(plan, warp));
  CrcFold fold;
#pragma unroll 1
  for (int begin = 0; begin < plan.rows_per_warp; begin += 32) {
    uint32_t rows[32];
#pragma unroll
    for (int k = 0; k < 32; ++k) {
      const int row = first_row + begin + k;
      rows[k] = row > 0 ? words[row * kWarpLanes] : row == 0 ? header[lane] : 0;
    }
    fold.Add(rows);
  }
  uint32_t crc = 0;
#pragma unroll
  for (int k = 0; k < 32; ++k) crc = ShiftRow(table, crc) ^ fold.Rest(k);
  crc = __reduce_xor_sync(~0u, CrcProduct(crc, kLaneShifts.powers[lane]));
  return CrcProduct(crc, plan.warp_shifts[warp]);
}

// The CRC, of what the warps left.
TURBOKV_DEVICE uint32_t CrcOfWarps(const uint32_t (&crcs)[kCrcWarps]) {
  uint32_t crc = ~0u;
  for (uint32_t part : crcs) crc ^= part;
  return crc;
}

}  // namespace turbokv::cuda
