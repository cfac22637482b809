#include <algorithm>
#include <chrono>
#include <map>
#include <memory>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/status_macros.h"
#include "client/cli/command.h"
#include "client/cli/layer_pages.h"
#include "client/cli/progress.h"
#include "client/cli/sequence_options.h"
#include "client/decode_reader.h"

namespace turbokv::cli {
namespace {

struct GetOptions {
  SequenceOptions sequence;
  ChannelOptions server;
  OutputOptions output;
  std::string output_path;
  std::string dtype = "f32";
  bool no_tail = false;
};

// What a fetch brought, ready to be written.
struct Fetched {
  Match match;
  Road road = Road::kGrpc;
  int64_t tokens = 0;
  int64_t page_bytes = 0;  // of packed pages
  int64_t tail_bytes = 0;
  std::map<std::string, Tensor> tensors;
  std::vector<PageBytes> storage;
};

int64_t MatchedTokens(const Match& match, const Sequence& sequence) {
  return match.tail_found ? static_cast<int64_t>(sequence.token_ids.size())
                          : match.blocks * kPageTokens;
}

// Pages first, then the tail: where both hold a token, the tail is exact.
absl::StatusOr<LayerValues> DecodeLayer(const FetchedLayer& layer, const CacheSpec& spec,
                                        Fetched* fetched) {
  LayerValues values(spec.kv_heads, fetched->tokens, spec.head_dim);
  int64_t first_token = 0;
  for (absl::Span<const uint8_t> page : layer.pages) {
    TURBOKV_RETURN_IF_ERROR(DecodeInto(page, first_token, &values));
    first_token += kPageTokens;
    fetched->page_bytes += static_cast<int64_t>(page.size());
  }
  for (absl::Span<const uint8_t> page : layer.tail_pages) {
    TURBOKV_ASSIGN_OR_RETURN(const PageView view, ParsePage(page));
    TURBOKV_RETURN_IF_ERROR(
        DecodeInto(page, static_cast<int64_t>(view.header.first_token), &values));
    fetched->tail_bytes += static_cast<int64_t>(page.size());
  }
  return values;
}

void AddTensor(const std::string& name, TensorType type, std::vector<int64_t> shape,
               PageBytes bytes, Fetched* fetched) {
  fetched->storage.push_back(std::move(bytes));
  fetched->tensors[name] = {type, std::move(shape), fetched->storage.back()};
}

void AddLayer(int layer, const LayerValues& values, TensorType type, Fetched* fetched) {
  const std::vector<int64_t> shape = {values.kv_heads, values.tokens, values.head_dim};
  AddTensor(LayerTensorName(layer, "k"), type, shape, ValueBytesOf(values.k, type), fetched);
  AddTensor(LayerTensorName(layer, "v"), type, shape, ValueBytesOf(values.v, type), fetched);
}

absl::Status Fetch(const GetOptions& options, const Sequence& sequence, DecodeReader* reader,
                   Fetched* fetched) {
  const CacheSpec& spec = sequence.spec->spec;
  const TensorType type =
      options.dtype == "f32" ? TensorType::kF32 : TensorTypeOf(spec.source_type);
  FetchOptions fetch;
  fetch.include_tail = !options.no_tail;
  Progress progress("fetching", Progress::Unit::kBytes,
                    static_cast<int64_t>(sequence.spec->block_bytes()) * fetched->match.blocks,
                    options.output.progress);
  return reader->Fetch(fetch, [&](const FetchedLayer& layer) -> absl::Status {
    const int64_t page_bytes_before = fetched->page_bytes;
    TURBOKV_ASSIGN_OR_RETURN(const LayerValues values, DecodeLayer(layer, spec, fetched));
    AddLayer(layer.layer, values, type, fetched);
    progress.Add(fetched->page_bytes - page_bytes_before);
    return absl::OkStatus();
  });
}

absl::Status NothingStored(const Sequence& sequence) {
  return absl::NotFoundError(absl::StrCat(
      "nothing is stored for these ", sequence.token_ids.size(), " tokens under model \"",
      sequence.spec->spec.model_id, "\", spec ", HexText(sequence.spec->fingerprint.data(), 8)));
}

absl::Status WriteResult(const GetOptions& options, const Sequence& sequence, Fetched* fetched) {
  PageBytes ids(static_cast<size_t>(fetched->tokens) * sizeof(int32_t));
  const auto* first = reinterpret_cast<const uint8_t*>(sequence.token_ids.data());
  std::copy(first, first + ids.size(), ids.begin());
  AddTensor("token_ids", TensorType::kI32, {fetched->tokens}, std::move(ids), fetched);
  return WriteSafetensors(options.output_path, fetched->tensors,
                          {{"model", sequence.spec->spec.model_id}});
}

void PrintResult(const GetOptions& options, const Sequence& sequence, const Fetched& fetched,
                 double seconds) {
  const int64_t bf16_bytes = Bf16Bytes(sequence.spec->spec, fetched.match.blocks * kPageTokens);
  const double ratio =
      fetched.page_bytes > 0 ? static_cast<double>(bf16_bytes) / fetched.page_bytes : 0;
  if (options.output.json) {
    PrintJson({{"output", options.output_path},
               {"tokens", sequence.token_ids.size()},
               {"matched_tokens", fetched.tokens},
               {"blocks", fetched.match.blocks},
               {"tail_tokens", fetched.match.tail_found ? fetched.match.tail_tokens : 0},
               {"road", std::string(RoadName(fetched.road))},
               {"fetched_bytes", fetched.page_bytes + fetched.tail_bytes},
               {"page_bytes", fetched.page_bytes},
               {"tail_bytes", fetched.tail_bytes},
               {"bf16_bytes", bf16_bytes},
               {"compression_ratio", ratio > 0 ? Json(ratio) : Json()},
               {"fetch_ms", seconds * 1e3}});
    return;
  }
  absl::PrintF("matched %d of %d tokens: %d blocks", fetched.tokens, sequence.token_ids.size(),
               fetched.match.blocks);
  if (fetched.match.tail_found) absl::PrintF(" and a tail of %d", fetched.match.tail_tokens);
  absl::PrintF("\nfetched %s of pages", HumanBytes(fetched.page_bytes));
  if (ratio > 0) absl::PrintF(" (%.2f times smaller than bf16)", ratio);
  absl::PrintF(" and %s of tail in %.1f ms by %s\nwrote %s\n", HumanBytes(fetched.tail_bytes),
               seconds * 1e3, RoadName(fetched.road), options.output_path);
}

absl::Status RunGet(const GetOptions& options) {
  TURBOKV_ASSIGN_OR_RETURN(const Sequence sequence, LoadSequence(options.sequence));
  TURBOKV_ASSIGN_OR_RETURN(std::shared_ptr<CacheChannel> channel,
                           CacheChannel::Connect(options.server));
  DecodeReader reader(std::move(channel), sequence.spec);
  LookupOptions lookup;
  lookup.salt = sequence.salt;
  lookup.want_tail = !options.no_tail;
  Fetched fetched;
  const auto start = std::chrono::steady_clock::now();
  TURBOKV_ASSIGN_OR_RETURN(fetched.match, reader.Lookup(sequence.token_ids, lookup));
  fetched.tokens = MatchedTokens(fetched.match, sequence);
  if (fetched.tokens == 0) return NothingStored(sequence);
  TURBOKV_RETURN_IF_ERROR(Fetch(options, sequence, &reader, &fetched));
  fetched.road = reader.last_road();
  const std::chrono::duration<double> elapsed = std::chrono::steady_clock::now() - start;
  TURBOKV_RETURN_IF_ERROR(WriteResult(options, sequence, &fetched));
  PrintResult(options, sequence, fetched, elapsed.count());
  return absl::OkStatus();
}

}  // namespace

void AddGet(CLI::App* app, Action* action) {
  CLI::App* command =
      app->add_subcommand("get", "Fetch a sequence's K and V and decode them into a file");
  auto options = std::make_shared<GetOptions>();
  AddSequenceOptions(command, &options->sequence);
  command->add_option("--out", options->output_path, "Output .safetensors file")->required();
  command
      ->add_option("--dtype", options->dtype,
                   "Type of the values written: f32, or that of the source")
      ->check(CLI::IsMember({"f32", "source"}))
      ->capture_default_str();
  command->add_flag("--no-tail", options->no_tail,
                    "Only blocks: every token comes out of its codec, none out of the exact tail");
  AddServerOptions(command, &options->server);
  AddOutputOptions(command, &options->output);
  command->footer(
      "The longest stored prefix is what comes back; the cache spec must be that of `put`.\n"
      "Examples:\n"
      "  turbokv get capture.safetensors --policy turbo4 --out values.safetensors\n"
      "  turbokv get --tokens ids.txt --layers 4 --kv-heads 2 --head-dim 128 --model tiny \\\n"
      "      --out values.safetensors");
  command->callback([options, action] {
    RequireSequence(options->sequence);
    *action = [options] { return RunGet(*options); };
  });
}

}  // namespace turbokv::cli
