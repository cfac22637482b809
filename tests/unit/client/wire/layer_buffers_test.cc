#include "client/wire/layer_buffers.h"

#include <cstring>

#include "gtest/gtest.h"

namespace turbokv {
namespace {

TEST(LayerBuffersTest, UsesReturnedMemoryAgain) {
  const auto buffers = std::make_shared<LayerBuffers>();
  for (const size_t bytes : {size_t{1000}, size_t{5} << 20}) {
    std::shared_ptr<uint8_t> first = buffers->Get(bytes);
    EXPECT_EQ(reinterpret_cast<uintptr_t>(first.get()) % 128, 0u);
    std::memset(first.get(), 1, bytes);
    uint8_t* const address = first.get();
    std::shared_ptr<uint8_t> second = buffers->Get(bytes);
    EXPECT_NE(second.get(), address) << "still held";
    first.reset();
    EXPECT_EQ(buffers->Get(bytes).get(), address);
  }
}

TEST(LayerBuffersTest, BuffersOutliveTheirOwner) {
  auto buffers = std::make_shared<LayerBuffers>();
  const std::shared_ptr<uint8_t> buffer = buffers->Get(4096);
  buffers.reset();
  std::memset(buffer.get(), 1, 4096);
}

}  // namespace
}  // namespace turbokv
