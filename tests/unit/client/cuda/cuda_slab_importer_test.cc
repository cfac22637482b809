// What the importer refuses; mapping is cuda_in_place_test.cc's.
#include "client/cuda/cuda_slab_importer.h"

#include <sys/mman.h>
#include <unistd.h>

#include "client/share/unique_fd.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/unit/kernels/cuda/gpu.h"

namespace turbokv::testing {
namespace {

using ::testing::HasSubstr;

constexpr SlabGeometry kGeometry = {.slab_bytes = size_t{2} << 20, .slab_count = 4};

TEST(CudaSlabImporterTest, SaysWhyThereIsNone) {
  if (cuda::testing::WhyNoGpu().empty()) GTEST_SKIP() << "there is a GPU";
  EXPECT_EQ(MakeCudaSlabImporter(kGeometry).status().code(), absl::StatusCode::kUnavailable)
      << MakeCudaSlabImporter(kGeometry).status();
}

TEST(CudaSlabImporterTest, ChecksTheGeometryFirst) {
  EXPECT_THAT(MakeCudaSlabImporter({0, 1}).status().message(), HasSubstr("slabs of 0 bytes"));
}

using CudaSlabImporterGpuTest = cuda::testing::GpuTest;

TEST_F(CudaSlabImporterGpuTest, RefusesWhatIsNoGpuMemory) {
  auto importer = MakeCudaSlabImporter(kGeometry);
  ASSERT_TRUE(importer.ok()) << importer.status();
  EXPECT_TRUE((*importer)->read_only());
  SharedSlab slab;
  for (const ShareKind kind : {ShareKind::kNone, ShareKind::kMemfd, ShareKind::kFakeFd}) {
    slab.kind = kind;
    const absl::Status status = (*importer)->Import(slab, 0);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
    EXPECT_THAT(status.message(), HasSubstr("cannot be mapped as GPU memory"));
  }
  slab.kind = ShareKind::kCudaFd;
  EXPECT_THAT((*importer)->Import(slab, 0).message(), HasSubstr("without a descriptor"));
  const UniqueFd file(memfd_create("not a GPU's", MFD_CLOEXEC));
  ASSERT_EQ(ftruncate(file.get(), static_cast<off_t>(kGeometry.slab_bytes)), 0);
  slab.fd = file.get();
  EXPECT_EQ((*importer)->Import(slab, 0).code(), absl::StatusCode::kInvalidArgument);
  slab.kind = ShareKind::kCudaIpc;  // of zeros
  EXPECT_EQ((*importer)->Import(slab, 0).code(), absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace turbokv::testing
