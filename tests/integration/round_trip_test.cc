// What is stored comes back: byte for byte what the reference encoder makes of it.
#include <algorithm>
#include <vector>

#include "client/admin_client.h"
#include "tests/integration/service_fixture.h"

namespace turbokv::testing {
namespace {

struct RoundTripCase {
  const char* name;
  ValueType type;
  int kv_heads;
  int head_dim;
  const char* policy;
  int64_t tokens;
};

class RoundTripTest : public ::testing::TestWithParam<RoundTripCase> {};

void ExpectPages(const ResolvedSpec& spec, const Prompt& prompt, int64_t first_block,
                 const std::vector<LayerCopy>& layers) {
  ASSERT_EQ(layers.size(), static_cast<size_t>(spec.spec.layers));
  for (int layer = 0; layer < spec.spec.layers; ++layer) {
    for (size_t i = 0; i < layers[layer].pages.size(); ++i) {
      const int64_t begin = (first_block + static_cast<int64_t>(i)) * kPageTokens;
      EXPECT_EQ(layers[layer].pages[i], ReferencePage(spec, spec.layer_layouts[layer], prompt,
                                                      layer, begin, begin + kPageTokens))
          << "layer " << layer << ", block " << i;
    }
  }
}

void ExpectTail(const ResolvedSpec& spec, const Prompt& prompt,
                const std::vector<LayerCopy>& layers) {
  const int64_t tail_begin = PackedBlocks(prompt.tokens()) * kPageTokens;
  const int64_t tail_pages = (prompt.tokens() - tail_begin + kPageTokens - 1) / kPageTokens;
  for (int layer = 0; layer < spec.spec.layers; ++layer) {
    ASSERT_EQ(layers[layer].tail_pages.size(), static_cast<size_t>(tail_pages));
    for (int64_t i = 0; i < tail_pages; ++i) {
      const int64_t begin = tail_begin + i * kPageTokens;
      EXPECT_EQ(layers[layer].tail_pages[i],
                ReferencePage(spec, spec.tail_layout, prompt, layer, begin,
                              std::min(begin + kPageTokens, prompt.tokens())))
          << "layer " << layer << ", tail page " << i;
    }
  }
}

TEST_P(RoundTripTest, PagesAndTailComeBack) {
  const RoundTripCase& param = GetParam();
  CacheSpec raw_spec = TestSpec();
  raw_spec.source_type = param.type;
  raw_spec.kv_heads = param.kv_heads;
  raw_spec.head_dim = param.head_dim;
  raw_spec.policy = param.policy;
  const auto spec = Resolve(raw_spec);
  const Prompt prompt(raw_spec, param.tokens, 1);
  const auto server = StartServer(TestConfig());
  const auto channel = ConnectTo(*server);

  const absl::StatusOr<StoreResult> stored = StorePrompt(channel, spec, prompt);
  ASSERT_OK(stored);
  EXPECT_EQ(stored->stored_blocks, param.tokens / kPageTokens);
  EXPECT_EQ(stored->present_blocks, 0);
  EXPECT_TRUE(stored->stored_tail);
  EXPECT_EQ(stored->raw_bytes,
            static_cast<int64_t>(param.tokens * raw_spec.layers * spec->raw_token_bytes()));
  EXPECT_EQ(stored->raw_bytes, stored->sent_bytes);
  EXPECT_EQ(stored->kept_bytes, static_cast<int64_t>(stored->stored_blocks * spec->block_bytes()));

  DecodeReader reader(channel, spec);
  const absl::StatusOr<Match> match = reader.Lookup(prompt.token_ids(), {});
  ASSERT_OK(match);
  EXPECT_EQ(match->blocks, param.tokens / kPageTokens);
  EXPECT_TRUE(match->tail_found);
  EXPECT_EQ(match->tail_tokens, param.tokens - PackedBlocks(param.tokens) * kPageTokens);
  const absl::StatusOr<std::vector<LayerCopy>> layers = FetchAll(&reader);
  ASSERT_OK(layers);
  ASSERT_EQ((*layers)[0].pages.size(), static_cast<size_t>(match->blocks));
  ExpectPages(*spec, prompt, 0, *layers);
  ExpectTail(*spec, prompt, *layers);
}

INSTANTIATE_TEST_SUITE_P(
    Specs, RoundTripTest,
    ::testing::Values(RoundTripCase{"Bf16D64Balanced", ValueType::kBf16, 2, 64, "balanced", 300},
                      RoundTripCase{"Bf16D128Turbo", ValueType::kBf16, 2, 128, "turbo3", 256},
                      RoundTripCase{"Fp16D128Mixed", ValueType::kFp16, 3, 128,
                                    "k=q8_0,v=turbo4;0,2:k=bf16,v=bf16", 511},
                      RoundTripCase{"Fp32D256", ValueType::kFp32, 1, 256, "k=int8,v=int4", 255},
                      RoundTripCase{"Bf16D80NoMean", ValueType::kBf16, 2, 80,
                                    "k=fp8_e4m3,v=q4_0,kmean=off", 385},
                      RoundTripCase{"Fp16D192", ValueType::kFp16, 1, 192, "k=int6,v=turbo2", 384},
                      RoundTripCase{"TailOnly", ValueType::kBf16, 2, 64, "balanced", 1},
                      RoundTripCase{"TailOfOneBlock", ValueType::kBf16, 2, 64, "balanced", 128},
                      RoundTripCase{"TailOf129", ValueType::kFp32, 2, 64, "balanced", 129},
                      RoundTripCase{"PageLargerThanChunk", ValueType::kFp32, 8, 256, "bf16", 257}),
    [](const auto& test) { return std::string(test.param.name); });

class ServiceTest : public ::testing::Test {
 protected:
  const CacheSpec raw_spec_ = TestSpec();
  const std::shared_ptr<const ResolvedSpec> spec_ = Resolve(raw_spec_);
  const std::unique_ptr<Server> server_ = StartServer(TestConfig());
  const std::shared_ptr<CacheChannel> channel_ = ConnectTo(*server_);
};

TEST_F(ServiceTest, LaterTurnStoresOnlyWhatFollows) {
  const Prompt first_turn(raw_spec_, 300, 1);
  const Prompt second_turn(raw_spec_, 700, 1);
  ASSERT_OK(StorePrompt(channel_, spec_, first_turn));
  DecodeReader reader(channel_, spec_);
  LookupOptions lookup;
  absl::StatusOr<Match> match = reader.Lookup(second_turn.token_ids(), lookup);
  ASSERT_OK(match);
  EXPECT_EQ(match->blocks, 2);
  EXPECT_FALSE(match->tail_found);

  StoreOptions options;
  options.first_token = match->blocks * kPageTokens;
  const absl::StatusOr<StoreResult> stored = StorePrompt(channel_, spec_, second_turn, options);
  ASSERT_OK(stored);
  EXPECT_EQ(stored->stored_blocks, 3);
  EXPECT_EQ(stored->present_blocks, 0);
  match = reader.Lookup(second_turn.token_ids(), lookup);
  ASSERT_OK(match);
  EXPECT_EQ(match->blocks, 5);
  EXPECT_TRUE(match->tail_found);
  const absl::StatusOr<std::vector<LayerCopy>> layers = FetchAll(&reader);
  ASSERT_OK(layers);
  // The values of the two turns differ per seed and length alike, so blocks 0 and 1 are the
  // first's.
  for (int layer = 0; layer < raw_spec_.layers; ++layer) {
    for (int64_t block = 0; block < 5; ++block) {
      const Prompt& source = block < 2 ? first_turn : second_turn;
      EXPECT_EQ((*layers)[layer].pages[block],
                ReferencePage(*spec_, spec_->layer_layouts[layer], source, layer,
                              block * kPageTokens, (block + 1) * kPageTokens));
    }
  }
  ExpectTail(*spec_, second_turn, *layers);
}

TEST_F(ServiceTest, PresentBlocksAreNotEncodedAgain) {
  const Prompt prompt(raw_spec_, 512, 1);
  StoreOptions options;
  options.store_tail = false;
  ASSERT_OK(StorePrompt(channel_, spec_, Prompt(raw_spec_, 256, 1), options));
  const absl::StatusOr<StoreResult> stored = StorePrompt(channel_, spec_, prompt, options);
  ASSERT_OK(stored);
  EXPECT_EQ(stored->stored_blocks, 2);
  EXPECT_EQ(stored->present_blocks, 2);
  EXPECT_FALSE(stored->stored_tail);
  const absl::StatusOr<StoreResult> again = StorePrompt(channel_, spec_, prompt, options);
  ASSERT_OK(again);
  EXPECT_EQ(again->stored_blocks, 0);
  EXPECT_EQ(again->encode_time, absl::ZeroDuration());
}

TEST_F(ServiceTest, StridedViewsStoreTheSameBytes) {
  const Prompt prompt(raw_spec_, 200, 1);
  // [kv_heads][tokens][head_dim]
  const size_t head_values = raw_spec_.head_dim;
  std::vector<std::vector<uint16_t>> storage;
  auto writer = PrefillWriter::Open(channel_, spec_, prompt.token_ids(), {});
  ASSERT_OK(writer);
  for (int layer = 0; layer < raw_spec_.layers; ++layer) {
    const KvView nhd = prompt.View(layer);
    KvView hnd = nhd;
    hnd.token_stride = raw_spec_.head_dim;
    hnd.head_stride = ptrdiff_t{200} * raw_spec_.head_dim;
    const auto transpose = [&](const void* values) {
      auto& out = storage.emplace_back(200 * raw_spec_.kv_heads * head_values);
      const auto* in = static_cast<const uint16_t*>(values);
      for (int token = 0; token < 200; ++token) {
        for (int head = 0; head < raw_spec_.kv_heads; ++head) {
          std::copy_n(in + (token * raw_spec_.kv_heads + head) * head_values, head_values,
                      out.begin() + (head * 200 + token) * head_values);
        }
      }
      return static_cast<const void*>(out.data());
    };
    hnd.k = transpose(nhd.k);
    hnd.v = transpose(nhd.v);
    ASSERT_OK((*writer)->WriteLayer(layer, hnd));
  }
  ASSERT_OK((*writer)->Finish());
  DecodeReader reader(channel_, spec_);
  ASSERT_OK(reader.Lookup(prompt.token_ids(), {}));
  const auto layers = FetchAll(&reader);
  ASSERT_OK(layers);
  ExpectPages(*spec_, prompt, 0, *layers);
  ExpectTail(*spec_, prompt, *layers);
}

TEST_F(ServiceTest, EncodedPagesAreStoredAsTheyAre) {
  const Prompt prompt(raw_spec_, 384, 1);
  std::vector<std::vector<uint8_t>> pages;
  auto writer = PrefillWriter::OpenPages(channel_, spec_, prompt.token_ids(), {});
  ASSERT_OK(writer);
  for (int layer = 0; layer < raw_spec_.layers; ++layer) {
    for (int64_t block = 0; block < 3; ++block) {
      pages.push_back(ReferencePage(*spec_, spec_->layer_layouts[layer], prompt, layer,
                                    block * kPageTokens, (block + 1) * kPageTokens));
      ASSERT_OK((*writer)->WritePage(layer, block, pages.back()));
    }
  }
  const auto stored = (*writer)->Finish();
  ASSERT_OK(stored);
  EXPECT_EQ(stored->stored_blocks, 3);
  EXPECT_EQ(stored->sent_bytes, stored->kept_bytes);
  DecodeReader reader(channel_, spec_);
  const auto match = reader.Lookup(prompt.token_ids(), {});
  ASSERT_OK(match);
  EXPECT_EQ(match->blocks, 3);
  EXPECT_FALSE(match->tail_found);
  const auto layers = FetchAll(&reader);
  ASSERT_OK(layers);
  ExpectPages(*spec_, prompt, 0, *layers);
}

TEST_F(ServiceTest, FetchTakesRangesOfLayersAndBlocks) {
  const Prompt prompt(raw_spec_, 640, 1);
  ASSERT_OK(StorePrompt(channel_, spec_, prompt));
  DecodeReader reader(channel_, spec_);
  ASSERT_OK(reader.Lookup(prompt.token_ids(), {}));
  FetchOptions options;
  options.first_layer = 1;
  options.layer_count = 1;
  options.first_block = 2;
  options.block_count = 2;
  options.include_tail = false;
  options.chunk_bytes = size_t{64} << 10;
  std::vector<int> seen;
  ASSERT_OK(reader.Fetch(options, [&](FetchedLayer layer) {
    seen.push_back(layer.layer);
    EXPECT_EQ(layer.pages.size(), 2u);
    EXPECT_TRUE(layer.tail_pages.empty());
    for (size_t i = 0; i < layer.pages.size(); ++i) {
      const int64_t begin = (2 + static_cast<int64_t>(i)) * kPageTokens;
      const auto expected =
          ReferencePage(*spec_, spec_->layer_layouts[1], prompt, 1, begin, begin + kPageTokens);
      EXPECT_TRUE(layer.pages[i] == absl::MakeConstSpan(expected));
    }
    return absl::OkStatus();
  }));
  EXPECT_THAT(seen, ::testing::ElementsAre(1));

  options.first_layer = 3;
  EXPECT_THAT(reader.Fetch(options, [](FetchedLayer) { return absl::OkStatus(); }),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       ::testing::HasSubstr("first_layer is 3; expected 0..2")));
}

TEST_F(ServiceTest, CallbackEndsAFetch) {
  const Prompt prompt(raw_spec_, 300, 1);
  ASSERT_OK(StorePrompt(channel_, spec_, prompt));
  DecodeReader reader(channel_, spec_);
  ASSERT_OK(reader.Lookup(prompt.token_ids(), {}));
  const absl::Status enough = absl::AbortedError("enough");
  EXPECT_EQ(reader.Fetch({}, [&](FetchedLayer) { return enough; }), enough);
  ASSERT_OK(FetchAll(&reader));  // the reader and its lease are still good
}

TEST_F(ServiceTest, LeasesAreRenewedAndReleased) {
  const Prompt prompt(raw_spec_, 300, 1);
  ASSERT_OK(StorePrompt(channel_, spec_, prompt));
  {
    DecodeReader reader(channel_, spec_);
    ASSERT_OK(reader.Lookup(prompt.token_ids(), {}));
    EXPECT_EQ(server_->cache().Usage().leases, 1);
    ASSERT_OK(reader.Renew(absl::Seconds(5)));
    ASSERT_OK(reader.Release());
    EXPECT_EQ(server_->cache().Usage().leases, 0);
    EXPECT_THAT(reader.Renew(absl::Seconds(5)),
                StatusIs(absl::StatusCode::kFailedPrecondition, ::testing::_));
    ASSERT_OK(reader.Lookup(prompt.token_ids(), {}));
  }
  EXPECT_EQ(server_->cache().Usage().leases, 0) << "destruction releases";
}

TEST_F(ServiceTest, StatsAndRemove) {
  const Prompt prompt(raw_spec_, 384, 1);
  ASSERT_OK(StorePrompt(channel_, spec_, prompt));
  AdminClient admin(channel_);
  absl::StatusOr<ServiceStats> stats = admin.Stats();
  ASSERT_OK(stats);
  EXPECT_EQ(stats->blocks, 3);
  EXPECT_EQ(stats->tails, 1);
  EXPECT_EQ(stats->active_stores, 0);
  EXPECT_EQ(stats->kept_bytes, static_cast<int64_t>(3 * spec_->block_bytes()));
  ASSERT_EQ(stats->codecs.size(), 2u);
  for (const CodecStats& codec : stats->codecs) {
    EXPECT_EQ(codec.codec, "int5");
    EXPECT_EQ(codec.pages, 9);
    EXPECT_EQ(codec.sampled_pages, 9);
    EXPECT_GT(codec.sampled_relative_mse, 1e-5);
    EXPECT_LT(codec.sampled_relative_mse, 3e-3) << codec.tensor;
  }
  const std::vector<Digest> keys = BlockKeys(spec_->fingerprint, "", prompt.token_ids());
  const absl::StatusOr<int64_t> removed = admin.Remove({&keys[1], 1});
  ASSERT_OK(removed);
  EXPECT_EQ(*removed, 1);
  DecodeReader reader(channel_, spec_);
  const auto match = reader.Lookup(prompt.token_ids(), {});
  ASSERT_OK(match);
  EXPECT_EQ(match->blocks, 1);
}

TEST_F(ServiceTest, TenantsAndSaltsShareNothing) {
  const Prompt prompt(raw_spec_, 300, 1);
  ASSERT_OK(StorePrompt(ConnectTo(*server_, "alpha"), spec_, prompt));
  DecodeReader foreign(ConnectTo(*server_, "beta"), spec_);
  auto match = foreign.Lookup(prompt.token_ids(), {});
  ASSERT_OK(match);
  EXPECT_EQ(match->blocks, 0);
  EXPECT_FALSE(match->tail_found);
  DecodeReader own(ConnectTo(*server_, "alpha", "other-client"), spec_);
  LookupOptions salted;
  salted.salt = "user-1";
  match = own.Lookup(prompt.token_ids(), salted);
  ASSERT_OK(match);
  EXPECT_EQ(match->blocks, 0);
  match = own.Lookup(prompt.token_ids(), {});
  ASSERT_OK(match);
  EXPECT_EQ(match->blocks, 2);
}

}  // namespace
}  // namespace turbokv::testing
