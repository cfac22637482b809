// Which sequence a command is about: its token ids and its cache spec.
#pragma once

#include <CLI/CLI.hpp>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "client/cache_spec.h"
#include "client/capture.h"

namespace turbokv::cli {

struct SequenceOptions {
  std::string capture_path;
  std::string tokens_path;
  CacheSpec spec;
  std::string model;  // empty: what the capture says
  std::string source_type = "bf16";
  std::string salt;
};

// CAPTURE as the only source of the sequence.
void AddCaptureOptions(CLI::App* command, SequenceOptions* options);

// CAPTURE, or --tokens FILE with the shape of the model.
void AddSequenceOptions(CLI::App* command, SequenceOptions* options);

// For the callback of a command with AddSequenceOptions: a usage error when neither was given.
void RequireSequence(const SequenceOptions& options);

struct Sequence {
  std::optional<Capture> capture;
  std::vector<int32_t> token_ids;
  std::shared_ptr<const ResolvedSpec> spec;
  std::string salt;
};

// Reads the files and checks the spec.
absl::StatusOr<Sequence> LoadSequence(const SequenceOptions& options);

// The size of `tokens` tokens of all layers as bf16: what compression ratios are measured against.
int64_t Bf16Bytes(const CacheSpec& spec, int64_t tokens);

}  // namespace turbokv::cli
