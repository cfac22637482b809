#include "tests/unit/server/device/device_under_test.h"

#include <random>
#include <utility>

#include "kernels/cpu/codec.h"
#include "server/device/fake_device.h"
#ifdef TURBOKV_TEST_CUDA
#include "server/device/cuda_device.h"
#endif

namespace turbokv::testing {

#ifdef TURBOKV_TEST_CUDA
std::vector<DeviceKind> DeviceKinds() { return {DeviceKind::kFake, DeviceKind::kCuda}; }

absl::StatusOr<std::unique_ptr<Device>> OpenDevice(DeviceKind kind) {
  if (kind == DeviceKind::kFake) return std::make_unique<FakeDevice>();
  auto devices = OpenCudaDevices({0});
  if (!devices.ok()) return devices.status();
  return std::move((*devices)[0]);
}
#else
std::vector<DeviceKind> DeviceKinds() { return {DeviceKind::kFake}; }

absl::StatusOr<std::unique_ptr<Device>> OpenDevice(DeviceKind) {
  return std::make_unique<FakeDevice>();
}
#endif

void DeviceTest::SetUp() {
  auto device = OpenDevice(GetParam());
  if (!device.ok()) GTEST_SKIP() << "no such device here: " << device.status();
  device_ = *std::move(device);
  auto stream = device_->MakeStream();
  ASSERT_TRUE(stream.ok()) << stream.status();
  stream_ = *std::move(stream);
}

std::unique_ptr<Arena> DeviceTest::MakeArena(uint32_t slabs, size_t slab_bytes, bool shareable) {
  const size_t granularity = device_->slab_granularity_bytes();
  const size_t rounded_bytes = (slab_bytes + granularity - 1) / granularity * granularity;
  auto arena = device_->MakeArena(slabs * rounded_bytes, rounded_bytes, shareable);
  EXPECT_TRUE(arena.ok()) << arena.status();
  return arena.ok() ? *std::move(arena) : nullptr;
}

void DeviceTest::Upload(uint8_t* device, absl::Span<const uint8_t> bytes) {
  auto pinned = device_->AllocatePinned(bytes.size());
  ASSERT_TRUE(pinned.ok()) << pinned.status();
  std::copy(bytes.begin(), bytes.end(), (*pinned)->data());
  ASSERT_EQ(stream_->CopyToDevice(device, (*pinned)->data(), bytes.size()), absl::OkStatus());
  ASSERT_EQ(stream_->Wait(), absl::OkStatus());
}

std::vector<uint8_t> DeviceTest::Download(const uint8_t* device, size_t bytes) {
  auto pinned = device_->AllocatePinned(bytes);
  EXPECT_TRUE(pinned.ok()) << pinned.status();
  EXPECT_EQ(stream_->CopyToHost((*pinned)->data(), device, bytes), absl::OkStatus());
  EXPECT_EQ(stream_->Wait(), absl::OkStatus());
  return {(*pinned)->data(), (*pinned)->data() + bytes};
}

std::vector<uint8_t> CpuPage(const PageLayout& layout, const PageIdentity& identity,
                             const KvView& kv, int page) {
  const ptrdiff_t offset_bytes =
      kPageTokens * page * kv.token_stride * static_cast<ptrdiff_t>(ValueBytes(kv.type));
  KvView of_page = kv;
  of_page.k = static_cast<const uint8_t*>(kv.k) + offset_bytes;
  of_page.v = static_cast<const uint8_t*>(kv.v) + offset_bytes;
  of_page.tokens = kPageTokens;
  PageIdentity of_identity = identity;
  of_identity.first_token += uint64_t{kPageTokens} * static_cast<uint64_t>(page);
  std::vector<uint8_t> bytes(layout.page_bytes);
  EXPECT_EQ(cpu::EncodePage(layout, of_identity, of_page, absl::MakeSpan(bytes)), absl::OkStatus());
  return bytes;
}

std::vector<uint8_t> RandomBytes(size_t count, uint32_t seed) {
  std::mt19937 rng(seed);
  std::vector<uint8_t> bytes(count);
  for (uint8_t& byte : bytes) byte = static_cast<uint8_t>(rng());
  return bytes;
}

}  // namespace turbokv::testing
