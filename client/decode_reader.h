// Finds a prompt's pages in turbokvd, holds them by a lease, and fetches them layer by layer.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "client/cache_spec.h"
#include "client/channel.h"
#include "client/share/shared_slab.h"

namespace turbokv {

struct LookupOptions {
  std::string salt;
  bool want_tail = true;
  absl::Duration lease = absl::ZeroDuration();  // zero: the server's default
  // Set: blocks are moved to the memory of this GPU of the service first, as far as it has room.
  std::string device_uuid;
  // With device_uuid, a session of the sharing socket (0: none): the match tells where the blocks
  // lie, and its lease ends with the session. DeviceReader's.
  uint64_t share_session = 0;
  absl::Duration timeout = absl::Seconds(30);
};

// What a lookup found, held until destruction (which releases it) or expiry.
struct Match {
  int64_t blocks = 0;
  bool tail_found = false;
  int tail_tokens = 0;
  uint64_t lease_id = 0;
  absl::Duration lease;
  // Of the blocks, then of the tail if it was found; empty where no memory is shared.
  std::vector<SharedPlace> places;
};

// One layer as fetched: pages verified by checksum, header and spec.
struct FetchedLayer {
  int layer = 0;
  std::vector<absl::Span<const uint8_t>> pages;       // one a block, in order
  std::vector<absl::Span<const uint8_t>> tail_pages;  // 0..2: exact pages of the tail
  std::shared_ptr<const void> storage;                // keeps what the spans point into
};

struct FetchOptions {
  int first_layer = 0;
  int layer_count = 0;  // 0: all that follow
  int64_t first_block = 0;
  int64_t block_count = 0;  // 0: all that follow
  bool include_tail = true;
  size_t chunk_bytes = size_t{256} << 10;
  absl::Duration timeout = absl::InfiniteDuration();
};

// Threads: one reader may be used by one thread at a time; the channel is shared.
class DecodeReader {
 public:
  DecodeReader(std::shared_ptr<CacheChannel> channel, std::shared_ptr<const ResolvedSpec> spec);
  ~DecodeReader();  // releases the lease it holds, if any

  // The longest stored prefix of `token_ids`. Nothing stored is a Match with blocks == 0, not an
  // error. Replaces (and releases) an earlier match.
  absl::StatusOr<Match> Lookup(absl::Span<const int32_t> token_ids, const LookupOptions& options);

  // Brings the match's layers in order, by the channel's road: in memory shared with the server,
  // pages are the server's own, and valid while the lease is held (Renew it in time): a page that
  // changed while `on_layer` ran is DATA_LOSS. `on_layer` is called once a layer, as soon as it is
  // whole, and may stop the fetch by returning an error, which Fetch then returns. After DATA_LOSS
  // (a page was damaged: counted by the server, never delivered) look up again: the damaged block
  // is gone.
  absl::Status Fetch(const FetchOptions& options,
                     const std::function<absl::Status(FetchedLayer)>& on_layer);

  // Extends the lease from now on.
  absl::Status Renew(absl::Duration lease);
  absl::Status Release();

  // Bytes of page data that this reader's fetches have brought so far, copied or in place.
  int64_t fetched_bytes() const;
  // How the last fetch went.
  Road last_road() const;

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace turbokv
