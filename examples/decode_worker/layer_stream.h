// Fetches a match's layers in the background, so that the model can use the first layers while the
// last are still on the wire.
#pragma once

#include <deque>
#include <thread>

#include "absl/status/status.h"
#include "base/mutex.h"
#include "client/decode_reader.h"
#include "client/sequence_cache.h"

namespace turbokv::examples {

class LayerStream {
 public:
  // Begins to fetch. `reader` outlives this and is used by nobody else meanwhile.
  LayerStream(DecodeReader* reader, const FetchOptions& options);
  ~LayerStream();  // waits for the end of the fetch
  LayerStream(const LayerStream&) = delete;
  LayerStream& operator=(const LayerStream&) = delete;

  // Moves layers into `cache`, in order, until `layer` is in. Returns at once when it is in
  // already.
  absl::Status AdoptUpTo(int layer, SequenceCache* cache);

  // Of the layers adopted so far.
  int64_t page_bytes() const { return page_bytes_; }
  int64_t pages() const { return pages_; }
  // From the beginning of the fetch until its last layer was whole. After AdoptUpTo(last layer).
  double fetch_ms();

 private:
  void Run(const FetchOptions& options);

  DecodeReader* const reader_;
  int adopted_layers_ = 0;  // the rest of these: of the thread that adopts
  int64_t page_bytes_ = 0;
  int64_t pages_ = 0;

  Mutex mutex_;
  CondVar changed_;
  std::deque<FetchedLayer> arrived_ ABSL_GUARDED_BY(mutex_);
  bool ended_ ABSL_GUARDED_BY(mutex_) = false;
  absl::Status status_ ABSL_GUARDED_BY(mutex_);
  double fetch_ms_ ABSL_GUARDED_BY(mutex_) = 0;
  std::thread thread_;
};

}  // namespace turbokv::examples
