// What the tests of kernels compiled on first use share.
#pragma once

#include <stdlib.h>

#include <filesystem>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "gtest/gtest.h"
#include "kernels/cuda/dispatch/nvrtc.h"

namespace turbokv::cuda::testing {

// A directory of mode 0700 that goes with the object.
class PrivateDirectory {
 public:
  PrivateDirectory() {
    std::string pattern =
        (std::filesystem::temp_directory_path() / "turbokv-kernels-XXXXXX").string();
    EXPECT_NE(mkdtemp(pattern.data()), nullptr);
    path_ = pattern;
  }
  PrivateDirectory(const PrivateDirectory&) = delete;
  PrivateDirectory& operator=(const PrivateDirectory&) = delete;
  ~PrivateDirectory() { std::filesystem::remove_all(path_); }

  const std::string& path() const { return path_; }
  std::string path(const std::string& name) const { return path_ + "/" + name; }
  std::vector<std::string> Files() const {
    std::vector<std::string> names;
    for (const auto& entry : std::filesystem::directory_iterator(path_)) {
      names.push_back(entry.path().filename().string());
    }
    return names;
  }

 private:
  std::string path_;
};

// Tests that compile are skipped, with the reason, where there is no NVRTC.
class NvrtcTest : public ::testing::Test {
 protected:
  void SetUp() override {
    const absl::StatusOr<Nvrtc> nvrtc = Nvrtc::Open(NvrtcCandidates());
    if (!nvrtc.ok()) GTEST_SKIP() << "no NVRTC here: " << nvrtc.status().message();
  }
};

// A kernel that writes `value` times the thread's number, with the bytes reversed and back again.
inline constexpr char kScaleKernel[] = R"cuda(
#include "kernels/cuda/primitives/ptx.cuh"
using namespace turbokv::cuda;
extern "C" __global__ void turbokv_kernel(uint32_t* out, uint32_t value) {
  const uint32_t reversed = Permute(value * threadIdx.x, 0, 0x0123);
  out[threadIdx.x] = Permute(reversed, 0, 0x0123);
}
)cuda";

}  // namespace turbokv::cuda::testing
