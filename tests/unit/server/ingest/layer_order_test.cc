#include "server/ingest/layer_order.h"

#include "gtest/gtest.h"

namespace turbokv {
namespace {

TEST(LayerOrderTest, TakesLayersInOrderOnceEach) {
  LayerOrder order(3, "tokens");
  for (uint32_t layer = 0; layer < 3; ++layer) {
    ASSERT_TRUE(order.Enter(layer).ok());
    EXPECT_EQ(order.layer(), static_cast<int>(layer));
    EXPECT_EQ(order.position(), 0u);
    order.Advance(100, 300);
    ASSERT_TRUE(order.Enter(layer).ok());
    EXPECT_FALSE(order.CheckComplete().ok());
    order.Advance(200, 300);
  }
  EXPECT_TRUE(order.CheckComplete().ok());
}

TEST(LayerOrderTest, SaysWhatIsWrong) {
  LayerOrder order(3, "tokens");
  EXPECT_EQ(order.Enter(1).message(), "layer 0 missing: got 1 at the start");
  EXPECT_EQ(order.Enter(3).message(), "layer is 3; the spec has layers 0..2");
  EXPECT_EQ(order.Enter(0xffffffff).message(), "layer is 4294967295; the spec has layers 0..2");
  EXPECT_EQ(order.CheckComplete().message(), "layers 0..2 missing: the stream ended before them");
  ASSERT_TRUE(order.Enter(0).ok());
  order.Advance(100, 300);
  EXPECT_EQ(order.Enter(1).message(),
            "layer 0 incomplete: 100 of 300 tokens came before the next layer began");
  EXPECT_EQ(order.CheckComplete().message(),
            "layer 0 incomplete: 100 of 300 tokens came before the stream ended");
  order.Advance(200, 300);
  EXPECT_EQ(order.Enter(0).message(), "layer 0 repeated: it was complete");
  EXPECT_EQ(order.Enter(2).message(), "layer 1 missing: got 2 after 0");
  EXPECT_EQ(order.CheckComplete().message(), "layers 1..2 missing: the stream ended before them");
}

}  // namespace
}  // namespace turbokv
