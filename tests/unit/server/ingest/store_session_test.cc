// Sessions without any network: what ends up in the cache, and what an error leaves behind.
#include "server/ingest/store_session.h"

#include <limits>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "kernels/cpu/codec.h"
#include "kernels/cpu/non_finite.h"
#include "server/ingest/page_run.h"

namespace turbokv {
namespace {

CacheSpec SmallSpec() {
  CacheSpec spec;
  spec.model_id = "m";
  spec.layers = 2;
  spec.kv_heads = 1;
  spec.head_dim = 64;
  spec.source_type = ValueType::kFp32;
  spec.policy = "int8";
  return spec;
}

class StoreSessionTest : public ::testing::Test {
 protected:
  StoreSessionTest() {
    BlockCacheOptions options;
    options.budget_bytes = size_t{8} << 20;
    options.slab_bytes = size_t{1} << 20;
    cache_ = *BlockCache::Create(options, &metrics_);
    environment_ = {cache_.get(), &metrics_, &encoder_, &staging_, nullptr};
  }

  StoreAnnouncement Announce(uint64_t tokens) {
    keys_ = std::string(tokens / kPageTokens * sizeof(Digest), '\0');
    for (uint64_t block = 0; block < tokens / kPageTokens; ++block) {
      keys_[block * sizeof(Digest)] = static_cast<char>(block + 1);
    }
    StoreAnnouncement announcement;
    announcement.spec = SmallSpec();
    announcement.token_count = tokens;
    announcement.block_keys = keys_;
    return announcement;
  }

  absl::StatusOr<std::unique_ptr<StoreSession>> Open(const StoreAnnouncement& announcement) {
    return StoreSession::Open(environment_, ClientIdentity(), *PlanStore(announcement));
  }

  // A chunk of `value`, in two pieces of odd size.
  absl::Status Add(StoreSession* session, int layer, int offset, int tokens, float value) {
    std::vector<float> values(2 * tokens * 64, value);
    const absl::Span<const uint8_t> bytes(reinterpret_cast<const uint8_t*>(values.data()),
                                          values.size() * sizeof(float));
    const absl::Span<const uint8_t> pieces[] = {bytes.first(999), bytes.subspan(999)};
    StoreChunk chunk;
    chunk.layer = layer;
    chunk.token_offset = offset;
    chunk.token_count = tokens;
    chunk.pieces = pieces;
    chunk.bytes = bytes.size();
    return session->Add(chunk);
  }

  Metrics metrics_;
  ThreadPool pool_{1};
  PageEncoder encoder_{&pool_, &metrics_, 1.0};
  StagingBudget staging_;
  std::unique_ptr<BlockCache> cache_;
  StoreEnvironment environment_;
  std::string keys_;
};

TEST_F(StoreSessionTest, PublishesWhatDecodesToWhatCame) {
  auto session = Open(Announce(256));
  ASSERT_TRUE(session.ok()) << session.status();
  for (int layer = 0; layer < 2; ++layer) {
    for (int offset = 0; offset < 256; offset += 64) {
      ASSERT_TRUE(Add(session->get(), layer, offset, 64, 1.0f + layer).ok());
    }
  }
  EXPECT_EQ(cache_->Usage().blocks, 0) << "not before Finish";
  const auto summary = (*session)->Finish();
  ASSERT_TRUE(summary.ok()) << summary.status();
  EXPECT_EQ(summary->stored_blocks, 2);
  EXPECT_FALSE(summary->stored_tail);

  const auto plan = PlanStore(Announce(256));
  const auto found = cache_->Lookup(ClientIdentity(), plan->spec->fingerprint, plan->block_keys,
                                    nullptr, absl::Seconds(10));
  ASSERT_TRUE(found.ok());
  ASSERT_EQ(found->matched_blocks, 2);
  const auto lease = cache_->FindLease(ClientIdentity(), found->lease_id);
  auto run = PageRun::Create({}, *lease, cache_.get(), nullptr, &metrics_);
  ASSERT_TRUE(run.ok());
  for (int layer = 0; layer < 2; ++layer) {
    const auto chunk = run->Next();
    ASSERT_TRUE(chunk.ok());
    EXPECT_EQ(chunk->layer, layer);
    EXPECT_TRUE(chunk->ends_layer());
    ASSERT_EQ(chunk->pieces.size(), 2u);
    std::vector<float> k(kPageTokens * 64);
    KvOutput output;
    output.k = k.data();
    output.token_stride = output.head_stride = 64;
    cpu::DecodePage(*ParsePage(chunk->pieces[1]), output);
    for (const float value : k) EXPECT_NEAR(value, 1.0f + layer, 0.01f);
  }
  EXPECT_TRUE(run->done());
}

TEST_F(StoreSessionTest, DestructionGivesEverythingBack) {
  {
    auto session = Open(Announce(512));
    ASSERT_TRUE(session.ok());
    EXPECT_GT(cache_->Usage().used_bytes, 0u);
    EXPECT_FALSE((*session)->Finish().ok());
  }
  EXPECT_EQ(cache_->Usage().used_bytes, 0u);
  EXPECT_EQ(cache_->Usage().pending_entries, 0);
}

TEST_F(StoreSessionTest, StagingIsABudgetOfItsOwn) {
  std::vector<StagingBudget::Grant> grants;
  for (size_t i = 0; i < kStagingBudgetBytes / kMaxRawPageBytes; ++i) {
    auto grant = staging_.Take(kMaxRawPageBytes);
    ASSERT_TRUE(grant.ok());
    grants.push_back(*std::move(grant));
  }
  EXPECT_EQ(Open(Announce(128)).status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(cache_->Usage().used_bytes, 0u);
  grants.pop_back();
  EXPECT_TRUE(Open(Announce(128)).ok());
}

TEST(NonFiniteTest, NamesTheFirstValueThatIsNotFinite) {
  std::vector<float> k(4 * 2 * 64, 1.0f), v = k;
  const PageShape shape{2, 64, Codec::kInt5, Codec::kInt5, true};
  const KvView kv = NhdView(ValueType::kFp32, k.data(), v.data(), 4, 2, 64);
  EXPECT_EQ(cpu::DescribeNonFinite(kv, shape, 0), "");
  v[(3 * 2 + 0) * 64 + 5] = std::numeric_limits<float>::infinity();
  EXPECT_EQ(cpu::DescribeNonFinite(kv, shape, 256),
            "V of token 259, head 0, channel 5 is infinite");
  k[(1 * 2 + 1) * 64 + 63] = std::numeric_limits<float>::quiet_NaN();
  EXPECT_EQ(cpu::DescribeNonFinite(kv, shape, 256), "K of token 257, head 1, channel 63 is NaN");
}

}  // namespace
}  // namespace turbokv
