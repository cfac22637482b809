#include <cuda_runtime_api.h>

#include <cstdint>
#include <string>
#include <vector>

#include "gpu.h"
#include "jit_testing.h"
#include "kernels/cuda/dispatch/jit.h"
#include "kernels/cuda/dispatch/kernel_table.h"

namespace turbokv::cuda {
namespace {

using testing::DeviceBuffer;
using testing::kScaleKernel;
using testing::PrivateDirectory;

constexpr uint32_t kThreads = 64;

class JitGpuTest : public testing::GpuTest {
 protected:
  void SetUp() override {
    GpuTest::SetUp();
    if (IsSkipped()) return;
    const absl::StatusOr<Nvrtc> nvrtc = Nvrtc::Open(NvrtcCandidates());
    if (!nvrtc.ok()) GTEST_SKIP() << "no NVRTC here: " << nvrtc.status().message();
  }
};

JitRequest ScaleRequest(GpuArch arch) {
  return {.name = "scale", .source = kScaleKernel, .arch = arch};
}

JitConfig ConfigOf(const PrivateDirectory& directory) {
  JitConfig config;
  config.cache_directory = directory.path();
  return config;
}

// Launches kScaleKernel, with more shared memory than a kernel may have by default, and looks at
// what it wrote.
void ExpectScales(const void* kernel, uint32_t value) {
  constexpr int kSharedBytes = 64 * 1024;
  ASSERT_EQ(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kSharedBytes),
            cudaSuccess);
  DeviceBuffer<uint32_t> out(kThreads);
  uint32_t* out_data = out.data();
  void* arguments[] = {&out_data, &value};
  cudaLaunchConfig_t config = {};
  config.gridDim = dim3(1);
  config.blockDim = dim3(kThreads);
  config.dynamicSmemBytes = kSharedBytes;
  ASSERT_EQ(cudaLaunchKernelExC(&config, kernel, arguments), cudaSuccess);
  ASSERT_EQ(cudaDeviceSynchronize(), cudaSuccess);
  const std::vector<uint32_t> values = out.Download();
  for (uint32_t i = 0; i < kThreads; ++i) ASSERT_EQ(values[i], i * value) << "thread " << i;
}

TEST_F(JitGpuTest, CompilesLaunchesAndLoadsFromDisk) {
  const absl::StatusOr<GpuArch> arch = GpuArchOfDevice(0);
  ASSERT_TRUE(arch.ok()) << arch.status();
  const PrivateDirectory directory;
  for (const bool from_cache : {false, true}) {
    Jit jit(ConfigOf(directory));
    const absl::StatusOr<Jit::Image> image = jit.MakeImage(ScaleRequest(*arch));
    ASSERT_TRUE(image.ok()) << image.status();
    EXPECT_EQ(image->from_cache, from_cache);
    const absl::StatusOr<const void*> kernel = jit.Kernel(ScaleRequest(*arch));
    ASSERT_TRUE(kernel.ok()) << kernel.status();
    ExpectScales(*kernel, 0x01020304);
    EXPECT_EQ(*jit.Kernel(ScaleRequest(*arch)), *kernel);
  }
}

// What GPUs take that no machine code is made for.
TEST_F(JitGpuTest, DriverTranslatesPtx) {
  const PrivateDirectory directory;
  Jit jit(ConfigOf(directory));
  const absl::StatusOr<const void*> kernel = jit.Kernel(ScaleRequest(GpuArch::kCompute80));
  ASSERT_TRUE(kernel.ok()) << kernel.status();
  ExpectScales(*kernel, 12345);
}

TEST_F(JitGpuTest, ImageWithoutTheKernelIsAnError) {
  const absl::StatusOr<GpuArch> arch = GpuArchOfDevice(0);
  ASSERT_TRUE(arch.ok()) << arch.status();
  const PrivateDirectory directory;
  Jit jit(ConfigOf(directory));
  const absl::StatusOr<const void*> kernel =
      jit.Kernel({.name = "other",
                  .source = "extern \"C\" __global__ void other_kernel() {}\n",
                  .arch = *arch});
  EXPECT_FALSE(kernel.ok());
}

TEST_F(JitGpuTest, TableAsksTheDevice) {
  const PrivateDirectory directory;
  Jit jit(ConfigOf(directory));
  const KernelTable table(
      {}, [](const KernelKey&) -> absl::StatusOr<std::string> { return kScaleKernel; }, &jit);
  const absl::StatusOr<const void*> kernel =
      table.Find({.k = Codec::kTurbo3, .v = Codec::kTurbo3, .head_dim = 128, .row_tiles = 1}, 0);
  ASSERT_TRUE(kernel.ok()) << kernel.status();
  ExpectScales(*kernel, 7);
  EXPECT_FALSE(table.Find({.k = Codec::kTurbo3, .v = Codec::kTurbo3}, 1 << 20).ok());
}

}  // namespace
}  // namespace turbokv::cuda
