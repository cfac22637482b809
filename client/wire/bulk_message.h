// Messages that carry bulk data, built and read without copying it.
//
// On the wire they are ordinary protobuf: a few small fields and `bytes data = 15`. Both ends
// handle them as grpc::ByteBuffer: a sender appends the tag and length of `data` to the serialized
// small fields and lets the payload follow as slices that reference its memory; a receiver cuts the
// payload out as references into what arrived. `data` may stand anywhere in a received message.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "google/protobuf/message_lite.h"
#include "grpcpp/support/byte_buffer.h"
#include "grpcpp/support/slice.h"

namespace turbokv {

// A slice over `bytes`, which stay valid while `holder` lives. The slice keeps a copy of it.
grpc::Slice BorrowedSlice(absl::Span<const uint8_t> bytes, std::shared_ptr<const void> holder);

// `fields` (whose `data` is empty) followed by `payload` as its `data`.
grpc::ByteBuffer BuildBulkMessage(const google::protobuf::MessageLite& fields,
                                  absl::Span<const grpc::Slice> payload);

// The `data` of a received message. Pieces point into the message's own memory, held by this.
class BulkPayload {
 public:
  absl::Span<const absl::Span<const uint8_t>> pieces() const { return pieces_; }
  size_t size_bytes() const { return size_bytes_; }

 private:
  friend absl::StatusOr<BulkPayload> ParseBulkMessage(const grpc::ByteBuffer& message,
                                                      google::protobuf::MessageLite* fields);

  std::vector<grpc::Slice> slices_;
  std::vector<absl::Span<const uint8_t>> pieces_;
  size_t size_bytes_ = 0;
};

// Parses everything but `data` into `fields`. Untrusted input: never reads past the message, and
// copies no more than the message without its `data`. INVALID_ARGUMENT says what is malformed.
absl::StatusOr<BulkPayload> ParseBulkMessage(const grpc::ByteBuffer& message,
                                             google::protobuf::MessageLite* fields);

}  // namespace turbokv
