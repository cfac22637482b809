// Settings of turbokvd: defaults, then a YAML file, then flags. docs/configuration.md lists them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"

namespace turbokv {

// Of each GPU: a number of bytes, or a share of what it has. Both 0: none.
struct GpuMemory {
  size_t bytes = 0;
  int percent = 0;

  bool wanted() const { return bytes > 0 || percent > 0; }
};

struct ServerConfig {
  std::string listen = "0.0.0.0:7070";
  std::string metrics_listen = "0.0.0.0:7071";
  size_t memory_bytes = size_t{4} << 30;  // pool budget
  size_t slab_bytes = 0;                  // 0: chosen from memory
  GpuMemory gpu_memory;
  std::vector<int> gpus;     // indices, as CUDA counts; empty: all that are visible
  std::string share_socket;  // where processes of this host map pages; empty: none do
  bool nccl = true;          // channels to GPUs of workers, where there is NCCL
  int encode_threads = 0;    // 0: one a core
  int max_concurrent_stores = 64;
  int max_concurrent_fetches = 256;
  absl::Duration default_lease = absl::Seconds(30);
  absl::Duration max_lease = absl::Minutes(10);
  absl::Duration drain_timeout = absl::Seconds(20);
  // A store stream that sends nothing for this long, or a fetch whose client reads nothing, is
  // ended.
  absl::Duration stall_timeout = absl::Minutes(2);
  double distortion_sample_rate = 1.0 / 64;  // share of encoded pages that are measured
  std::string log_level = "info";            // debug, info, warning, error
};

// Parses argv (argv[0] skipped) including --config FILE. Errors carry file, line and reason, or the
// flag. `*help` receives the help text when --help was given (then the config is not to be used);
// `*version` likewise set by --version.
struct CommandLine {
  ServerConfig config;
  bool exit_early = false;  // --help or --version: print `text` and exit 0
  std::string text;
};
absl::StatusOr<CommandLine> ParseCommandLine(int argc, const char* const* argv);

// Applies the YAML in `text` (from `file`, for messages) to `config`. INVALID_ARGUMENT:
// "FILE:LINE: reason", unknown keys included.
absl::Status ApplyYaml(const std::string& text, const std::string& file, ServerConfig* config);

// "512MiB", "40GiB", "1073741824". INVALID_ARGUMENT says what is expected.
absl::StatusOr<size_t> ParseByteSize(const std::string& text);

}  // namespace turbokv
