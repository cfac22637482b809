#include "client/cuda/cuda_slab_importer.h"

#include <cuda.h>
#include <cuda_runtime_api.h>

#include <atomic>
#include <cstring>
#include <string>
#include <vector>

#include "absl/memory/memory.h"
#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "client/cuda/current_gpu.h"
#include "kernels/cuda/driver.h"
#include "kernels/cuda/status.h"

namespace turbokv {
namespace {

struct Driver {
  decltype(&cuMemAddressReserve) reserve = nullptr;
  decltype(&cuMemAddressFree) free = nullptr;
  decltype(&cuMemImportFromShareableHandle) import = nullptr;
  decltype(&cuMemRelease) release = nullptr;
  decltype(&cuMemMap) map = nullptr;
  decltype(&cuMemUnmap) unmap = nullptr;
  decltype(&cuMemSetAccess) set_access = nullptr;
  decltype(&cuMemGetAddressRange) address_range = nullptr;

  absl::Status Load() {
    TURBOKV_RETURN_IF_ERROR(Find("cuMemAddressReserve", &reserve));
    TURBOKV_RETURN_IF_ERROR(Find("cuMemAddressFree", &free));
    TURBOKV_RETURN_IF_ERROR(Find("cuMemImportFromShareableHandle", &import));
    TURBOKV_RETURN_IF_ERROR(Find("cuMemRelease", &release));
    TURBOKV_RETURN_IF_ERROR(Find("cuMemMap", &map));
    TURBOKV_RETURN_IF_ERROR(Find("cuMemUnmap", &unmap));
    TURBOKV_RETURN_IF_ERROR(Find("cuMemSetAccess", &set_access));
    return Find("cuMemGetAddressRange", &address_range);
  }

  template <typename Function>
  static absl::Status Find(const char* name, Function* function) {
    return cuda::FindInDriver(name, reinterpret_cast<void**>(function));
  }
};

absl::Status Refused(CUresult result, absl::string_view what) {
  return absl::InvalidArgumentError(
      absl::StrCat("shared slab: ", cuda::DriverStatus(result, what).message()));
}

class Importer final : public CudaSlabImporter {
 public:
  Importer(const Driver& driver, int gpu, const SlabGeometry& geometry)
      : driver_(driver), gpu_(gpu), geometry_(geometry), mapped_(geometry.slab_count) {}

  ~Importer() override {
    const GpuScope scope(gpu_);
    for (uint32_t slab = 0; slab < mapped_.size(); ++slab) {
      if (mapped_[slab]) driver_.unmap(range_ + slab * geometry_.slab_bytes, geometry_.slab_bytes);
    }
    if (range_ != 0) driver_.free(range_, pool_bytes());
    if (opened_ != nullptr) cudaIpcCloseMemHandle(opened_);
  }

  absl::Status Reserve() {
    const CUresult result = driver_.reserve(&range_, pool_bytes(), 0, 0, 0);
    if (result != CUDA_SUCCESS) range_ = 0;
    // A GPU without virtual memory management: the service's has none either, and sends handles.
    if (result == CUDA_ERROR_NOT_SUPPORTED) return absl::OkStatus();
    if (result == CUDA_SUCCESS) {
      base_ = reinterpret_cast<const uint8_t*>(range_);
      return absl::OkStatus();
    }
    return cuda::DriverStatus(
        result, absl::StrCat("reserving ", pool_bytes(), " bytes of addresses for a pool"));
  }

  const uint8_t* base() const override { return base_; }
  bool read_only() const override { return read_only_; }

  absl::Status Import(const SharedSlab& slab, uint64_t offset_bytes) override {
    const GpuScope scope(gpu_);
    TURBOKV_RETURN_IF_ERROR(scope.status());
    if (slab.kind == ShareKind::kCudaFd && range_ != 0 && opened_ == nullptr) {
      return ImportSlab(slab.fd, static_cast<uint32_t>(offset_bytes / geometry_.slab_bytes));
    }
    if (slab.kind == ShareKind::kCudaIpc && !any_mapped_) return OpenPool(slab.ipc_handle);
    return absl::InvalidArgumentError(
        absl::StrCat("shared slab: memory of kind ", static_cast<int>(slab.kind),
                     " cannot be mapped as GPU memory", any_mapped_ ? " by descriptors" : ""));
  }

 private:
  uint64_t pool_bytes() const { return geometry_.slab_bytes * geometry_.slab_count; }

  absl::Status ImportSlab(int fd, uint32_t slab) {
    if (fd < 0) return absl::InvalidArgumentError("shared slab: GPU memory without a descriptor");
    CUmemGenericAllocationHandle memory = 0;
    const CUresult imported =
        driver_.import(&memory, reinterpret_cast<void*>(static_cast<intptr_t>(fd)),
                       CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR);
    if (imported != CUDA_SUCCESS) return Refused(imported, "cuMemImportFromShareableHandle");
    const absl::Status status = Place(memory, slab);
    driver_.release(memory);  // the mapping keeps it
    return status;
  }

  absl::Status Place(CUmemGenericAllocationHandle memory, uint32_t slab) {
    const CUdeviceptr address = range_ + slab * geometry_.slab_bytes;
    const bool replaces = mapped_[slab];
    if (replaces) {
      const CUresult result = driver_.unmap(address, geometry_.slab_bytes);
      if (result != CUDA_SUCCESS) return cuda::DriverStatus(result, "cuMemUnmap");
      mapped_[slab] = false;
    }
    const std::string what =
        absl::StrCat("cuMemMap of ", geometry_.slab_bytes, " bytes, the size of a slab");
    const CUresult result = driver_.map(address, geometry_.slab_bytes, 0, memory, 0);
    if (result == CUDA_ERROR_INVALID_VALUE && !replaces) return Refused(result, what);
    if (result != CUDA_SUCCESS) return cuda::DriverStatus(result, what);
    if (const absl::Status access = Allow(address); !access.ok()) {
      driver_.unmap(address, geometry_.slab_bytes);
      return access;
    }
    mapped_[slab] = true;
    any_mapped_ = true;
    return absl::OkStatus();
  }

  absl::Status Allow(CUdeviceptr address) {
    CUmemAccessDesc access{};
    access.location.type = CU_MEM_LOCATION_TYPE_DEVICE;
    access.location.id = gpu_;
    access.flags = CU_MEM_ACCESS_FLAGS_PROT_READ;
    if (driver_.set_access(address, geometry_.slab_bytes, &access, 1) == CUDA_SUCCESS) {
      return absl::OkStatus();
    }
    access.flags = CU_MEM_ACCESS_FLAGS_PROT_READWRITE;
    const CUresult result = driver_.set_access(address, geometry_.slab_bytes, &access, 1);
    if (result != CUDA_SUCCESS) {
      return cuda::DriverStatus(result, absl::StrCat("cuMemSetAccess for GPU ", gpu_));
    }
    read_only_ = false;
    return absl::OkStatus();
  }

  absl::Status OpenPool(const uint8_t (&bytes)[kIpcHandleBytes]) {
    // Every slab has the same handle.
    if (opened_ != nullptr && std::memcmp(bytes, opened_handle_, kIpcHandleBytes) == 0) {
      return absl::OkStatus();
    }
    if (opened_ != nullptr) {
      return absl::InvalidArgumentError("shared slab: a handle of other memory than before");
    }
    cudaIpcMemHandle_t handle;
    static_assert(sizeof(handle) == kIpcHandleBytes);
    std::memcpy(&handle, bytes, sizeof(handle));
    void* opened = nullptr;
    if (const cudaError_t error =
            cudaIpcOpenMemHandle(&opened, handle, cudaIpcMemLazyEnablePeerAccess);
        error != cudaSuccess) {
      cudaGetLastError();
      return absl::InvalidArgumentError(
          absl::StrCat("shared slab: ", cuda::ToStatus(error, "cudaIpcOpenMemHandle").message()));
    }
    CUdeviceptr begin = 0;
    size_t size_bytes = 0;
    const auto address = reinterpret_cast<CUdeviceptr>(opened);
    const CUresult result = driver_.address_range(&begin, &size_bytes, address);
    if (result != CUDA_SUCCESS || begin != address || size_bytes < pool_bytes()) {
      cudaIpcCloseMemHandle(opened);
      return absl::InvalidArgumentError(absl::StrCat("shared slab: a handle of ", size_bytes,
                                                     " bytes, the pool has ", pool_bytes()));
    }
    opened_ = opened;
    std::memcpy(opened_handle_, bytes, kIpcHandleBytes);
    base_ = static_cast<const uint8_t*>(opened);
    read_only_ = false;
    return absl::OkStatus();
  }

  const Driver driver_;
  const int gpu_;
  const SlabGeometry geometry_;
  CUdeviceptr range_ = 0;  // 0: this GPU has no virtual memory management
  std::vector<bool> mapped_;
  bool any_mapped_ = false;
  void* opened_ = nullptr;  // of kCudaIpc
  uint8_t opened_handle_[kIpcHandleBytes] = {};
  std::atomic<const uint8_t*> base_ = nullptr;
  std::atomic<bool> read_only_ = true;
};

}  // namespace

absl::StatusOr<std::unique_ptr<CudaSlabImporter>> MakeCudaSlabImporter(
    const SlabGeometry& geometry) {
  TURBOKV_RETURN_IF_ERROR(CheckSlabGeometry(geometry));
  int gpu = 0;
  TURBOKV_RETURN_IF_ERROR(cuda::ToStatus(cudaGetDevice(&gpu), "the current GPU"));
  // The driver's calls need the context that the runtime makes at its first use.
  TURBOKV_RETURN_IF_ERROR(cuda::ToStatus(cudaFree(nullptr), absl::StrCat("GPU ", gpu)));
  Driver driver;
  TURBOKV_RETURN_IF_ERROR(driver.Load());
  auto importer = std::make_unique<Importer>(driver, gpu, geometry);
  TURBOKV_RETURN_IF_ERROR(importer->Reserve());
  return importer;
}

}  // namespace turbokv
