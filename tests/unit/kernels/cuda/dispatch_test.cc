#include <string>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "jit_testing.h"
#include "kernels/cuda/dispatch/kernel_table.h"

namespace turbokv::cuda {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using testing::NvrtcTest;

constexpr KernelKey kPagesKey = {.operation = Operation::kAttentionPages,
                                 .k = Codec::kTurbo3,
                                 .v = Codec::kInt5,
                                 .head_dim = 128,
                                 .row_tiles = 1};
// What stands for kernels where none is launched.
constexpr int kCompiledAheadKernel = 0;
constexpr int kLoadedKernel = 0;
constexpr AotKernel kCompiledAhead[] = {
    {.key = {.k = Codec::kTurbo2, .v = Codec::kTurbo2, .head_dim = 128, .row_tiles = 1},
     .function = nullptr},
    {.key = kPagesKey, .function = &kCompiledAheadKernel},
};

absl::StatusOr<std::string> EmptySource(const KernelKey& key) {
  return absl::StrCat("// ", InstructionSetOf(key.arch), "\n",
                      "extern \"C\" __global__ void turbokv_kernel() {}\n");
}

absl::StatusOr<std::string> NoSource(const KernelKey&) {
  return absl::UnimplementedError("row_tiles is 7, not in 1..4");
}

std::string MessageOf(const absl::StatusOr<const void*>& kernel) {
  EXPECT_EQ(kernel.status().code(), absl::StatusCode::kUnimplemented) << kernel.status();
  return std::string(kernel.status().message());
}

// Compiles without a cache, and loads nothing.
JitConfig NoLoadConfig() {
  JitConfig config;
  config.cache_directory = "";
  config.load = [](const std::string&) -> absl::StatusOr<const void*> { return &kLoadedKernel; };
  return config;
}

TEST(DispatchArchTest, FollowsTheComputeCapability) {
  EXPECT_EQ(*GpuArchOfCapability(8, 0), GpuArch::kSm80);
  EXPECT_EQ(*GpuArchOfCapability(8, 6), GpuArch::kCompute80);
  EXPECT_EQ(*GpuArchOfCapability(8, 9), GpuArch::kCompute80);
  EXPECT_EQ(*GpuArchOfCapability(9, 0), GpuArch::kSm90a);
  EXPECT_EQ(*GpuArchOfCapability(10, 0), GpuArch::kCompute90);
  EXPECT_EQ(*GpuArchOfCapability(12, 1), GpuArch::kCompute90);
  const absl::StatusOr<GpuArch> turing = GpuArchOfCapability(7, 5);
  EXPECT_EQ(turing.status().code(), absl::StatusCode::kUnimplemented);
  EXPECT_THAT(std::string(turing.status().message()), AllOf(HasSubstr("7.5"), HasSubstr("8.0")));
}

TEST(DispatchKeyTest, IsReadable) {
  KernelKey key = kPagesKey;
  EXPECT_EQ(key.ToString(), "attention_pages k=turbo3 v=int5 head_dim=128 row_tiles=1");
  key.arch = GpuArch::kSm90a;
  EXPECT_EQ(key.ToString(), "attention_pages k=turbo3 v=int5 head_dim=128 row_tiles=1 sm_90a");
  key = {.operation = Operation::kEncode, .k = Codec::kQ8_0, .v = Codec::kQ8_0, .head_dim = 64};
  EXPECT_EQ(key.ToString(), "encode k=q8_0 v=q8_0 head_dim=64");
}

TEST(DispatchTableTest, FindsWhatWasCompiledAhead) {
  const KernelTable table(kCompiledAhead, nullptr);
  for (const GpuArch arch : {GpuArch::kSm80, GpuArch::kSm90a, GpuArch::kCompute80}) {
    const absl::StatusOr<const void*> kernel = table.Find(kPagesKey, arch);
    ASSERT_TRUE(kernel.ok()) << kernel.status();
    EXPECT_EQ(*kernel, &kCompiledAheadKernel);
  }
}

TEST(DispatchTableTest, NamesTheKernelThatIsMissing) {
  const KernelTable table(kCompiledAhead, nullptr);
  KernelKey operation = kPagesKey;
  operation.operation = Operation::kDequantize;
  KernelKey k = kPagesKey;
  k.k = Codec::kInt5;
  KernelKey v = kPagesKey;
  v.v = Codec::kTurbo3;
  KernelKey head_dim = kPagesKey;
  head_dim.head_dim = 64;
  KernelKey row_tiles = kPagesKey;
  row_tiles.row_tiles = 2;
  for (const KernelKey& key : {operation, k, v, head_dim, row_tiles}) {
    const std::string message = MessageOf(table.Find(key, GpuArch::kSm80));
    EXPECT_THAT(message,
                AllOf(HasSubstr(key.ToString() + " sm_80"), HasSubstr("not compiled ahead")));
  }
  // A fatbinary has nothing for the GPUs after Hopper.
  EXPECT_THAT(MessageOf(table.Find(kPagesKey, GpuArch::kCompute90)), HasSubstr("compute_90"));
}

TEST(DispatchTableTest, NamesTheCodecThatIsNotImplemented) {
  const KernelTable table(kCompiledAhead, &EmptySource);
  KernelKey key = kPagesKey;
  key.v = Codec::kTurbo3Tcq;
  EXPECT_EQ(MessageOf(table.Find(key, GpuArch::kSm90a)),
            "kernel attention_pages k=turbo3 v=turbo3_tcq head_dim=128 row_tiles=1 sm_90a: codec "
            "turbo3_tcq is not implemented");
}

TEST(DispatchTableTest, PassesOnWhatTheOperationSays) {
  const KernelTable table({}, &NoSource);
  EXPECT_EQ(MessageOf(table.Find(kPagesKey, GpuArch::kSm90a)),
            "kernel attention_pages k=turbo3 v=int5 head_dim=128 row_tiles=1 sm_90a: row_tiles is "
            "7, not in 1..4");
}

TEST(DispatchTableTest, NamesTheKernelThatCannotBeCompiledHere) {
  JitConfig config = NoLoadConfig();
  config.nvrtc_candidates = {"/absent/libnvrtc.so"};
  Jit jit(config);
  const KernelTable table({}, &EmptySource, &jit);
  EXPECT_THAT(MessageOf(table.Find(kPagesKey, GpuArch::kSm90a)),
              AllOf(HasSubstr("attention_pages k=turbo3 v=int5 head_dim=128 row_tiles=1 sm_90a"),
                    HasSubstr("install libnvrtc")));
}

using DispatchJitTest = NvrtcTest;

TEST_F(DispatchJitTest, CompilesWhatWasNotCompiledAhead) {
  Jit jit(NoLoadConfig());
  const KernelTable table(kCompiledAhead, &EmptySource, &jit);
  KernelKey key = kPagesKey;
  EXPECT_EQ(*table.Find(key, GpuArch::kSm90a), &kCompiledAheadKernel);
  EXPECT_EQ(*table.Find(key, GpuArch::kCompute90), &kLoadedKernel);
  key.row_tiles = 2;
  EXPECT_EQ(*table.Find(key, GpuArch::kSm90a), &kLoadedKernel);
}

}  // namespace
}  // namespace turbokv::cuda
