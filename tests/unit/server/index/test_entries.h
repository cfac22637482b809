// Geometries, keys and page contents for tests of the cache.
#pragma once

#include <openssl/sha.h>

#include <cstdint>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "server/index/block_cache.h"

namespace turbokv {

inline Digest TestDigest(const std::string& text) {
  Digest digest;
  SHA256(reinterpret_cast<const uint8_t*>(text.data()), text.size(), digest.data());
  return digest;
}

inline Digest TestKey(int64_t number) { return TestDigest(absl::StrCat("key ", number)); }

inline std::vector<Digest> TestKeys(int64_t first, int64_t count) {
  std::vector<Digest> keys;
  for (int64_t i = first; i < first + count; ++i) keys.push_back(TestKey(i));
  return keys;
}

inline std::shared_ptr<const EntryGeometry> TestGeometry(size_t page_bytes, int layers,
                                                         const std::string& spec = "spec",
                                                         EntryKind kind = EntryKind::kBlock) {
  auto geometry = std::make_shared<EntryGeometry>();
  geometry->spec_fingerprint = TestDigest(spec);
  geometry->kind = kind;
  geometry->pages_per_layer = kind == EntryKind::kTail ? 2 : 1;
  const int pages = layers * geometry->pages_per_layer;
  for (int page = 0; page <= pages; ++page) {
    geometry->page_offsets_bytes.push_back(page * page_bytes);
  }
  return geometry;
}

inline std::vector<ReserveRequest> Requests(const std::vector<Digest>& keys,
                                            const std::shared_ptr<const EntryGeometry>& geometry) {
  std::vector<ReserveRequest> requests;
  for (const Digest& key : keys) requests.push_back({key, geometry, kPageTokens});
  return requests;
}

// Marks the first and last bytes of every page of one layer (or all) with the entry's key.
inline void Stamp(const PendingEntry& entry, const Digest& key, int layers) {
  for (int layer = 0; layer < layers; ++layer) {
    const absl::Span<uint8_t> page = entry.page(layer);
    std::memcpy(page.data(), key.data(), key.size());
    std::memcpy(page.data() + page.size() - key.size(), key.data(), key.size());
    page[key.size()] = static_cast<uint8_t>(layer);
  }
}

inline bool HasStamp(const EntryRef& entry, const Digest& key) {
  for (int layer = 0; layer < entry.geometry().layers(); ++layer) {
    const absl::Span<const uint8_t> page = entry.page(layer);
    if (std::memcmp(page.data(), key.data(), key.size()) != 0 ||
        std::memcmp(page.data() + page.size() - key.size(), key.data(), key.size()) != 0 ||
        page[key.size()] != static_cast<uint8_t>(layer)) {
      return false;
    }
  }
  return true;
}

// Reserves, fills and publishes; the error of Reserve, or how many became visible.
inline absl::StatusOr<int64_t> StoreKeys(BlockCache* cache, const ClientIdentity& owner,
                                         const std::vector<Digest>& keys,
                                         const std::shared_ptr<const EntryGeometry>& geometry) {
  auto pending = cache->Reserve(owner, Requests(keys, geometry));
  if (!pending.ok()) return pending.status();
  for (size_t i = 0; i < keys.size(); ++i) {
    if ((*pending)[i]) Stamp((*pending)[i], keys[i], geometry->layers());
  }
  return cache->Publish(*std::move(pending));
}

// How many of `keys`, each looked up alone and let go at once, are there.
inline int64_t CountPresent(BlockCache* cache, const ClientIdentity& owner,
                            const std::vector<Digest>& keys, const Digest& spec_fingerprint) {
  int64_t present = 0;
  for (const Digest& key : keys) {
    const auto found = cache->Lookup(owner, spec_fingerprint, {key}, nullptr, absl::ZeroDuration());
    if (!found.ok() || found->matched_blocks == 0) continue;
    ++present;
    cache->Release(owner, found->lease_id).IgnoreError();
  }
  return present;
}

}  // namespace turbokv
