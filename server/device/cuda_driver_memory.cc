#include "server/device/cuda_driver_memory.h"

#include <fcntl.h>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "kernels/cuda/driver.h"

namespace turbokv {
namespace {

template <typename Function>
absl::Status Find(const char* name, Function* function) {
  return cuda::FindInDriver(name, reinterpret_cast<void**>(function));
}

CUdeviceptr AddressOf(const uint8_t* device) { return reinterpret_cast<CUdeviceptr>(device); }

}  // namespace

absl::StatusOr<CudaDriverMemory> CudaDriverMemory::For(CudaContext* context, bool shareable) {
  TURBOKV_RETURN_IF_ERROR(context->Enter());
  CudaDriverMemory memory(context);
  TURBOKV_RETURN_IF_ERROR(memory.Load(shareable));
  return memory;
}

absl::Status CudaDriverMemory::Load(bool shareable) {
  decltype(&cuDeviceGet) get_device = nullptr;
  decltype(&cuDeviceGetAttribute) get_attribute = nullptr;
  decltype(&cuMemGetAllocationGranularity) get_granularity = nullptr;
  TURBOKV_RETURN_IF_ERROR(Find("cuDeviceGet", &get_device));
  TURBOKV_RETURN_IF_ERROR(Find("cuDeviceGetAttribute", &get_attribute));
  CUdevice device = 0;
  TURBOKV_RETURN_IF_ERROR(Status(get_device(&device, context_->info().index), "cuDeviceGet"));
  const auto require = [&](CUdevice_attribute attribute, const char* what) -> absl::Status {
    int has = 0;
    TURBOKV_RETURN_IF_ERROR(Status(get_attribute(&has, attribute, device), "cuDeviceGetAttribute"));
    if (has != 0) return absl::OkStatus();
    return absl::UnimplementedError(absl::StrCat("GPU ", context_->info().index, " has no ", what));
  };
  TURBOKV_RETURN_IF_ERROR(require(CU_DEVICE_ATTRIBUTE_VIRTUAL_MEMORY_MANAGEMENT_SUPPORTED,
                                  "virtual memory management"));
  if (shareable) {
    TURBOKV_RETURN_IF_ERROR(require(CU_DEVICE_ATTRIBUTE_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR_SUPPORTED,
                                    "file descriptors of memory"));
  }
  TURBOKV_RETURN_IF_ERROR(Find("cuMemGetAllocationGranularity", &get_granularity));
  TURBOKV_RETURN_IF_ERROR(Find("cuMemAddressReserve", &reserve_));
  TURBOKV_RETURN_IF_ERROR(Find("cuMemAddressFree", &free_));
  TURBOKV_RETURN_IF_ERROR(Find("cuMemCreate", &create_));
  TURBOKV_RETURN_IF_ERROR(Find("cuMemRelease", &release_));
  TURBOKV_RETURN_IF_ERROR(Find("cuMemMap", &map_));
  TURBOKV_RETURN_IF_ERROR(Find("cuMemUnmap", &unmap_));
  TURBOKV_RETURN_IF_ERROR(Find("cuMemSetAccess", &set_access_));
  TURBOKV_RETURN_IF_ERROR(Find("cuMemExportToShareableHandle", &export_));
  shareable_ = shareable;
  const CUmemAllocationProp properties = Properties();
  return Status(get_granularity(&granularity_bytes_, &properties, CU_MEM_ALLOC_GRANULARITY_MINIMUM),
                "cuMemGetAllocationGranularity");
}

CUmemAllocationProp CudaDriverMemory::Properties() const {
  CUmemAllocationProp properties{};
  properties.type = CU_MEM_ALLOCATION_TYPE_PINNED;
  properties.location.type = CU_MEM_LOCATION_TYPE_DEVICE;
  properties.location.id = context_->info().index;
  properties.requestedHandleTypes =
      shareable_ ? CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR : CU_MEM_HANDLE_TYPE_NONE;
  return properties;
}

absl::Status CudaDriverMemory::Status(CUresult result, absl::string_view what) const {
  if (result == CUDA_SUCCESS) return absl::OkStatus();
  return context_->Check(cuda::DriverStatus(result, what));
}

absl::StatusOr<uint8_t*> CudaDriverMemory::Reserve(size_t bytes) const {
  CUdeviceptr device = 0;
  TURBOKV_RETURN_IF_ERROR(Status(reserve_(&device, bytes, 0, 0, 0),
                                 absl::StrCat("reserving addresses for ", bytes, " bytes")));
  return reinterpret_cast<uint8_t*>(device);
}

void CudaDriverMemory::Free(uint8_t* device, size_t bytes) const {
  free_(AddressOf(device), bytes);
}

absl::StatusOr<CUmemGenericAllocationHandle> CudaDriverMemory::Create(size_t bytes) const {
  const CUmemAllocationProp properties = Properties();
  CUmemGenericAllocationHandle memory = 0;
  TURBOKV_RETURN_IF_ERROR(Status(create_(&memory, bytes, &properties, 0), "cuMemCreate"));
  return memory;
}

void CudaDriverMemory::Release(CUmemGenericAllocationHandle memory) const { release_(memory); }

absl::Status CudaDriverMemory::Map(uint8_t* device, size_t bytes,
                                   CUmemGenericAllocationHandle memory) const {
  TURBOKV_RETURN_IF_ERROR(Status(map_(AddressOf(device), bytes, 0, memory, 0), "cuMemMap"));
  CUmemAccessDesc access{};
  access.location.type = CU_MEM_LOCATION_TYPE_DEVICE;
  access.location.id = context_->info().index;
  access.flags = CU_MEM_ACCESS_FLAGS_PROT_READWRITE;
  const absl::Status status =
      Status(set_access_(AddressOf(device), bytes, &access, 1), "cuMemSetAccess");
  if (!status.ok()) unmap_(AddressOf(device), bytes);
  return status;
}

absl::Status CudaDriverMemory::Unmap(uint8_t* device, size_t bytes) const {
  return Status(unmap_(AddressOf(device), bytes), "cuMemUnmap");
}

absl::StatusOr<int> CudaDriverMemory::Export(CUmemGenericAllocationHandle memory) const {
  int file = -1;
  TURBOKV_RETURN_IF_ERROR(
      Status(export_(&file, memory, CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR, 0),
             "cuMemExportToShareableHandle"));
  fcntl(file, F_SETFD, FD_CLOEXEC);
  return file;
}

}  // namespace turbokv
