#include <cstdio>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/host_id.h"
#include "base/status_macros.h"
#include "client/cli/command.h"
#include "client/nccl/nccl_api.h"
#include "client/server_description.h"

namespace turbokv::cli {
namespace {

struct DoctorOptions {
  ChannelOptions server;
  OutputOptions output;
};

// What is looked at, and what came out.
struct Finding {
  std::string what;
  absl::Status status;
  std::string detail;  // where it is well
};

std::string PoolText(const PoolInfo& pool) {
  const std::string memory = HumanBytes(static_cast<double>(pool.budget_bytes));
  if (pool.device_uuid.empty()) return absl::StrCat("host memory, ", memory);
  return absl::StrCat("GPU ", pool.device_index, " (", pool.device_name, ", ", pool.device_uuid,
                      "), ", memory);
}

std::vector<Finding> ServerFindings(const absl::StatusOr<ServerDescription>& server) {
  std::vector<Finding> findings;
  if (!server.ok()) {
    findings.push_back({"description", server.status(), ""});
    return findings;
  }
  findings.push_back({"server version", absl::OkStatus(), server->version});
  const bool same_host = !server->host_id.empty() && server->host_id == HostId();
  findings.push_back({"host", absl::OkStatus(), same_host ? "the same as ours" : "another one"});
  for (size_t i = 0; i < server->pools.size(); ++i) {
    const PoolInfo& pool = server->pools[i];
    findings.push_back({absl::StrCat("pool ", i),
                        pool.healthy ? absl::OkStatus()
                                     : absl::UnavailableError(
                                           absl::StrCat("lost with its device: ", PoolText(pool))),
                        PoolText(pool)});
  }
  return findings;
}

Finding NcclFinding() {
  const auto api = NcclApi::Load();
  if (!api.ok()) return {"NCCL here", api.status(), ""};
  return {"NCCL here", absl::OkStatus(),
          absl::StrCat((*api)->version_text(), " (", (*api)->path(), ")")};
}

void PrintFindings(const std::vector<Finding>& findings) {
  for (const Finding& finding : findings) {
    absl::PrintF("  %-15s %s\n", finding.what,
                 finding.status.ok() ? finding.detail : std::string(finding.status.message()));
  }
}

Json ToJson(const std::vector<Finding>& findings) {
  Json json = Json::array();
  for (const Finding& finding : findings) {
    json.push_back(
        {{"what", finding.what},
         {"ok", finding.status.ok()},
         {"detail", finding.status.ok() ? finding.detail : std::string(finding.status.message())}});
  }
  return json;
}

absl::Status RunDoctor(const DoctorOptions& options) {
  TURBOKV_ASSIGN_OR_RETURN(const std::shared_ptr<CacheChannel> channel,
                           CacheChannel::Connect(options.server));
  std::vector<Finding> findings =
      ServerFindings(DescribeServer(*channel, options.server.connect_timeout));
  findings.push_back(NcclFinding());
  const RoadReport& roads = channel->roads();
  if (options.output.json) {
    Json available = Json::array();
    for (const Road road : kAllRoads) {
      available.push_back({{"road", std::string(RoadName(road))},
                           {"available", roads.of(road).ok()},
                           {"reason", std::string(roads.of(road).message())}});
    }
    PrintJson({{"address", options.server.address},
               {"road", std::string(RoadName(roads.taken))},
               {"why", roads.why},
               {"roads", available},
               {"findings", ToJson(findings)}});
    return absl::OkStatus();
  }
  absl::PrintF("turbokvd at %s\n", options.server.address);
  PrintFindings(findings);
  absl::PrintF("roads\n");
  for (const Road road : kAllRoads) {
    const absl::Status& status = roads.of(road);
    absl::PrintF("  %-15s %s\n", RoadName(road),
                 status.ok() ? "available" : absl::StrCat("no: ", status.message()));
  }
  absl::PrintF("this client takes %s: %s\n", RoadName(roads.taken), roads.why);
  return absl::OkStatus();
}

}  // namespace

void AddDoctor(CLI::App* app, Action* action) {
  CLI::App* command = app->add_subcommand(
      "doctor", "Say by which roads the server can be had from here, and why not by others");
  auto options = std::make_shared<DoctorOptions>();
  AddServerOptions(command, &options->server);
  AddOutputOptions(command, &options->output);
  command->footer(
      "Exit status 0 when the server answers by gRPC at least.\n"
      "Example:\n"
      "  turbokv doctor --server unix:/run/turbokv/grpc.sock");
  command->callback([options, action] { *action = [options] { return RunDoctor(*options); }; });
}

}  // namespace turbokv::cli
