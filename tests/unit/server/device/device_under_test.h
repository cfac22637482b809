// Tests that every kind of device must pass: the fake, and in builds with CUDA the first GPU.
#pragma once

#include <cstdint>
#include <memory>
#include <ostream>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "gtest/gtest.h"
#include "kernels/format/page_header.h"
#include "kernels/kv_view.h"
#include "server/device/device.h"

namespace turbokv::testing {

enum class DeviceKind { kFake, kCuda };
inline std::string NameOf(DeviceKind kind) { return kind == DeviceKind::kFake ? "fake" : "cuda"; }
inline void PrintTo(DeviceKind kind, std::ostream* out) { *out << NameOf(kind); }

// Those that this binary was built for.
std::vector<DeviceKind> DeviceKinds();
absl::StatusOr<std::unique_ptr<Device>> OpenDevice(DeviceKind kind);

// Skipped, with the reason, where there is no such device.
class DeviceTest : public ::testing::TestWithParam<DeviceKind> {
 protected:
  void SetUp() override;

  // `slabs` slabs of the smallest size that holds `slab_bytes`.
  std::unique_ptr<Arena> MakeArena(uint32_t slabs, size_t slab_bytes, bool shareable);
  void Upload(uint8_t* device, absl::Span<const uint8_t> bytes);
  std::vector<uint8_t> Download(const uint8_t* device, size_t bytes);

  std::unique_ptr<Device> device_;
  std::unique_ptr<DeviceStream> stream_;
};

// The page that the CPU's encoder writes of tokens 128 page .. of `kv`.
std::vector<uint8_t> CpuPage(const PageLayout& layout, const PageIdentity& identity,
                             const KvView& kv, int page);

std::vector<uint8_t> RandomBytes(size_t count, uint32_t seed);

}  // namespace turbokv::testing

// NOLINTNEXTLINE: a macro, as GoogleTest's are.
#define TURBOKV_INSTANTIATE_DEVICE_TESTS(suite)                               \
  INSTANTIATE_TEST_SUITE_P(                                                   \
      Devices, suite, ::testing::ValuesIn(::turbokv::testing::DeviceKinds()), \
      [](const auto& kind) { return ::turbokv::testing::NameOf(kind.param); })
