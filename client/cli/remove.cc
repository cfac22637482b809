#include "client/cli/remove.h"

#include <memory>

#include "absl/strings/str_format.h"
#include "base/status_macros.h"
#include "client/admin_client.h"
#include "client/cli/command.h"
#include "client/cli/sequence_options.h"

namespace turbokv::cli {
namespace {

// The most that one request may carry.
constexpr size_t kMaxKeysPerRequest = 65536;

struct RemoveOptions {
  SequenceOptions sequence;
  ChannelOptions server;
  OutputOptions output;
};

absl::Status RunRemove(const RemoveOptions& options) {
  TURBOKV_ASSIGN_OR_RETURN(const Sequence sequence, LoadSequence(options.sequence));
  TURBOKV_ASSIGN_OR_RETURN(std::shared_ptr<CacheChannel> channel,
                           CacheChannel::Connect(options.server));
  AdminClient admin(std::move(channel));
  TURBOKV_ASSIGN_OR_RETURN(const int64_t removed, RemoveSequence(*sequence.spec, sequence.salt,
                                                                 sequence.token_ids, &admin));
  if (options.output.json) {
    PrintJson({{"tokens", sequence.token_ids.size()}, {"removed", removed}});
  } else {
    absl::PrintF("removed %d blocks and tails\n", removed);
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<int64_t> RemoveSequence(const ResolvedSpec& spec, const std::string& salt,
                                       absl::Span<const int32_t> token_ids, AdminClient* admin) {
  std::vector<Digest> keys = BlockKeys(spec.fingerprint, salt, token_ids);
  keys.push_back(TailKey(spec.fingerprint, salt, keys, token_ids));
  int64_t removed = 0;
  for (size_t first = 0; first < keys.size(); first += kMaxKeysPerRequest) {
    TURBOKV_ASSIGN_OR_RETURN(const int64_t some, admin->Remove(absl::MakeConstSpan(keys).subspan(
                                                     first, kMaxKeysPerRequest)));
    removed += some;
  }
  return removed;
}

void AddRemove(CLI::App* app, Action* action) {
  CLI::App* command =
      app->add_subcommand("rm", "Remove a sequence's blocks and tail from the cache");
  auto options = std::make_shared<RemoveOptions>();
  AddSequenceOptions(command, &options->sequence);
  AddServerOptions(command, &options->server);
  AddOutputOptions(command, &options->output);
  command->footer(
      "Blocks that other sequences share through a common prefix go as well. Removing what is not\n"
      "there is no error.\n"
      "Example:\n"
      "  turbokv rm examples/data/captures/tiny-d128.safetensors");
  command->callback([options, action] {
    RequireSequence(options->sequence);
    *action = [options] { return RunRemove(*options); };
  });
}

}  // namespace turbokv::cli
