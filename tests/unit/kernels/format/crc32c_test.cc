#include "kernels/format/crc32c.h"

#include <string>
#include <vector>

#include "gtest/gtest.h"

namespace turbokv {
namespace {

TEST(Crc32cTest, KnownVectors) {
  const std::string digits = "123456789";
  const std::vector<uint8_t> bytes(digits.begin(), digits.end());
  EXPECT_EQ(Crc32c(bytes), 0xe3069283u);
  EXPECT_EQ(Crc32c({}), 0u);
  EXPECT_EQ(Crc32c(std::vector<uint8_t>(32, 0x00)), 0x8a9136aau);  // RFC 3720, B.4
  EXPECT_EQ(Crc32c(std::vector<uint8_t>(32, 0xff)), 0x62a8ab43u);
}

TEST(Crc32cTest, ExtendingEqualsOneCall) {
  std::vector<uint8_t> bytes(1000);
  for (size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<uint8_t>(i * 31);
  const absl::Span<const uint8_t> all = bytes;
  for (size_t cut : {0, 1, 7, 64, 999, 1000}) {
    EXPECT_EQ(ExtendCrc32c(Crc32c(all.subspan(0, cut)), all.subspan(cut)), Crc32c(all));
  }
}

}  // namespace
}  // namespace turbokv
