// Block keys, blinded: what the index knows a key by.
//
// tag = E(E(key[0:16]) xor key[16:32]), E = AES-256 under a key of the tenant, itself
// HMAC-SHA256(random secret of this process, tenant). The CBC-MAC of messages of one length is a
// pseudo-random function: tags of different tenants are unrelated, and nobody outside can aim at
// a tag or a bucket. Two block cipher passes over a request instead of an HMAC a key:
// docs/decisions/0010-block-tags.md.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "client/cache_spec.h"

namespace turbokv {

struct BlockTag {
  uint64_t low = 0;
  uint64_t high = 0;
  bool operator==(const BlockTag&) const = default;
};

// Threads: Tags may be called from any thread.
class KeyTagger {
 public:
  // INTERNAL when the system has no randomness to give.
  static absl::StatusOr<KeyTagger> Create();

  // Tags of `keys`, in order. INTERNAL when OpenSSL fails.
  absl::StatusOr<std::vector<BlockTag>> Tags(absl::string_view tenant,
                                             absl::Span<const Digest> keys) const;

  // A number that tells tenants apart: HMAC-SHA256(secret, "group" and tenant), cut to 64 bits.
  // Never 0.
  uint64_t Group(absl::string_view tenant) const;

 private:
  KeyTagger() = default;
  std::array<uint8_t, 32> secret_{};
};

}  // namespace turbokv
