#include "examples/decode_worker/layer_stream.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "examples/demo/setup.h"

namespace turbokv::examples {

LayerStream::LayerStream(DecodeReader* reader, const FetchOptions& options)
    : reader_(reader), thread_([this, options] { Run(options); }) {}

LayerStream::~LayerStream() { thread_.join(); }

void LayerStream::Run(const FetchOptions& options) {
  const Stopwatch stopwatch;
  const absl::Status status = reader_->Fetch(options, [this](FetchedLayer layer) {
    MutexLock lock(&mutex_);
    arrived_.push_back(std::move(layer));
    changed_.notify_all();
    return absl::OkStatus();
  });
  MutexLock lock(&mutex_);
  fetch_ms_ = stopwatch.ms();
  status_ = status;
  ended_ = true;
  changed_.notify_all();
}

absl::Status LayerStream::AdoptUpTo(int layer, SequenceCache* cache) {
  while (adopted_layers_ <= layer) {
    FetchedLayer next;
    {
      MutexLock lock(&mutex_);
      while (arrived_.empty() && !ended_) changed_.wait(mutex_);
      if (arrived_.empty()) {
        if (!status_.ok()) return status_;
        return absl::DataLossError(
            absl::StrCat("the fetch ended after ", adopted_layers_, " layers"));
      }
      next = std::move(arrived_.front());
      arrived_.pop_front();
    }
    for (absl::Span<const uint8_t> page : next.pages) {
      page_bytes_ += static_cast<int64_t>(page.size());
      ++pages_;
    }
    TURBOKV_RETURN_IF_ERROR(cache->AdoptLayer(std::move(next)));
    ++adopted_layers_;
  }
  return absl::OkStatus();
}

double LayerStream::fetch_ms() {
  MutexLock lock(&mutex_);
  while (!ended_) changed_.wait(mutex_);
  return fetch_ms_;
}

}  // namespace turbokv::examples
