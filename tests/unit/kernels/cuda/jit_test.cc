#include "kernels/cuda/dispatch/jit.h"

#include <algorithm>
#include <atomic>
#include <filesystem>
#include <fstream>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "jit_testing.h"
#include "kernels/cuda/dispatch/embedded_headers.h"

namespace turbokv::cuda {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using testing::kScaleKernel;
using testing::NvrtcTest;
using testing::PrivateDirectory;
using ::testing::SizeIs;
using ::testing::StartsWith;

using JitTest = NvrtcTest;

constexpr char kEmptyKernel[] = "extern \"C\" __global__ void turbokv_kernel() {}\n";
constexpr char kElfMagic[] = "\177ELF";

JitRequest RequestOf(const std::string& source, GpuArch arch = GpuArch::kSm90a) {
  return {.name = "a kernel", .source = source, .arch = arch};
}

JitConfig ConfigOf(const std::string& cache_directory) {
  JitConfig config;
  config.cache_directory = cache_directory;
  return config;
}

TEST_F(JitTest, MachineCodeForKnownDevicesAndPtxForOthers) {
  Jit jit(ConfigOf(""));
  for (const GpuArch arch :
       {GpuArch::kSm80, GpuArch::kSm90a, GpuArch::kCompute80, GpuArch::kCompute90}) {
    const absl::StatusOr<Jit::Image> image = jit.MakeImage(RequestOf(kScaleKernel, arch));
    ASSERT_TRUE(image.ok()) << GpuArchName(arch) << ": " << image.status();
    EXPECT_FALSE(image->from_cache);
    if (TakesPtx(arch)) {
      EXPECT_THAT(image->bytes,
                  AllOf(HasSubstr(absl::StrCat(".target sm_", InstructionSetOf(arch), "\n")),
                        HasSubstr(".entry turbokv_kernel(")));
      EXPECT_EQ(image->bytes.back(), '\0') << "the driver looks for the end";
    } else {
      EXPECT_THAT(image->bytes, StartsWith(kElfMagic));
    }
  }
}

TEST_F(JitTest, EveryDeviceHeaderCompilesAlone) {
  const absl::StatusOr<Nvrtc> nvrtc = Nvrtc::Open(NvrtcCandidates());
  ASSERT_TRUE(nvrtc.ok()) << nvrtc.status();
  for (const EmbeddedHeader& header : EmbeddedHeaders()) {
    const absl::StatusOr<std::string> image = nvrtc->Compile(
        absl::StrCat("#include <", header.path, ">\n", kEmptyKernel), GpuArch::kSm80);
    EXPECT_TRUE(image.ok()) << header.path << "\n" << image.status();
  }
}

// The stand-in for <cstdint>, and constants and functions of host and device headers in a kernel.
TEST_F(JitTest, DeviceCodeSeesTypesAndFormat) {
  const absl::StatusOr<Jit::Image> image = Jit(ConfigOf("")).MakeImage(RequestOf(R"cuda(
#include <cstdint>
#include "kernels/cuda/primitives/page_format.cuh"
static_assert(sizeof(int8_t) == 1 && sizeof(uint8_t) == 1 && sizeof(std::int16_t) == 2);
static_assert(sizeof(uint16_t) == 2 && sizeof(int32_t) == 4 && sizeof(std::uint32_t) == 4);
static_assert(sizeof(int64_t) == 8 && sizeof(uint64_t) == 8 && sizeof(uintptr_t) == 8);
static_assert(int8_t(-1) < 0 && uint8_t(-1) > 0 && int64_t(-1) < 0 && std::uint64_t(-1) > 0);
static_assert(turbokv::FactsOf(turbokv::Codec::kTurbo3).code_bits == 3);
extern "C" __global__ void turbokv_kernel(int* out) {
  const auto codec = static_cast<turbokv::Codec>(threadIdx.x);
  out[threadIdx.x] = turbokv::cuda::HalfBytes(codec, 128, true);
}
)cuda"));
  EXPECT_TRUE(image.ok()) << image.status();
}

TEST_F(JitTest, HopperInstructionsCompileOnlyForHopper) {
  const std::string source = R"cuda(
extern "C" __global__ void turbokv_kernel() { asm volatile("setmaxnreg.inc.sync.aligned.u32 64;"); }
)cuda";
  Jit jit(ConfigOf(""));
  EXPECT_TRUE(jit.MakeImage(RequestOf(source, GpuArch::kSm90a)).ok());
  EXPECT_FALSE(jit.MakeImage(RequestOf(source, GpuArch::kSm80)).ok());
}

TEST_F(JitTest, CompileErrorsAreInTheStatus) {
  const PrivateDirectory directory;
  const absl::StatusOr<Jit::Image> image =
      Jit(ConfigOf(directory.path())).MakeImage(RequestOf("#include \"absent.cuh\"\n"));
  EXPECT_EQ(image.status().code(), absl::StatusCode::kInternal);
  EXPECT_THAT(
      std::string(image.status().message()),
      AllOf(HasSubstr("NVRTC"), HasSubstr("turbokv_kernel.cu(1)"), HasSubstr("absent.cuh")));
  EXPECT_THAT(directory.Files(), IsEmpty()) << "failures are not cached";
}

TEST_F(JitTest, SecondProcessFindsTheImageOnDisk) {
  const PrivateDirectory directory;
  const absl::StatusOr<Jit::Image> first =
      Jit(ConfigOf(directory.path())).MakeImage(RequestOf(kScaleKernel));
  ASSERT_TRUE(first.ok()) << first.status();
  const absl::StatusOr<Jit::Image> second =
      Jit(ConfigOf(directory.path())).MakeImage(RequestOf(kScaleKernel));
  ASSERT_TRUE(second.ok()) << second.status();
  EXPECT_FALSE(first->from_cache);
  EXPECT_TRUE(second->from_cache);
  EXPECT_EQ(first->bytes, second->bytes);
}

TEST_F(JitTest, DamagedImageIsCompiledAgain) {
  const PrivateDirectory directory;
  Jit jit(ConfigOf(directory.path()));
  const absl::StatusOr<Jit::Image> first = jit.MakeImage(RequestOf(kScaleKernel));
  ASSERT_TRUE(first.ok()) << first.status();
  ASSERT_THAT(directory.Files(), SizeIs(1));
  const std::string file = directory.path(directory.Files()[0]);
  std::filesystem::resize_file(file, std::filesystem::file_size(file) - 1);
  const absl::StatusOr<Jit::Image> again = jit.MakeImage(RequestOf(kScaleKernel));
  ASSERT_TRUE(again.ok()) << again.status();
  EXPECT_FALSE(again->from_cache);
  EXPECT_EQ(again->bytes, first->bytes);
  EXPECT_TRUE(jit.MakeImage(RequestOf(kScaleKernel))->from_cache) << "and is whole again";
}

TEST_F(JitTest, WorksWithoutADirectory) {
  const PrivateDirectory directory;
  std::ofstream(directory.path("file")) << "";
  Jit jit(ConfigOf(directory.path("file/under")));
  for (int i = 0; i < 2; ++i) {
    const absl::StatusOr<Jit::Image> image = jit.MakeImage(RequestOf(kEmptyKernel));
    ASSERT_TRUE(image.ok()) << image.status();
    EXPECT_FALSE(image->from_cache);
  }
}

TEST_F(JitTest, NameInTheCacheDependsOnSourceAndArchitecture) {
  Jit jit(ConfigOf(""));
  const absl::StatusOr<std::string> name = jit.CacheName(RequestOf(kEmptyKernel));
  ASSERT_TRUE(name.ok()) << name.status();
  EXPECT_THAT(*name, ::testing::MatchesRegex("[0-9a-f]+\\.kernel"));
  EXPECT_THAT(*name, SizeIs(64 + 7));
  EXPECT_EQ(*name, *Jit(ConfigOf("")).CacheName(RequestOf(kEmptyKernel)));
  EXPECT_NE(*name, *jit.CacheName(RequestOf(kScaleKernel)));
  EXPECT_NE(*name, *jit.CacheName(RequestOf(kEmptyKernel, GpuArch::kSm80)));
  EXPECT_NE(*name, *jit.CacheName(RequestOf(kEmptyKernel, GpuArch::kCompute90)));
}

TEST_F(JitTest, OneThreadCompilesAndTheOthersWait) {
  const PrivateDirectory directory;
  std::atomic<int> loads = 0;
  const int loaded = 0;
  JitConfig config = ConfigOf(directory.path());
  config.load = [&](const std::string&) -> absl::StatusOr<const void*> {
    ++loads;
    return &loaded;
  };
  Jit jit(config);
  ::testing::internal::CaptureStderr();
  std::vector<std::thread> threads;
  std::atomic<int> found = 0;
  for (int i = 0; i < 8; ++i) {
    threads.emplace_back([&] {
      const absl::StatusOr<const void*> kernel = jit.Kernel(RequestOf(kScaleKernel));
      if (kernel.ok() && *kernel == &loaded) ++found;
    });
  }
  for (std::thread& thread : threads) thread.join();
  const std::string log = ::testing::internal::GetCapturedStderr();
  EXPECT_EQ(found, 8);
  EXPECT_EQ(loads, 1);
  EXPECT_EQ(std::count(log.begin(), log.end(), '\n'), 1) << log;
  EXPECT_THAT(
      log, AllOf(HasSubstr("INFO kernel was not compiled ahead"), HasSubstr("kernel=\"a kernel\""),
                 HasSubstr("cache=miss"), HasSubstr("ms=")));
}

// As several processes do: objects that know nothing of one another share a directory.
TEST_F(JitTest, ConcurrentCompilersOfOneKernelAllSucceed) {
  const PrivateDirectory directory;
  std::vector<std::thread> threads;
  std::atomic<int> succeeded = 0;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&] {
      Jit jit(ConfigOf(directory.path()));
      if (jit.MakeImage(RequestOf(kScaleKernel)).ok()) ++succeeded;
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(succeeded, 4);
  EXPECT_THAT(directory.Files(), SizeIs(1)) << "no temporary file is left";
  EXPECT_TRUE(Jit(ConfigOf(directory.path())).MakeImage(RequestOf(kScaleKernel))->from_cache);
}

TEST_F(JitTest, FailureToLoadIsNotRemembered) {
  int loads = 0;
  const int loaded = 0;
  JitConfig config = ConfigOf("");
  config.load = [&](const std::string& image) -> absl::StatusOr<const void*> {
    EXPECT_THAT(image, StartsWith(kElfMagic));
    if (++loads == 1) return absl::ResourceExhaustedError("once");
    return &loaded;
  };
  Jit jit(config);
  EXPECT_EQ(jit.Kernel(RequestOf(kEmptyKernel)).status(), absl::ResourceExhaustedError("once"));
  EXPECT_EQ(*jit.Kernel(RequestOf(kEmptyKernel)), &loaded);
  EXPECT_EQ(*jit.Kernel(RequestOf(kEmptyKernel)), &loaded);
  EXPECT_EQ(loads, 2);
}

TEST(JitWithoutNvrtcTest, SaysWhatToInstall) {
  JitConfig config = ConfigOf("");
  config.nvrtc_candidates = {"libnvrtc.so.0", "/absent/libnvrtc.so"};
  const absl::StatusOr<const void*> kernel = Jit(config).Kernel(RequestOf(kEmptyKernel));
  EXPECT_EQ(kernel.status().code(), absl::StatusCode::kUnimplemented);
  EXPECT_THAT(
      std::string(kernel.status().message()),
      AllOf(HasSubstr("tried libnvrtc.so.0, /absent/libnvrtc.so"),
            HasSubstr("install libnvrtc of CUDA 12 or later"), HasSubstr("LD_LIBRARY_PATH")));
}

TEST(JitWithoutNvrtcTest, AnotherLibraryIsNotMistakenForIt) {
  JitConfig config = ConfigOf("");
  config.nvrtc_candidates = {"libm.so.6"};
  const absl::StatusOr<const void*> kernel = Jit(config).Kernel(RequestOf(kEmptyKernel));
  EXPECT_EQ(kernel.status().code(), absl::StatusCode::kUnimplemented);
  EXPECT_THAT(std::string(kernel.status().message()), HasSubstr("libm.so.6 is not NVRTC"));
}

TEST(JitHeadersTest, AreTheFilesOfTheRepository) {
  if (!std::filesystem::exists(TURBOKV_SOURCE_DIR)) GTEST_SKIP() << "no sources here";
  bool found_ptx = false;
  for (const EmbeddedHeader& header : EmbeddedHeaders()) {
    const std::string path = std::string(header.path) == "cstdint"
                                 ? "kernels/cuda/dispatch/nvrtc_cstdint.cuh"
                                 : header.path;
    std::ifstream file(absl::StrCat(TURBOKV_SOURCE_DIR, "/", path), std::ios::binary);
    EXPECT_EQ(header.text, std::string(std::istreambuf_iterator<char>(file), {})) << path;
    found_ptx |= path == "kernels/cuda/primitives/ptx.cuh";
  }
  EXPECT_TRUE(found_ptx);
}

}  // namespace
}  // namespace turbokv::cuda
