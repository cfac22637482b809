// turbokvd: the cache service as a process.
#include <csignal>
#include <cstdio>
#include <utility>

#include "base/logging.h"
#include "base/status_macros.h"
#include "client/channel.h"
#include "grpc/support/log.h"
#include "server/config/config.h"
#include "server/gpu.h"
#include "server/rpc/server.h"

namespace turbokv {
namespace {

constexpr int kExitFailure = 1;
constexpr int kExitUsage = 2;

void LogFromGrpc(gpr_log_func_args* args) {
  const LogLevel level =
      args->severity == GPR_LOG_SEVERITY_ERROR ? LogLevel::kWarning : LogLevel::kDebug;
  Log(level, "grpc", {{"message", args->message}});
}

// Signals are waited for in main; every thread started later inherits the mask.
sigset_t BlockSignals() {
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGTERM);
  sigaddset(&signals, SIGINT);
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  return signals;
}

absl::StatusOr<std::unique_ptr<Server>> StartServer(const ServerConfig& config) {
  TURBOKV_ASSIGN_OR_RETURN(Gpus gpus, OpenGpus(config));
  NcclOptions nccl;
  nccl.streams = gpus.streams;
  return Server::Start(config, std::move(gpus.devices), nccl);
}

int Main(int argc, char** argv) {
  const absl::StatusOr<CommandLine> command_line = ParseCommandLine(argc, argv);
  if (!command_line.ok()) {
    std::fprintf(stderr, "turbokvd: %s\n", std::string(command_line.status().message()).c_str());
    return kExitUsage;
  }
  if (command_line->exit_early) {
    std::fputs(command_line->text.c_str(), stdout);
    return 0;
  }
  const ServerConfig& config = command_line->config;
  if (const absl::Status level = SetLogLevel(config.log_level); !level.ok()) {
    std::fprintf(stderr, "turbokvd: %s\n", std::string(level.message()).c_str());
    return kExitUsage;
  }
  TuneHeapForBulk();
  gpr_set_log_function(&LogFromGrpc);
  const sigset_t signals = BlockSignals();
  const absl::StatusOr<std::unique_ptr<Server>> server = StartServer(config);
  if (!server.ok()) {
    LogError("cannot start", {{"reason", server.status().message()}});
    return kExitFailure;
  }
  LogInfo("listening", {{"address", config.listen},
                        {"port", (*server)->port()},
                        {"metrics_port", (*server)->metrics_port()},
                        {"memory_bytes", config.memory_bytes}});
  int signal = 0;
  sigwait(&signals, &signal);
  LogInfo("draining",
          {{"signal", signal}, {"timeout", absl::FormatDuration(config.drain_timeout)}});
  (*server)->Drain(config.drain_timeout);
  LogInfo("stopped");
  return 0;
}

}  // namespace
}  // namespace turbokv

int main(int argc, char** argv) { return turbokv::Main(argc, argv); }
