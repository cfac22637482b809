#include "client/sequence_cache.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>

#include "kernels/format/page_header.h"
#include "kernels/format/small_floats.h"
#include "kernels/reference/attention.h"
#include "kernels/reference/codec.h"

namespace turbokv {
namespace {

using ::testing::HasSubstr;

constexpr int kLayers = 2;
constexpr int kKvHeads = 2;
constexpr int kQHeads = 4;
constexpr int kHeadDim = 64;
constexpr int kTokenValues = kKvHeads * kHeadDim;
constexpr int kMaxTokens = 700;

std::shared_ptr<const ResolvedSpec> Spec(const std::string& policy,
                                         ValueType type = ValueType::kBf16) {
  CacheSpec spec;
  spec.model_id = "test";
  spec.layers = kLayers;
  spec.kv_heads = kKvHeads;
  spec.head_dim = kHeadDim;
  spec.source_type = type;
  spec.policy = policy;
  absl::StatusOr<ResolvedSpec> resolved = ResolveSpec(spec);
  EXPECT_TRUE(resolved.ok()) << resolved.status();
  return std::make_shared<const ResolvedSpec>(*std::move(resolved));
}

// A sequence of random K and V, [tokens][kv_heads][head_dim], the same for every layer; K has a
// part that all tokens share, as real K has.
class Sequence {
 public:
  explicit Sequence(ValueType type) : type_(type) {
    std::mt19937 random(17);
    std::normal_distribution<float> normal;
    for (int i = 0; i < kMaxTokens * kTokenValues; ++i) {
      k_.push_back(normal(random) + 2.0f * std::sin(static_cast<float>(i % kTokenValues)));
      v_.push_back(normal(random));
    }
    for (const auto& [values, bits] : {std::pair{&k_, &k_bits_}, {&v_, &v_bits_}}) {
      for (float value : *values) {
        bits->push_back(type == ValueType::kFp16 ? FloatToFp16(value) : FloatToBf16(value));
      }
    }
  }

  KvView Exact(int first, int tokens) const {
    return NhdView(type_, k_bits_.data() + first * kTokenValues,
                   v_bits_.data() + first * kTokenValues, tokens, kKvHeads, kHeadDim);
  }

  KvView Fp32(int first, int tokens) const {
    return NhdView(ValueType::kFp32, k_.data() + first * kTokenValues,
                   v_.data() + first * kTokenValues, tokens, kKvHeads, kHeadDim);
  }

  std::vector<uint8_t> Page(const ResolvedSpec& spec, const PageLayout& layout, int layer,
                            int first, int tokens) const {
    std::vector<uint8_t> page(layout.page_bytes);
    const PageIdentity identity{.layer = static_cast<uint32_t>(layer),
                                .first_token = static_cast<uint64_t>(first),
                                .spec_id = spec.spec_id()};
    EXPECT_TRUE(
        reference::EncodePage(layout, identity, Exact(first, tokens), absl::MakeSpan(page)).ok());
    return page;
  }

  // What a fetch of the sequence's first `tokens` tokens gives.
  FetchedLayer Fetched(const ResolvedSpec& spec, int layer, int tokens, bool with_tail) const {
    std::vector<std::pair<size_t, size_t>> parts;
    auto storage = std::make_shared<std::vector<uint8_t>>();
    auto add = [&](const PageLayout& layout, int first, int count) {
      const std::vector<uint8_t> page = Page(spec, layout, layer, first, count);
      parts.emplace_back(storage->size(), page.size());
      storage->insert(storage->end(), page.begin(), page.end());
    };
    const int blocks = tokens / kPageTokens;
    for (int block = 0; block < blocks; ++block) {
      add(spec.layer_layouts[layer], block * kPageTokens, kPageTokens);
    }
    const int tail_first = static_cast<int>(PackedBlocks(tokens)) * kPageTokens;
    for (int first = tail_first; with_tail && first < tokens; first += kPageTokens) {
      add(spec.tail_layout, first, std::min(kPageTokens, tokens - first));
    }
    FetchedLayer fetched;
    fetched.layer = layer;
    for (size_t i = 0; i < parts.size(); ++i) {
      const auto span = absl::MakeConstSpan(*storage).subspan(parts[i].first, parts[i].second);
      (static_cast<int>(i) < blocks ? fetched.pages : fetched.tail_pages).push_back(span);
    }
    fetched.storage = std::move(storage);
    return fetched;
  }

 private:
  const ValueType type_;
  std::vector<float> k_, v_;
  std::vector<uint16_t> k_bits_, v_bits_;
};

// Checks layer `layer` of a cache that holds `tokens` tokens, `packed` blocks of them in pages,
// against pages and attention of the reference kernels.
void ExpectHolds(const SequenceCache& cache, const ResolvedSpec& spec, const Sequence& sequence,
                 int layer, int tokens, int64_t packed) {
  SCOPED_TRACE(testing::Message() << tokens << " tokens, layer " << layer);
  ASSERT_EQ(cache.tokens(layer), tokens);
  ASSERT_EQ(cache.packed_blocks(layer), packed);
  ASSERT_EQ(cache.tail_tokens(layer), tokens - packed * kPageTokens);
  std::vector<std::vector<uint8_t>> pages;
  std::vector<absl::Span<const uint8_t>> spans;
  for (int64_t block = 0; block < packed; ++block) {
    pages.push_back(sequence.Page(spec, spec.layer_layouts[layer], layer,
                                  static_cast<int>(block) * kPageTokens, kPageTokens));
    ASSERT_EQ(cache.page(layer, block), absl::MakeConstSpan(pages.back()));
  }
  for (const auto& page : pages) spans.emplace_back(page);
  if (tokens == 0) return;

  std::mt19937 random(tokens);
  std::normal_distribution<float> normal;
  const int queries = std::min(tokens, 2);
  std::vector<int64_t> positions;
  for (int i = queries; i > 0; --i) positions.push_back(tokens - i);
  std::vector<float> q(queries * kQHeads * kHeadDim);
  for (float& value : q) value = normal(random);
  std::vector<float> out(q.size()), expected(q.size());
  AttentionOptions options;
  options.softmax_scale = 0.125f;
  const int tail_first = static_cast<int>(packed) * kPageTokens;
  ASSERT_TRUE(
      reference::DecodeAttention({kQHeads, kKvHeads, kHeadDim}, options,
                                 {spans, 0, sequence.Exact(tail_first, tokens - tail_first)},
                                 {positions, q.data(), expected.data()})
          .ok());
  const absl::Status status =
      cache.Attend(layer, kQHeads, options, {positions, q.data(), out.data()});
  ASSERT_TRUE(status.ok()) << status;
  for (size_t i = 0; i < out.size(); ++i) ASSERT_NEAR(out[i], expected[i], 2e-3) << i;
}

TEST(SequenceCache, TailHoldsTheLast128To255Tokens) {
  for (const char* policy : {"k=int5,v=turbo3", "k=bf16,v=q8_0"}) {
    const auto spec = Spec(policy);
    const Sequence sequence(ValueType::kBf16);
    SequenceCache cache(spec, nullptr);
    for (int tokens = 0; tokens < 520; ++tokens) {
      if (tokens % 64 <= 1 || tokens % 64 == 63) {
        ExpectHolds(cache, *spec, sequence, 0, tokens, PackedBlocks(tokens));
      }
      if (tokens >= 2 * kPageTokens) {
        ASSERT_GE(cache.tail_tokens(0), kPageTokens);
        ASSERT_LT(cache.tail_tokens(0), 2 * kPageTokens);
      }
      ASSERT_TRUE(cache.Append(0, sequence.Exact(tokens, 1)).ok());
    }
    EXPECT_EQ(cache.tokens(1), 0);
    EXPECT_EQ(cache.packed_bytes(),
              cache.packed_blocks(0) * static_cast<int64_t>(spec->layer_layouts[0].page_bytes));
  }
}

TEST(SequenceCache, AppendsOfAnySizeGiveTheSame) {
  const auto spec = Spec("k=turbo4,v=int4");
  const Sequence sequence(ValueType::kBf16);
  ThreadPool pool(2);
  std::mt19937 random(5);
  for (int round = 0; round < 12; ++round) {
    SequenceCache cache(spec, round % 2 == 0 ? nullptr : &pool);
    int tokens = 0;
    while (tokens < 600) {
      const int count = std::min<int>(600 - tokens, random() % (round < 6 ? 300 : 40));
      ASSERT_TRUE(cache.Append(1, sequence.Exact(tokens, count)).ok());
      tokens += count;
    }
    ExpectHolds(cache, *spec, sequence, 1, 600, PackedBlocks(600));
  }
}

TEST(SequenceCache, RoundsFp32ToTheTailsType) {
  for (ValueType type : {ValueType::kBf16, ValueType::kFp16}) {
    const auto spec = Spec("k=int6,v=int6", type);
    const Sequence sequence(type);
    SequenceCache cache(spec, nullptr);
    ASSERT_TRUE(cache.Append(0, sequence.Fp32(0, 300)).ok());
    ExpectHolds(cache, *spec, sequence, 0, 300, PackedBlocks(300));
  }
}

TEST(SequenceCache, ReadsHeadMajorViews) {
  const auto spec = Spec("k=int6,v=int6");
  const Sequence sequence(ValueType::kBf16);
  const KvView nhd = sequence.Exact(0, 300);
  std::vector<uint16_t> k(300 * kTokenValues), v(k.size());
  for (int token = 0; token < 300; ++token) {
    for (int head = 0; head < kKvHeads; ++head) {
      for (int c = 0; c < kHeadDim; ++c) {
        const size_t from = (token * kKvHeads + head) * kHeadDim + c;
        const size_t to = (head * 300 + token) * kHeadDim + c;
        k[to] = static_cast<const uint16_t*>(nhd.k)[from];
        v[to] = static_cast<const uint16_t*>(nhd.v)[from];
      }
    }
  }
  SequenceCache cache(spec, nullptr);
  const KvView hnd{ValueType::kBf16, k.data(), v.data(), kHeadDim, 300 * kHeadDim, 300};
  ASSERT_TRUE(cache.Append(0, hnd).ok());
  ExpectHolds(cache, *spec, sequence, 0, 300, PackedBlocks(300));
}

TEST(SequenceCache, AdoptsAFetchAndGoesOn) {
  const auto spec = Spec("k=int5,v=turbo4;1:v=fp8_e4m3");
  const Sequence sequence(ValueType::kBf16);
  for (int tokens : {1, 127, 128, 129, 255, 256, 257, 383, 384, 385, 511, 512, 513}) {
    SequenceCache cache(spec, nullptr);
    for (int layer : {1, 0}) {  // any order
      const absl::Status status = cache.AdoptLayer(sequence.Fetched(*spec, layer, tokens, true));
      ASSERT_TRUE(status.ok()) << tokens << ": " << status;
      ExpectHolds(cache, *spec, sequence, layer, tokens, PackedBlocks(tokens));
      ASSERT_TRUE(cache.Append(layer, sequence.Exact(tokens, 1)).ok());
      ExpectHolds(cache, *spec, sequence, layer, tokens + 1, PackedBlocks(tokens + 1));
      ASSERT_TRUE(cache.Append(layer, sequence.Exact(tokens + 1, 150)).ok());
      ExpectHolds(cache, *spec, sequence, layer, tokens + 151, PackedBlocks(tokens + 151));
    }
  }
}

TEST(SequenceCache, AdoptsBlocksWithoutATail) {
  const auto spec = Spec("k=int5,v=turbo4");
  const Sequence sequence(ValueType::kBf16);
  for (int blocks : {0, 1, 2, 3}) {
    SequenceCache cache(spec, nullptr);
    const int tokens = blocks * kPageTokens;
    ASSERT_TRUE(cache.AdoptLayer(sequence.Fetched(*spec, 0, tokens, false)).ok());
    ExpectHolds(cache, *spec, sequence, 0, tokens, blocks);
    ASSERT_TRUE(cache.Append(0, sequence.Exact(tokens, 200)).ok());
    ExpectHolds(cache, *spec, sequence, 0, tokens + 200, blocks);
    ASSERT_TRUE(cache.Append(0, sequence.Exact(tokens + 200, 56)).ok());
    ExpectHolds(cache, *spec, sequence, 0, tokens + 256, blocks + 1);
  }
}

TEST(SequenceCache, TakesALayerOnceAndBeforeItsFirstAppend) {
  const auto spec = Spec("int5");
  const Sequence sequence(ValueType::kBf16);
  SequenceCache cache(spec, nullptr);
  ASSERT_TRUE(cache.AdoptLayer(sequence.Fetched(*spec, 0, 300, true)).ok());
  EXPECT_EQ(cache.AdoptLayer(sequence.Fetched(*spec, 0, 300, true)).code(),
            absl::StatusCode::kFailedPrecondition);
  ASSERT_TRUE(cache.Append(1, sequence.Exact(0, 1)).ok());
  EXPECT_EQ(cache.AdoptLayer(sequence.Fetched(*spec, 1, 300, true)).code(),
            absl::StatusCode::kFailedPrecondition);
}

TEST(SequenceCache, RefusesPagesThatAreOutOfPlace) {
  const auto spec = Spec("int5");
  const Sequence sequence(ValueType::kBf16);
  auto refused = [&](const FetchedLayer& fetched, const char* message) {
    SequenceCache cache(spec, nullptr);
    const absl::Status status = cache.AdoptLayer(fetched);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(status.message()), HasSubstr(message));
    EXPECT_EQ(cache.tokens(0), 0);
    EXPECT_TRUE(cache.AdoptLayer(sequence.Fetched(*spec, 0, 600, true)).ok());
  };
  FetchedLayer fetched = sequence.Fetched(*spec, 0, 600, true);
  std::swap(fetched.pages[0], fetched.pages[1]);
  refused(fetched, "expected 128 from 0");
  fetched = sequence.Fetched(*spec, 1, 600, true);
  fetched.layer = 0;
  refused(fetched, "layer");
  fetched = sequence.Fetched(*spec, 0, 600, true);
  fetched.pages.resize(1);
  refused(fetched, "the tail begins at token 384");
  fetched = sequence.Fetched(*spec, 0, 600, true);
  std::swap(fetched.tail_pages[0], fetched.tail_pages[1]);
  refused(fetched, "tail page 1");
  fetched = sequence.Fetched(*spec, 0, 600, true);
  fetched.pages[1] = fetched.pages[1].first(100);
  SequenceCache cache(spec, nullptr);
  EXPECT_FALSE(cache.AdoptLayer(fetched).ok());
}

TEST(SequenceCache, RefusesLayersAndTypesItDoesNotHave) {
  const auto spec = Spec("int5");
  const Sequence sequence(ValueType::kBf16);
  SequenceCache cache(spec, nullptr);
  EXPECT_THAT(std::string(cache.Append(2, sequence.Exact(0, 1)).message()),
              HasSubstr("layer is 2"));
  EXPECT_THAT(std::string(cache.Append(-1, sequence.Exact(0, 1)).message()), HasSubstr("-1"));
  KvView fp16 = sequence.Exact(0, 1);
  fp16.type = ValueType::kFp16;
  EXPECT_EQ(cache.Append(0, fp16).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(cache.tokens(0), 0);
}

TEST(SequenceCache, RefusesToEncodeWhatIsNotFinite) {
  const auto spec = Spec("int5");
  std::vector<float> values(300 * kTokenValues, 1.0f);
  values[5 * kTokenValues] = std::numeric_limits<float>::quiet_NaN();
  SequenceCache cache(spec, nullptr);
  const KvView kv =
      NhdView(ValueType::kFp32, values.data(), values.data(), 300, kKvHeads, kHeadDim);
  for (int attempt = 0; attempt < 2; ++attempt) {
    const absl::Status status = cache.Append(0, kv);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
    EXPECT_EQ(cache.packed_blocks(0), 0);
    EXPECT_LE(cache.tail_tokens(0), 2 * kPageTokens);
  }
}

}  // namespace
}  // namespace turbokv
