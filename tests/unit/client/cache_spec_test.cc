#include "client/cache_spec.h"

#include <functional>
#include <numeric>
#include <set>
#include <string>
#include <vector>

#include "absl/strings/escaping.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace turbokv {
namespace {

using ::testing::HasSubstr;

CacheSpec GoodSpec() {
  CacheSpec spec;
  spec.model_id = "org/model";
  spec.model_revision = "abc";
  spec.layers = 4;
  spec.kv_heads = 8;
  spec.head_dim = 128;
  spec.rope = "theta=10000";
  return spec;
}

std::string Hex(const Digest& digest) {
  return absl::BytesToHexString(
      absl::string_view(reinterpret_cast<const char*>(digest.data()), digest.size()));
}

ResolvedSpec Resolve(const CacheSpec& spec) {
  const absl::StatusOr<ResolvedSpec> resolved = ResolveSpec(spec);
  EXPECT_TRUE(resolved.ok()) << resolved.status();
  return *resolved;
}

std::vector<int32_t> Tokens(int count) {
  std::vector<int32_t> ids(count);
  std::iota(ids.begin(), ids.end(), -3);
  return ids;
}

using Change = std::function<void(CacheSpec&)>;

TEST(CacheSpecTest, LayoutsFollowThePolicy) {
  CacheSpec spec = GoodSpec();
  spec.policy = "k=turbo4,v=turbo3;0:k=bf16,v=bf16";
  const ResolvedSpec resolved = Resolve(spec);
  ASSERT_EQ(resolved.layer_layouts.size(), 4u);
  EXPECT_EQ(resolved.layer_layouts[0].shape,
            (PageShape{8, 128, Codec::kBf16, Codec::kBf16, false}));
  EXPECT_EQ(resolved.layer_layouts[3].shape,
            (PageShape{8, 128, Codec::kTurbo4, Codec::kTurbo3, true}));
  EXPECT_EQ(resolved.block_bytes(),
            resolved.layer_layouts[0].page_bytes + 3 * resolved.layer_layouts[1].page_bytes);
  EXPECT_EQ(resolved.raw_token_bytes(), 2u * 8 * 128 * 2);
}

TEST(CacheSpecTest, TailsKeepTheSourcePrecision) {
  const std::pair<ValueType, Codec> expected[] = {{ValueType::kBf16, Codec::kBf16},
                                                  {ValueType::kFp16, Codec::kFp16},
                                                  {ValueType::kFp32, Codec::kBf16}};
  for (const auto& [type, codec] : expected) {
    CacheSpec spec = GoodSpec();
    spec.source_type = type;
    const ResolvedSpec resolved = Resolve(spec);
    EXPECT_EQ(resolved.tail_layout.shape, (PageShape{8, 128, codec, codec, false}));
    EXPECT_EQ(resolved.raw_token_bytes(), 2u * 8 * 128 * ValueBytes(type));
  }
}

// Persisted in every key: a change here makes all that is stored unreachable. Computed by another
// implementation from the description in docs/formats/page_v1.md.
TEST(CacheSpecTest, DigestsAreFrozen) {
  const ResolvedSpec resolved = Resolve(GoodSpec());
  EXPECT_EQ(Hex(resolved.fingerprint),
            "a4e1666c9430d49526248132155b8ca423ee1e57639fababfcd28af52991b71d");
  const std::vector<Digest> keys = BlockKeys(resolved.fingerprint, "", Tokens(300));
  ASSERT_EQ(keys.size(), 2u);
  EXPECT_EQ(Hex(keys[1]), "3dca6ebd4814158a2b8e01a8eb273520ce1468def97fe1dfdf925369b04bfa46");
  EXPECT_EQ(Hex(TailKey(resolved.fingerprint, "", keys, Tokens(300))),
            "53b1f0dfffeb77ba8d247090b4d3c4ee3ef62445e70e2d6c7ab6916fb658dd7f");
}

TEST(CacheSpecTest, SpecIdIsTheFingerprintsBeginning) {
  ResolvedSpec resolved;
  resolved.fingerprint = {1, 2, 3, 4, 5, 6, 7, 8, 9};
  EXPECT_EQ(resolved.spec_id(), 0x0807060504030201u);
}

TEST(CacheSpecTest, EveryFieldChangesTheFingerprint) {
  const Change changes[] = {
      [](CacheSpec&) {},
      [](CacheSpec& s) { s.model_id += "x"; },
      [](CacheSpec& s) { s.model_revision = "abd"; },
      [](CacheSpec& s) { s.adapter = "lora"; },
      [](CacheSpec& s) { s.layers = 5; },
      [](CacheSpec& s) { s.kv_heads = 4; },
      [](CacheSpec& s) { s.head_dim = 64; },
      [](CacheSpec& s) { s.source_type = ValueType::kFp16; },
      [](CacheSpec& s) { s.source_type = ValueType::kFp32; },
      [](CacheSpec& s) { s.rope = "theta=500000"; },
      [](CacheSpec& s) { s.world_size = 2; },
      [](CacheSpec& s) {
        s.world_size = 2;
        s.rank = 1;
      },
      [](CacheSpec& s) { s.policy = "safe"; },
      [](CacheSpec& s) { s.policy = "kmean=off"; },
      // Text that moves from one field to its neighbour.
      [](CacheSpec& s) {
        s.model_id = "org/modela";
        s.model_revision = "bc";
      },
      [](CacheSpec& s) {
        s.model_revision = "";
        s.adapter = "abc";
      },
  };
  std::set<std::string> fingerprints;
  for (const Change& change : changes) {
    CacheSpec spec = GoodSpec();
    change(spec);
    fingerprints.insert(Hex(Resolve(spec).fingerprint));
  }
  EXPECT_EQ(fingerprints.size(), std::size(changes));
}

TEST(CacheSpecTest, EqualPoliciesWrittenDifferentlyAreEqual) {
  const std::string expected = Hex(Resolve(GoodSpec()).fingerprint);
  for (const char* policy : {"int5", "k=int5", " v=int5 ; 0-3 : k=int5 ", "int5:0-3",
                             "policy=safe,k=int5,v=int5", "kmean=on,recent=128"}) {
    CacheSpec spec = GoodSpec();
    spec.policy = policy;
    EXPECT_EQ(Hex(Resolve(spec).fingerprint), expected) << policy;
  }
}

struct BadSpec {
  Change change;
  const char* message;
  absl::StatusCode code = absl::StatusCode::kInvalidArgument;
};

TEST(CacheSpecTest, BadFieldsAreRefusedByName) {
  const BadSpec table[] = {
      {[](CacheSpec& s) { s.model_id = ""; }, "model_id is empty"},
      {[](CacheSpec& s) { s.model_id = std::string(257, 'x'); }, "model_id has 257 bytes"},
      {[](CacheSpec& s) { s.model_revision = std::string(300, 'x'); }, "model_revision has 300"},
      {[](CacheSpec& s) { s.adapter = std::string(300, 'x'); }, "adapter has 300 bytes"},
      {[](CacheSpec& s) { s.rope = std::string(300, 'x'); }, "rope has 300 bytes"},
      {[](CacheSpec& s) { s.layers = 0; }, "layers 0 is not in 1..1024"},
      {[](CacheSpec& s) { s.layers = 1025; }, "layers 1025"},
      {[](CacheSpec& s) { s.kv_heads = -1; }, "kv_heads -1 is not in 1..1024"},
      {[](CacheSpec& s) { s.kv_heads = 1 << 30; }, "kv_heads 1073741824"},
      {[](CacheSpec& s) { s.head_dim = 100; }, "head_dim 100"},
      {[](CacheSpec& s) { s.source_type = static_cast<ValueType>(0); }, "source_type 0"},
      {[](CacheSpec& s) { s.source_type = static_cast<ValueType>(4); }, "source_type 4"},
      {[](CacheSpec& s) { s.world_size = 0; }, "world_size 0 is not in 1..65536"},
      {[](CacheSpec& s) { s.world_size = 65537; }, "world_size 65537"},
      {[](CacheSpec& s) { s.rank = 1; }, "rank 1 is not in 0..0"},
      {[](CacheSpec& s) { s.rank = -1; }, "rank -1"},
      {[](CacheSpec& s) { s.policy = "nonsense"; }, "\"nonsense\""},
      {[](CacheSpec& s) { s.policy = "4:k=int5"; }, "names layer 4"},
      {[](CacheSpec& s) { s.policy = "turbo2_tcq"; }, "turbo2_tcq",
       absl::StatusCode::kUnimplemented},
      {[](CacheSpec& s) {
         s.layers = 1024;
         s.kv_heads = 1024;
         s.policy = "bf16";
       },
       "the limit is 2147483648"},
  };
  for (const BadSpec& row : table) {
    CacheSpec spec = GoodSpec();
    row.change(spec);
    const absl::Status status = ResolveSpec(spec).status();
    EXPECT_EQ(status.code(), row.code) << status;
    EXPECT_THAT(status.message(), HasSubstr(row.message));
  }
}

TEST(BlockKeysTest, OnlyFullBlocksHaveKeys) {
  const Digest fingerprint = Resolve(GoodSpec()).fingerprint;
  for (int tokens : {0, 1, 127, 128, 129, 255, 256, 1000}) {
    EXPECT_EQ(BlockKeys(fingerprint, "", Tokens(tokens)).size(), size_t(tokens / 128));
  }
}

TEST(BlockKeysTest, KeysDependOnAllThatComesBefore) {
  const Digest fingerprint = Resolve(GoodSpec()).fingerprint;
  const std::vector<Digest> keys = BlockKeys(fingerprint, "", Tokens(512));
  EXPECT_EQ(std::set<Digest>(keys.begin(), keys.end()).size(), 4u);
  std::vector<int32_t> changed = Tokens(512);
  changed[130] ^= 1;
  const std::vector<Digest> other = BlockKeys(fingerprint, "", changed);
  EXPECT_EQ(other[0], keys[0]);
  for (int block : {1, 2, 3}) EXPECT_NE(other[block], keys[block]);
  EXPECT_NE(BlockKeys(fingerprint, "salt", Tokens(512))[0], keys[0]);
  EXPECT_NE(BlockKeys(keys[0], "", Tokens(512))[0], keys[0]);
}

TEST(TailKeyTest, TellsSequencesApart) {
  const Digest fingerprint = Resolve(GoodSpec()).fingerprint;
  std::set<Digest> all;
  for (int tokens : {1, 5, 127, 128, 129, 256, 300}) {
    const std::vector<Digest> keys = BlockKeys(fingerprint, "", Tokens(tokens));
    all.insert(TailKey(fingerprint, "", keys, Tokens(tokens)));
    all.insert(TailKey(fingerprint, "salt", BlockKeys(fingerprint, "salt", Tokens(tokens)),
                       Tokens(tokens)));
    all.insert(keys.begin(), keys.end());
  }
  EXPECT_EQ(all.size(), 7u * 2 + 2);  // and the two block keys
}

TEST(PackedBlocksTest, LeavesATailOf128To255Tokens) {
  EXPECT_EQ(PackedBlocks(0), 0);
  EXPECT_EQ(PackedBlocks(255), 0);
  for (int64_t tokens = 256; tokens < 2000; ++tokens) {
    const int64_t tail = tokens - 128 * PackedBlocks(tokens);
    EXPECT_GE(tail, 128);
    EXPECT_LE(tail, 255);
  }
}

}  // namespace
}  // namespace turbokv
