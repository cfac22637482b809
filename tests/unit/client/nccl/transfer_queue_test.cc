#include "client/nccl/transfer_queue.h"

#include "absl/time/time.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace turbokv {
namespace {

using ::testing::HasSubstr;

const absl::Time kStart = absl::UnixEpoch();

NcclTransfer Transfer(uint64_t sequence) {
  static uint8_t byte = 0;
  NcclTransfer transfer;
  transfer.sequence = sequence;
  transfer.pieces = {{&byte, 1}};
  return transfer;
}

TEST(TransferQueueTest, GivesTransfersOutInOrder) {
  TransferQueue queue;
  for (uint64_t sequence : {2, 1, 0, 4}) EXPECT_TRUE(queue.Add(Transfer(sequence), kStart).ok());
  for (uint64_t expected : {0, 1, 2}) EXPECT_EQ(queue.Next(kStart)->sequence, expected);
  EXPECT_FALSE(queue.Next(kStart));
  EXPECT_EQ(queue.NextFree(), 5u);
  EXPECT_FALSE(queue.empty());
}

TEST(TransferQueueTest, KnowsSinceWhenANumberIsMissing) {
  TransferQueue queue;
  EXPECT_FALSE(queue.gap_since());
  EXPECT_TRUE(queue.Add(Transfer(1), kStart).ok());
  EXPECT_TRUE(queue.Add(Transfer(3), kStart + absl::Seconds(1)).ok());
  EXPECT_EQ(queue.gap_since(), kStart);
  EXPECT_THAT(queue.DescribeGap(), HasSubstr("transfer 0 is missing; 2 later ones"));
  EXPECT_TRUE(queue.Add(Transfer(0), kStart + absl::Seconds(2)).ok());
  EXPECT_FALSE(queue.gap_since());
  queue.Next(kStart + absl::Seconds(3));
  queue.Next(kStart + absl::Seconds(4));
  EXPECT_EQ(queue.gap_since(), kStart + absl::Seconds(4));
}

TEST(TransferQueueTest, RefusesNumbersThatWereUsed) {
  TransferQueue queue;
  EXPECT_TRUE(queue.Add(Transfer(0), kStart).ok());
  EXPECT_EQ(queue.Add(Transfer(0), kStart).code(), absl::StatusCode::kAlreadyExists);
  queue.Next(kStart);
  EXPECT_EQ(queue.Add(Transfer(0), kStart).code(), absl::StatusCode::kAlreadyExists);
}

TEST(TransferQueueTest, RefusesWhatIsTooMuch) {
  TransferQueue queue;
  NcclTransfer transfer = Transfer(0);
  transfer.pieces.resize(kMaxTransferPieces + 1, transfer.pieces[0]);
  const absl::Status status = queue.Add(transfer, kStart);
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr("4097 pieces"));
  for (size_t i = 0; i < kMaxQueuedTransfers; ++i) {
    ASSERT_TRUE(queue.Add(Transfer(i), kStart).ok());
  }
  EXPECT_EQ(queue.Add(Transfer(kMaxQueuedTransfers), kStart).code(),
            absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(queue.TakeAll().size(), kMaxQueuedTransfers);
}

TEST(TransferQueueTest, RefusesPiecesWithoutMemory) {
  TransferQueue queue;
  NcclTransfer transfer = Transfer(0);
  transfer.pieces.push_back({nullptr, 5});
  const absl::Status status = queue.Add(transfer, kStart);
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr("piece 1 has 5 bytes at 0"));
  transfer.pieces[1] = {transfer.pieces[0].device, 0};
  EXPECT_EQ(queue.Add(transfer, kStart).code(), absl::StatusCode::kInvalidArgument);
  transfer.pieces.clear();
  EXPECT_TRUE(queue.Add(transfer, kStart).ok());  // a number given up
}

}  // namespace
}  // namespace turbokv
