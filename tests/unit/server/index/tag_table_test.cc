#include "server/index/tag_table.h"

#include <map>
#include <random>

#include "gtest/gtest.h"

namespace turbokv {
namespace {

constexpr size_t kMaxEntries = 1 << 20;

// Tags with few different low bits, so that chains are long, or with uniform ones.
BlockTag RandomTag(std::mt19937_64* random, uint64_t low_mask) {
  return {(*random)() & low_mask, (*random)() % 8};
}

void CompareWithMap(uint64_t low_mask) {
  EntryArray entries(kMaxEntries);
  TagTable table(&entries, kMaxEntries);
  std::map<std::pair<uint64_t, uint64_t>, EntryId> expected;
  std::vector<EntryId> free_ids;
  std::mt19937_64 random(11);
  std::vector<BlockTag> queries;
  for (int step = 0; step < 30'000; ++step) {
    const BlockTag tag = RandomTag(&random, low_mask);
    queries.push_back(tag);
    const auto it = expected.find({tag.low, tag.high});
    ASSERT_EQ(table.Find(tag), it == expected.end() ? kNoEntry : it->second);
    if (it == expected.end()) {
      EntryId id = static_cast<EntryId>(entries.size());
      if (free_ids.empty()) {
        ASSERT_TRUE(entries.Append());
      } else {
        id = free_ids.back();
        free_ids.pop_back();
      }
      entries[id].tag = tag;
      table.Insert(id);
      expected[{tag.low, tag.high}] = id;
    } else if (random() % 2 == 0) {
      table.Erase(it->second);
      free_ids.push_back(it->second);
      expected.erase(it);
    }
    ASSERT_EQ(table.size(), expected.size());
  }
  std::vector<EntryId> found(queries.size());
  table.FindAll(queries, absl::MakeSpan(found));
  for (size_t i = 0; i < queries.size(); ++i) {
    ASSERT_EQ(found[i], table.Find(queries[i]));
  }
}

TEST(TagTableTest, AgreesWithAMapWhileItGrows) { CompareWithMap(0x3fff); }

TEST(TagTableTest, AgreesWithAMapWhenTagsCollide) { CompareWithMap(0xff00f); }

TEST(TagTableTest, KeepsEveryEntryThroughManySplits) {
  EntryArray entries(kMaxEntries);
  TagTable table(&entries, kMaxEntries);
  std::mt19937_64 random(3);
  constexpr int kEntries = 100'000;
  for (int i = 0; i < kEntries; ++i) {
    ASSERT_TRUE(entries.Append());
    entries[i].tag = {random(), random()};
    table.Insert(i);
  }
  for (int i = 0; i < kEntries; ++i) ASSERT_EQ(table.Find(entries[i].tag), i);
}

}  // namespace
}  // namespace turbokv
