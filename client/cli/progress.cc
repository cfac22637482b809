#include "client/cli/progress.h"

#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "client/cli/command.h"

namespace turbokv::cli {
namespace {

using Clock = std::chrono::steady_clock;

constexpr std::chrono::milliseconds kTerminalInterval{100};
constexpr std::chrono::milliseconds kLogInterval{1000};
constexpr int kBarWidth = 24;

std::string Bar(double share) {
  const int filled = static_cast<int>(std::clamp(share, 0.0, 1.0) * kBarWidth);
  return std::string(filled, '#') + std::string(kBarWidth - filled, '.');
}

std::string TimeText(double seconds) {
  const int64_t whole = static_cast<int64_t>(seconds + 0.5);
  if (whole >= 3600) {
    return absl::StrFormat("%d:%02d:%02d", whole / 3600, whole / 60 % 60, whole % 60);
  }
  return absl::StrFormat("%d:%02d", whole / 60, whole % 60);
}

}  // namespace

Progress::Progress(std::string label, Unit unit, int64_t total, bool always)
    : label_(std::move(label)),
      unit_(unit),
      total_(total),
      terminal_(isatty(STDERR_FILENO) == 1),
      enabled_(terminal_ || always),
      start_(Clock::now()),
      printed_(start_) {}

Progress::~Progress() {
  if (!enabled_) return;
  MutexLock lock(&mutex_);
  Print();
  if (terminal_) std::fputc('\n', stderr);
}

void Progress::Add(int64_t amount) {
  MutexLock lock(&mutex_);
  done_ += amount;
  const Clock::time_point now = Clock::now();
  if (!enabled_ || now - printed_ < (terminal_ ? kTerminalInterval : kLogInterval)) return;
  printed_ = now;
  Print();
}

std::string Progress::Amount(double amount) const {
  return unit_ == Unit::kBytes ? HumanBytes(amount) : absl::StrFormat("%.0f", amount);
}

void Progress::Print() {
  const double seconds = std::chrono::duration<double>(Clock::now() - start_).count();
  const double share = total_ > 0 ? static_cast<double>(done_) / total_ : 1.0;
  const double rate = seconds > 0 ? done_ / seconds : 0;
  std::string line = absl::StrCat(label_, " [", Bar(share), "] ", Amount(done_), " of ",
                                  Amount(total_), absl::StrFormat(" (%.0f %%)", 100 * share));
  if (rate > 0) absl::StrAppend(&line, "  ", Amount(rate), "/s");
  if (rate > 0 && done_ < total_) {
    absl::StrAppend(&line, "  ETA ", TimeText((total_ - done_) / rate));
  }
  // \033[K clears what a longer line left behind.
  std::fprintf(stderr, terminal_ ? "\r%s\033[K" : "%s\n", line.c_str());
  std::fflush(stderr);
}

}  // namespace turbokv::cli
