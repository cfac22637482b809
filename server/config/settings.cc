#include "server/config/settings.h"

#include <algorithm>
#include <array>
#include <limits>
#include <type_traits>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "base/status_macros.h"

namespace turbokv {
namespace {

constexpr size_t kKiB = size_t{1} << 10;
constexpr size_t kMiB = size_t{1} << 20;
constexpr size_t kTiB = size_t{1} << 40;

struct ByteUnit {
  absl::string_view name;
  size_t bytes;
};
constexpr std::array<ByteUnit, 4> kByteUnits = {
    {{"TiB", kTiB}, {"GiB", size_t{1} << 30}, {"MiB", kMiB}, {"KiB", kKiB}}};

std::string ShowBytes(size_t bytes) {
  for (const ByteUnit& unit : kByteUnits) {
    if (bytes != 0 && bytes % unit.bytes == 0) return absl::StrCat(bytes / unit.bytes, unit.name);
  }
  return absl::StrCat(bytes);
}

absl::Status Bad(const std::string& text, absl::string_view expected) {
  return absl::InvalidArgumentError(absl::StrCat("'", text, "': expected ", expected));
}

template <auto kMember, size_t kMin, size_t kMax>
absl::Status SetBytes(const std::string& text, ServerConfig* config) {
  TURBOKV_ASSIGN_OR_RETURN(const size_t bytes, ParseByteSize(text));
  if (bytes < kMin || bytes > kMax) {
    return Bad(text, absl::StrCat("a size of ", ShowBytes(kMin), " to ", ShowBytes(kMax)));
  }
  config->*kMember = bytes;
  return absl::OkStatus();
}

constexpr int kMaxGpuPercent = 95;

absl::Status SetGpuMemory(const std::string& text, ServerConfig* config) {
  absl::string_view digits = text;
  GpuMemory memory;
  if (absl::ConsumeSuffix(&digits, "%")) {
    if (!absl::SimpleAtoi(digits, &memory.percent) || memory.percent < 1 ||
        memory.percent > kMaxGpuPercent) {
      return Bad(text, absl::StrCat("a share from 1% to ", kMaxGpuPercent, "%"));
    }
  } else {
    TURBOKV_ASSIGN_OR_RETURN(memory.bytes, ParseByteSize(text));
    if (memory.bytes != 0 && (memory.bytes < kMiB || memory.bytes > kTiB)) {
      return Bad(text, "0, a size of 1MiB to 1TiB, or a share such as 80%");
    }
  }
  config->gpu_memory = memory;
  return absl::OkStatus();
}

std::string ShowGpuMemory(const ServerConfig& config) {
  const GpuMemory& memory = config.gpu_memory;
  return memory.percent > 0 ? absl::StrCat(memory.percent, "%") : ShowBytes(memory.bytes);
}

constexpr int kMaxGpuIndex = 15;
constexpr absl::string_view kAllGpus = "all";

absl::Status SetGpus(const std::string& text, ServerConfig* config) {
  std::vector<int> indices;
  if (text != kAllGpus) {
    for (const absl::string_view part : absl::StrSplit(text, ',')) {
      int index = 0;
      if (!absl::SimpleAtoi(part, &index) || index < 0 || index > kMaxGpuIndex ||
          std::count(indices.begin(), indices.end(), index) > 0) {
        return Bad(text, absl::StrCat("all, or different numbers from 0 to ", kMaxGpuIndex,
                                      " such as 0,1"));
      }
      indices.push_back(index);
    }
  }
  config->gpus = std::move(indices);
  return absl::OkStatus();
}

std::string ShowGpus(const ServerConfig& config) {
  return config.gpus.empty() ? std::string(kAllGpus) : absl::StrJoin(config.gpus, ",");
}

// What fits sockaddr_un, its final zero included.
constexpr size_t kMaxSocketPathBytes = 107;

constexpr absl::string_view kNoSocket = "none";

absl::Status SetShareSocket(const std::string& text, ServerConfig* config) {
  const bool is_path = !text.empty() && text.front() == '/' && text.size() <= kMaxSocketPathBytes;
  if (text != kNoSocket && !is_path) {
    return Bad(
        text, absl::StrCat("none, or an absolute path of at most ", kMaxSocketPathBytes, " bytes"));
  }
  config->share_socket = is_path ? text : "";
  return absl::OkStatus();
}

std::string ShowShareSocket(const ServerConfig& config) {
  return config.share_socket.empty() ? std::string(kNoSocket) : config.share_socket;
}

absl::Status SetNccl(const std::string& text, ServerConfig* config) {
  if (text != "auto" && text != "off") return Bad(text, "auto or off");
  config->nccl = text == "auto";
  return absl::OkStatus();
}

std::string ShowNccl(const ServerConfig& config) { return config.nccl ? "auto" : "off"; }

constexpr size_t kMaxSlabBytes = size_t{64} << 30;
constexpr size_t kSlabMultipleBytes = 4096;

absl::Status SetSlabBytes(const std::string& text, ServerConfig* config) {
  TURBOKV_ASSIGN_OR_RETURN(const size_t bytes, ParseByteSize(text));
  if (bytes % kSlabMultipleBytes != 0 || bytes > kMaxSlabBytes) {
    return Bad(text, absl::StrCat("0, or a multiple of ", ShowBytes(kSlabMultipleBytes), " up to ",
                                  ShowBytes(kMaxSlabBytes)));
  }
  config->slab_bytes = bytes;
  return absl::OkStatus();
}

template <auto kMember, int kMin, int kMax>
absl::Status SetInt(const std::string& text, ServerConfig* config) {
  int value = 0;
  if (!absl::SimpleAtoi(text, &value) || value < kMin || value > kMax) {
    return Bad(text, absl::StrCat("a whole number from ", kMin, " to ", kMax));
  }
  config->*kMember = value;
  return absl::OkStatus();
}

template <auto kMember, int64_t kMinMs, int64_t kMaxMs>
absl::Status SetDuration(const std::string& text, ServerConfig* config) {
  absl::Duration value;
  if (!absl::ParseDuration(text, &value) || value < absl::Milliseconds(kMinMs) ||
      value > absl::Milliseconds(kMaxMs)) {
    return Bad(text, absl::StrCat("a duration such as 30s or 500ms, from ",
                                  absl::FormatDuration(absl::Milliseconds(kMinMs)), " to ",
                                  absl::FormatDuration(absl::Milliseconds(kMaxMs))));
  }
  config->*kMember = value;
  return absl::OkStatus();
}

absl::Status SetSampleRate(const std::string& text, ServerConfig* config) {
  double value = 0;
  if (!absl::SimpleAtod(text, &value) || !(value >= 0 && value <= 1)) {
    return Bad(text, "a number from 0 to 1");
  }
  config->distortion_sample_rate = value;
  return absl::OkStatus();
}

absl::Status SetLogLevel(const std::string& text, ServerConfig* config) {
  if (text != "debug" && text != "info" && text != "warning" && text != "error") {
    return Bad(text, "debug, info, warning or error");
  }
  config->log_level = text;
  return absl::OkStatus();
}

constexpr absl::string_view kAddressRange =
    "HOST:PORT with a port from 0 to 65535 (0: any free one)";

bool IsHostAndPort(absl::string_view text) {
  const size_t colon = text.rfind(':');
  if (colon == absl::string_view::npos || colon == 0) return false;
  const absl::string_view host = text.substr(0, colon);
  const absl::string_view port = text.substr(colon + 1);
  const bool bracketed = host.front() == '[' && host.back() == ']';
  if (!bracketed && host.find_first_of(":[], ") != absl::string_view::npos) return false;
  int number = -1;
  return !port.empty() && port.find_first_not_of("0123456789") == absl::string_view::npos &&
         absl::SimpleAtoi(port, &number) && number <= std::numeric_limits<uint16_t>::max();
}

absl::Status SetListen(const std::string& text, ServerConfig* config) {
  absl::string_view path = text;
  const bool is_unix = absl::ConsumePrefix(&path, "unix:") && !path.empty();
  if (!is_unix && !IsHostAndPort(text)) {
    return Bad(text, absl::StrCat(kAddressRange, ", or unix:PATH"));
  }
  config->listen = text;
  return absl::OkStatus();
}

absl::Status SetMetricsListen(const std::string& text, ServerConfig* config) {
  if (!IsHostAndPort(text)) return Bad(text, kAddressRange);
  config->metrics_listen = text;
  return absl::OkStatus();
}

template <auto kMember>
std::string Show(const ServerConfig& config) {
  const auto& value = config.*kMember;
  using Value = std::decay_t<decltype(value)>;
  if constexpr (std::is_same_v<Value, absl::Duration>) {
    return absl::FormatDuration(value);
  } else if constexpr (std::is_same_v<Value, size_t>) {
    return ShowBytes(value);
  } else {
    return absl::StrCat(value);
  }
}

constexpr int kMaxCalls = 65536;
constexpr int kMaxThreads = 1024;
constexpr int64_t kHourMs = 3'600'000;
using Config = ServerConfig;

constexpr std::array<Setting, 17> kSettings = {{
    {"listen", "ADDRESS", "`HOST:PORT` or `unix:PATH`",
     "Where clients connect. Port 0 takes any free port.", SetListen, Show<&Config::listen>},
    {"metrics_listen", "ADDRESS", "`HOST:PORT`",
     "Where Prometheus scrapes /metrics, by HTTP. Port 0 takes any free port.", SetMetricsListen,
     Show<&Config::metrics_listen>},
    {"memory", "SIZE", "1MiB to 64TiB",
     "Memory for cached pages; the index and the calls under way need a little more.",
     SetBytes<&Config::memory_bytes, kMiB, 64 * kTiB>, Show<&Config::memory_bytes>},
    {"slab_size", "SIZE", "0, or a multiple of 4KiB up to 64GiB, at most memory",
     "Memory is cut into slabs of this size; no block and no tail can be larger. 0 chooses a 32nd "
     "of memory within 1MiB to 128MiB.",
     SetSlabBytes, Show<&Config::slab_bytes>},
    {"gpu_memory", "SIZE", "0, 1MiB to 1TiB, or 1% to 95%",
     "Memory for cached pages on each GPU, as a size or a share of what the GPU has. 0 keeps all "
     "pages in host memory.",
     SetGpuMemory, ShowGpuMemory},
    {"gpus", "LIST", "`all`, or numbers such as `0,1`",
     "The GPUs whose memory holds pages, as CUDA counts them.", SetGpus, ShowGpus},
    {"share_socket", "PATH", "`none`, or an absolute path of at most 107 bytes",
     "Unix socket on which processes of this host get pages as shared memory, without "
     "copies.",
     SetShareSocket, ShowShareSocket},
    {"nccl", "MODE", "`auto` or `off`",
     "Channels between GPUs of the service and of workers: auto offers them where gpu_memory is "
     "set and NCCL is there.",
     SetNccl, ShowNccl},
    {"encode_threads", "COUNT", "0 to 1024", "Threads that encode pages. 0 starts one a core.",
     SetInt<&Config::encode_threads, 0, kMaxThreads>, Show<&Config::encode_threads>},
    {"max_concurrent_stores", "COUNT", "1 to 65536",
     "Store calls at a time; more are refused with RESOURCE_EXHAUSTED.",
     SetInt<&Config::max_concurrent_stores, 1, kMaxCalls>, Show<&Config::max_concurrent_stores>},
    {"max_concurrent_fetches", "COUNT", "1 to 65536",
     "Fetch calls at a time; more are refused with RESOURCE_EXHAUSTED.",
     SetInt<&Config::max_concurrent_fetches, 1, kMaxCalls>, Show<&Config::max_concurrent_fetches>},
    {"default_lease", "DURATION", "1ms to 24h, at most max_lease",
     "How long a lookup holds what it found when the client does not say.",
     SetDuration<&Config::default_lease, 1, 24 * kHourMs>, Show<&Config::default_lease>},
    {"max_lease", "DURATION", "1ms to 24h",
     "The longest lease; longer ones that clients ask for are cut to it.",
     SetDuration<&Config::max_lease, 1, 24 * kHourMs>, Show<&Config::max_lease>},
    {"drain_timeout", "DURATION", "0 to 1h",
     "After SIGTERM, how long calls under way may take to finish.",
     SetDuration<&Config::drain_timeout, 0, kHourMs>, Show<&Config::drain_timeout>},
    {"stall_timeout", "DURATION", "100ms to 1h",
     "A store that sends nothing, or a fetch whose client reads nothing, is ended after this long.",
     SetDuration<&Config::stall_timeout, 100, kHourMs>, Show<&Config::stall_timeout>},
    {"distortion_sample_rate", "SHARE", "0 to 1",
     "Share of encoded pages that are decoded again to measure the error made.", SetSampleRate,
     Show<&Config::distortion_sample_rate>},
    {"log_level", "LEVEL", "`debug`, `info`, `warning` or `error`",
     "The least severe log lines to print: debug, info, warning or error.", SetLogLevel,
     Show<&Config::log_level>},
}};

}  // namespace

std::string Setting::flag() const {
  return absl::StrCat("--", absl::StrReplaceAll(key, {{"_", "-"}}));
}

absl::Span<const Setting> AllSettings() { return kSettings; }

const Setting* FindSetting(absl::string_view key) {
  for (const Setting& setting : kSettings) {
    if (setting.key == key) return &setting;
  }
  return nullptr;
}

absl::StatusOr<size_t> ParseByteSize(const std::string& text) {
  constexpr absl::string_view kExpected = "a size such as 1073741824, 512MiB or 40GiB";
  absl::string_view digits = text;
  size_t unit_bytes = 1;
  for (const ByteUnit& unit : kByteUnits) {
    if (absl::ConsumeSuffix(&digits, unit.name)) {
      unit_bytes = unit.bytes;
      break;
    }
  }
  size_t count = 0;
  if (digits.empty() || digits.find_first_not_of("0123456789") != absl::string_view::npos ||
      !absl::SimpleAtoi(digits, &count) ||
      count > std::numeric_limits<size_t>::max() / unit_bytes) {
    return Bad(text, kExpected);
  }
  return count * unit_bytes;
}

}  // namespace turbokv
