#include "kernels/cpu/attention_head.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "kernels/cpu/encode_kernels.h"
#include "kernels/cpu/tile_order.h"
#include "kernels/format/rotation.h"
#include "kernels/format/tensor_sections.h"

namespace turbokv::cpu {
namespace {

constexpr float kNone = -std::numeric_limits<float>::infinity();

// Rounding to 16 bits (integer_dot-inl.h): the root mean square of its error relative to the
// largest value, what it may add to the error of scores and of sums of V, and below what nothing is
// rounded.
constexpr float kRoundingError = 0.29f / kLargestRounded;
constexpr float kMaxRelativeError = 5e-5f;
constexpr float kSmallestRounded = 1e-15f;

// What sums scaled by exp(-before) are multiplied by to be scaled by exp(-after).
float RescaleFactor(float before, float after) {
  if (before == after) return 1;  // most pages: spares the exponential
  return before == kNone ? 0 : std::exp(before - after);
}

// 2^exponent x factor, as large as floats go.
float ScaleFactor(double factor, int exponent) {
  constexpr double kLargest = std::numeric_limits<float>::max();
  if (exponent == 0) return static_cast<float>(factor);
  return static_cast<float>(std::min(std::ldexp(factor, exponent), kLargest));
}

int RoundUpToTile(int tokens) { return (tokens + kTileTokens - 1) / kTileTokens * kTileTokens; }

PackedCodes CodesOf(const TensorSections<const uint8_t>& sections, int count,
                    absl::Span<const uint8_t> next) {
  const int channel_tiles = sections.padded_dim / kTileChannels;
  int tiles_per_scale = channel_tiles;
  if (TraitsOf(sections.codec).rotated) tiles_per_scale = kMaxGroupChannels / kTileChannels;
  if (TraitsOf(sections.codec).scale_kind == ScaleKind::kBlockFp16) tiles_per_scale = 1;
  return {sections.codec,  sections.codes,      channel_tiles,
          tiles_per_scale, count / kTileTokens, next};
}

// Scales, and minima of intN, of the first `count` tokens as [scale][128] in tile order, exponent
// included. Returns whether there are minima.
bool LoadScales(const TensorSections<const uint8_t>& sections, const HeadGroups& groups,
                int exponent, int count, float* scales, float* minima) {
  constexpr size_t kRowBytes = 2 * kPageTokens;
  const float factor = ScaleFactor(1, exponent);
  switch (TraitsOf(sections.codec).scale_kind) {
    case ScaleKind::kNone:
      std::fill(scales, scales + count, factor);
      return false;
    case ScaleKind::kHeadFp32: {
      float scale;
      std::memcpy(&scale, sections.scales, sizeof(scale));
      std::fill(scales, scales + count, scale * factor);
      return false;
    }
    case ScaleKind::kBlockFp16:
      for (int block = 0; block < sections.padded_dim / kScaleBlockChannels; ++block) {
        LoadTileScales(sections.scales + block * kRowBytes, factor, count,
                       scales + block * kPageTokens);
      }
      return false;
    case ScaleKind::kGroupFp16:
      for (int group = 0; group < groups.count; ++group) {
        LoadTileScales(sections.scales + group * kRowBytes,
                       ScaleFactor(CentroidScale(groups.channels[group]), exponent), count,
                       scales + group * kPageTokens);
      }
      return false;
    case ScaleKind::kGroupStepMinFp16:
      for (int group = 0; group < groups.count; ++group) {
        const uint8_t* row = sections.scales + 2 * group * kRowBytes;
        LoadTileScales(row, factor, count, scales + group * kPageTokens);
        LoadTileScales(row + kRowBytes, factor, count, minima + group * kPageTokens);
      }
      return true;
  }
  return false;
}

// What is read of a slice before its softmax, and after.
absl::Span<const uint8_t> ReadForScores(const PageView* page, int kv_head) {
  if (page == nullptr) return {};
  return {page->Slice(kv_head), page->layout.k_codes.size_bytes};
}

absl::Span<const uint8_t> ReadAfterScores(const PageView& page, int kv_head) {
  return {page.Slice(kv_head) + page.layout.v_codes.offset_bytes, page.layout.v_codes.size_bytes};
}

// Fetches scales and K mean, which are read before the codes.
void PrefetchScales(const PageView* page, int kv_head) {
  if (page == nullptr) return;
  const uint8_t* slice = page->Slice(kv_head);
  const auto prefetch = [slice](size_t begin, size_t end) {
    constexpr size_t kCacheLineBytes = 64;
    for (size_t i = begin; i < end; i += kCacheLineBytes) __builtin_prefetch(slice + i);
  };
  prefetch(page->layout.k_scales.offset_bytes, page->layout.v_codes.offset_bytes);
  prefetch(page->layout.v_scales.offset_bytes, page->layout.slice_bytes);
}

// The range of rounding a group of q.
float RoundingRange(const float* q, int channels) {
  float largest = 0;
  float sums[4] = {};
  for (int c = 0; c < channels; ++c) {
    largest = std::max(largest, std::abs(q[c]));
    sums[(c >> 2) & 3] += std::abs(q[c]);
  }
  return std::max(largest, RangeOfPart(*std::max_element(sums, sums + 4)));
}

void StoreInTileOrder(const float* from, int count, float* to) {
  for (int c = 0; c < count; ++c) {
    to[c / kTileOrderValues * kTileOrderValues + TileOrderOf(c % kTileOrderValues)] = from[c];
  }
}

}  // namespace

TokenRange VisibleTokens(const AttentionOptions& options, int64_t first_position, int64_t tokens,
                         int64_t position) {
  if (position < first_position) return {};
  const int64_t offset = position - first_position;
  const int64_t window = options.window_tokens;
  return {window == 0 ? 0 : std::max<int64_t>(0, offset - (window - 1)),
          std::min(offset, tokens - 1) + 1};
}

HeadAttention::HeadAttention(const AttentionShape& shape, const AttentionOptions& options,
                             const SequenceKv& sequence, const AttentionQueries& queries,
                             int64_t tokens, int kv_head)
    : shape_(shape),
      options_(options),
      kv_head_(kv_head),
      groups_(GroupsOf(shape.head_dim)),
      rows_(static_cast<int>(queries.positions.size()) * (shape.q_heads / shape.kv_heads)),
      padded_rows_(PaddedRows(rows_)) {
  const int group_heads = shape.q_heads / shape.kv_heads;
  const int dim = shape.head_dim;
  plain_.dim = PaddedHeadDim(Codec::kBf16, dim);
  rotated_.dim = groups_.padded_dim();
  exact_.dim = dim;
  q_.resize(static_cast<size_t>(rows_) * dim);
  q_plain_.resize(static_cast<size_t>(padded_rows_) * plain_.dim);
  q_rotated_.resize(static_cast<size_t>(padded_rows_) * rotated_.dim);
  q_ranges_.resize(static_cast<size_t>(padded_rows_) * groups_.count);
  q_sums_.resize(static_cast<size_t>(rows_) * kMaxGroups);
  for (int row = 0; row < rows_; ++row) {
    const int query = row / group_heads;
    visible_in_sequence_.push_back(
        VisibleTokens(options, sequence.first_position, tokens, queries.positions[query]));
    const int q_head = kv_head * group_heads + row % group_heads;
    const float* q = queries.q + (static_cast<size_t>(query) * shape.q_heads + q_head) * dim;
    float padded[kMaxHeadDim] = {};
    for (int c = 0; c < dim; ++c) padded[c] = q[c] * options.softmax_scale;
    std::copy(padded, padded + dim, q_.begin() + row * dim);
    StoreInTileOrder(padded, plain_.dim, q_plain_.data() + row * plain_.dim);
    RotateRow(groups_, padded);
    for (int group = 0; group < groups_.count; ++group) {
      const float* begin = padded + groups_.begin(group);
      const float range = RoundingRange(begin, groups_.channels[group]);
      q_ranges_[row * groups_.count + group] = range;
      largest_q_range_ = std::max(largest_q_range_, range);
    }
    StoreInTileOrder(padded, rotated_.dim, q_rotated_.data() + row * rotated_.dim);
    for (int group = 0; group < groups_.count; ++group) {
      const float* begin = padded + groups_.begin(group);
      double sum = 0;
      for (int c = 0; c < groups_.channels[group]; ++c) sum += begin[c];
      q_sums_[row * kMaxGroups + group] = static_cast<float>(sum);
    }
  }
  largest_.assign(rows_, kNone);
  weight_.assign(rows_, 0.0);
  visible_.resize(rows_);
  biases_.resize(rows_);
  block_largest_.resize(rows_);
  norms_.resize(rows_);
  weight_ranges_.resize(static_cast<size_t>(padded_rows_) * (kMaxHeadDim / kScaleBlockChannels));
  squared_weights_.resize(rows_);
  squared_errors_.resize(rows_);
  rescale_.assign(padded_rows_, 0.0f);
  offsets_.assign(static_cast<size_t>(padded_rows_) * kMaxGroups, 0.0f);
  scores_.resize(static_cast<size_t>(rows_) * kPageTokens);
}

bool HeadAttention::FindVisible(int64_t first_token, int tokens) {
  bool any = false;
  for (int row = 0; row < rows_; ++row) {
    const TokenRange& visible = visible_in_sequence_[row];
    visible_[row] = {std::clamp<int64_t>(visible.begin - first_token, 0, tokens),
                     std::clamp<int64_t>(visible.end - first_token, 0, tokens)};
    any = any || !visible_[row].empty();
  }
  return any;
}

void HeadAttention::ScoreMean(const PageView& page) {
  std::fill(biases_.begin(), biases_.end(), 0.0f);
  if (!page.layout.shape.k_mean) return;
  constexpr double kLimit = std::numeric_limits<float>::max();
  float mean[kMaxHeadDim];
  LoadHead({page.Slice(kv_head_) + page.layout.k_mean.offset_bytes, ValueType::kFp16, 0, 1,
            shape_.head_dim},
           shape_.head_dim, mean);
  DotRows(q_.data(), rows_, shape_.head_dim, mean, biases_.data());
  const int exponent = page.header.k_exponent;
  if (exponent == 0) return;
  for (float& bias : biases_) {
    bias = static_cast<float>(std::clamp(std::ldexp(double{bias}, exponent), -kLimit, kLimit));
  }
}

// Rounding q moves a score by about kRoundingError x RoundingRange(q) x the norm of k, which is k's
// scale.
bool HeadAttention::NeedsExactScores(int scale_count, int count) const {
  float largest_scale = 0;
  for (int scale = 0; scale < scale_count; ++scale) {
    largest_scale = std::max(largest_scale, LargestScore(scales_ + scale * kPageTokens, count));
  }
  const double error = kRoundingError * largest_q_range_ * largest_scale * std::sqrt(scale_count);
  return !(largest_q_range_ > kSmallestRounded && error <= kMaxRelativeError);
}

// Rounding a page's weights errs by about kRoundingError x the largest weight for each of 128
// values of V, in random directions; what it is compared with is the length of the sum of all
// values so far, were they of random directions too. Sums stay within kMaxRelativeError of that.
bool HeadAttention::NeedsExactValues(const std::vector<WeightNorms>& norms) {
  const float kPageError = kRoundingError * std::sqrt(static_cast<float>(kPageTokens));
  const auto squared_error = [&](int row) {
    const float error = kPageError * norms[row].range;
    return error * error;
  };
  bool exact = false;
  for (int row = 0; row < rows_; ++row) {
    const float rescale = rescale_[row] * rescale_[row];
    squared_weights_[row] = squared_weights_[row] * rescale + norms[row].squares;
    squared_errors_[row] *= rescale;
    if (norms[row].range == 0) continue;
    const float limit = kMaxRelativeError * kMaxRelativeError * squared_weights_[row];
    exact = exact || norms[row].range < kSmallestRounded ||
            !(squared_errors_[row] + squared_error(row) <= limit);
  }
  for (int row = 0; !exact && row < rows_; ++row) squared_errors_[row] += squared_error(row);
  return exact;
}

void HeadAttention::ScorePage(const PageView& page, int count) {
  const uint8_t* slice = page.Slice(kv_head_);
  const TensorSections<const uint8_t> k(page.layout, PageTensor::kK, slice);
  const int exponent = page.header.k_exponent;
  const bool affine = LoadScales(k, groups_, exponent, count, scales_, minima_);
  PackedCodes codes = CodesOf(k, count, ReadAfterScores(page, kv_head_));
  const bool rotated = TraitsOf(k.codec).rotated;
  if (rotated && !NeedsExactScores(codes.scales(), count)) codes.ranges = q_ranges_.data();
  const size_t row_dots = static_cast<size_t>(codes.scales()) * kPageTokens;
  dots_.resize(std::max(dots_.size(), padded_rows_ * row_dots));
  ScoreDots(codes, Query(rotated), padded_rows_, dots_.data());

  ScoreMean(page);
  for (int row = 0; row < rows_; ++row) {
    block_largest_[row] = CombineScores(
        {dots_.data() + row * row_dots, scales_, affine ? minima_ : nullptr,
         q_sums_.data() + row * kMaxGroups, codes.scales(), biases_[row], options_.soft_cap},
        count, scores_.data() + row * kPageTokens);
  }
}

bool HeadAttention::UpdateSoftmax(int count, bool tile_order) {
  bool kept_any = false;
  for (int row = 0; row < rows_; ++row) {
    float* scores = scores_.data() + row * kPageTokens;
    const TokenRange visible = visible_[row];
    if (visible.empty()) {
      std::fill(scores, scores + count, 0.0f);
      continue;
    }
    if (visible.begin > 0 || visible.end < count) {
      for (int i = 0; i < count; ++i) {
        const int token =
            tile_order ? i / kTileTokens * kTileTokens + PositionAt(i % kTileTokens) : i;
        if (token < visible.begin || token >= visible.end) scores[i] = kNone;
        block_largest_[row] = LargestScore(scores, count);
      }
    }
    const float largest = std::max(largest_[row], block_largest_[row]);
    const WeightSums sums = ExpWeights(scores, count, largest, options_.sparse_v_threshold, scores);
    weight_[row] = weight_[row] * RescaleFactor(largest_[row], largest) + sums.all;
    largest_[row] = largest;
    kept_any = kept_any || sums.kept_any;
  }
  return kept_any;
}

void HeadAttention::Rescale(ValueSums& target) {
  if (target.sums.empty()) {
    const bool by_parts = &target != &exact_;
    const size_t row_size = by_parts ? ValueSumsSize(target.dim) : target.dim;
    target.sums.assign(padded_rows_ * row_size, 0.0f);
    target.largest.assign(padded_rows_, kNone);
  }
  for (int row = 0; row < rows_; ++row) {
    rescale_[row] = RescaleFactor(target.largest[row], largest_[row]);
    target.largest[row] = largest_[row];
  }
}

void HeadAttention::AddPageValues(const PageView& page, const PageView* next, int count) {
  const TensorSections<const uint8_t> v(page.layout, PageTensor::kV, page.Slice(kv_head_));
  PackedCodes codes = CodesOf(v, count, ReadForScores(next, kv_head_));
  const bool rotated = TraitsOf(v.codec).rotated;
  ValueSums& target = rotated ? rotated_ : plain_;
  Rescale(target);
  const bool affine = LoadScales(v, groups_, page.header.v_exponent, count, scales_, minima_);
  const size_t row_weights = static_cast<size_t>(codes.scales()) * kPageTokens;
  weights_.resize(std::max(weights_.size(), padded_rows_ * row_weights));
  for (int row = 0; row < rows_; ++row) {
    const float* weights = scores_.data() + row * kPageTokens;
    norms_[row] = {0, 0};
    for (int scale = 0; scale < codes.scales(); ++scale) {
      const WeightNorms norms =
          MultiplyWeights(weights, scales_ + scale * kPageTokens, count,
                          weights_.data() + row * row_weights + scale * kPageTokens);
      weight_ranges_[row * codes.scales() + scale] = norms.range;
      norms_[row].range = std::max(norms_[row].range, norms.range);
      norms_[row].squares += norms.squares;
    }
    for (int group = 0; rotated && group < groups_.count; ++group) {
      float& offset = offsets_[row * kMaxGroups + group];
      offset *= rescale_[row];
      if (affine) offset += Dot(weights, minima_ + group * kPageTokens, count);
    }
  }
  if (rotated && !NeedsExactValues(norms_)) codes.ranges = weight_ranges_.data();
  AccumulateValues(codes, weights_.data(), rescale_.data(), padded_rows_, target.sums.data());
}

void HeadAttention::AddPage(const PlacedPage& placed, const PageView* next) {
  PrefetchScales(next, kv_head_);
  const int tokens = placed.page.header.tokens;
  if (!FindVisible(placed.first_token, tokens)) return;
  const int count = RoundUpToTile(tokens);
  ScorePage(placed.page, count);
  if (UpdateSoftmax(count, /*tile_order=*/true)) AddPageValues(placed.page, next, count);
}

void HeadAttention::AddTailBlock(const HeadSource& k, const HeadSource& v, int64_t first_token) {
  const int tokens = k.tokens;
  if (!FindVisible(first_token, tokens)) return;
  const int count = RoundUpToTile(tokens);  // what is behind the last token is not visible
  values_.resize(static_cast<size_t>(kPageTokens) * shape_.head_dim);
  std::fill(scales_, scales_ + count, 1.0f);
  LoadHead(k, shape_.head_dim, values_.data());
  for (int row = 0; row < rows_; ++row) {
    float dots[kPageTokens] = {};
    DotRows(values_.data(), tokens, shape_.head_dim, q_.data() + row * shape_.head_dim, dots);
    block_largest_[row] =
        CombineScores({dots, scales_, nullptr, nullptr, 1, 0.0f, options_.soft_cap}, count,
                      scores_.data() + row * kPageTokens);
  }
  if (!UpdateSoftmax(count, /*tile_order=*/false)) return;
  Rescale(exact_);
  LoadHead(v, shape_.head_dim, values_.data());
  for (int row = 0; row < rows_; ++row) {
    AddWeightedRows(values_.data(), tokens, shape_.head_dim, scores_.data() + row * kPageTokens,
                    rescale_[row], exact_.sums.data() + row * shape_.head_dim);
  }
}

void HeadAttention::AddTail(const KvView& tail, int64_t first_token) {
  const auto value_bytes = static_cast<ptrdiff_t>(ValueBytes(tail.type));
  for (int begin = 0; begin < tail.tokens; begin += kPageTokens) {
    const int tokens = std::min(kPageTokens, tail.tokens - begin);
    const ptrdiff_t offset = begin * tail.token_stride + kv_head_ * tail.head_stride;
    const auto block = [&](const void* data) {
      return HeadSource{static_cast<const char*>(data) + offset * value_bytes, tail.type,
                        tail.token_stride, tokens, shape_.head_dim};
    };
    AddTailBlock(block(tail.k), block(tail.v), first_token + begin);
  }
}

void HeadAttention::TakeSums(const ValueSums& from, int row, float* sums) const {
  if (&from == &exact_) {
    std::copy_n(from.sums.data() + row * from.dim, from.dim, sums);
    return;
  }
  AddParts(from.sums.data() + row * ValueSumsSize(from.dim), from.dim, sums);
  if (&from == &plain_) return;
  for (int group = 0; group < groups_.count; ++group) {
    float* begin = sums + groups_.begin(group);
    const float offset = offsets_[row * kMaxGroups + group];
    for (int c = 0; c < groups_.channels[group]; ++c) begin[c] += offset;
  }
  UnrotateRow(groups_, sums);
}

PartialAttention HeadAttention::Finish() {
  PartialAttention result{largest_, weight_, {}};
  result.values.assign(static_cast<size_t>(rows_) * shape_.head_dim, 0.0f);
  for (const ValueSums* part : {&rotated_, &plain_, &exact_}) {
    if (part->sums.empty()) continue;
    for (int row = 0; row < rows_; ++row) {
      if (part->largest[row] == kNone) continue;
      float sums[kMaxHeadDim];
      TakeSums(*part, row, sums);
      const float factor = std::exp(part->largest[row] - largest_[row]);
      float* values = result.values.data() + row * shape_.head_dim;
      for (int c = 0; c < shape_.head_dim; ++c) values[c] += factor * sums[c];
    }
  }
  return result;
}

}  // namespace turbokv::cpu
