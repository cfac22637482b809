#include "examples/llama/json_fields.h"

#include <fstream>
#include <iterator>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "base/status_macros.h"

namespace turbokv::examples {
namespace {

absl::Status WrongType(const std::string& where, const std::string& name, const char* expected,
                       const nlohmann::json& value) {
  return absl::InvalidArgumentError(
      absl::StrCat(where, ": ", name, " is ", value.dump().substr(0, 60), ", expected ", expected));
}

}  // namespace

bool JsonFields::Has(const std::string& name) const {
  auto it = object_->find(name);
  return it != object_->end() && !it->is_null();
}

absl::StatusOr<const nlohmann::json*> JsonFields::Value(const std::string& name) const {
  if (!Has(name))
    return absl::InvalidArgumentError(absl::StrCat(where_, ": ", name, " is missing"));
  return &*object_->find(name);
}

absl::StatusOr<int64_t> JsonFields::Integer(const std::string& name, int64_t minimum,
                                            int64_t maximum) const {
  TURBOKV_ASSIGN_OR_RETURN(const nlohmann::json* value, Value(name));
  if (!value->is_number_integer()) return WrongType(where_, name, "an integer", *value);
  const bool fits = !value->is_number_unsigned() || value->get<uint64_t>() <= uint64_t{INT64_MAX};
  if (!fits || value->get<int64_t>() < minimum || value->get<int64_t>() > maximum) {
    return WrongType(where_, name, absl::StrCat(minimum, "..", maximum).c_str(), *value);
  }
  return value->get<int64_t>();
}

absl::StatusOr<double> JsonFields::Number(const std::string& name) const {
  TURBOKV_ASSIGN_OR_RETURN(const nlohmann::json* value, Value(name));
  if (!value->is_number()) return WrongType(where_, name, "a number", *value);
  return value->get<double>();
}

absl::StatusOr<bool> JsonFields::BoolOr(const std::string& name, bool fallback) const {
  if (!Has(name)) return fallback;
  TURBOKV_ASSIGN_OR_RETURN(const nlohmann::json* value, Value(name));
  if (!value->is_boolean()) return WrongType(where_, name, "true or false", *value);
  return value->get<bool>();
}

absl::StatusOr<std::string> JsonFields::StringOr(const std::string& name,
                                                 const std::string& fallback) const {
  if (!Has(name)) return fallback;
  TURBOKV_ASSIGN_OR_RETURN(const nlohmann::json* value, Value(name));
  if (!value->is_string()) return WrongType(where_, name, "a string", *value);
  return value->get<std::string>();
}

absl::StatusOr<JsonFields> JsonFields::Object(const std::string& name) const {
  TURBOKV_ASSIGN_OR_RETURN(const nlohmann::json* value, Value(name));
  if (!value->is_object()) return WrongType(where_, name, "an object", *value);
  return JsonFields(value, absl::StrCat(where_, ": ", name));
}

absl::StatusOr<std::string> ReadFile(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) return absl::NotFoundError(absl::StrCat(path, ": cannot be opened"));
  std::string text((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  if (file.bad()) return absl::DataLossError(absl::StrCat(path, ": cannot be read"));
  return text;
}

absl::StatusOr<nlohmann::json> ReadJsonObject(const std::string& path) {
  TURBOKV_ASSIGN_OR_RETURN(const std::string text, ReadFile(path));
  nlohmann::json json = nlohmann::json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!json.is_object()) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": not a JSON object (or cut short)"));
  }
  return json;
}

}  // namespace turbokv::examples
