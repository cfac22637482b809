#include "client/wire/store_call.h"

#include <utility>

#include "base/status_macros.h"
#include "client/wire/bulk_message.h"
#include "client/wire/call_context.h"

namespace turbokv {
namespace {

constexpr char kStoreMethod[] = "/turbokv.v1.CacheService/Store";
constexpr size_t kMaxQueuedBytes = size_t{1} << 20;

}  // namespace

StoreCall::StoreCall(std::shared_ptr<CacheChannel> channel, absl::Duration timeout)
    : channel_(std::move(channel)), stub_(channel_->grpc_channel()) {
  PrepareCall(*channel_, timeout, &context_);
  stub_.PrepareBidiStreamingCall(&context_, kStoreMethod, grpc::StubOptions(), this);
  AddHold();  // writes are started from outside of reactions
  StartRead(&response_);
  StartCall();
}

StoreCall::~StoreCall() {
  if (!held_) return;  // Finish or a failed Write has seen the end
  context_.TryCancel();
  LetGo();
  WaitForEnd().IgnoreError();
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
  LetGo();
  TURBOKV_RETURN_IF_ERROR(WaitForEnd());
  return absl::InternalError("the server ended the store before it was complete");
}

void StoreCall::WriteNext() {
  if (!queue_.empty() && !broken_) StartWrite(&queue_.front());
}

absl::StatusOr<v1::StoreResponse> StoreCall::Finish() {
  {
    MutexLock lock(&mutex_);
    while (!queue_.empty() && !broken_) changed_.wait(mutex_);
    if (!broken_) StartWritesDone();
  }
  LetGo();
  TURBOKV_RETURN_IF_ERROR(WaitForEnd());
  MutexLock lock(&mutex_);
  if (!answered_) return absl::InternalError("store: the server sent no answer");
  v1::StoreResponse response;
  TURBOKV_RETURN_IF_ERROR(ParseBulkMessage(response_, &response).status());
  return response;
}

void StoreCall::LetGo() {
  if (std::exchange(held_, false)) RemoveHold();
}

absl::Status StoreCall::WaitForEnd() {
  MutexLock lock(&mutex_);
  while (!done_) changed_.wait(mutex_);
  return CallStatus(*channel_, "store", status_);
}

void StoreCall::OnWriteDone(bool ok) {
  MutexLock lock(&mutex_);
  queued_bytes_ -= queue_.front().Length();
  queue_.pop_front();  // lets go of borrowed payload
  if (!ok) broken_ = true;
  WriteNext();
  // The writer is woken once for several messages, not for each.
  if (queued_bytes_ <= kMaxQueuedBytes / 2 || broken_) changed_.notify_all();
}

void StoreCall::OnReadDone(bool ok) {
  // One answer or none: either way the server takes nothing more.
  MutexLock lock(&mutex_);
  answered_ = ok;
  broken_ = true;
  changed_.notify_all();
}

void StoreCall::OnDone(const grpc::Status& status) {
  MutexLock lock(&mutex_);
  status_ = status;
  queue_.clear();
  done_ = true;
  changed_.notify_all();
}

}  // namespace turbokv
