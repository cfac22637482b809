// What the two workers of the demo have in common: flags, the model, the prompt, the cache spec.
#pragma once

#include <CLI/CLI.hpp>
#include <chrono>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "client/cache_spec.h"
#include "client/channel.h"
#include "examples/llama/model.h"
#include "examples/llama/tokenizer.h"

namespace turbokv::examples {

// Both workers need the same values: they decide which K/V are meant.
struct DemoFlags {
  std::string model_dir = TURBOKV_EXAMPLES_DATA_DIR "/tiny-d128";
  std::string prompt = TURBOKV_EXAMPLES_DATA_DIR "/sample.py.txt";  // a file, or the text itself
  std::string policy{kDefaultPolicy};
  std::string server = ChannelOptions().address;
  std::string transport = "auto";  // client/road.h
  int tokens = 128;                // to generate
};

void AddFlags(CLI::App* app, DemoFlags* flags);

struct DemoSetup {
  std::unique_ptr<LlamaModel> model;
  Tokenizer tokenizer;
  std::vector<int32_t> prompt_ids;
  int64_t dropped_prompt_tokens = 0;  // from the beginning, to leave room in the context
  std::shared_ptr<const ResolvedSpec> spec;
  std::shared_ptr<CacheChannel> channel;

  int64_t prompt_tokens() const { return static_cast<int64_t>(prompt_ids.size()); }
};

// Loads the model, encodes the prompt, resolves the policy, connects.
absl::StatusOr<DemoSetup> SetUp(const DemoFlags& flags);

// The spec of `model`'s K/V under `policy`.
absl::StatusOr<std::shared_ptr<const ResolvedSpec>> SpecOf(const LlamaModel& model,
                                                           const std::string& model_dir,
                                                           const std::string& policy);

// Wall-clock time since construction.
class Stopwatch {
 public:
  double ms() const {
    return std::chrono::duration<double, std::milli>(Clock::now() - start_).count();
  }

 private:
  using Clock = std::chrono::steady_clock;
  Clock::time_point start_ = Clock::now();
};

// Prints an error as "PROGRAM: message". Returns the exit code.
int ExitCode(const char* program, const absl::Status& status);

}  // namespace turbokv::examples
