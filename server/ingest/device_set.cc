#include "server/ingest/device_set.h"

#include <algorithm>
#include <utility>

#include "absl/memory/memory.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/logging.h"
#include "base/status_macros.h"
#include "server/pool/slab_pool.h"

namespace turbokv {
namespace {

// A GPU that frees no staging slot for so long hangs.
constexpr absl::Duration kSlotTimeout = absl::Seconds(60);

constexpr size_t RoundDown(size_t bytes, size_t multiple) { return bytes / multiple * multiple; }

size_t BudgetBytes(const GpuMemory& memory, const DeviceInfo& info) {
  if (memory.percent == 0) return memory.bytes;
  return static_cast<size_t>(static_cast<double>(info.total_bytes) * memory.percent / 100);
}

// Ranks devices for a spec: the largest wins, and only its specs move when a device goes.
uint64_t Rank(const Digest& fingerprint, const std::string& device_uuid) {
  uint64_t hash = 0xcbf29ce484222325;  // FNV-1a: the same in every process
  const auto add = [&hash](const auto& bytes) {
    for (const auto byte : bytes) hash = (hash ^ static_cast<uint8_t>(byte)) * 0x100000001b3;
  };
  add(fingerprint);
  add(device_uuid);
  return hash ^ (hash >> 29);
}

absl::Status At(const DeviceInfo& info, const absl::Status& status) {
  if (status.ok()) return status;
  return absl::Status(status.code(),
                      absl::StrCat("GPU ", info.index, " (", info.name, "): ", status.message()));
}

}  // namespace

absl::StatusOr<StagingRing::Slot> PoolDevice::AcquireSlot() const {
  return ring->Acquire(absl::Now() + kSlotTimeout, {});
}

absl::StatusOr<std::unique_ptr<DeviceSet>> DeviceSet::Create(
    std::vector<std::unique_ptr<Device>> devices, const DeviceSetOptions& options) {
  auto set = absl::WrapUnique(new DeviceSet(options));
  for (auto& device : devices) {
    const DeviceInfo info = device->info();
    TURBOKV_RETURN_IF_ERROR(At(info, set->Add(std::move(device))));
  }
  set->failed_.resize(set->devices_.size());
  return set;
}

absl::Status DeviceSet::Add(std::unique_ptr<Device> device) {
  auto added = std::make_unique<PoolDevice>();
  added->device = std::move(device);
  Device* const gpu = added->device.get();
  const size_t budget_bytes = BudgetBytes(options_.memory, gpu->info());
  const size_t granularity_bytes = gpu->slab_granularity_bytes();
  if (budget_bytes < granularity_bytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("gpu_memory of ", budget_bytes, " bytes: at least ", granularity_bytes));
  }
  const size_t slab_bytes =
      std::max(granularity_bytes, RoundDown(ChooseSlabBytes(budget_bytes, 0), granularity_bytes));
  TURBOKV_ASSIGN_OR_RETURN(added->arena,
                           gpu->MakeArena(budget_bytes, slab_bytes, options_.shareable));
  TURBOKV_ASSIGN_OR_RETURN(
      added->ring, StagingRing::Create(gpu, options_.staging_slot_bytes, options_.staging_slots));
  DeviceEncoderOptions encoder;
  encoder.max_page_bytes = options_.staging_slot_bytes;
  TURBOKV_ASSIGN_OR_RETURN(added->encoder, DeviceEncoder::Create(gpu, encoder));
  TURBOKV_ASSIGN_OR_RETURN(added->io, DevicePageIo::Create(gpu));
  const DeviceInfo& info = gpu->info();
  LogInfo("GPU memory holds pages", {{"pool", devices_.size() + 1},
                                     {"gpu", info.index},
                                     {"name", info.name},
                                     {"uuid", info.uuid},
                                     {"memory_bytes", budget_bytes},
                                     {"slab_bytes", slab_bytes}});
  devices_.push_back(std::move(added));
  return absl::OkStatus();
}

DevicePools DeviceSet::TakePools() {
  DevicePools pools;
  for (const auto& device : devices_) pools.arenas.push_back(std::move(device->arena));
  pools.copier = this;
  return pools;
}

absl::Status DeviceSet::CheckSpec(const PoolDevice& device, const ResolvedSpec& spec) const {
  TURBOKV_RETURN_IF_ERROR(device.device->health());
  const size_t raw_page_bytes = kPageTokens * spec.raw_token_bytes();
  size_t largest_bytes = raw_page_bytes;
  for (const PageLayout& layout : spec.layer_layouts) {
    TURBOKV_RETURN_IF_ERROR(device.device->CheckShape(layout.shape));
    largest_bytes = std::max(largest_bytes, layout.page_bytes);
  }
  if (largest_bytes > device.ring->slot_bytes()) {
    return absl::UnimplementedError(absl::StrCat("pages of ", largest_bytes,
                                                 " bytes: the staging memory takes ",
                                                 device.ring->slot_bytes()));
  }
  return absl::OkStatus();
}

PoolId DeviceSet::PlacementOf(const ResolvedSpec& spec) const {
  PoolId best = kHostPool;
  uint64_t best_rank = 0;
  for (size_t i = 0; i < devices_.size(); ++i) {
    if (!CheckSpec(*devices_[i], spec).ok()) continue;
    const uint64_t rank = Rank(spec.fingerprint, devices_[i]->device->info().uuid);
    if (best != kHostPool && rank <= best_rank) continue;
    best = static_cast<PoolId>(i + 1);
    best_rank = rank;
  }
  return best;
}

std::optional<PoolId> DeviceSet::PoolOf(absl::string_view device_uuid) const {
  for (size_t i = 0; i < devices_.size(); ++i) {
    if (devices_[i]->device->info().uuid == device_uuid) return static_cast<PoolId>(i + 1);
  }
  return std::nullopt;
}

absl::Status DeviceSet::Copy(absl::Span<const ExtentCopy> copies) {
  std::vector<std::vector<DeviceRead>> reads(devices_.size() + 1);
  std::vector<std::vector<DeviceWrite>> writes(devices_.size() + 1);
  std::vector<std::unique_ptr<uint8_t[]>> between;  // from one device to another by host memory
  for (const ExtentCopy& copy : copies) {
    uint8_t* host = copy.to;
    const uint8_t* source = copy.from;
    if (copy.from_pool != kHostPool) {
      if (copy.to_pool != kHostPool) {
        between.push_back(std::make_unique_for_overwrite<uint8_t[]>(copy.bytes));
        host = between.back().get();
      }
      reads[copy.from_pool].push_back({host, copy.from, copy.bytes});
      source = host;
    }
    if (copy.to_pool != kHostPool) writes[copy.to_pool].push_back({copy.to, source, copy.bytes});
  }
  for (size_t pool = 1; pool < reads.size(); ++pool) {
    if (!reads[pool].empty()) TURBOKV_RETURN_IF_ERROR(devices_[pool - 1]->io->Read(reads[pool]));
  }
  for (size_t pool = 1; pool < writes.size(); ++pool) {
    if (!writes[pool].empty()) TURBOKV_RETURN_IF_ERROR(devices_[pool - 1]->io->Write(writes[pool]));
  }
  return absl::OkStatus();
}

std::vector<PoolId> DeviceSet::TakeFailed() {
  std::vector<PoolId> pools;
  for (size_t i = 0; i < devices_.size(); ++i) {
    const absl::Status health = devices_[i]->device->health();
    if (health.ok() || failed_[i]) continue;
    failed_[i] = true;
    LogError("a GPU has failed", {{"gpu", devices_[i]->device->info().index},
                                  {"uuid", devices_[i]->device->info().uuid},
                                  {"reason", health.message()}});
    pools.push_back(static_cast<PoolId>(i + 1));
  }
  return pools;
}

}  // namespace turbokv
