#include "client/shared_memory.h"

#include <utility>

#include "absl/memory/memory.h"
#include "base/status_macros.h"
#include "client/share/slab_importer.h"

namespace turbokv {
namespace {

constexpr uint32_t kHostPool = 0;
// Slots hold a page of most models; the server works on one while others are filled.
constexpr StagingGeometry kStaging = {.slot_bytes = uint64_t{1} << 20, .slots = 16};

}  // namespace

absl::StatusOr<std::shared_ptr<SharedMemory>> SharedMemory::Open(const std::string& socket_path,
                                                                 const ShareIdentity& identity,
                                                                 const SlabGeometry& host_pool) {
  ShareSessionOptions options;
  options.path = socket_path;
  options.identity = identity;
  TURBOKV_ASSIGN_OR_RETURN(std::shared_ptr<ShareSession> session, ShareSession::Connect(options));
  TURBOKV_ASSIGN_OR_RETURN(std::unique_ptr<SlabImporter> importer, MakeHostSlabImporter(host_pool));
  TURBOKV_ASSIGN_OR_RETURN(std::unique_ptr<MappedPool> pool,
                           MappedPool::Create(session, kHostPool, host_pool, std::move(importer)));
  return absl::WrapUnique(new SharedMemory(std::move(session), std::move(pool)));
}

absl::StatusOr<StagingClient*> SharedMemory::Staging() {
  MutexLock lock(&mutex_);
  if (staging_ == nullptr) {
    TURBOKV_ASSIGN_OR_RETURN(staging_, session_->OpenStaging(kStaging));
  }
  return staging_.get();
}

}  // namespace turbokv
