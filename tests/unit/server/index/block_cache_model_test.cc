// Random operations on a BlockCache, compared step by step with an obvious model of it.
#include <algorithm>
#include <list>
#include <map>
#include <random>

#include "gtest/gtest.h"
#include "server/index/block_cache.h"
#include "tests/unit/server/index/test_entries.h"

namespace turbokv {
namespace {

constexpr size_t kSlabBytes = 4096;
constexpr int kLayers = 2;
constexpr size_t kPageBytes = 512;
constexpr size_t kExtentBytes = kLayers * kPageBytes;
constexpr size_t kSlabs = 8;
constexpr int64_t kCapacity = kSlabs * kSlabBytes / kExtentBytes;
constexpr int64_t kKeys = 2 * kCapacity;

// What BlockCache promises while all entries have one size: exact LRU over what nobody holds.
class Model {
 public:
  struct Entry {
    int64_t key;
    int pins = 0;
    bool visible = true;
  };
  using EntryPtr = std::shared_ptr<Entry>;

  // False: refused, nothing changed but the ages of the present keys.
  bool Reserve(const std::vector<int64_t>& keys) {
    std::vector<EntryPtr> present;
    int64_t absent = 0;
    for (const int64_t key : keys) {
      const auto it = visible_.find(key);
      if (it == visible_.end()) {
        ++absent;
      } else {
        Pin(it->second);
        present.push_back(it->second);
      }
    }
    const int64_t evictable = static_cast<int64_t>(by_age_.size());
    const bool fits = absent <= kCapacity - used_ + evictable;
    if (fits) {
      while (used_ + absent > kCapacity) Evict();
      used_ += absent;
    }
    Unpin(present);
    return fits;
  }
  // `keys` as reserved and not empty.
  int64_t Publish(const std::vector<int64_t>& keys) {
    int64_t published = 0;
    for (auto key = keys.rbegin(); key != keys.rend(); ++key) {
      if (visible_.count(*key) != 0) {
        --used_;
        continue;
      }
      const auto entry = std::make_shared<Entry>(Entry{*key});
      visible_[*key] = entry;
      by_age_.push_back(entry);
      ++published;
    }
    return published;
  }
  void GiveBack(int64_t count) { used_ -= count; }

  std::vector<EntryPtr> Lookup(const std::vector<int64_t>& keys) {
    std::vector<EntryPtr> found;
    for (const int64_t key : keys) {
      const auto it = visible_.find(key);
      if (it == visible_.end()) break;
      Pin(it->second);
      found.push_back(it->second);
    }
    return found;
  }
  void Unpin(const std::vector<EntryPtr>& entries) {
    for (auto entry = entries.rbegin(); entry != entries.rend(); ++entry) {
      if (--(*entry)->pins > 0) continue;
      if ((*entry)->visible) {
        by_age_.push_back(*entry);
      } else {
        --used_;
      }
    }
  }
  bool Remove(int64_t key) {
    const auto it = visible_.find(key);
    if (it == visible_.end()) return false;
    const EntryPtr entry = it->second;
    visible_.erase(it);
    entry->visible = false;
    if (entry->pins == 0) {
      by_age_.remove(entry);
      --used_;
    }
    return true;
  }
  int64_t used() const { return used_; }
  int64_t blocks() const { return static_cast<int64_t>(visible_.size()); }
  bool Has(int64_t key) const { return visible_.count(key) != 0; }

 private:
  void Pin(const EntryPtr& entry) {
    if (entry->pins++ == 0) by_age_.remove(entry);
  }
  void Evict() { Remove(by_age_.front()->key); }

  std::map<int64_t, EntryPtr> visible_;
  std::list<EntryPtr> by_age_;  // visible and not pinned, oldest first
  int64_t used_ = 0;
};

class ModelTest : public ::testing::TestWithParam<int> {
 protected:
  struct Store {
    std::vector<int64_t> keys;  // of the entries that are to be written
    std::vector<PendingEntry> entries;
  };
  struct Lease {
    uint64_t id;
    std::vector<Model::EntryPtr> entries;
  };

  void SetUp() override {
    BlockCacheOptions options;
    options.budget_bytes = kSlabs * kSlabBytes;
    options.slab_bytes = kSlabBytes;
    cache_ = *BlockCache::Create(options, nullptr);
    random_.seed(GetParam());
  }

  std::vector<int64_t> RandomRun() {
    const int64_t first = Random(kKeys);
    const int64_t count = 1 + Random(Random(4) == 0 ? kCapacity : 6);
    std::vector<int64_t> keys;
    for (int64_t i = 0; i < count; ++i) keys.push_back((first + i) % kKeys);
    if (Random(8) == 0) keys.push_back(keys.front());
    return keys;
  }
  static std::vector<Digest> Digests(const std::vector<int64_t>& keys) {
    std::vector<Digest> digests;
    for (const int64_t key : keys) digests.push_back(TestKey(key));
    return digests;
  }
  int64_t Random(int64_t bound) { return static_cast<int64_t>(random_() % bound); }
  template <typename T>
  T TakeRandom(std::vector<T>* from) {
    std::swap((*from)[Random(static_cast<int64_t>(from->size()))], from->back());
    T taken = std::move(from->back());
    from->pop_back();
    return taken;
  }

  void BeginStore() {
    const std::vector<int64_t> keys = RandomRun();
    std::vector<bool> absent;
    for (const int64_t key : keys) absent.push_back(!model_.Has(key));
    auto pending = cache_->Reserve(owner_, Requests(Digests(keys), geometry_));
    ASSERT_EQ(pending.ok(), model_.Reserve(keys)) << pending.status();
    if (!pending.ok()) return;
    Store store;
    for (size_t i = 0; i < keys.size(); ++i) {
      PendingEntry& entry = (*pending)[i];
      ASSERT_EQ(static_cast<bool>(entry), absent[i]);
      if (!entry) continue;
      Stamp(entry, TestKey(keys[i]), kLayers);
      store.keys.push_back(keys[i]);
      store.entries.push_back(std::move(entry));
    }
    stores_.push_back(std::move(store));
  }
  void EndStore() {
    if (stores_.empty()) return;
    Store store = TakeRandom(&stores_);
    if (Random(4) == 0) {
      model_.GiveBack(static_cast<int64_t>(store.keys.size()));
      return;
    }
    ASSERT_EQ(cache_->Publish(std::move(store.entries)), model_.Publish(store.keys));
  }
  void Lookup() {
    const std::vector<int64_t> keys = RandomRun();
    const auto found = cache_->Lookup(owner_, geometry_->spec_fingerprint, Digests(keys), nullptr,
                                      absl::Minutes(10));
    ASSERT_TRUE(found.ok()) << found.status();
    const std::vector<Model::EntryPtr> expected = model_.Lookup(keys);
    ASSERT_EQ(found->matched_blocks, static_cast<int64_t>(expected.size()));
    if (!expected.empty()) leases_.push_back({found->lease_id, expected});
  }
  void Release() {
    if (leases_.empty()) return;
    const Lease lease = TakeRandom(&leases_);
    {
      const auto info = cache_->FindLease(owner_, lease.id);
      ASSERT_TRUE(info.ok()) << info.status();
      for (size_t i = 0; i < lease.entries.size(); ++i) {
        ASSERT_TRUE(HasStamp((*info)->blocks[i], TestKey(lease.entries[i]->key)));
      }
    }
    ASSERT_TRUE(cache_->Release(owner_, lease.id).ok());
    model_.Unpin(lease.entries);
  }
  void Remove() {
    const int64_t key = Random(kKeys);
    ASSERT_EQ(cache_->Remove(owner_, {TestKey(key)}), model_.Remove(key) ? 1 : 0);
  }
  void CheckUsage() {
    const CacheUsage usage = cache_->Usage();
    ASSERT_EQ(usage.used_bytes, model_.used() * kExtentBytes);
    ASSERT_EQ(usage.blocks, model_.blocks());
    ASSERT_EQ(usage.leases, static_cast<int64_t>(leases_.size()));
    ASSERT_LE(usage.used_bytes, usage.reserved_bytes);
    ASSERT_LE(usage.reserved_bytes, usage.budget_bytes);
  }

  const ClientIdentity owner_{};
  const std::shared_ptr<const EntryGeometry> geometry_ = TestGeometry(kPageBytes, kLayers);
  std::unique_ptr<BlockCache> cache_;
  Model model_;
  std::vector<Store> stores_;  // destroyed before the cache
  std::vector<Lease> leases_;
  std::mt19937_64 random_;
};

TEST_P(ModelTest, RandomOperationsAgreeWithTheModel) {
  for (int step = 0; step < 10'000; ++step) {
    SCOPED_TRACE(step);
    switch (Random(7)) {
      case 0:
      case 1:
        BeginStore();
        break;
      case 2:
        EndStore();
        break;
      case 3:
      case 4:
        Lookup();
        break;
      case 5:
        Release();
        break;
      default:
        Remove();
    }
    if (HasFatalFailure()) return;
    // Few things at a time, so that room is found as often as not.
    while (stores_.size() > 3 && !HasFatalFailure()) EndStore();
    while (leases_.size() > 5 && !HasFatalFailure()) Release();
    CheckUsage();
    if (HasFatalFailure()) return;
  }
}

INSTANTIATE_TEST_SUITE_P(Seeds, ModelTest, ::testing::Range(1, 6));

}  // namespace
}  // namespace turbokv
