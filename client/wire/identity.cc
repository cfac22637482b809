#include "client/wire/identity.h"

#include <algorithm>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"

namespace turbokv {

absl::Status CheckIdentityName(absl::string_view what, absl::string_view name) {
  const bool characters_ok = std::all_of(name.begin(), name.end(), [](char c) {
    return absl::ascii_isalnum(static_cast<unsigned char>(c)) || c == '.' || c == '_' || c == '-';
  });
  if (characters_ok && !name.empty() && name.size() <= kMaxIdentityNameBytes) {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(
      absl::StrCat(what, " '", absl::CHexEscape(name.substr(0, 2 * kMaxIdentityNameBytes)),
                   "' is not 1..", kMaxIdentityNameBytes, " characters of [A-Za-z0-9._-]"));
}

}  // namespace turbokv
