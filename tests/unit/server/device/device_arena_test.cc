// Arenas of every kind of device: sizes, and slabs that another process maps.
#include <fcntl.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/unit/server/device/device_under_test.h"
#include "tests/unit/server/device/shared_slab_reader.h"

namespace turbokv {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

class DeviceArenaTest : public testing::DeviceTest {
 protected:
  void TearDown() override { stream_.reset(); }

  void Fill(Arena* arena, uint32_t slab, uint8_t value) {
    Upload(arena->base() + slab * arena->slab_bytes(),
           std::vector<uint8_t>(arena->slab_bytes(), value));
  }
};

// What another process finds in a shared slab, if all its bytes are alike; else -1. A fresh
// process: CUDA does not survive a fork.
int ValueInAnotherProcess(const SharedSlab& slab, size_t slab_bytes) {
  const int fd = dup(slab.fd);  // without close-on-exec
  std::string program = "/proc/self/exe";
  std::string filter = "--gtest_filter=SharedSlabReader.DISABLED_ReadsForAnotherProcess";
  std::string disabled = "--gtest_also_run_disabled_tests";
  char* arguments[] = {program.data(), filter.data(), disabled.data(), nullptr};
  setenv("TURBOKV_TEST_SLAB",
         absl::StrCat(static_cast<int>(slab.kind), " ", fd, " ", slab_bytes).c_str(), 1);
  pid_t child = 0;
  int result = -1;
  if (posix_spawn(&child, program.c_str(), nullptr, nullptr, arguments, environ) == 0) {
    waitpid(child, &result, 0);
  }
  close(fd);
  return WIFEXITED(result) ? WEXITSTATUS(result) - testing::kSlabReaderFirstExitCode : -1;
}

TEST_P(DeviceArenaTest, ChecksSizesAndMemory) {
  const size_t granularity = device_->slab_granularity_bytes();
  EXPECT_THAT(device_->MakeArena(4 * granularity, granularity / 2, false).status().message(),
              HasSubstr(absl::StrCat(granularity)));
  EXPECT_EQ(device_->MakeArena(granularity, 2 * granularity, false).status().code(),
            absl::StatusCode::kInvalidArgument);
  const size_t too_much = size_t{1} << 44;
  const absl::Status status = device_->MakeArena(too_much, size_t{1} << 36, false).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(status.message(), AllOf(HasSubstr(absl::StrCat(too_much)), HasSubstr("free"),
                                      HasSubstr(absl::StrCat(device_->info().total_bytes))));
  EXPECT_EQ(device_->health(), absl::OkStatus());
}

TEST_P(DeviceArenaTest, GivesAllOfTheBudget) {
  auto arena = MakeArena(3, 1, false);
  ASSERT_NE(arena, nullptr);
  EXPECT_EQ(arena->slab_count(), 3u);
  EXPECT_EQ(reinterpret_cast<uintptr_t>(arena->base()) % 128, 0u);
  const std::vector<uint8_t> bytes = testing::RandomBytes(3 * arena->slab_bytes(), 1);
  Upload(arena->base(), bytes);  // across slabs
  EXPECT_EQ(Download(arena->base(), bytes.size()), bytes);
  EXPECT_EQ(arena->Renew(1), absl::OkStatus());  // never shared: nothing to do
  EXPECT_EQ(Download(arena->base(), bytes.size()), bytes);
  EXPECT_EQ(arena->Share(0).status().code(), absl::StatusCode::kUnimplemented);
}

TEST_P(DeviceArenaTest, AnotherProcessReadsASharedSlab) {
  auto arena = MakeArena(3, 1, true);
  ASSERT_NE(arena, nullptr);
  for (uint32_t slab = 0; slab < 3; ++slab) Fill(arena.get(), slab, static_cast<uint8_t>(1 + slab));
  const absl::StatusOr<SharedSlab> shared = arena->Share(1);
  ASSERT_TRUE(shared.ok()) << shared.status();
  if (shared->fd < 0) GTEST_SKIP() << "this device shares by handles";
  EXPECT_EQ(fcntl(shared->fd, F_GETFD), FD_CLOEXEC);
  EXPECT_EQ(ValueInAnotherProcess(*shared, arena->slab_bytes()), 2);
  close(shared->fd);
}

TEST_P(DeviceArenaTest, ARenewedSlabIsOtherMemory) {
  auto arena = MakeArena(2, 1, true);
  ASSERT_NE(arena, nullptr);
  Fill(arena.get(), 0, 7);
  Fill(arena.get(), 1, 8);
  const absl::StatusOr<SharedSlab> before = arena->Share(1);
  ASSERT_TRUE(before.ok()) << before.status();
  if (before->fd < 0) GTEST_SKIP() << "this device shares by handles";
  ASSERT_EQ(arena->Renew(1), absl::OkStatus());
  Fill(arena.get(), 1, 9);
  const absl::StatusOr<SharedSlab> after = arena->Share(1);
  ASSERT_TRUE(after.ok()) << after.status();
  EXPECT_EQ(ValueInAnotherProcess(*before, arena->slab_bytes()), 8);
  EXPECT_EQ(ValueInAnotherProcess(*after, arena->slab_bytes()), 9);
  EXPECT_EQ(Download(arena->base(), 1)[0], 7);
  close(before->fd);
  close(after->fd);
}

// The other process.
TEST(SharedSlabReader, DISABLED_ReadsForAnotherProcess) {
  const char* const slab = std::getenv("TURBOKV_TEST_SLAB");
  if (slab == nullptr) GTEST_SKIP() << "only for DeviceArenaTest";
  std::_Exit(testing::kSlabReaderFirstExitCode + testing::ValueInSlab(slab));
}

TURBOKV_INSTANTIATE_DEVICE_TESTS(DeviceArenaTest);

}  // namespace
}  // namespace turbokv
