#include "server/device/cuda_arena.h"

#include <cuda_runtime_api.h>

#include <cstring>
#include <optional>
#include <utility>
#include <vector>

#include "absl/memory/memory.h"
#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/status_macros.h"
#include "server/device/cuda_driver_memory.h"
#include "server/device/cuda_memory.h"
#include "server/device/work_checks.h"

namespace turbokv {
namespace {

// Where there is no virtual memory management: that of the memory that has it.
constexpr size_t kPlainGranularityBytes = size_t{2} << 20;

absl::Status NotShareable() {
  return absl::UnimplementedError("this arena was made without memory that can be shared");
}

class MappedArena final : public Arena {
 public:
  static absl::StatusOr<std::unique_ptr<Arena>> Make(CudaContext* context,
                                                     const CudaDriverMemory& driver, size_t slabs,
                                                     size_t slab_bytes, bool shareable) {
    auto arena = absl::WrapUnique(new MappedArena(context, driver, slab_bytes, shareable));
    TURBOKV_ASSIGN_OR_RETURN(arena->base_, driver.Reserve(slabs * slab_bytes));
    arena->slabs_.resize(slabs);
    for (uint32_t slab = 0; slab < slabs; ++slab) {
      const absl::Status status = arena->Fill(slab);
      if (absl::IsResourceExhausted(status)) {
        arena->Clear();  // so that what is named as free is what there is
        return context->OutOfMemory("pages", slabs * slab_bytes);
      }
      TURBOKV_RETURN_IF_ERROR(status);
    }
    return arena;
  }

  ~MappedArena() override {
    cudaSetDevice(context_->info().index);
    Clear();
    if (base_ != nullptr) driver_.Free(base_, slabs_.size() * slab_bytes_);
  }

  uint8_t* base() const override { return base_; }
  size_t slab_bytes() const override { return slab_bytes_; }
  uint32_t slab_count() const override { return static_cast<uint32_t>(slabs_.size()); }

  absl::StatusOr<SharedSlab> Share(uint32_t slab) override {
    Check(slab < slab_count(), "a slab is one of the arena's");
    if (!shareable_) return NotShareable();
    TURBOKV_RETURN_IF_ERROR(context_->Enter());
    if (!slabs_[slab].memory) {
      return absl::FailedPreconditionError(
          absl::StrCat("slab ", slab, " has no memory since it could not be renewed"));
    }
    SharedSlab shared;
    TURBOKV_ASSIGN_OR_RETURN(shared.fd, driver_.Export(*slabs_[slab].memory));
    shared.kind = ShareKind::kCudaFd;
    slabs_[slab].is_shared = true;
    return shared;
  }

  // The old memory goes first: there may be none to spare. While others map it, it is not free, and
  // this may fail until they have let go.
  absl::Status Renew(uint32_t slab) override {
    Check(slab < slab_count(), "a slab is one of the arena's");
    if (!slabs_[slab].is_shared) return absl::OkStatus();
    TURBOKV_RETURN_IF_ERROR(context_->Enter());
    if (slabs_[slab].memory) {
      TURBOKV_RETURN_IF_ERROR(driver_.Unmap(AddressOf(slab), slab_bytes_));
      driver_.Release(*std::exchange(slabs_[slab].memory, std::nullopt));
    }
    const absl::Status status = Fill(slab);
    if (absl::IsResourceExhausted(status)) return context_->OutOfMemory("a slab", slab_bytes_);
    TURBOKV_RETURN_IF_ERROR(status);
    slabs_[slab].is_shared = false;
    return absl::OkStatus();
  }

 private:
  struct Slab {
    std::optional<CUmemGenericAllocationHandle> memory;  // mapped at the slab's address
    bool is_shared = false;
  };

  MappedArena(CudaContext* context, const CudaDriverMemory& driver, size_t slab_bytes,
              bool shareable)
      : context_(context), driver_(driver), slab_bytes_(slab_bytes), shareable_(shareable) {}

  uint8_t* AddressOf(uint32_t slab) const { return base_ + slab * slab_bytes_; }

  // New memory for a slab that has none.
  absl::Status Fill(uint32_t slab) {
    TURBOKV_ASSIGN_OR_RETURN(const CUmemGenericAllocationHandle memory,
                             driver_.Create(slab_bytes_));
    const absl::Status status = driver_.Map(AddressOf(slab), slab_bytes_, memory);
    if (!status.ok()) {
      driver_.Release(memory);
      return status;
    }
    slabs_[slab].memory = memory;
    return absl::OkStatus();
  }

  void Clear() {
    for (uint32_t slab = 0; slab < slab_count(); ++slab) {
      if (!slabs_[slab].memory) continue;
      driver_.Unmap(AddressOf(slab), slab_bytes_).IgnoreError();
      driver_.Release(*std::exchange(slabs_[slab].memory, std::nullopt));
    }
  }

  CudaContext* const context_;
  const CudaDriverMemory driver_;
  const size_t slab_bytes_;
  const bool shareable_;
  uint8_t* base_ = nullptr;
  std::vector<Slab> slabs_;
};

// One cudaMalloc.
class PlainArena final : public Arena {
 public:
  PlainArena(CudaContext* context, std::unique_ptr<DeviceBuffer> memory, size_t slab_bytes,
             bool shareable)
      : context_(context),
        memory_(std::move(memory)),
        slab_bytes_(slab_bytes),
        shareable_(shareable) {}

  uint8_t* base() const override { return memory_->data(); }
  size_t slab_bytes() const override { return slab_bytes_; }
  uint32_t slab_count() const override {
    return static_cast<uint32_t>(memory_->size_bytes() / slab_bytes_);
  }

  absl::StatusOr<SharedSlab> Share(uint32_t slab) override {
    Check(slab < slab_count(), "a slab is one of the arena's");
    if (!shareable_) return NotShareable();
    TURBOKV_RETURN_IF_ERROR(context_->Enter());
    cudaIpcMemHandle_t handle;
    TURBOKV_RETURN_IF_ERROR(
        context_->Check(cudaIpcGetMemHandle(&handle, memory_->data()), "cudaIpcGetMemHandle"));
    SharedSlab shared;
    static_assert(sizeof(handle) == sizeof(shared.ipc_handle));
    std::memcpy(shared.ipc_handle, &handle, sizeof(handle));
    shared.kind = ShareKind::kCudaIpc;
    is_shared_ = true;
    return shared;
  }

  absl::Status Renew(uint32_t slab) override {
    Check(slab < slab_count(), "a slab is one of the arena's");
    if (!is_shared_) return absl::OkStatus();
    return absl::UnimplementedError(
        absl::StrCat("GPU ", context_->info().index,
                     " has no memory that can be replaced: what was shared stays shared"));
  }

 private:
  CudaContext* const context_;
  const std::unique_ptr<DeviceBuffer> memory_;
  const size_t slab_bytes_;
  const bool shareable_;
  bool is_shared_ = false;  // all of it: a handle opens the whole allocation
};

}  // namespace

absl::StatusOr<size_t> CudaSlabGranularity(CudaContext* context) {
  const auto driver = CudaDriverMemory::For(context, /*shareable=*/false);
  if (absl::IsUnimplemented(driver.status())) return kPlainGranularityBytes;
  TURBOKV_RETURN_IF_ERROR(driver.status());
  return driver->granularity_bytes();
}

absl::StatusOr<std::unique_ptr<Arena>> MakeCudaArena(CudaContext* context, size_t budget_bytes,
                                                     size_t slab_bytes, bool shareable) {
  TURBOKV_ASSIGN_OR_RETURN(const size_t granularity_bytes, CudaSlabGranularity(context));
  TURBOKV_RETURN_IF_ERROR(CheckDeviceArenaSizes(budget_bytes, slab_bytes, granularity_bytes));
  const size_t slabs = budget_bytes / slab_bytes;
  size_t free_bytes = 0, total_bytes = 0;
  TURBOKV_RETURN_IF_ERROR(
      context->Check(cudaMemGetInfo(&free_bytes, &total_bytes), "asking for memory"));
  // Sooner said than after thousands of allocations.
  if (slabs * slab_bytes > free_bytes) return context->OutOfMemory("pages", slabs * slab_bytes);
  const auto driver = CudaDriverMemory::For(context, shareable);
  if (driver.ok()) return MappedArena::Make(context, *driver, slabs, slab_bytes, shareable);
  if (!absl::IsUnimplemented(driver.status())) return driver.status();
  TURBOKV_ASSIGN_OR_RETURN(auto memory, AllocateCudaMemory(context, slabs * slab_bytes));
  return std::make_unique<PlainArena>(context, std::move(memory), slab_bytes, shareable);
}

}  // namespace turbokv
