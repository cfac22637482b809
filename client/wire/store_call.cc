#include "client/wire/store_call.h"

#include <utility>

#include "base/status_macros.h"
#include "client/wire/bulk_message.h"
#include "client/wire/call_context.h"

namespace turbokv {
namespace {

constexpr char kStoreMethod[] = "/turbokv.v1.CacheService/Store";
constexpr size_t kMaxQueuedBytes = size_t{2} << 20;

}  // namespace

StoreCall::StoreCall(std::shared_ptr<CacheChannel> channel, absl::Duration timeout)
    : channel_(std::move(channel)), stub_(channel_->grpc_channel()) {
  PrepareCall(*channel_, timeout, &context_);
  stream_ = stub_.PrepareCall(&context_, kStoreMethod, &completions_);
  stream_->StartCall(TagOf(Event::kStarted));
  thread_ = std::thread([this] { Poll(); });
}

StoreResult ToStoreResult(const v1::StoreResponse& response) {
  StoreResult result;
  result.stored_blocks = response.stored_blocks();
  result.present_blocks = response.present_blocks();
  result.stored_tail = response.stored_tail();
  result.raw_bytes = response.raw_bytes();
  result.kept_bytes = response.kept_bytes();
  result.encode_time = absl::Microseconds(response.encode_us());
  return result;
}

StoreCall::~StoreCall() {
  context_.TryCancel();  // of no effect on a call that has ended
  thread_.join();
}

absl::Status StoreCall::Write(grpc::ByteBuffer message) {
  {
    MutexLock lock(&mutex_);
    while (queued_bytes_ >= kMaxQueuedBytes && !broken_) changed_.wait(mutex_);
    if (!broken_) {
      queued_bytes_ += message.Length();
      queue_.push_back(std::move(message));
      if (queue_.size() == 1) WriteNext();
      return absl::OkStatus();
    }
  }
  return EndedEarly();
}

absl::Status StoreCall::CheckOpen() {
  {
    MutexLock lock(&mutex_);
    if (!broken_) return absl::OkStatus();
  }
  return EndedEarly();
}

absl::Status StoreCall::EndedEarly() {
  TURBOKV_RETURN_IF_ERROR(WaitForEnd());
  return absl::InternalError("the server ended the store before it was complete");
}

absl::StatusOr<v1::StoreResponse> StoreCall::Finish() {
  {
    MutexLock lock(&mutex_);
    while (!(started_ && queue_.empty()) && !broken_) changed_.wait(mutex_);
    if (!broken_) stream_->WritesDone(TagOf(Event::kWritesDone));
  }
  TURBOKV_RETURN_IF_ERROR(WaitForEnd());
  MutexLock lock(&mutex_);
  if (!answered_) return absl::InternalError("store: the server sent no answer");
  v1::StoreResponse response;
  TURBOKV_RETURN_IF_ERROR(ParseBulkMessage(response_, &response).status());
  return response;
}

absl::Status StoreCall::WaitForEnd() {
  MutexLock lock(&mutex_);
  while (!done_) changed_.wait(mutex_);
  return CallStatus(*channel_, "store", status_);
}

void StoreCall::Poll() {
  void* tag = nullptr;
  bool ok = false;
  while (completions_.Next(&tag, &ok))
    Handle(static_cast<Event>(reinterpret_cast<uintptr_t>(tag)), ok);
}

void StoreCall::WriteNext() {
  if (started_ && !queue_.empty() && !broken_) {
    stream_->Write(queue_.front(), TagOf(Event::kWritten));
  }
}

void StoreCall::Handle(Event event, bool ok) {
  MutexLock lock(&mutex_);
  switch (event) {
    case Event::kStarted:
      started_ = true;
      // The answer, or its absence, tells that the server takes nothing more.
      stream_->Read(&response_, TagOf(Event::kAnswered));
      WriteNext();
      break;
    case Event::kWritten:
      queued_bytes_ -= queue_.front().Length();
      queue_.pop_front();
      if (!ok) broken_ = true;
      WriteNext();
      // The writer is woken once for several messages, not for each.
      if (queued_bytes_ > kMaxQueuedBytes / 2 && !broken_) return;
      break;
    case Event::kWritesDone:
      break;
    case Event::kAnswered:
      answered_ = ok;
      broken_ = true;
      stream_->Finish(&status_, TagOf(Event::kFinished));
      break;
    case Event::kFinished:
      done_ = true;
      completions_.Shutdown();  // what is still to come is delivered before Next ends
      break;
  }
  changed_.notify_all();
}

}  // namespace turbokv
