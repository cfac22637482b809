// The part of NCCL's binary interface that this project uses, so that no build needs nccl.h.
//
// Source: nccl.h of NCCL 2.18 to 2.28. The interface is stable: values and layouts below are those
// of every such version. tests/unit/client/nccl/nccl_abi_test.cc compares them with nccl.h where
// there is one.
#pragma once

#include <climits>
#include <cstddef>
#include <cstdint>

namespace turbokv {

inline constexpr size_t kNcclUniqueIdBytes = 128;

// Passed by value, as NCCL does.
struct NcclUniqueId {
  char bytes[kNcclUniqueIdBytes];
};

// ncclResult_t
enum NcclResult : int {
  kNcclSuccess = 0,
  kNcclUnhandledCudaError = 1,
  kNcclSystemError = 2,
  kNcclInternalError = 3,
  kNcclInvalidArgument = 4,
  kNcclInvalidUsage = 5,
  kNcclRemoteError = 6,
  kNcclInProgress = 7,
};

// ncclDataType_t; everything here is sent as bytes.
inline constexpr int kNcclUint8 = 1;

inline constexpr int kNcclConfigUndefined = INT_MIN;
inline constexpr unsigned kNcclConfigMagic = 0xcafebeef;

// As NCCL_VERSION(2, 18, 0): what the library must at least be.
inline constexpr int kNcclMinimumVersion = 21800;

// ncclConfig_t as of 2.18. The library takes `size` bytes of it and fills the rest with defaults,
// so that a newer library, whose struct is longer, accepts this one.
struct NcclConfig {
  size_t size = sizeof(NcclConfig);
  unsigned magic = kNcclConfigMagic;
  unsigned version = kNcclMinimumVersion;
  int blocking = kNcclConfigUndefined;
  int cga_cluster_size = kNcclConfigUndefined;
  int min_ctas = kNcclConfigUndefined;
  int max_ctas = kNcclConfigUndefined;
  const char* net_name = nullptr;
  int split_share = kNcclConfigUndefined;
  // Padding in 2.18, `trafficClass` since 2.27: undefined is right for both.
  int traffic_class = kNcclConfigUndefined;
};

// ncclComm_t and cudaStream_t are opaque pointers.
using NcclComm = void*;
using NcclStream = void*;

// The functions used, by their names in the library.
struct NcclFunctions {
  NcclResult (*GetVersion)(int* version) = nullptr;
  NcclResult (*GetUniqueId)(NcclUniqueId* id) = nullptr;
  NcclResult (*CommInitRankConfig)(NcclComm* comm, int ranks, NcclUniqueId id, int rank,
                                   NcclConfig* config) = nullptr;
  NcclResult (*CommGetAsyncError)(NcclComm comm, NcclResult* error) = nullptr;
  NcclResult (*CommFinalize)(NcclComm comm) = nullptr;
  NcclResult (*CommDestroy)(NcclComm comm) = nullptr;
  NcclResult (*CommAbort)(NcclComm comm) = nullptr;
  NcclResult (*GroupStart)() = nullptr;
  NcclResult (*GroupEnd)() = nullptr;
  NcclResult (*Send)(const void* buffer, size_t count, int type, int peer, NcclComm comm,
                     NcclStream stream) = nullptr;
  NcclResult (*Recv)(void* buffer, size_t count, int type, int peer, NcclComm comm,
                     NcclStream stream) = nullptr;
  const char* (*GetErrorString)(NcclResult result) = nullptr;
  const char* (*GetLastError)(NcclComm comm) = nullptr;
};

}  // namespace turbokv
