#include "base/logging.h"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cctype>

#include "absl/strings/escaping.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"

namespace turbokv {
namespace {

struct LevelName {
  absl::string_view setting;
  absl::string_view label;
};
constexpr std::array<LevelName, 4> kLevels = {
    {{"debug", "DEBUG"}, {"info", "INFO"}, {"warning", "WARNING"}, {"error", "ERROR"}}};

std::atomic<LogLevel> minimum_level{LogLevel::kInfo};

std::string Quoted(const std::string& value) {
  const bool plain = !value.empty() && std::all_of(value.begin(), value.end(), [](char c) {
    return std::isgraph(static_cast<unsigned char>(c)) && c != '"' && c != '\\';
  });
  return plain ? value : absl::StrCat("\"", absl::CHexEscape(value), "\"");
}

}  // namespace

absl::Status SetLogLevel(absl::string_view name) {
  for (size_t i = 0; i < kLevels.size(); ++i) {
    if (kLevels[i].setting == name) {
      minimum_level = static_cast<LogLevel>(i);
      return absl::OkStatus();
    }
  }
  return absl::InvalidArgumentError(
      absl::StrCat("log level '", name, "': expected debug, info, warning or error"));
}

bool LogEnabled(LogLevel level) { return level >= minimum_level; }

std::string FormatLogLine(LogLevel level, absl::string_view message,
                          std::initializer_list<LogField> fields) {
  std::string line = absl::StrCat(kLevels[static_cast<size_t>(level)].label, " ", message);
  for (const LogField& field : fields) {
    absl::StrAppend(&line, " ", field.key, "=", Quoted(field.value));
  }
  return line;
}

void Log(LogLevel level, absl::string_view message, std::initializer_list<LogField> fields) {
  if (!LogEnabled(level)) return;
  const std::string line =
      absl::StrCat(absl::FormatTime("%Y-%m-%dT%H:%M:%E3SZ", absl::Now(), absl::UTCTimeZone()), " ",
                   FormatLogLine(level, message, fields), "\n");
  // A log that cannot be written has nowhere to complain.
  [[maybe_unused]] const ssize_t written = write(STDERR_FILENO, line.data(), line.size());
}

}  // namespace turbokv
