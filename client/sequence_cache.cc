#include "client/sequence_cache.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "kernels/cpu/attention.h"
#include "kernels/cpu/codec.h"
#include "kernels/format/page_header.h"
#include "kernels/format/small_floats.h"

namespace turbokv {
namespace {

// A tail this long gives its oldest page away.
constexpr int kTailCapacityTokens = 2 * kPageTokens;

absl::Status PageError(int layer, int64_t block, absl::string_view what) {
  return absl::InvalidArgumentError(
      absl::StrCat("layer ", layer, ", page ", block, " of the fetched layer: ", what));
}

uint16_t ToTailBits(ValueType type, float value) {
  return type == ValueType::kFp16 ? FloatToFp16(value) : FloatToBf16(value);
}

}  // namespace

class SequenceCache::Impl {
 public:
  Impl(std::shared_ptr<const ResolvedSpec> spec, ThreadPool* pool)
      : spec_(std::move(spec)),
        pool_(pool),
        tail_type_(spec_->tail_layout.shape.k_codec == Codec::kFp16 ? ValueType::kFp16
                                                                    : ValueType::kBf16),
        token_values_(static_cast<size_t>(spec_->spec.kv_heads) * spec_->spec.head_dim),
        layers_(spec_->spec.layers) {}

  absl::Status Adopt(FetchedLayer fetched);
  absl::Status Append(int layer, const KvView& kv);
  absl::Status Attend(int layer, int q_heads, const AttentionOptions& options,
                      const AttentionQueries& queries) const;

  // Packed pages in order, then tail_tokens tokens [tokens][kv_heads][head_dim].
  struct Layer {
    bool touched = false;  // adopted or appended to
    std::vector<absl::Span<const uint8_t>> pages;
    std::vector<std::vector<uint8_t>> own_pages;  // those that were encoded here
    std::shared_ptr<const void> fetched;
    std::vector<uint16_t> tail_k, tail_v;
    int tail_tokens = 0;
  };

  // Precondition: 0 <= index < the spec's layers.
  const Layer& layer(int index) const { return layers_[index]; }
  const std::vector<Layer>& layers() const { return layers_; }

 private:
  absl::Status CheckLayer(int layer) const;
  absl::Status CheckPage(int layer, int64_t block, absl::Span<const uint8_t> page) const;
  absl::Status AdoptTail(const FetchedLayer& fetched, int64_t* first_token, Layer* layer);
  void CopyTokens(const KvView& kv, int first, int tokens, Layer* layer);
  absl::Status EncodeOldestPage(int index);
  KvView TailView(const Layer& layer, int tokens) const;
  void ReserveTail(Layer* layer) const;

  const std::shared_ptr<const ResolvedSpec> spec_;
  ThreadPool* const pool_;
  const ValueType tail_type_;
  const size_t token_values_;  // of K, or of V
  std::vector<Layer> layers_;
};

absl::Status SequenceCache::Impl::CheckLayer(int layer) const {
  if (layer >= 0 && layer < spec_->spec.layers) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("layer is ", layer, ", the spec has layers 0..", spec_->spec.layers - 1));
}

// The reader has verified the page; this is about its place in the sequence.
absl::Status SequenceCache::Impl::CheckPage(int layer, int64_t block,
                                            absl::Span<const uint8_t> page) const {
  TURBOKV_ASSIGN_OR_RETURN(const PageView view, ParsePage(page));
  const PageHeader& header = view.header;
  if (header.layer != static_cast<uint32_t>(layer)) {
    return PageError(layer, block, absl::StrCat("its header says layer ", header.layer));
  }
  if (header.first_token != static_cast<uint64_t>(block) * kPageTokens ||
      header.tokens != kPageTokens) {
    return PageError(layer, block,
                     absl::StrCat("it holds ", header.tokens, " tokens from ", header.first_token,
                                  " on, expected ", kPageTokens, " from ", block * kPageTokens));
  }
  if (header.kv_heads != spec_->spec.kv_heads || header.head_dim != spec_->spec.head_dim) {
    return PageError(layer, block, "its shape differs from the spec's");
  }
  return absl::OkStatus();
}

void SequenceCache::Impl::ReserveTail(Layer* layer) const {
  layer->tail_k.resize(kTailCapacityTokens * token_values_);
  layer->tail_v.resize(kTailCapacityTokens * token_values_);
}

KvView SequenceCache::Impl::TailView(const Layer& layer, int tokens) const {
  return NhdView(tail_type_, layer.tail_k.data(), layer.tail_v.data(), tokens, spec_->spec.kv_heads,
                 spec_->spec.head_dim);
}

// Unpacks the tail's pages. Their values come back exactly: they are of the tail's type.
absl::Status SequenceCache::Impl::AdoptTail(const FetchedLayer& fetched, int64_t* first_token,
                                            Layer* layer) {
  std::vector<float> k(kPageTokens * token_values_);
  std::vector<float> v(k.size());
  for (size_t i = 0; i < fetched.tail_pages.size(); ++i) {
    TURBOKV_ASSIGN_OR_RETURN(const PageView view, ParsePage(fetched.tail_pages[i]));
    const PageHeader& header = view.header;
    const int64_t expected = i == 0 ? header.first_token : *first_token + layer->tail_tokens;
    if (view.layout.shape != spec_->tail_layout.shape ||
        header.layer != static_cast<uint32_t>(fetched.layer) ||
        header.first_token != static_cast<uint64_t>(expected) ||
        header.first_token % kPageTokens != 0 ||
        layer->tail_tokens + header.tokens >= kTailCapacityTokens) {
      return absl::InvalidArgumentError(absl::StrCat(
          "layer ", fetched.layer, ", tail page ", i, ": ", header.tokens, " tokens from ",
          header.first_token, " on, or its shape, do not fit the sequence"));
    }
    if (i == 0) *first_token = expected;
    const KvOutput output{k.data(), v.data(), static_cast<ptrdiff_t>(token_values_),
                          spec_->spec.head_dim};
    cpu::DecodePage(view, output, pool_);
    CopyTokens({ValueType::kFp32, k.data(), v.data(), output.token_stride, output.head_stride,
                header.tokens},
               0, header.tokens, layer);
  }
  return absl::OkStatus();
}

absl::Status SequenceCache::Impl::Adopt(FetchedLayer fetched) {
  TURBOKV_RETURN_IF_ERROR(CheckLayer(fetched.layer));
  if (layers_[fetched.layer].touched) {
    return absl::FailedPreconditionError(
        absl::StrCat("layer ", fetched.layer, " holds tokens already"));
  }
  Layer layer;
  layer.touched = true;
  ReserveTail(&layer);
  auto blocks = static_cast<int64_t>(fetched.pages.size());
  if (!fetched.tail_pages.empty()) {
    int64_t tail_first = 0;
    TURBOKV_RETURN_IF_ERROR(AdoptTail(fetched, &tail_first, &layer));
    if (tail_first > blocks * kPageTokens) {
      return absl::InvalidArgumentError(
          absl::StrCat("layer ", fetched.layer, ": the tail begins at token ", tail_first, ", the ",
                       blocks, " pages before it end at ", blocks * kPageTokens));
    }
    blocks = tail_first / kPageTokens;
  }
  for (int64_t block = 0; block < blocks; ++block) {
    TURBOKV_RETURN_IF_ERROR(CheckPage(fetched.layer, block, fetched.pages[block]));
    layer.pages.push_back(fetched.pages[block]);
  }
  layer.fetched = std::move(fetched.storage);
  layers_[fetched.layer] = std::move(layer);
  return absl::OkStatus();
}

// Copies tokens first..first + tokens - 1 of `kv` to the end of the tail, which has room for them.
void SequenceCache::Impl::CopyTokens(const KvView& kv, int first, int tokens, Layer* layer) {
  const int heads = spec_->spec.kv_heads;
  const int dim = spec_->spec.head_dim;
  const std::pair<const void*, uint16_t*> tensors[] = {{kv.k, layer->tail_k.data()},
                                                       {kv.v, layer->tail_v.data()}};
  for (const auto& [source, tail] : tensors) {
    uint16_t* to = tail + layer->tail_tokens * token_values_;
    for (int token = first; token < first + tokens; ++token) {
      for (int head = 0; head < heads; ++head, to += dim) {
        const auto* from = static_cast<const uint8_t*>(source) +
                           (token * kv.token_stride + head * kv.head_stride) *
                               static_cast<ptrdiff_t>(ValueBytes(kv.type));
        if (kv.type == tail_type_) {
          std::memcpy(to, from, dim * sizeof(uint16_t));
          continue;
        }
        for (int channel = 0; channel < dim; ++channel) {
          float value;
          std::memcpy(&value, from + channel * sizeof(float), sizeof(float));
          to[channel] = ToTailBits(tail_type_, value);
        }
      }
    }
  }
  layer->tail_tokens += tokens;
}

absl::Status SequenceCache::Impl::EncodeOldestPage(int index) {
  Layer& layer = layers_[index];
  const PageLayout& layout = spec_->layer_layouts[index];
  const PageIdentity identity{.layer = static_cast<uint32_t>(index),
                              .first_token = layer.pages.size() * uint64_t{kPageTokens},
                              .spec_id = spec_->spec_id()};
  std::vector<uint8_t> page(layout.page_bytes);
  TURBOKV_RETURN_IF_ERROR(
      cpu::EncodePage(layout, identity, TailView(layer, kPageTokens), absl::MakeSpan(page), pool_));
  layer.own_pages.push_back(std::move(page));
  layer.pages.push_back(layer.own_pages.back());  // a moved vector keeps its bytes where they are
  const size_t page_values = kPageTokens * token_values_;
  for (std::vector<uint16_t>* tail : {&layer.tail_k, &layer.tail_v}) {
    std::copy(tail->begin() + page_values, tail->end(), tail->begin());
  }
  layer.tail_tokens -= kPageTokens;
  return absl::OkStatus();
}

absl::Status SequenceCache::Impl::Append(int index, const KvView& kv) {
  TURBOKV_RETURN_IF_ERROR(CheckLayer(index));
  if (kv.tokens < 0 || (kv.type != tail_type_ && kv.type != ValueType::kFp32)) {
    return absl::InvalidArgumentError(absl::StrCat(
        "layer ", index, ": ", kv.tokens, " tokens of value type ", static_cast<int>(kv.type),
        "; the tail takes type ", static_cast<int>(tail_type_), " or fp32"));
  }
  Layer& layer = layers_[index];
  if (!layer.touched) ReserveTail(&layer);
  layer.touched = true;
  for (int done = 0; done < kv.tokens;) {
    // Full only when an earlier append could not encode: then it fails again, the same way.
    if (layer.tail_tokens == kTailCapacityTokens) TURBOKV_RETURN_IF_ERROR(EncodeOldestPage(index));
    const int tokens = std::min(kv.tokens - done, kTailCapacityTokens - layer.tail_tokens);
    CopyTokens(kv, done, tokens, &layer);
    done += tokens;
    if (layer.tail_tokens == kTailCapacityTokens) TURBOKV_RETURN_IF_ERROR(EncodeOldestPage(index));
  }
  return absl::OkStatus();
}

absl::Status SequenceCache::Impl::Attend(int index, int q_heads, const AttentionOptions& options,
                                         const AttentionQueries& queries) const {
  TURBOKV_RETURN_IF_ERROR(CheckLayer(index));
  const Layer& layer = layers_[index];
  const AttentionShape shape{q_heads, spec_->spec.kv_heads, spec_->spec.head_dim};
  const SequenceKv sequence{layer.pages, 0, TailView(layer, layer.tail_tokens)};
  return cpu::DecodeAttention(shape, options, sequence, queries, pool_);
}

SequenceCache::SequenceCache(std::shared_ptr<const ResolvedSpec> spec, ThreadPool* pool)
    : impl_(std::make_unique<Impl>(std::move(spec), pool)) {}
SequenceCache::~SequenceCache() = default;

absl::Status SequenceCache::AdoptLayer(FetchedLayer layer) {
  return impl_->Adopt(std::move(layer));
}

absl::Status SequenceCache::Append(int layer, const KvView& kv) { return impl_->Append(layer, kv); }

absl::Status SequenceCache::Attend(int layer, int q_heads, const AttentionOptions& options,
                                   const AttentionQueries& queries) const {
  return impl_->Attend(layer, q_heads, options, queries);
}

int64_t SequenceCache::tokens(int layer) const {
  return packed_blocks(layer) * kPageTokens + tail_tokens(layer);
}

int64_t SequenceCache::packed_blocks(int layer) const {
  return static_cast<int64_t>(impl_->layer(layer).pages.size());
}

int SequenceCache::tail_tokens(int layer) const { return impl_->layer(layer).tail_tokens; }

absl::Span<const uint8_t> SequenceCache::page(int layer, int64_t block) const {
  return impl_->layer(layer).pages[block];
}

int64_t SequenceCache::packed_bytes() const {
  int64_t bytes = 0;
  for (const Impl::Layer& layer : impl_->layers()) {
    for (absl::Span<const uint8_t> page : layer.pages) bytes += static_cast<int64_t>(page.size());
  }
  return bytes;
}

}  // namespace turbokv
