// Writes a page's header, with the checksum of the whole page. A block seals a page.
#include "kernels/cuda/encode/page_crc.cuh"
#include "kernels/cuda/encode/seal_kernel.h"
#include "kernels/cuda/encode/seal_params.cuh"
#include "kernels/cuda/primitives/page_format.cuh"

namespace turbokv::cuda {
namespace {

static_assert(kSealBlockThreads == kCrcBlockThreads);

// Words of the header (kernels/format/page_header.h).
constexpr int kTokensWord = 5;         // and kv_heads
constexpr int kFirstExponentWord = 6;  // head_dim, k_exponent; v_exponent, reserved
constexpr int kLayerWord = 8;
constexpr int kGenerationWord = 9;
constexpr int kFirstTokenWord = 10;
constexpr int kSpecWord = 12;

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

__global__ void __launch_bounds__(kSealBlockThreads)
    SealKernel(const __grid_constant__ SealParams params) {
  const int index = static_cast<int>(blockIdx.x);
  if (params.states[index].skip != 0) return;
  __shared__ CrcRowShift table;
  __shared__ uint32_t header[kHeaderWords];
  __shared__ uint32_t crcs[kCrcWarps];
  LoadRowShift(table);
  const int thread = threadIdx.x;
  if (thread < kHeaderWords) {
    // CRCs begin with ones: the first word counts inverted.
    header[thread] = HeaderWord(params, index, thread) ^ (thread == 0 ? ~0u : 0);
  }
  __syncthreads();
  uint8_t* page = params.pool + params.page_ids[index] * params.page_stride;
  const uint32_t crc = CrcOfWarp(params.crc, page, header, table);
  if (thread % kWarpLanes == 0) crcs[thread / kWarpLanes] = crc;
  __syncthreads();
  if (thread >= kHeaderWords) return;
  const uint32_t checksum = CrcOfWarps(crcs);
  uint32_t word = header[thread];
  if (thread == 0) word = ~word;
  if (thread == kChecksumWord) word = checksum;
  reinterpret_cast<uint32_t*>(page)[thread] = word;
}

}  // namespace

const void* SealKernelFunction() { return reinterpret_cast<const void*>(SealKernel); }

}  // namespace turbokv::cuda
