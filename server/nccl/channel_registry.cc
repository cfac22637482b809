#include "server/nccl/channel_registry.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"

namespace turbokv {

ChannelRegistry::~ChannelRegistry() {
  CloseAll(absl::UnavailableError("the service ends"));
  Channels ending;
  {
    MutexLock lock(&mutex_);
    ending.swap(ending_);
  }
}

absl::StatusOr<uint64_t> ChannelRegistry::Reserve(const ClientIdentity& owner,
                                                  absl::string_view peer_name) {
  Channels ended;  // goes after the lock
  MutexLock lock(&mutex_);
  ended = TakeEnded();
  size_t of_tenant = 0;
  for (const auto& [id, entry] : entries_) {
    if (entry.owner == owner && entry.peer_name == peer_name) {
      return absl::AlreadyExistsError(absl::StrCat(
          "peer_name '", peer_name, "' of client '", owner.client, "' has a channel already (id ",
          id, "): two workers with the same rank, or one whose end has not been noticed yet"));
    }
    if (entry.owner.tenant == owner.tenant) ++of_tenant;
  }
  if (of_tenant >= limits_.max_channels_per_tenant) {
    return absl::ResourceExhaustedError(absl::StrCat("the tenant has ", of_tenant,
                                                     " NCCL channels; the limit is ",
                                                     limits_.max_channels_per_tenant));
  }
  if (entries_.size() + ending_.size() >= limits_.max_channels) {
    return absl::ResourceExhaustedError(
        absl::StrCat("there are ", entries_.size(), " NCCL channels, and ", ending_.size(),
                     " that have not ended yet; the limit is ", limits_.max_channels));
  }
  const uint64_t id = next_id_++;
  entries_[id] = {owner, std::string(peer_name), {}};
  if (observer_ != nullptr) observer_->ChannelReserved();
  return id;
}

void ChannelRegistry::Attach(uint64_t channel_id, std::shared_ptr<NcclChannel> channel,
                             PoolId pool) {
  MutexLock lock(&mutex_);
  const auto found = entries_.find(channel_id);
  if (found != entries_.end()) {
    found->second.end = {std::move(channel), std::make_shared<TransferTurns>(), pool};
  } else {
    channel->Abort("it was closed before it was connected");
    ending_.push_back(std::move(channel));
  }
}

absl::StatusOr<std::shared_ptr<NcclChannel>> ChannelRegistry::Find(const ClientIdentity& owner,
                                                                   uint64_t channel_id) const {
  TURBOKV_ASSIGN_OR_RETURN(ServiceChannel end, FindForTransfers(owner, channel_id));
  return std::move(end.channel);
}

absl::StatusOr<ServiceChannel> ChannelRegistry::FindForTransfers(const ClientIdentity& owner,
                                                                 uint64_t channel_id) const {
  MutexLock lock(&mutex_);
  const auto found = entries_.find(channel_id);
  if (found == entries_.end() || !(found->second.owner == owner)) {
    return absl::NotFoundError(absl::StrCat("channel_id ", channel_id,
                                            ": no such channel of this client; it may have ended"));
  }
  const std::shared_ptr<NcclChannel>& channel = found->second.end.channel;
  if (channel == nullptr || !channel->connected()) {
    const absl::Status ended = channel == nullptr ? absl::OkStatus() : channel->status();
    return absl::UnavailableError(absl::StrCat(
        "channel_id ", channel_id, ": ", ended.ok() ? "it is not connected yet" : ended.message()));
  }
  return found->second.end;
}

void ChannelRegistry::Close(uint64_t channel_id, const absl::Status& reason) {
  Channels ended;
  MutexLock lock(&mutex_);
  const auto found = entries_.find(channel_id);
  if (found == entries_.end()) return;
  CloseEntry(found, reason);
  ended = TakeEnded();
}

void ChannelRegistry::CloseAll(const absl::Status& reason) {
  MutexLock lock(&mutex_);
  while (!entries_.empty()) CloseEntry(entries_.begin(), reason);
}

void ChannelRegistry::CloseEntry(std::map<uint64_t, Entry>::iterator entry,
                                 const absl::Status& reason) {
  if (std::shared_ptr<NcclChannel> channel = std::move(entry->second.end.channel)) {
    channel->Abort(reason.message());
    ending_.push_back(std::move(channel));
  }
  entries_.erase(entry);
  if (observer_ != nullptr) observer_->ChannelClosed(reason);
}

ChannelRegistry::Channels ChannelRegistry::TakeEnded() {
  Channels ended;
  std::erase_if(ending_, [&](std::shared_ptr<NcclChannel>& channel) {
    if (!channel->ended()) return false;
    ended.push_back(std::move(channel));
    return true;
  });
  return ended;
}

void ChannelRegistry::Reap() {
  Channels ended;
  MutexLock lock(&mutex_);
  ended = TakeEnded();
}

size_t ChannelRegistry::open_channels() const {
  MutexLock lock(&mutex_);
  return entries_.size();
}

size_t ChannelRegistry::ending_channels() const {
  MutexLock lock(&mutex_);
  return ending_.size();
}

}  // namespace turbokv
