#include "client/safetensors_header.h"

#include <algorithm>
#include <limits>
#include <nlohmann/json.hpp>
#include <optional>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "base/status_macros.h"

namespace turbokv {
namespace {

constexpr char kMetadataName[] = "__metadata__";
constexpr size_t kMaxQuotedBytes = 80;

std::optional<TensorType> TensorTypeFromName(const std::string& name) {
  for (TensorType type : {TensorType::kF32, TensorType::kF16, TensorType::kBf16, TensorType::kI32,
                          TensorType::kI64, TensorType::kU8}) {
    if (TensorTypeName(type) == name) return type;
  }
  return std::nullopt;
}

// Receives the JSON as events, so that nesting costs nothing, and nothing but the three levels of
// the format is ever stored. Every method returns false to stop the parser.
class HeaderHandler : public nlohmann::json_sax<nlohmann::json> {
 public:
  SafetensorsHeader& header() { return header_; }
  const std::string& error() const { return error_; }

  bool start_object(size_t) override {
    if (level_ == Level::kOutside) return Enter(Level::kFile);
    if (level_ != Level::kFile) return Unexpected("an object");
    seen_dtype_ = seen_shape_ = seen_offsets_ = false;
    return Enter(name_ == kMetadataName ? Level::kMetadata : Level::kTensor);
  }

  bool end_object() override {
    if (level_ == Level::kFile) return Enter(Level::kOutside);
    if (level_ == Level::kTensor) {
      if (!seen_dtype_) return Fail("dtype is missing");
      if (!seen_shape_) return Fail("shape is missing");
      if (!seen_offsets_) return Fail("data_offsets is missing");
      header_.tensors.emplace(name_, std::move(entry_));
      entry_ = {};
    }
    return Enter(Level::kFile);
  }

  bool key(string_t& key) override {
    if (level_ == Level::kFile) return TakeName(key);
    field_ = key;
    if (level_ == Level::kMetadata) {
      if (header_.metadata.count(key) > 0)
        return Fail(absl::StrCat(QuoteName(key), " is repeated"));
      return true;
    }
    bool* seen = key == "dtype"          ? &seen_dtype_
                 : key == "shape"        ? &seen_shape_
                 : key == "data_offsets" ? &seen_offsets_
                                         : nullptr;
    if (seen == nullptr) return Fail(absl::StrCat("unknown field ", QuoteName(key)));
    if (*seen) return Fail(absl::StrCat(key, " is repeated"));
    *seen = true;
    return true;
  }

  bool start_array(size_t) override {
    if (level_ != Level::kTensor || field_ == "dtype") return Unexpected("an array");
    numbers_.clear();
    return Enter(Level::kNumbers);
  }

  bool end_array() override {
    level_ = Level::kTensor;
    if (field_ == "shape") {
      entry_.shape = numbers_;
      return true;
    }
    if (numbers_.size() != 2) {
      return Fail(absl::StrCat("data_offsets has ", numbers_.size(), " numbers, not 2"));
    }
    entry_.begin_bytes = static_cast<uint64_t>(numbers_[0]);
    entry_.end_bytes = static_cast<uint64_t>(numbers_[1]);
    return true;
  }

  bool number_unsigned(number_unsigned_t value) override {
    if (level_ != Level::kNumbers) return Unexpected("a number");
    if (value > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) {
      return Fail(absl::StrCat(field_, " has ", value, ", more than 2^63 - 1"));
    }
    if (numbers_.size() == kMaxTensorDimensions) {
      return Fail(absl::StrCat(field_, " has more than ", kMaxTensorDimensions, " numbers"));
    }
    numbers_.push_back(static_cast<int64_t>(value));
    return true;
  }

  bool string(string_t& value) override {
    if (level_ == Level::kMetadata) {
      header_.metadata.emplace(field_, std::move(value));
      return true;
    }
    if (level_ != Level::kTensor || field_ != "dtype") return Unexpected("a string");
    const std::optional<TensorType> type = TensorTypeFromName(value);
    if (!type) {
      return Fail(absl::StrCat("dtype ", QuoteName(value),
                               " is not supported (F32, F16, BF16, I32, I64, U8 are)"));
    }
    entry_.type = *type;
    return true;
  }

  bool number_integer(number_integer_t value) override {
    return Unexpected(absl::StrCat("the negative number ", value));
  }
  bool number_float(number_float_t, const string_t& text) override {
    return Unexpected(absl::StrCat("the number ", QuoteName(text)));
  }
  bool null() override { return Unexpected("null"); }
  bool boolean(bool) override { return Unexpected("a boolean"); }
  bool binary(binary_t&) override { return Unexpected("binary data"); }

  bool parse_error(size_t position, const std::string&,
                   const nlohmann::detail::exception&) override {
    error_ = absl::StrCat("the header is not valid JSON at its byte ", position);
    return false;
  }

 private:
  enum class Level { kOutside, kFile, kMetadata, kTensor, kNumbers };

  bool Enter(Level level) {
    level_ = level;
    return true;
  }

  bool TakeName(const std::string& name) {
    const bool repeated = name == kMetadataName ? seen_metadata_ : header_.tensors.count(name) > 0;
    if (repeated) {
      error_ = absl::StrCat("the name ", QuoteName(name), " is repeated");
      return false;
    }
    if (name == kMetadataName) seen_metadata_ = true;
    name_ = name;
    field_.clear();
    return true;
  }

  bool Fail(const std::string& reason) {
    error_ = absl::StrCat("tensor ", QuoteName(name_), ": ", reason);
    return false;
  }

  bool Unexpected(const std::string& what) {
    error_ = absl::StrCat("the header holds ", what, " where the format has none");
    if (!name_.empty()) absl::StrAppend(&error_, ", in ", QuoteName(name_));
    return false;
  }

  SafetensorsHeader header_;
  std::string error_;
  Level level_ = Level::kOutside;
  std::string name_;
  std::string field_;
  std::vector<int64_t> numbers_;
  TensorEntry entry_;
  bool seen_metadata_ = false;
  bool seen_dtype_ = false;
  bool seen_shape_ = false;
  bool seen_offsets_ = false;
};

// Shape, type and extent of one tensor agree, and the extent is inside the data.
absl::Status CheckEntry(const TensorEntry& entry, uint64_t data_bytes) {
  if (entry.begin_bytes > entry.end_bytes) {
    return absl::InvalidArgumentError(absl::StrCat("data_offsets begin at ", entry.begin_bytes,
                                                   " and end before, at ", entry.end_bytes));
  }
  if (entry.end_bytes > data_bytes) {
    return absl::InvalidArgumentError(absl::StrCat("its data ends at byte ", entry.end_bytes,
                                                   " after the header, but the file "
                                                   "holds ",
                                                   data_bytes,
                                                   " there: it is truncated or damaged"));
  }
  TURBOKV_ASSIGN_OR_RETURN(const int64_t elements, ShapeElements(entry.shape));
  const uint64_t extent_bytes = entry.end_bytes - entry.begin_bytes;
  const uint64_t type_bytes = TensorTypeBytes(entry.type);
  if (extent_bytes % type_bytes != 0 ||
      extent_bytes / type_bytes != static_cast<uint64_t>(elements)) {
    return absl::InvalidArgumentError(absl::StrCat("its shape has ", elements, " elements of ",
                                                   type_bytes, " bytes, but its data_offsets span ",
                                                   extent_bytes, " bytes"));
  }
  return absl::OkStatus();
}

// The tensors follow each other without overlap or gap and end where the file ends.
absl::Status CheckCoverage(const SafetensorsHeader& header, uint64_t data_bytes) {
  using Named = std::pair<const std::string, TensorEntry>;
  std::vector<const Named*> ordered;
  ordered.reserve(header.tensors.size());
  for (const Named& named : header.tensors) ordered.push_back(&named);
  std::sort(ordered.begin(), ordered.end(), [](const Named* a, const Named* b) {
    return std::pair(a->second.begin_bytes, a->second.end_bytes) <
           std::pair(b->second.begin_bytes, b->second.end_bytes);
  });
  uint64_t covered_bytes = 0;
  const std::string* previous = nullptr;
  for (const Named* named : ordered) {
    const TensorEntry& entry = named->second;
    if (entry.begin_bytes < covered_bytes) {
      return absl::InvalidArgumentError(absl::StrCat("tensors ", QuoteName(*previous), " and ",
                                                     QuoteName(named->first), " overlap"));
    }
    if (entry.begin_bytes > covered_bytes) {
      return absl::InvalidArgumentError(
          absl::StrCat(entry.begin_bytes - covered_bytes, " bytes of data before tensor ",
                       QuoteName(named->first), " belong to no tensor"));
    }
    covered_bytes = entry.end_bytes;
    previous = &named->first;
  }
  if (covered_bytes != data_bytes) {
    return absl::InvalidArgumentError(absl::StrCat(
        data_bytes - covered_bytes, " bytes at the end of the file belong to no tensor"));
  }
  return absl::OkStatus();
}

}  // namespace

std::string QuoteName(const std::string& name) {
  std::string quoted = absl::Utf8SafeCHexEscape(name.substr(0, kMaxQuotedBytes));
  return absl::StrCat("\"", quoted, name.size() > kMaxQuotedBytes ? "...\"" : "\"");
}

absl::StatusOr<int64_t> ShapeElements(absl::Span<const int64_t> shape) {
  int64_t elements = 1;
  for (int64_t dimension : shape) {
    if (dimension < 0 || __builtin_mul_overflow(elements, dimension, &elements)) {
      return absl::InvalidArgumentError(
          "its shape has a negative dimension or more than 2^63 - 1 elements");
    }
  }
  return elements;
}

absl::StatusOr<SafetensorsHeader> ParseSafetensorsHeader(absl::Span<const uint8_t> json,
                                                         uint64_t data_bytes) {
  HeaderHandler handler;
  if (!nlohmann::json::sax_parse(json.begin(), json.end(), &handler)) {
    return absl::InvalidArgumentError(handler.error());
  }
  for (const auto& [name, entry] : handler.header().tensors) {
    if (absl::Status status = CheckEntry(entry, data_bytes); !status.ok()) {
      return absl::InvalidArgumentError(
          absl::StrCat("tensor ", QuoteName(name), ": ", status.message()));
    }
  }
  TURBOKV_RETURN_IF_ERROR(CheckCoverage(handler.header(), data_bytes));
  return std::move(handler.header());
}

}  // namespace turbokv
