// The client library as its users get it: installed, found by another project, run.
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/integration/cli/process.h"
#include "tests/unit/client/temp_dir.h"

namespace turbokv {
namespace {

constexpr char kSource[] = TURBOKV_SOURCE_DIR "/examples/out_of_tree";

class OutOfTreeTest : public ::testing::Test {
 protected:
  void RunCMake(std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), TURBOKV_CMAKE);
    const CommandResult result = RunCommand(arguments, dir_.Path(""));
    ASSERT_EQ(result.exit_code, 0) << result.out << result.err;
  }

  TempDir dir_;
};

TEST_F(OutOfTreeTest, BuildsAgainstAnInstalledTreeAndRuns) {
  const std::string prefix = dir_.Path("prefix");
  const std::string build = dir_.Path("build");
  RunCMake({"--install", TURBOKV_BUILD_DIR, "--component", "client", "--prefix", prefix});
  RunCMake({"-S", kSource, "-B", build, "-G", TURBOKV_GENERATOR,
            std::string("-DCMAKE_CXX_COMPILER=") + TURBOKV_COMPILER,
            std::string("-DCMAKE_CXX_FLAGS=") + TURBOKV_COMPILER_FLAGS,
            std::string("-DCMAKE_CXX_COMPILER_LAUNCHER=") + TURBOKV_LAUNCHER,
            "-DCMAKE_PREFIX_PATH=" + prefix});
  RunCMake({"--build", build});

  ServerProcess server(dir_.Path(""));
  const CommandResult result =
      RunCommand({build + "/store_and_fetch", server.address()}, dir_.Path(""));
  EXPECT_EQ(result.exit_code, 0) << result.err;
  EXPECT_EQ(result.out, "blocks=2 tokens=300\n");
}

}  // namespace
}  // namespace turbokv
