#include "client/wire/bulk_message.h"

#include <memory>
#include <random>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "turbokv/v1/cache.pb.h"

namespace turbokv {
namespace {

using ::testing::HasSubstr;

// `bytes` as a message that arrived in slices of `slice_bytes`.
grpc::ByteBuffer Arrived(const std::string& bytes, size_t slice_bytes) {
  std::vector<grpc::Slice> slices;
  for (size_t offset = 0; offset < bytes.size(); offset += slice_bytes) {
    slices.emplace_back(bytes.substr(offset, slice_bytes));
  }
  return grpc::ByteBuffer(slices.data(), slices.size());
}

std::string Flatten(const grpc::ByteBuffer& message) {
  grpc::Slice slice;
  EXPECT_TRUE(message.DumpToSingleSlice(&slice).ok());
  return std::string(reinterpret_cast<const char*>(slice.begin()), slice.size());
}

std::string Joined(const BulkPayload& payload) {
  std::string bytes;
  for (const auto piece : payload.pieces()) {
    bytes.append(reinterpret_cast<const char*>(piece.data()), piece.size());
  }
  return bytes;
}

v1::FetchResponse SampleFields() {
  v1::FetchResponse fields;
  fields.set_layer(3);
  fields.set_offset(1 << 20);
  fields.set_layer_bytes(uint64_t{1} << 40);
  return fields;
}

TEST(BulkMessageTest, IsTheMessageThatProtobufWrites) {
  v1::FetchResponse whole = SampleFields();
  whole.set_data(std::string(100'000, 'x'));
  const std::string payload(60'000, 'x');
  const grpc::Slice slices[] = {grpc::Slice(payload), grpc::Slice(payload.substr(20'000))};
  EXPECT_EQ(Flatten(BuildBulkMessage(SampleFields(), slices)), whole.SerializeAsString());
}

TEST(BulkMessageTest, WithoutPayloadThereIsNoDataField) {
  EXPECT_EQ(Flatten(BuildBulkMessage(SampleFields(), {})), SampleFields().SerializeAsString());
}

TEST(BulkMessageTest, BorrowedSliceHoldsItsOwnerUntilTheMessageGoes) {
  auto owner = std::make_shared<const std::string>(1000, 'y');
  const std::weak_ptr<const std::string> watch = owner;
  const auto* bytes = reinterpret_cast<const uint8_t*>(owner->data());
  grpc::Slice slice = BorrowedSlice({bytes, owner->size()}, owner);
  EXPECT_EQ(slice.begin(), bytes) << "not copied";
  grpc::ByteBuffer message = BuildBulkMessage(SampleFields(), {&slice, 1});
  owner.reset();
  slice = grpc::Slice();
  EXPECT_FALSE(watch.expired());
  message.Clear();
  EXPECT_TRUE(watch.expired());
}

TEST(BulkMessageTest, ReadsDataInAnyPositionAndAnySlices) {
  const std::string head = SampleFields().SerializeAsString();
  v1::FetchResponse only_data;
  only_data.set_data(std::string(5'000, 'z') + "end");
  const std::string data = only_data.SerializeAsString();
  for (const std::string& bytes : {head + data, data + head, head.substr(0, 2) + data + head}) {
    for (const size_t slice_bytes : {1, 7, 4096, 1 << 20}) {
      v1::FetchResponse fields;
      const auto payload = ParseBulkMessage(Arrived(bytes, slice_bytes), &fields);
      ASSERT_TRUE(payload.ok()) << payload.status();
      EXPECT_EQ(Joined(*payload), only_data.data());
      EXPECT_EQ(payload->size_bytes(), only_data.data().size());
      EXPECT_EQ(fields.SerializeAsString(), head);
    }
  }
}

TEST(BulkMessageTest, LastDataFieldWins) {
  v1::FetchResponse first, second, fields;
  first.set_data("first");
  second.set_data("second");
  const auto payload =
      ParseBulkMessage(Arrived(first.SerializeAsString() + second.SerializeAsString(), 3), &fields);
  ASSERT_TRUE(payload.ok());
  EXPECT_EQ(Joined(*payload), "second");
}

TEST(BulkMessageTest, LengthsAreNeverTrusted) {
  const auto error_of = [](const std::string& bytes) {
    v1::FetchResponse fields;
    const auto payload = ParseBulkMessage(Arrived(bytes, 4), &fields);
    EXPECT_EQ(payload.status().code(), absl::StatusCode::kInvalidArgument) << bytes.size();
    return std::string(payload.status().message());
  };
  EXPECT_THAT(error_of("\x7a\xff\xff\xff\xff\xff\xff\xff\xff\x7f"
                       "abc"),
              HasSubstr("data of 9223372036854775807 bytes, but only 3 are left"));
  EXPECT_THAT(error_of("\x7a\x05"
                       "abc"),
              HasSubstr("data of 5 bytes, but only 3"));
  EXPECT_THAT(error_of("\x0a\x05"
                       "abc"),
              HasSubstr("a field of 5 bytes, but only 3"));
  EXPECT_THAT(error_of("\x09"
                       "abc"),
              HasSubstr("a field of 8 bytes, but only 3"));
  EXPECT_THAT(error_of("\x7a\x80"), HasSubstr("ends inside a number"));
  EXPECT_THAT(error_of(absl::StrCat("\x08", std::string(11, '\x80'))),
              HasSubstr("more than 10 bytes"));
  EXPECT_THAT(error_of("\x7b"
                       "abc"),
              HasSubstr("wire type 3"));
  EXPECT_THAT(error_of(std::string("\x00\x00", 2)), HasSubstr("not a valid protobuf message"));
}

// Whatever arrives: what is accepted is what protobuf reads.
TEST(BulkMessageTest, AgreesWithProtobufOnRandomBytes) {
  std::mt19937 random(42);
  v1::FetchResponse sample = SampleFields();
  sample.set_data("payload");
  int accepted = 0;
  for (int i = 0; i < 20'000; ++i) {
    std::string bytes = sample.SerializeAsString();
    for (uint32_t flips = random() % 4; flips > 0; --flips) {
      bytes[random() % bytes.size()] = static_cast<char>(random());
    }
    bytes.resize(random() % 8 == 0 ? random() % (bytes.size() + 1) : bytes.size());
    v1::FetchResponse fields, expected;
    const auto payload = ParseBulkMessage(Arrived(bytes, 1 + random() % 9), &fields);
    if (!payload.ok()) continue;
    ++accepted;
    ASSERT_TRUE(expected.ParseFromString(bytes)) << i;
    EXPECT_EQ(Joined(*payload), expected.data()) << i;
    expected.clear_data();
    EXPECT_EQ(fields.SerializeAsString(), expected.SerializeAsString()) << i;
  }
  EXPECT_GT(accepted, 5'000);
}

}  // namespace
}  // namespace turbokv
