#include "kernels/cuda/copy/copy.h"

#include <algorithm>
#include <random>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/unit/kernels/cuda/gpu.h"

namespace turbokv::cuda {
namespace {

using testing::DeviceBuffer;
using ::testing::HasSubstr;

TEST(CopyArgumentsTest, NamesTheFieldThatIsWrong) {
  EXPECT_TRUE(CopyPages({}, nullptr).ok());
  EXPECT_THAT(CopyPages({nullptr, -1, 16}, nullptr).message(), HasSubstr("-1"));
  EXPECT_THAT(CopyPages({nullptr, 1, 16}, nullptr).message(), HasSubstr("copies"));
}

class CopyTest : public testing::GpuTest {
 protected:
  // Copies of these sizes, gathered in shuffled order; nothing else is written.
  static void ExpectGathered(const std::vector<size_t>& sizes) {
    size_t total_bytes = 0;
    for (size_t size : sizes) total_bytes += size;
    std::mt19937 rng(11);
    std::vector<uint8_t> bytes(total_bytes);
    for (uint8_t& byte : bytes) byte = static_cast<uint8_t>(rng());
    const DeviceBuffer<uint8_t> from(bytes);
    DeviceBuffer<uint8_t> to(total_bytes + 32);
    std::vector<size_t> begins(sizes.size());
    std::vector<size_t> order(sizes.size());
    for (size_t i = 0, begin = 0; i < sizes.size(); begin += sizes[i++]) {
      begins[i] = begin;
      order[i] = i;
    }
    std::shuffle(order.begin(), order.end(), rng);
    std::vector<uint8_t> expected(16, 0xff);
    std::vector<CopyDescriptor> copies;
    for (const size_t i : order) {
      copies.push_back({from.data() + begins[i], to.data() + expected.size(), sizes[i]});
      expected.insert(expected.end(), bytes.begin() + static_cast<ptrdiff_t>(begins[i]),
                      bytes.begin() + static_cast<ptrdiff_t>(begins[i] + sizes[i]));
    }
    expected.resize(expected.size() + 16, 0xff);
    const DeviceBuffer<CopyDescriptor> device_copies(copies);
    CopyArguments arguments;
    arguments.copies = device_copies.data();
    arguments.count = static_cast<int>(copies.size());
    arguments.largest_bytes = *std::max_element(sizes.begin(), sizes.end());
    const absl::Status status = CopyPages(arguments, nullptr);
    ASSERT_TRUE(status.ok()) << status;
    ASSERT_EQ(cudaDeviceSynchronize(), cudaSuccess);
    EXPECT_EQ(to.Download(), expected);
  }
};

TEST_F(CopyTest, GathersRangesOfAnySize) {
  ExpectGathered({16});
  ExpectGathered({16, 32, 16384, 16384 - 16, 16384 + 16, 100'000, 0, 48, 1'000'000});
  ExpectGathered({size_t{33} << 20, 16});  // more than all blocks take at once
}

TEST_F(CopyTest, GathersManyRanges) {
  std::vector<size_t> sizes;
  for (size_t i = 0; i < 70'000; ++i) sizes.push_back(16 * (i % 5));
  ExpectGathered(sizes);
}

}  // namespace
}  // namespace turbokv::cuda
