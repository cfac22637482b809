// Writes a page's header, with the checksum of the whole page. A block seals a page.
#include "kernels/cuda/encode/seal_kernel.h"
#include "kernels/cuda/encode/seal_params.cuh"
#include "kernels/cuda/primitives/page_format.cuh"

namespace turbokv::cuda {
namespace {

constexpr int kHeaderWords = kPageHeaderBytes / 4;
static_assert(kPageHeaderBytes == kCrcRowBytes, "a header is a row");
static_assert(kSealBlockThreads == kCrcWarps * kWarpLanes);

// Words of the header (kernels/format/page_header.h).
constexpr int kChecksumWord = 3;
constexpr int kTokensWord = 5;         // and kv_heads
constexpr int kFirstExponentWord = 6;  // head_dim, k_exponent; v_exponent, reserved
constexpr int kLayerWord = 8;
constexpr int kGenerationWord = 9;
constexpr int kFirstTokenWord = 10;
constexpr int kSpecWord = 12;

__constant__ const CrcRowShift kRowShift = MakeCrcRowShift();
__constant__ const CrcLaneShifts kLaneShifts = MakeCrcLaneShifts();

// Word `word` of the page's header, checksum 0.
TURBOKV_DEVICE uint32_t HeaderWord(const SealParams& params, int page, int word) {
  const PageState& state = params.states[page];
  const uint32_t given = params.header[word];
  if (word == kFirstExponentWord) return given | static_cast<uint32_t>(state.exponent[0]) << 16;
  if (word == kFirstExponentWord + 1) return static_cast<uint32_t>(state.exponent[1]) & 0xffff;
  if (params.from_headers == nullptr) {
    const uint64_t first_token = params.first_token + uint64_t{kPageTokens} * page;
    if (word == kFirstTokenWord) return static_cast<uint32_t>(first_token);
    if (word == kFirstTokenWord + 1) return static_cast<uint32_t>(first_token >> 32);
    return given;
  }
  const auto* from = reinterpret_cast<const uint32_t*>(params.from_headers +
                                                       params.from_ids[page] * params.from_stride);
  if (word == kTokensWord) return (given & 0xffff0000u) | (from[word] & 0xffff);
  if (word == kGenerationWord) return from[word] + 1;
  if (word == kLayerWord || (word >= kFirstTokenWord && word < kSpecWord + 2)) return from[word];
  return given;
}

// The share of a warp's rows in the page's CRC; row 0 is in `header`. The same in every lane.
TURBOKV_DEVICE uint32_t CrcOfWarp(const SealParams& params, const uint8_t* page,
                                  const uint32_t* header, const CrcRowShift& table) {
  const int lane = threadIdx.x % kWarpLanes;
  const int warp = threadIdx.x / kWarpLanes;
  const auto* words = reinterpret_cast<const uint32_t*>(page) + lane;
  const int first_row = static_cast<int>(FirstRow(params.crc, warp));
  CrcFold fold;
#pragma unroll 1
  for (int begin = 0; begin < params.crc.rows_per_warp; begin += 32) {
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
  return CrcProduct(crc, params.crc.warp_shifts[warp]);
}

__global__ void __launch_bounds__(kSealBlockThreads)
    SealKernel(const __grid_constant__ SealParams params) {
  const int index = static_cast<int>(blockIdx.x);
  if (params.states[index].skip != 0) return;
  __shared__ CrcRowShift table;
  __shared__ uint32_t header[kHeaderWords];
  __shared__ uint32_t crcs[kCrcWarps];
  for (int i = threadIdx.x; i < 4 * 256; i += kSealBlockThreads) {
    table.entries[i / 256][i % 256] = kRowShift.entries[i / 256][i % 256];
  }
  const int thread = threadIdx.x;
  if (thread < kHeaderWords) {
    // CRCs begin with ones: the first word counts inverted.
    header[thread] = HeaderWord(params, index, thread) ^ (thread == 0 ? ~0u : 0);
  }
  __syncthreads();
  uint8_t* page = params.pool + params.page_ids[index] * params.page_stride;
  const uint32_t crc = CrcOfWarp(params, page, header, table);
  if (thread % kWarpLanes == 0) crcs[thread / kWarpLanes] = crc;
  __syncthreads();
  if (thread >= kHeaderWords) return;
  uint32_t checksum = ~0u;
  for (uint32_t part : crcs) checksum ^= part;
  uint32_t word = header[thread];
  if (thread == 0) word = ~word;
  if (thread == kChecksumWord) word = checksum;
  reinterpret_cast<uint32_t*>(page)[thread] = word;
}

}  // namespace

const void* SealKernelFunction() { return reinterpret_cast<const void*>(SealKernel); }

}  // namespace turbokv::cuda
