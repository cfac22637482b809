// Reading model files in JSON: every missing or mistyped field is an error that names file and
// field.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>

#include "absl/status/statusor.h"

namespace turbokv::examples {

// One JSON object and where it came from, for messages.
class JsonFields {
 public:
  JsonFields(const nlohmann::json* object, std::string where)
      : object_(object), where_(std::move(where)) {}

  bool Has(const std::string& name) const;  // present and not null
  absl::StatusOr<int64_t> Integer(const std::string& name, int64_t minimum, int64_t maximum) const;
  absl::StatusOr<double> Number(const std::string& name) const;
  absl::StatusOr<bool> BoolOr(const std::string& name, bool fallback) const;
  absl::StatusOr<std::string> StringOr(const std::string& name, const std::string& fallback) const;
  absl::StatusOr<JsonFields> Object(const std::string& name) const;
  // A value of any type.
  absl::StatusOr<const nlohmann::json*> Value(const std::string& name) const;

  const nlohmann::json& json() const { return *object_; }
  const std::string& where() const { return where_; }

 private:
  const nlohmann::json* object_;
  std::string where_;
};

// The whole file. NOT_FOUND names the path.
absl::StatusOr<std::string> ReadFile(const std::string& path);

// The JSON object in the file. INVALID_ARGUMENT: not JSON, or not an object.
absl::StatusOr<nlohmann::json> ReadJsonObject(const std::string& path);

}  // namespace turbokv::examples
