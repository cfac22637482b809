#include "examples/demo/setup.h"

#include <cstdio>
#include <filesystem>
#include <system_error>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "client/road.h"
#include "examples/llama/json_fields.h"

namespace turbokv::examples {
namespace {

absl::StatusOr<std::string> PromptText(const std::string& prompt) {
  std::error_code error;  // a long text is no valid path: then it is no file either
  if (std::filesystem::is_regular_file(prompt, error)) return ReadFile(prompt);
  if (std::filesystem::is_directory(prompt, error)) {
    return absl::InvalidArgumentError(absl::StrCat("--prompt ", prompt, " is a directory"));
  }
  return prompt;
}

absl::Status EncodePrompt(const DemoFlags& flags, DemoSetup* setup) {
  TURBOKV_ASSIGN_OR_RETURN(const std::string text, PromptText(flags.prompt));
  setup->prompt_ids = setup->tokenizer.Encode(text);
  if (setup->prompt_ids.empty()) return absl::InvalidArgumentError("the prompt is empty");
  const int64_t context = setup->model->config().context_tokens;
  const int64_t room = context - flags.tokens;
  if (room < 1) {
    return absl::InvalidArgumentError(absl::StrCat("--tokens ", flags.tokens,
                                                   " leaves no room for a prompt in the model's ",
                                                   "context of ", context, " tokens"));
  }
  if (setup->prompt_tokens() > room) {
    setup->dropped_prompt_tokens = setup->prompt_tokens() - room;
    setup->prompt_ids.erase(setup->prompt_ids.begin(),
                            setup->prompt_ids.begin() + setup->dropped_prompt_tokens);
  }
  return absl::OkStatus();
}

}  // namespace

void AddFlags(CLI::App* app, DemoFlags* flags) {
  app->add_option("--model", flags->model_dir,
                  "Directory with config.json, model.safetensors and tokenizer.json")
      ->capture_default_str();
  app->add_option("--prompt", flags->prompt, "A file, or the text itself")->capture_default_str();
  app->add_option("--policy", flags->policy, "How K and V are compressed, e.g. k=int5,v=turbo4")
      ->capture_default_str();
  app->add_option("--server", flags->server, "turbokvd's address")->capture_default_str();
  app->add_option("--transport", flags->transport,
                  "How K/V and pages travel: auto (the best there is), grpc or shm")
      ->capture_default_str();
  app->add_option("--tokens", flags->tokens, "Tokens to generate")
      ->check(CLI::Range(1, 1 << 20))
      ->capture_default_str();
}

absl::StatusOr<std::shared_ptr<const ResolvedSpec>> SpecOf(const LlamaModel& model,
                                                           const std::string& model_dir,
                                                           const std::string& policy) {
  const LlamaConfig& config = model.config();
  std::filesystem::path path = std::filesystem::path(model_dir).lexically_normal();
  if (!path.has_filename()) path = path.parent_path();  // "dir/"
  CacheSpec spec;
  spec.model_id = path.filename().string();
  spec.model_revision = model.revision();
  spec.layers = config.layers;
  spec.kv_heads = config.kv_heads;
  spec.head_dim = config.head_dim;
  spec.source_type = ValueType::kBf16;
  spec.rope = absl::StrCat("theta=", config.rope_theta);
  spec.policy = policy;
  TURBOKV_ASSIGN_OR_RETURN(ResolvedSpec resolved, ResolveSpec(spec));
  return std::make_shared<const ResolvedSpec>(std::move(resolved));
}

absl::StatusOr<DemoSetup> SetUp(const DemoFlags& flags) {
  TURBOKV_ASSIGN_OR_RETURN(std::unique_ptr<LlamaModel> model, LlamaModel::Load(flags.model_dir));
  TURBOKV_ASSIGN_OR_RETURN(Tokenizer tokenizer, Tokenizer::Load(flags.model_dir));
  TURBOKV_ASSIGN_OR_RETURN(auto spec, SpecOf(*model, flags.model_dir, flags.policy));
  DemoSetup setup{std::move(model), std::move(tokenizer), {}, 0, std::move(spec), nullptr};
  TURBOKV_RETURN_IF_ERROR(EncodePrompt(flags, &setup));
  ChannelOptions options;
  options.address = flags.server;
  TURBOKV_ASSIGN_OR_RETURN(options.transport, ParseTransport(flags.transport));
  TURBOKV_ASSIGN_OR_RETURN(setup.channel, CacheChannel::Connect(options));
  const RoadReport& roads = setup.channel->roads();
  std::printf("Bytes travel by %s: %s.\n", std::string(RoadName(roads.taken)).c_str(),
              roads.why.c_str());
  return setup;
}

int ExitCode(const char* program, const absl::Status& status) {
  if (status.ok()) return 0;
  std::fprintf(stderr, "%s: %s\n", program, std::string(status.message()).c_str());
  return 1;
}

}  // namespace turbokv::examples
