// Our declarations against those of nccl.h; compiled where there is one.
#include "client/nccl/nccl_abi.h"

#include <nccl.h>

#include <type_traits>

#include "gtest/gtest.h"

namespace turbokv {
namespace {

static_assert(sizeof(NcclUniqueId) == sizeof(ncclUniqueId));
static_assert(alignof(NcclUniqueId) == alignof(ncclUniqueId));
static_assert(std::is_trivially_copyable_v<NcclUniqueId>);

static_assert(int{kNcclSuccess} == int{ncclSuccess});
static_assert(int{kNcclUnhandledCudaError} == int{ncclUnhandledCudaError});
static_assert(int{kNcclSystemError} == int{ncclSystemError});
static_assert(int{kNcclInternalError} == int{ncclInternalError});
static_assert(int{kNcclInvalidArgument} == int{ncclInvalidArgument});
static_assert(int{kNcclInvalidUsage} == int{ncclInvalidUsage});
static_assert(int{kNcclRemoteError} == int{ncclRemoteError});
static_assert(int{kNcclInProgress} == int{ncclInProgress});
static_assert(sizeof(NcclResult) == sizeof(ncclResult_t));
static_assert(kNcclUint8 == int{ncclUint8} && sizeof(ncclDataType_t) == sizeof(int));
static_assert(kNcclConfigUndefined == NCCL_CONFIG_UNDEF_INT);
static_assert(NCCL_VERSION_CODE >= kNcclMinimumVersion);
static_assert(kNcclMinimumVersion == NCCL_VERSION(2, 18, 0));

// What we give is a prefix of what the library knows.
static_assert(sizeof(NcclConfig) <= sizeof(ncclConfig_t));
#define TURBOKV_SAME_PLACE(ours, theirs)                                       \
  static_assert(offsetof(NcclConfig, ours) == offsetof(ncclConfig_t, theirs)); \
  static_assert(sizeof(NcclConfig::ours) == sizeof(ncclConfig_t::theirs))
TURBOKV_SAME_PLACE(size, size);
TURBOKV_SAME_PLACE(magic, magic);
TURBOKV_SAME_PLACE(version, version);
TURBOKV_SAME_PLACE(blocking, blocking);
TURBOKV_SAME_PLACE(cga_cluster_size, cgaClusterSize);
TURBOKV_SAME_PLACE(min_ctas, minCTAs);
TURBOKV_SAME_PLACE(max_ctas, maxCTAs);
TURBOKV_SAME_PLACE(net_name, netName);
TURBOKV_SAME_PLACE(split_share, splitShare);
#if NCCL_VERSION_CODE >= 22700
TURBOKV_SAME_PLACE(traffic_class, trafficClass);
#endif
#undef TURBOKV_SAME_PLACE

TEST(NcclAbiTest, InitialisesTheConfigAsTheHeaderDoes) {
  const ncclConfig_t theirs = NCCL_CONFIG_INITIALIZER;
  const NcclConfig ours;
  EXPECT_EQ(ours.size, sizeof(NcclConfig));
  EXPECT_EQ(ours.magic, theirs.magic);
  EXPECT_EQ(ours.blocking, theirs.blocking);
  EXPECT_EQ(ours.cga_cluster_size, theirs.cgaClusterSize);
  EXPECT_EQ(ours.min_ctas, theirs.minCTAs);
  EXPECT_EQ(ours.max_ctas, theirs.maxCTAs);
  EXPECT_EQ(ours.net_name, theirs.netName);
  EXPECT_EQ(ours.split_share, theirs.splitShare);
}

}  // namespace
}  // namespace turbokv
