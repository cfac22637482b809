// The forms of q that codecs want. Host and device code.
#pragma once

#include "kernels/cuda/primitives/page_format.cuh"

namespace turbokv::cuda {

// Bits, in the order of QueryBlock's members.
enum QueryForm : int {
  kRotatedQ = 1,  // 16-bit integers of rotated q
  kPlainQ = 2,    // ... of q as given
  kFp16Q = 4,     // sums of two fp16; K's mean wants them too
  kBf16Q = 8,     // ... of two bf16
};

// What pages of K in this codec want.
constexpr QueryForm QueryFormOf(Codec k) {
  if (k == Codec::kBf16) return kBf16Q;
  if (k == Codec::kFp16 || k == Codec::kFp8E4m3) return kFp16Q;
  return FactsOf(k).rotated ? kRotatedQ : kPlainQ;
}

}  // namespace turbokv::cuda
