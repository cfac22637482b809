// Attention on the uncompressed tail of one sequence, for eight rows of one KV head, by tensor
// cores straight from the engine's memory: rows of Q are two bf16 (or fp16) numbers each, so that
// the products are as good as float.
#pragma once

#include "kernels/cuda/attention/params.cuh"
#include "kernels/cuda/attention/schedule.cuh"
#include "kernels/cuda/attention/softmax.cuh"
#include "kernels/cuda/attention/values.cuh"

namespace turbokv::cuda {

inline constexpr int kTailChunkTokens = 32;  // of one warp at a time

struct TailHead {
  const uint16_t* k;  // of this sequence and head
  const uint16_t* v;
  int64_t token_stride;
  int tokens;
  int first_position;
};

// One warp's part. Lane 4g + t holds, of row g, n-tile n and e: channel (2 t + e) x head_dim / 8 +
// n.
template <int kHeadDim>
struct TailSums {
  static constexpr int kNTiles = kHeadDim / 8;
  float values[kNTiles][2];
  SoftmaxState softmax;

  TURBOKV_DEVICE static int Channel(int n, int e, int t) { return (2 * t + e) * kNTiles + n; }
};

template <int kHeadDim, bool kFp16>
class TailWarp {
 public:
  static constexpr int kTiles = kHeadDim / kTileChannels;
  static constexpr int kNTiles = kHeadDim / 8;

  TURBOKV_DEVICE TailWarp(const TailHead& head, const QueryBlock<kHeadDim>& block, float soft_cap,
                          float sparse_threshold, int lane)
      : head_(head),
        block_(block),
        row_(block.rows[lane / 4]),
        soft_cap_(soft_cap),
        sparse_threshold_(sparse_threshold),
        lane_(lane),
        g_(lane / 4),
        t_(lane % 4) {}

  // Adds tokens [first, first + 32) as far as there are so many.
  TURBOKV_DEVICE void Add(int first, TailSums<kHeadDim>& sums) const {
    float scores[4][2];
    Score(first, scores);
    float largest = kNoScore;
    ForTokens([&](int n, int e) { largest = fmaxf(largest, scores[n][e]); });
    largest = fmaxf(RowMax(largest), sums.softmax.largest);
    const float keep = Exp2(sums.softmax.largest - largest);
    float sum = 0.0f;
    ForTokens([&](int n, int e) {
      float& weight = scores[n][e];
      weight = Exp2(weight - largest);
      sum += weight;
      if (weight < sparse_threshold_) weight = 0.0f;
    });
    sums.softmax.sum = sums.softmax.sum * keep + sum;
    sums.softmax.largest = largest;
#pragma unroll
    for (int n = 0; n < kNTiles; ++n) {
      sums.values[n][0] *= keep;
      sums.values[n][1] *= keep;
    }
    const auto weights = SplitWeights<!kFp16>(scores);
    AddValues(first, weights.parts[0], sums);
    AddValues(first + 16, weights.parts[1], sums);
  }

 private:
  // Lane's scores: token first + 8 n + 2 t + e.
  TURBOKV_DEVICE void Score(int first, float (&scores)[4][2]) const {
    const float scale = row_.pair_scale;
#pragma unroll
    for (int n = 0; n < 4; ++n) {
      const int token = first + 8 * n + g_;
      float c[4] = {};
#pragma unroll
      for (int tile = 0; tile < kTiles; ++tile) {
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          Words2 b{0, 0};
          if (token < head_.tokens) {
            b = *reinterpret_cast<const Words2*>(head_.k + token * head_.token_stride +
                                                 kTileChannels * tile + 16 * half + 4 * t_);
          }
          const auto& source = kFp16 ? block_.fp16 : block_.bf16;
          MultiplyHalf<!kFp16>(c, Load16Bytes(&source[tile][half][lane_]), b.x, b.y);
        }
      }
#pragma unroll
      for (int e = 0; e < 2; ++e) {
        const int own = first + 8 * n + 2 * t_ + e;
        const int position = head_.first_position + own;
        float score = (c[e] + c[2 + e]) * scale;
        if (soft_cap_ > 0.0f) score = SoftCap(score, soft_cap_);
        const bool visible =
            own < head_.tokens && position >= row_.visible_begin && position < row_.visible_end;
        scores[n][e] = visible ? score : -Infinity();
      }
    }
  }

  // 16 tokens from `first` on, a step of k: 2 t, 2 t + 1, 2 t + 8, 2 t + 9 are this lane's; of
  // their V it loads channels g x head_dim / 8 and those that follow.
  TURBOKV_DEVICE void AddValues(int first, const Words4& weights, TailSums<kHeadDim>& sums) const {
#pragma unroll
    for (int begin = 0; begin < kNTiles; begin += 8) {
      Words4 v[4];
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int token = first + 2 * t_ + 8 * (i / 2) + i % 2;
        v[i] = Words4{0, 0, 0, 0};
        if (token < head_.tokens) {
          v[i] = Load16Bytes(head_.v + token * head_.token_stride + g_ * kNTiles + begin);
        }
      }
#pragma unroll
      for (int n = 0; n < 8; ++n) {
        const uint32_t select = n % 2 == 0 ? 0x5410 : 0x7632;
        float c[4] = {};
        MultiplyHalf<!kFp16>(c, weights, Permute(Word(v[0], n / 2), Word(v[1], n / 2), select),
                             Permute(Word(v[2], n / 2), Word(v[3], n / 2), select));
        sums.values[begin + n][0] += c[0] + c[2];
        sums.values[begin + n][1] += c[1] + c[3];
      }
    }
  }

  static TURBOKV_DEVICE uint32_t Word(const Words4& words, int i) {
    return i == 0 ? words.x : i == 1 ? words.y : i == 2 ? words.z : words.w;
  }

  const TailHead& head_;
  const QueryBlock<kHeadDim>& block_;
  const QueryRow& row_;
  const float soft_cap_;
  const float sparse_threshold_;
  const int lane_;
  const int g_;
  const int t_;
};

}  // namespace turbokv::cuda
