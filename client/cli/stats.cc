#include <memory>

#include "absl/strings/str_format.h"
#include "base/status_macros.h"
#include "client/admin_client.h"
#include "client/cli/command.h"

namespace turbokv::cli {
namespace {

struct StatsOptions {
  ChannelOptions server;
  OutputOptions output;
};

Json CodecJson(const CodecStats& codec) {
  return {{"tensor", codec.tensor},
          {"codec", codec.codec},
          {"pages", codec.pages},
          {"raw_bytes", codec.raw_bytes},
          {"kept_bytes", codec.kept_bytes},
          {"sampled_pages", codec.sampled_pages},
          {"sampled_relative_mse", codec.sampled_relative_mse}};
}

Json StatsJson(const ServiceStats& stats) {
  Json json = {{"version", stats.version},
               {"uptime_ms", stats.uptime_ms},
               {"draining", stats.draining},
               {"pool_budget_bytes", stats.pool_budget_bytes},
               {"pool_used_bytes", stats.pool_used_bytes},
               {"pool_reserved_bytes", stats.pool_reserved_bytes},
               {"blocks", stats.blocks},
               {"tails", stats.tails},
               {"leases", stats.leases},
               {"leased_blocks", stats.leased_blocks},
               {"active_stores", stats.active_stores},
               {"raw_bytes", stats.raw_bytes},
               {"kept_bytes", stats.kept_bytes},
               {"evicted_blocks", stats.evicted_blocks},
               {"hit_tokens", stats.hit_tokens},
               {"missed_tokens", stats.missed_tokens},
               {"codecs", Json::array()}};
  for (const CodecStats& codec : stats.codecs) json["codecs"].push_back(CodecJson(codec));
  return json;
}

double Ratio(int64_t raw_bytes, int64_t kept_bytes) {
  return kept_bytes > 0 ? static_cast<double>(raw_bytes) / kept_bytes : 0;
}

void PrintStats(const ServiceStats& stats) {
  absl::PrintF("turbokvd %s, up %.0f s%s\n", stats.version, stats.uptime_ms / 1e3,
               stats.draining ? ", draining" : "");
  absl::PrintF("memory    %s used, %s reserved, of %s\n", HumanBytes(stats.pool_used_bytes),
               HumanBytes(stats.pool_reserved_bytes), HumanBytes(stats.pool_budget_bytes));
  absl::PrintF("holds     %d blocks (%d leased by %d leases), %d tails; %d stores are running\n",
               stats.blocks, stats.leased_blocks, stats.leases, stats.tails, stats.active_stores);
  absl::PrintF("so far    %s received, %s kept, %d blocks evicted\n", HumanBytes(stats.raw_bytes),
               HumanBytes(stats.kept_bytes), stats.evicted_blocks);
  absl::PrintF("lookups   %d tokens found, %d missed\n", stats.hit_tokens, stats.missed_tokens);
  if (stats.codecs.empty()) return;
  absl::PrintF("\n%-8s%-12s%12s%12s%12s%8s%14s\n", "tensor", "codec", "pages", "received", "kept",
               "ratio", "rel. MSE");
  for (const CodecStats& codec : stats.codecs) {
    absl::PrintF(
        "%-8s%-12s%12d%12s%12s%8.2f%14s\n", codec.tensor, codec.codec, codec.pages,
        HumanBytes(codec.raw_bytes), HumanBytes(codec.kept_bytes),
        Ratio(codec.raw_bytes, codec.kept_bytes),
        codec.sampled_pages > 0 ? absl::StrFormat("%.3e", codec.sampled_relative_mse) : "-");
  }
}

absl::Status RunStats(const StatsOptions& options) {
  TURBOKV_ASSIGN_OR_RETURN(std::shared_ptr<CacheChannel> channel,
                           CacheChannel::Connect(options.server));
  AdminClient admin(std::move(channel));
  TURBOKV_ASSIGN_OR_RETURN(const ServiceStats stats, admin.Stats());
  if (options.output.json) {
    PrintJson(StatsJson(stats));
  } else {
    PrintStats(stats);
  }
  return absl::OkStatus();
}

}  // namespace

void AddStats(CLI::App* app, Action* action) {
  CLI::App* command = app->add_subcommand("stats", "Show what the service holds and has done");
  auto options = std::make_shared<StatsOptions>();
  AddServerOptions(command, &options->server);
  AddOutputOptions(command, &options->output);
  command->footer(
      "Rates and latencies are on the server's /metrics page.\n"
      "Example:\n"
      "  turbokv stats --server cache-0:7070");
  command->callback([options, action] { *action = [options] { return RunStats(*options); }; });
}

}  // namespace turbokv::cli
