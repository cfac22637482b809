#include "bench/transport/server_process.h"

#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <memory>
#include <utility>

#include "server/gpu.h"
#include "server/rpc/server.h"

namespace turbokv::bench {
namespace {

[[noreturn]] void Serve(const ServerConfig& config, int port_fd, int life_fd) {
  Gpus gpus = Require(OpenGpus(config));
  NcclOptions nccl;
  nccl.streams = gpus.streams;
  const std::unique_ptr<Server> server =
      Require(Server::Start(config, std::move(gpus.devices), nccl));
  const int port = server->port();
  if (write(port_fd, &port, sizeof(port)) != sizeof(port)) std::exit(1);
  char end;
  [[maybe_unused]] const ssize_t ended = read(life_fd, &end, 1);  // the parent has gone
  server->Drain(absl::ZeroDuration());
  _exit(0);
}

}  // namespace

void Require(const absl::Status& status) {
  if (status.ok()) return;
  std::fprintf(stderr, "transport_bench: %s\n", status.ToString().c_str());
  std::exit(1);
}

ServerProcess::ServerProcess(const ServerConfig& config) {
  int port_pipe[2], life_pipe[2];
  if (pipe(port_pipe) != 0 || pipe(life_pipe) != 0) std::exit(1);
  child_ = fork();
  if (child_ == 0) {
    close(life_pipe[1]);
    Serve(config, port_pipe[1], life_pipe[0]);
  }
  close(port_pipe[1]);
  close(life_pipe[0]);
  life_ = life_pipe[1];
  if (read(port_pipe[0], &port_, sizeof(port_)) != sizeof(port_)) std::exit(1);
}

ServerProcess::~ServerProcess() {
  close(life_);
  waitpid(child_, nullptr, 0);
}

}  // namespace turbokv::bench
