#include "server/index/key_tagger.h"

#include <algorithm>
#include <set>

#include "gtest/gtest.h"
#include "tests/unit/server/index/test_entries.h"

namespace turbokv {
namespace {

std::vector<BlockTag> TagsOf(const KeyTagger& tagger, absl::string_view tenant,
                             const std::vector<Digest>& keys) {
  auto tags = tagger.Tags(tenant, keys);
  EXPECT_TRUE(tags.ok()) << tags.status();
  return *std::move(tags);
}

TEST(KeyTaggerTest, EqualKeysOfATenantHaveEqualTagsInAnyBatch) {
  const KeyTagger tagger = *KeyTagger::Create();
  const std::vector<Digest> keys = TestKeys(0, 3000);
  const std::vector<BlockTag> tags = TagsOf(tagger, "t", keys);
  for (const size_t i : {0, 1023, 1024, 2047, 2048, 2999}) {
    EXPECT_EQ(tags[i], TagsOf(tagger, "t", {keys[i]}).front()) << i;
  }
}

TEST(KeyTaggerTest, EveryByteOfTheKeyTheTenantAndTheProcessMatter) {
  const KeyTagger tagger = *KeyTagger::Create();
  const Digest key = TestKey(1);
  std::set<std::pair<uint64_t, uint64_t>> seen;
  const auto add = [&seen](const BlockTag& tag) {
    EXPECT_TRUE(seen.emplace(tag.low, tag.high).second);
  };
  add(TagsOf(tagger, "t", {key}).front());
  for (size_t byte = 0; byte < key.size(); ++byte) {
    Digest changed = key;
    changed[byte] ^= 1;
    add(TagsOf(tagger, "t", {changed}).front());
  }
  Digest swapped = key;
  std::swap_ranges(swapped.begin(), swapped.begin() + 16, swapped.begin() + 16);
  add(TagsOf(tagger, "t", {swapped}).front());
  add(TagsOf(tagger, "u", {key}).front());
  add(TagsOf(tagger, "", {key}).front());
  add(TagsOf(*KeyTagger::Create(), "t", {key}).front());
}

TEST(KeyTaggerTest, NoKeysGiveNoTags) {
  EXPECT_TRUE(TagsOf(*KeyTagger::Create(), "t", {}).empty());
}

}  // namespace
}  // namespace turbokv
