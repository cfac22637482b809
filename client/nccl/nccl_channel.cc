#include "client/nccl/nccl_channel.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/logging.h"
#include "base/status_macros.h"
#include "client/nccl/channel_core.h"

namespace turbokv {
namespace {

// What a thread needs beyond the device's grace.
constexpr absl::Duration kThreadGrace = absl::Seconds(1);

NcclTransfer MakeTransfer(NcclDirection direction, absl::Span<const NcclPiece> pieces,
                          NcclDone done) {
  NcclTransfer transfer;
  transfer.direction = direction;
  transfer.pieces.assign(pieces.begin(), pieces.end());
  transfer.done = std::move(done);
  return transfer;
}

}  // namespace

std::unique_ptr<NcclChannel> NcclChannel::Start(NcclChannelOptions options) {
  return std::unique_ptr<NcclChannel>(new NcclChannel(std::make_shared<Core>(std::move(options))));
}

absl::StatusOr<std::unique_ptr<NcclChannel>> NcclChannel::Connect(NcclChannelOptions options) {
  std::unique_ptr<NcclChannel> channel = Start(std::move(options));
  // The thread keeps the time.
  TURBOKV_RETURN_IF_ERROR(channel->WaitConnected(absl::InfiniteFuture()));
  return channel;
}

NcclChannel::NcclChannel(std::shared_ptr<Core> core) : core_(std::move(core)) {
  thread_ = std::thread([core = core_] { core->Run(); });
}

NcclChannel::~NcclChannel() {
  core_->Abort("its owner let go of it");
  if (thread_.get_id() == std::this_thread::get_id()) {
    thread_.detach();  // in a callback: the thread ends on its own
  } else if (core_->WaitEnded(absl::Now() + kAbortGrace + kThreadGrace)) {
    thread_.join();
  } else {
    LogError("a thread of NCCL hangs; it is left behind", {{"peer", core_->peer()}});
    thread_.detach();
  }
}

absl::Status NcclChannel::Enqueue(uint64_t sequence, NcclDirection direction,
                                  absl::Span<const NcclPiece> pieces, NcclDone done) {
  return core_->Enqueue(sequence, MakeTransfer(direction, pieces, std::move(done)));
}

absl::Status NcclChannel::EnqueueNext(NcclDirection direction, absl::Span<const NcclPiece> pieces,
                                      NcclDone done) {
  return core_->Enqueue(std::nullopt, MakeTransfer(direction, pieces, std::move(done)));
}

absl::Status NcclChannel::Send(absl::Span<const NcclPiece> pieces, NcclDone done) {
  return EnqueueNext(NcclDirection::kSend, pieces, std::move(done));
}

absl::Status NcclChannel::Receive(absl::Span<const NcclPiece> pieces, NcclDone done) {
  return EnqueueNext(NcclDirection::kReceive, pieces, std::move(done));
}

absl::Status NcclChannel::status() const { return core_->status(); }
bool NcclChannel::connected() const { return core_->connected(); }
bool NcclChannel::ended() const { return core_->WaitEnded(absl::InfinitePast()); }

absl::Status NcclChannel::WaitConnected(absl::Time deadline) {
  return core_->WaitConnected(deadline);
}

absl::Status NcclChannel::Wait(absl::Time deadline) { return core_->WaitIdle(deadline); }

void NcclChannel::Abort(absl::string_view reason) { core_->Abort(reason); }

void NcclChannel::Close(absl::Duration timeout) {
  const absl::Time deadline = absl::Now() + timeout;
  core_->CloseBy(deadline);
  core_->WaitEnded(deadline + kAbortGrace + kThreadGrace);
}

}  // namespace turbokv
