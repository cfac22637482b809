// The table of settings: flags and the YAML file are both read through it.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "server/config/config.h"

namespace turbokv {

struct Setting {
  absl::string_view key;         // in YAML; the flag is "--" and the key with '-' for '_'
  absl::string_view value_name;  // in help: "SIZE"
  absl::string_view range;       // what `set` accepts, in words
  absl::string_view help;
  // Parses and checks one value. INVALID_ARGUMENT: the value, what is expected, the limit.
  absl::Status (*set)(const std::string& text, ServerConfig* config);
  std::string (*show)(const ServerConfig& config);

  std::string flag() const;
};

absl::Span<const Setting> AllSettings();
// Null: there is none.
const Setting* FindSetting(absl::string_view key);

}  // namespace turbokv
