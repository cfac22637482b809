#include "client/wire/bulk_message.h"

#include <algorithm>
#include <array>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "google/protobuf/io/coded_stream.h"
#include "google/protobuf/wire_format_lite.h"

namespace turbokv {
namespace {

using google::protobuf::internal::WireFormatLite;

constexpr int kDataField = 15;
constexpr uint8_t kDataTag = (kDataField << 3) | WireFormatLite::WIRETYPE_LENGTH_DELIMITED;
constexpr int kMaxVarintBytes = 10;

void ReleaseHolder(void* holder) { delete static_cast<std::shared_ptr<const void>*>(holder); }

absl::Status Malformed(absl::string_view reason) {
  return absl::InvalidArgumentError(absl::StrCat("malformed message: ", reason));
}

// A position in the bytes of a list of slices.
class SliceCursor {
 public:
  explicit SliceCursor(const std::vector<grpc::Slice>& slices) : slices_(slices) {
    for (const grpc::Slice& slice : slices) remaining_bytes_ += slice.size();
  }

  size_t remaining_bytes() const { return remaining_bytes_; }

  // Appends the bytes read to `raw`.
  absl::StatusOr<uint64_t> ReadVarint(std::string* raw) {
    uint64_t value = 0;
    for (int i = 0; i < kMaxVarintBytes; ++i) {
      if (remaining_bytes_ == 0) return Malformed("it ends inside a number");
      uint8_t byte = 0;
      Visit(1,
            [&](const grpc::Slice& slice, size_t begin, size_t) { byte = slice.begin()[begin]; });
      raw->push_back(static_cast<char>(byte));
      value |= static_cast<uint64_t>(byte & 0x7f) << (7 * i);
      if ((byte & 0x80) == 0) return value;
    }
    return Malformed("a number of more than 10 bytes");
  }

  // Precondition: bytes <= remaining_bytes().
  void CopyTo(uint64_t bytes, std::string* out) {
    Visit(bytes, [&](const grpc::Slice& slice, size_t begin, size_t end) {
      out->append(reinterpret_cast<const char*>(slice.begin()) + begin, end - begin);
    });
  }

  // Precondition: bytes <= remaining_bytes().
  std::vector<grpc::Slice> Share(uint64_t bytes) {
    std::vector<grpc::Slice> shared;
    Visit(bytes, [&](const grpc::Slice& slice, size_t begin, size_t end) {
      shared.push_back(slice.sub(begin, end));
    });
    return shared;
  }

 private:
  // Calls visit(slice, begin, end) for each part of the next `bytes` bytes, and moves past them.
  template <typename VisitFn>
  void Visit(uint64_t bytes, VisitFn visit) {
    remaining_bytes_ -= bytes;
    while (bytes > 0) {
      const grpc::Slice& slice = slices_[slice_index_];
      const size_t part = std::min<uint64_t>(bytes, slice.size() - offset_);
      if (part > 0) visit(slice, offset_, offset_ + part);
      offset_ += part;
      bytes -= part;
      if (offset_ == slice.size()) {
        ++slice_index_;
        offset_ = 0;
      }
    }
  }

  const std::vector<grpc::Slice>& slices_;
  size_t slice_index_ = 0;
  size_t offset_ = 0;
  size_t remaining_bytes_ = 0;
};

// Moves the value of a field that is not `data` to `raw`, which holds its tag already.
absl::Status CopyField(uint64_t wire_type, SliceCursor* cursor, std::string* raw) {
  uint64_t bytes = 0;
  switch (wire_type) {
    case WireFormatLite::WIRETYPE_VARINT:
      return cursor->ReadVarint(raw).status();
    case WireFormatLite::WIRETYPE_FIXED64:
      bytes = 8;
      break;
    case WireFormatLite::WIRETYPE_FIXED32:
      bytes = 4;
      break;
    case WireFormatLite::WIRETYPE_LENGTH_DELIMITED: {
      TURBOKV_ASSIGN_OR_RETURN(bytes, cursor->ReadVarint(raw));
      break;
    }
    default:
      return Malformed(absl::StrCat("wire type ", wire_type));
  }
  if (bytes > cursor->remaining_bytes()) {
    return Malformed(absl::StrCat("a field of ", bytes, " bytes, but only ",
                                  cursor->remaining_bytes(), " are left"));
  }
  cursor->CopyTo(bytes, raw);
  return absl::OkStatus();
}

}  // namespace

grpc::Slice BorrowedSlice(absl::Span<const uint8_t> bytes, std::shared_ptr<const void> holder) {
  return grpc::Slice(const_cast<uint8_t*>(bytes.data()), bytes.size(), &ReleaseHolder,
                     new std::shared_ptr<const void>(std::move(holder)));
}

grpc::ByteBuffer BuildBulkMessage(const google::protobuf::MessageLite& fields,
                                  absl::Span<const grpc::Slice> payload) {
  size_t payload_bytes = 0;
  for (const grpc::Slice& slice : payload) payload_bytes += slice.size();

  std::string head = fields.SerializeAsString();
  if (payload_bytes > 0) {
    std::array<uint8_t, 1 + kMaxVarintBytes> prefix;
    prefix[0] = kDataTag;
    const uint8_t* end =
        google::protobuf::io::CodedOutputStream::WriteVarint64ToArray(payload_bytes, &prefix[1]);
    head.append(reinterpret_cast<const char*>(prefix.data()), end - prefix.data());
  }
  std::vector<grpc::Slice> slices;
  slices.reserve(payload.size() + 1);
  slices.emplace_back(head);
  slices.insert(slices.end(), payload.begin(), payload.end());
  return grpc::ByteBuffer(slices.data(), slices.size());
}

absl::StatusOr<BulkPayload> ParseBulkMessage(const grpc::ByteBuffer& message,
                                             google::protobuf::MessageLite* fields) {
  std::vector<grpc::Slice> slices;
  if (!message.Dump(&slices).ok()) return Malformed("unreadable");
  SliceCursor cursor(slices);
  BulkPayload payload;
  std::string raw_fields;
  while (cursor.remaining_bytes() > 0) {
    std::string tag_bytes;
    TURBOKV_ASSIGN_OR_RETURN(const uint64_t tag, cursor.ReadVarint(&tag_bytes));
    if (tag != kDataTag) {
      raw_fields += tag_bytes;
      TURBOKV_RETURN_IF_ERROR(CopyField(tag & 7, &cursor, &raw_fields));
      continue;
    }
    std::string length_bytes;
    TURBOKV_ASSIGN_OR_RETURN(const uint64_t length, cursor.ReadVarint(&length_bytes));
    if (length > cursor.remaining_bytes()) {
      return Malformed(absl::StrCat("data of ", length, " bytes, but only ",
                                    cursor.remaining_bytes(), " are left"));
    }
    payload.slices_ = cursor.Share(length);  // the last one wins, as protobuf has it
    payload.size_bytes_ = length;
  }
  payload.pieces_.reserve(payload.slices_.size());
  for (const grpc::Slice& slice : payload.slices_) {
    payload.pieces_.emplace_back(slice.begin(), slice.size());
  }
  if (!fields->ParseFromString(raw_fields)) return Malformed("not a valid protobuf message");
  return payload;
}

}  // namespace turbokv
