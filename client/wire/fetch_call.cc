#include "client/wire/fetch_call.h"

#include <utility>

#include "client/wire/bulk_message.h"
#include "client/wire/call_context.h"

namespace turbokv {
namespace {

constexpr char kFetchMethod[] = "/turbokv.v1.CacheService/Fetch";

}  // namespace

FetchCall::FetchCall(std::shared_ptr<CacheChannel> channel, absl::Duration timeout,
                     const v1::FetchRequest& request)
    : channel_(std::move(channel)), stub_(channel_->grpc_channel()) {
  PrepareCall(*channel_, timeout, &context_);
  stream_ = stub_.PrepareCall(&context_, kFetchMethod, &queue_);
  stream_->StartCall(nullptr);
  alive_ = Await();
  if (!alive_) return;
  stream_->WriteLast(BuildBulkMessage(request, {}), grpc::WriteOptions(), nullptr);
  alive_ = Await();
}

FetchCall::~FetchCall() {
  if (!finished_) {
    context_.TryCancel();
    Finish().IgnoreError();
  }
  queue_.Shutdown();
  void* tag = nullptr;
  bool ok = false;
  while (queue_.Next(&tag, &ok)) {
  }
}

bool FetchCall::Read(grpc::ByteBuffer* message) {
  if (!alive_) return false;
  stream_->Read(message, nullptr);
  alive_ = Await();
  return alive_;
}

absl::Status FetchCall::Finish() {
  grpc::Status status;
  stream_->Finish(&status, nullptr);
  Await();
  finished_ = true;
  return CallStatus(*channel_, "fetch", status);
}

bool FetchCall::Await() {
  void* tag = nullptr;
  bool ok = false;
  return queue_.Next(&tag, &ok) && ok;
}

}  // namespace turbokv
