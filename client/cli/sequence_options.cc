#include "client/cli/sequence_options.h"

#include <cstdio>
#include <fstream>
#include <iterator>
#include <map>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "base/status_macros.h"
#include "client/cli/command.h"

namespace turbokv::cli {
namespace {

const std::map<std::string, ValueType>& SourceTypes() {
  static const auto* types = new std::map<std::string, ValueType>{
      {"bf16", ValueType::kBf16}, {"fp16", ValueType::kFp16}, {"fp32", ValueType::kFp32}};
  return *types;
}

void AddSpecOptions(CLI::App* command, SequenceOptions* options) {
  constexpr char kGroup[] = "Cache spec (what makes cached bytes comparable; all of it must agree)";
  CacheSpec* spec = &options->spec;
  command
      ->add_option("--model", options->model,
                   "Model id; without it, what the capture says, else \"unnamed\"")
      ->group(kGroup);
  command->add_option("--revision", spec->model_revision, "Model revision")->group(kGroup);
  command->add_option("--adapter", spec->adapter, "Adapter (LoRA) id")->group(kGroup);
  command->add_option("--rope", spec->rope, "Any text that tells RoPE settings apart")
      ->group(kGroup);
  command->add_option("--rank", spec->rank, "Tensor-parallel rank that holds these KV heads")
      ->capture_default_str()
      ->group(kGroup);
  command->add_option("--world-size", spec->world_size, "Number of ranks")
      ->capture_default_str()
      ->group(kGroup);
  AddPolicyOption(command, &spec->policy,
                  "Codecs, e.g. turbo4 or \"k=q8_0,v=turbo4;0-1:k=bf16,v=bf16\"")
      ->capture_default_str()
      ->group(kGroup);
  command->add_option("--salt", options->salt, "Separates users that must not share")
      ->group(kGroup);
}

// Whitespace or commas between decimal numbers.
absl::StatusOr<std::vector<int32_t>> ReadTokenText(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) return absl::NotFoundError(absl::StrCat(path, ": cannot open"));
  const std::string text{std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
  std::vector<int32_t> ids;
  for (absl::string_view word :
       absl::StrSplit(text, absl::ByAnyChar(" \t\r\n,[]"), absl::SkipEmpty())) {
    int32_t id = 0;
    if (!absl::SimpleAtoi(word, &id) || id < 0) {
      return absl::InvalidArgumentError(absl::StrCat(path, ": \"", word.substr(0, 40),
                                                     "\" (number ", ids.size() + 1,
                                                     ") is no token id in 0..2^31-1"));
    }
    ids.push_back(id);
  }
  return ids;
}

absl::StatusOr<std::vector<int32_t>> ReadTokenFile(const std::string& path) {
  if (!absl::EndsWith(path, ".safetensors")) return ReadTokenText(path);
  TURBOKV_ASSIGN_OR_RETURN(const SafetensorsFile file, SafetensorsFile::Open(path));
  TURBOKV_ASSIGN_OR_RETURN(const Tensor tensor, file.Get("token_ids"));
  absl::StatusOr<std::vector<int32_t>> ids = ReadTokenIds(tensor);
  if (!ids.ok()) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, ": tensor token_ids: ", ids.status().message()));
  }
  return ids;
}

// Token ids and shape from the capture.
absl::Status TakeCapture(const std::string& path, CacheSpec* spec, Sequence* sequence) {
  TURBOKV_ASSIGN_OR_RETURN(Capture capture, OpenCapture(path));
  if (capture.token_ids.empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, ": no tensor token_ids, which block keys are made of"));
  }
  const auto model = capture.file.metadata().find("model");
  if (spec->model_id.empty() && model != capture.file.metadata().end()) {
    spec->model_id = model->second;
  }
  spec->layers = capture.layers;
  spec->kv_heads = capture.kv_heads;
  spec->head_dim = capture.head_dim;
  spec->source_type = capture.type;
  sequence->token_ids = capture.token_ids;
  sequence->capture = std::move(capture);
  return absl::OkStatus();
}

}  // namespace

void AddCaptureOptions(CLI::App* command, SequenceOptions* options) {
  command->add_option("CAPTURE", options->capture_path, "Capture (docs/cli.md): K, V and token ids")
      ->required();
  AddSpecOptions(command, options);
}

void AddSequenceOptions(CLI::App* command, SequenceOptions* options) {
  CLI::Option* capture = command->add_option(
      "CAPTURE", options->capture_path, "Capture whose token ids and shape say what to look for");
  constexpr char kGroup[] = "Instead of a capture";
  CLI::Option* tokens =
      command
          ->add_option("--tokens", options->tokens_path,
                       "Token ids: a text file of numbers, or token_ids of a .safetensors file")
          ->group(kGroup)
          ->excludes(capture);
  for (const auto& [name, value, help] :
       {std::tuple("--layers", &options->spec.layers, "Layers of the model"),
        std::tuple("--kv-heads", &options->spec.kv_heads, "KV heads of this rank"),
        std::tuple("--head-dim", &options->spec.head_dim, "Channels of a head")}) {
    CLI::Option* shape = command->add_option(name, *value, help)->group(kGroup);
    shape->needs(tokens);
    tokens->needs(shape);
  }
  command
      ->add_option("--source-type", options->source_type,
                   "Type of the values as they were stored: bf16, fp16 or fp32")
      ->check(CLI::IsMember(SourceTypes()))
      ->capture_default_str()
      ->group(kGroup)
      ->needs(tokens);
  AddSpecOptions(command, options);
}

void RequireSequence(const SequenceOptions& options) {
  if (options.capture_path.empty() && options.tokens_path.empty()) {
    throw CLI::RequiredError("CAPTURE or --tokens");
  }
}

absl::StatusOr<Sequence> LoadSequence(const SequenceOptions& options) {
  Sequence sequence;
  sequence.salt = options.salt;
  CacheSpec spec = options.spec;
  spec.model_id = options.model;
  if (options.tokens_path.empty()) {
    TURBOKV_RETURN_IF_ERROR(TakeCapture(options.capture_path, &spec, &sequence));
  } else {
    TURBOKV_ASSIGN_OR_RETURN(sequence.token_ids, ReadTokenFile(options.tokens_path));
    spec.source_type = SourceTypes().at(options.source_type);
  }
  if (spec.model_id.empty()) spec.model_id = "unnamed";
  TURBOKV_ASSIGN_OR_RETURN(ResolvedSpec resolved, ResolveSpec(spec));
  sequence.spec = std::make_shared<const ResolvedSpec>(std::move(resolved));
  return sequence;
}

int64_t Bf16Bytes(const CacheSpec& spec, int64_t tokens) {
  return tokens * spec.layers * spec.kv_heads * spec.head_dim * 2 * 2;
}

}  // namespace turbokv::cli
