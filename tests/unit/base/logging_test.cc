#include "base/logging.h"

#include "gtest/gtest.h"

namespace turbokv {
namespace {

TEST(LoggingTest, LinesAreKeysAndValues) {
  EXPECT_EQ(FormatLogLine(LogLevel::kInfo, "listening", {{"address", "0.0.0.0:7070"}, {"port", 7}}),
            "INFO listening address=0.0.0.0:7070 port=7");
}

TEST(LoggingTest, ValuesCannotForgeLines) {
  EXPECT_EQ(FormatLogLine(LogLevel::kError, "failed",
                          {{"reason", "a b"}, {"peer", "x\nERROR y=\"z\""}, {"empty", ""}}),
            "ERROR failed reason=\"a b\" peer=\"x\\nERROR y=\\\"z\\\"\" empty=\"\"");
}

TEST(LoggingTest, LevelsAreChosenByName) {
  EXPECT_TRUE(SetLogLevel("error").ok());
  EXPECT_FALSE(LogEnabled(LogLevel::kWarning));
  EXPECT_TRUE(LogEnabled(LogLevel::kError));
  EXPECT_EQ(SetLogLevel("loud").code(), absl::StatusCode::kInvalidArgument);
  EXPECT_TRUE(SetLogLevel("info").ok());
}

}  // namespace
}  // namespace turbokv
