// Structured log lines on stderr:
//
//   2026-11-23T06:00:00.123Z INFO listening address=0.0.0.0:7070 pool_bytes=4294967296
//
// One write per line, so that lines of several threads do not mix. Values with spaces, quotes or
// control characters are quoted and escaped.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"

namespace turbokv {

enum class LogLevel : uint8_t { kDebug, kInfo, kWarning, kError };

// "debug", "info", "warning" or "error". INVALID_ARGUMENT lists them.
absl::Status SetLogLevel(absl::string_view name);
bool LogEnabled(LogLevel level);

struct LogField {
  absl::string_view key;
  std::string value;

  template <typename T>
  LogField(absl::string_view field_key, const T& field_value)
      : key(field_key), value(absl::StrCat(field_value)) {}
};

void Log(LogLevel level, absl::string_view message, std::initializer_list<LogField> fields = {});

inline void LogInfo(absl::string_view message, std::initializer_list<LogField> fields = {}) {
  Log(LogLevel::kInfo, message, fields);
}
inline void LogWarning(absl::string_view message, std::initializer_list<LogField> fields = {}) {
  Log(LogLevel::kWarning, message, fields);
}
inline void LogError(absl::string_view message, std::initializer_list<LogField> fields = {}) {
  Log(LogLevel::kError, message, fields);
}

// The line as Log writes it, without the time; for tests.
std::string FormatLogLine(LogLevel level, absl::string_view message,
                          std::initializer_list<LogField> fields);

}  // namespace turbokv
