#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <optional>
#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "jit_testing.h"
#include "kernels/cuda/dispatch/kernel_cache.h"

namespace turbokv::cuda {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using testing::PrivateDirectory;

constexpr size_t kHeaderBytes = 24;

std::string ReadFile(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

void WriteFile(const std::string& path, const std::string& bytes) {
  std::ofstream(path, std::ios::binary | std::ios::trunc) << bytes;
}

mode_t ModeOf(const std::string& path) {
  struct stat status {};
  EXPECT_EQ(stat(path.c_str(), &status), 0) << path;
  return status.st_mode & 07777;
}

// An image with zeros and other bytes that text has not.
std::string Image() {
  std::string image;
  for (int i = 0; i < 64; ++i) image.push_back(static_cast<char>(i * 36));
  return image;
}

TEST(JitCacheTest, GivesBackWhatWasWritten) {
  const PrivateDirectory directory;
  KernelCache cache(directory.path());
  EXPECT_EQ(cache.Read("a"), std::nullopt);
  cache.Write("a", Image());
  EXPECT_EQ(cache.Read("a"), Image());
  EXPECT_EQ(cache.Read("b"), std::nullopt);
  cache.Write("a", "newer");
  EXPECT_EQ(KernelCache(directory.path()).Read("a"), "newer");
  cache.Write("empty", "");
  EXPECT_EQ(cache.Read("empty"), "");
}

TEST(JitCacheTest, LeavesNothingButPrivateFiles) {
  const PrivateDirectory directory;
  KernelCache(directory.path()).Write("a", Image());
  EXPECT_THAT(directory.Files(), ElementsAre("a"));
  EXPECT_EQ(ModeOf(directory.path("a")), 0600u);
}

TEST(JitCacheTest, MakesPrivateDirectories) {
  const PrivateDirectory directory;
  KernelCache cache(directory.path("deep/er"));
  EXPECT_EQ(cache.Read("a"), std::nullopt);
  EXPECT_THAT(directory.Files(), IsEmpty()) << "reading makes nothing";
  cache.Write("a", Image());
  EXPECT_EQ(cache.Read("a"), Image());
  EXPECT_EQ(ModeOf(directory.path("deep")), 0700u);
  EXPECT_EQ(ModeOf(directory.path("deep/er")), 0700u);
}

TEST(JitCacheTest, DamagedFilesCountAsAbsent) {
  const PrivateDirectory directory;
  KernelCache cache(directory.path());
  cache.Write("a", Image());
  const std::string good = ReadFile(directory.path("a"));
  ASSERT_EQ(good.size(), kHeaderBytes + Image().size());
  // The last four bytes of the header are reserved.
  for (size_t i = 0; i < good.size(); i = i == kHeaderBytes - 5 ? kHeaderBytes : i + 1) {
    std::string damaged = good;
    damaged[i] = static_cast<char>(damaged[i] ^ 0x10);
    WriteFile(directory.path("a"), damaged);
    ASSERT_EQ(cache.Read("a"), std::nullopt) << "byte " << i;
  }
  for (size_t size = 0; size < good.size(); ++size) {
    WriteFile(directory.path("a"), good.substr(0, size));
    ASSERT_EQ(cache.Read("a"), std::nullopt) << "first " << size << " bytes";
  }
  WriteFile(directory.path("a"), good + "x");
  EXPECT_EQ(cache.Read("a"), std::nullopt);
  WriteFile(directory.path("a"), good);
  EXPECT_EQ(cache.Read("a"), Image());
}

TEST(JitCacheTest, DirectoryThatOthersMayWriteIsRefusedWithOneWarning) {
  for (const mode_t mode : {0770, 0702, 0777, 01777}) {
    const PrivateDirectory directory;
    KernelCache(directory.path()).Write("a", Image());
    ASSERT_EQ(chmod(directory.path().c_str(), mode), 0);
    KernelCache cache(directory.path());
    ::testing::internal::CaptureStderr();
    EXPECT_EQ(cache.Read("a"), std::nullopt);
    cache.Write("b", Image());
    cache.Write("c", Image());
    const std::string log = ::testing::internal::GetCapturedStderr();
    EXPECT_THAT(directory.Files(), ElementsAre("a"));
    EXPECT_THAT(log, HasSubstr("WARNING compiled kernels are not cached on disk"));
    EXPECT_THAT(log, HasSubstr("can be written by others"));
    EXPECT_EQ(std::count(log.begin(), log.end(), '\n'), 1) << log;
  }
}

TEST(JitCacheTest, DirectoryThatOthersMayReadIsUsed) {
  const PrivateDirectory directory;
  ASSERT_EQ(chmod(directory.path().c_str(), 0755), 0);
  KernelCache cache(directory.path());
  cache.Write("a", Image());
  EXPECT_EQ(cache.Read("a"), Image());
}

TEST(JitCacheTest, FileThatOthersMayWriteIsNotRead) {
  const PrivateDirectory directory;
  KernelCache cache(directory.path());
  cache.Write("a", Image());
  ASSERT_EQ(chmod(directory.path("a").c_str(), 0620), 0);
  EXPECT_EQ(cache.Read("a"), std::nullopt);
}

TEST(JitCacheTest, LinksAreNotFollowedToFiles) {
  const PrivateDirectory directory;
  KernelCache cache(directory.path());
  cache.Write("a", Image());
  std::filesystem::create_symlink("a", directory.path("b"));
  EXPECT_EQ(cache.Read("b"), std::nullopt);
  cache.Write("b", "own");
  EXPECT_EQ(cache.Read("a"), Image()) << "the link was replaced, not written through";
}

TEST(JitCacheTest, DirectoryOfAnotherUserIsRefused) {
  if (geteuid() != 0) GTEST_SKIP() << "only root can give a directory away";
  const PrivateDirectory directory;
  KernelCache(directory.path()).Write("a", Image());
  ASSERT_EQ(chown(directory.path().c_str(), 65534, 65534), 0);
  ::testing::internal::CaptureStderr();
  EXPECT_EQ(KernelCache(directory.path()).Read("a"), std::nullopt);
  EXPECT_THAT(::testing::internal::GetCapturedStderr(),
              HasSubstr("belongs to user 65534, not to user 0"));
}

TEST(JitCacheTest, DirectoryThatCannotBeMadeIsAWarning) {
  const PrivateDirectory directory;
  WriteFile(directory.path("file"), "");
  KernelCache cache(directory.path("file/under"));
  ::testing::internal::CaptureStderr();
  EXPECT_EQ(cache.Read("a"), std::nullopt);
  cache.Write("a", Image());
  const std::string log = ::testing::internal::GetCapturedStderr();
  EXPECT_THAT(log, HasSubstr("WARNING"));
  EXPECT_EQ(std::count(log.begin(), log.end(), '\n'), 1) << log;
}

TEST(JitCacheTest, WithoutADirectoryNothingIsCached) {
  KernelCache cache("");
  ::testing::internal::CaptureStderr();
  cache.Write("a", Image());
  EXPECT_EQ(cache.Read("a"), std::nullopt);
  EXPECT_EQ(::testing::internal::GetCapturedStderr(), "");
}

// Sets variables of the environment and puts them back.
class JitCacheEnvironmentTest : public ::testing::Test {
 protected:
  JitCacheEnvironmentTest() {
    for (Variable& variable : variables_) {
      if (const char* value = getenv(variable.name)) variable.value = value;
      unsetenv(variable.name);
    }
  }
  ~JitCacheEnvironmentTest() override {
    for (const Variable& variable : variables_) {
      unsetenv(variable.name);
      if (variable.value) setenv(variable.name, variable.value->c_str(), 1);
    }
  }

 private:
  struct Variable {
    const char* name;
    std::optional<std::string> value;
  };
  Variable variables_[3] = {{"TURBOKV_KERNEL_CACHE", {}}, {"XDG_CACHE_HOME", {}}, {"HOME", {}}};
};

TEST_F(JitCacheEnvironmentTest, NamesTheDirectory) {
  EXPECT_EQ(KernelCacheDirectory(), "");
  setenv("HOME", "/home/someone", 1);
  EXPECT_EQ(KernelCacheDirectory(), "/home/someone/.cache/turbokv");
  setenv("XDG_CACHE_HOME", "/var/cache/xdg", 1);
  EXPECT_EQ(KernelCacheDirectory(), "/var/cache/xdg/turbokv");
  setenv("TURBOKV_KERNEL_CACHE", "/fast/kernels", 1);
  EXPECT_EQ(KernelCacheDirectory(), "/fast/kernels");
  setenv("TURBOKV_KERNEL_CACHE", "", 1);
  EXPECT_EQ(KernelCacheDirectory(), "/var/cache/xdg/turbokv");
}

}  // namespace
}  // namespace turbokv::cuda
