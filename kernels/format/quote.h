// Untrusted text inside an error message.
#pragma once

#include <string>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"

namespace turbokv {

// `text` in quotes, escaped, and cut after 64 bytes so that a message stays one line.
inline std::string QuoteForMessage(absl::string_view text) {
  constexpr size_t kShownBytes = 64;
  return absl::StrCat("\"", absl::CEscape(text.substr(0, kShownBytes)), "\"",
                      text.size() > kShownBytes ? "..." : "");
}

}  // namespace turbokv
