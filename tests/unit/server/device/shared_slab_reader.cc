#include "tests/unit/server/device/shared_slab_reader.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <vector>

#include "server/pool/arena.h"
#ifdef TURBOKV_TEST_CUDA
#include <cuda.h>
#include <cuda_runtime_api.h>

#include "kernels/cuda/driver.h"
#endif

namespace turbokv::testing {
namespace {

int OnlyValueOf(const uint8_t* bytes, size_t count) {
  const bool alike =
      std::all_of(bytes, bytes + count, [&](uint8_t byte) { return byte == bytes[0]; });
  return alike ? bytes[0] : -1;
}

int ValueInFile(int fd, size_t bytes) {
  // Read-only: nobody else may change a page.
  if (mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0) != MAP_FAILED) return -1;
  void* const mapped = mmap(nullptr, bytes, PROT_READ, MAP_SHARED, fd, 0);
  if (mapped == MAP_FAILED) return -1;
  return OnlyValueOf(static_cast<const uint8_t*>(mapped), bytes);
}

#ifdef TURBOKV_TEST_CUDA
template <typename Function>
bool Find(const char* name, Function** function) {
  return cuda::FindInDriver(name, reinterpret_cast<void**>(function)).ok();
}

int ValueOnGpu(int fd, size_t bytes) {
  decltype(cuMemImportFromShareableHandle)* import = nullptr;
  decltype(cuMemAddressReserve)* reserve = nullptr;
  decltype(cuMemMap)* map = nullptr;
  decltype(cuMemSetAccess)* set_access = nullptr;
  if (cudaSetDevice(0) != cudaSuccess || cudaFree(nullptr) != cudaSuccess) return -1;
  if (!Find("cuMemImportFromShareableHandle", &import) || !Find("cuMemAddressReserve", &reserve) ||
      !Find("cuMemMap", &map) || !Find("cuMemSetAccess", &set_access)) {
    return -1;
  }
  CUmemGenericAllocationHandle handle = 0;
  CUdeviceptr device = 0;
  CUmemAccessDesc access{};
  access.location = {CU_MEM_LOCATION_TYPE_DEVICE, {0}};
  access.flags = CU_MEM_ACCESS_FLAGS_PROT_READ;
  const auto os_handle = reinterpret_cast<void*>(static_cast<intptr_t>(fd));
  if (import(&handle, os_handle, CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR) != CUDA_SUCCESS ||
      reserve(&device, bytes, 0, 0, 0) != CUDA_SUCCESS ||
      map(device, bytes, 0, handle, 0) != CUDA_SUCCESS) {
    return -1;
  }
  if (set_access(device, bytes, &access, 1) != CUDA_SUCCESS) {
    access.flags = CU_MEM_ACCESS_FLAGS_PROT_READWRITE;  // drivers that know no other
    if (set_access(device, bytes, &access, 1) != CUDA_SUCCESS) return -1;
  }
  std::vector<uint8_t> copy(bytes);
  if (cudaMemcpy(copy.data(), reinterpret_cast<void*>(device), bytes, cudaMemcpyDeviceToHost) !=
      cudaSuccess) {
    return -1;
  }
  return OnlyValueOf(copy.data(), bytes);
}
#else
int ValueOnGpu(int, size_t) { return -1; }
#endif

}  // namespace

int ValueInSlab(const std::string& slab) {
  int kind = 0, fd = -1;
  unsigned long long bytes = 0;
  if (std::sscanf(slab.c_str(), "%d %d %llu", &kind, &fd, &bytes) != 3) return -1;
  const bool is_file = kind == static_cast<int>(ShareKind::kFakeFd);
  return is_file ? ValueInFile(fd, bytes) : ValueOnGpu(fd, bytes);
}

}  // namespace turbokv::testing
