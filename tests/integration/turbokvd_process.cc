#include "tests/integration/turbokvd_process.h"

#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <fstream>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"

namespace turbokv::testing {

TurbokvdProcess::TurbokvdProcess(std::vector<std::string> flags) {
  std::vector<std::string> arguments = {absl::StrCat(TURBOKV_BINARY_DIR, "/turbokvd")};
  for (const std::string flag : {"--listen", "--metrics-listen"}) {
    if (std::find(flags.begin(), flags.end(), flag) != flags.end()) continue;
    arguments.push_back(flag);
    arguments.push_back("127.0.0.1:0");
  }
  arguments.insert(arguments.end(), flags.begin(), flags.end());
  std::vector<char*> argv;
  for (std::string& argument : arguments) argv.push_back(argument.data());
  argv.push_back(nullptr);

  int log_pipe[2];
  if (pipe2(log_pipe, O_CLOEXEC) != 0) std::abort();
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, log_pipe[1], STDERR_FILENO);
  if (posix_spawn(&pid_, argv[0], &actions, nullptr, argv.data(), environ) != 0) std::abort();
  posix_spawn_file_actions_destroy(&actions);
  close(log_pipe[1]);
  reader_ = std::thread([this, fd = log_pipe[0]] { ReadLog(fd); });
}

TurbokvdProcess::~TurbokvdProcess() {
  if (exit_status_ < 0) {
    kill(pid_, SIGKILL);
    waitpid(pid_, nullptr, 0);
  }
  reader_.join();
}

void TurbokvdProcess::ReadLog(int fd) {
  char buffer[4096];
  for (ssize_t got = 0; (got = read(fd, buffer, sizeof(buffer))) > 0;) {
    MutexLock lock(&mutex_);
    log_.append(buffer, got);
    changed_.notify_all();
  }
  close(fd);
  MutexLock lock(&mutex_);
  closed_ = true;
  changed_.notify_all();
}

int TurbokvdProcess::WaitForPort() {
  constexpr absl::string_view kMark = " port=";
  MutexLock lock(&mutex_);
  while (true) {
    const size_t mark = log_.find(kMark.data());
    if (mark != std::string::npos && log_.find('\n', mark) != std::string::npos) {
      return std::atoi(log_.c_str() + mark + kMark.size());
    }
    if (closed_) return 0;
    changed_.wait(mutex_);
  }
}

void TurbokvdProcess::Signal(int signal) { kill(pid_, signal); }

int TurbokvdProcess::WaitForExit() {
  const absl::Time deadline = absl::Now() + absl::Seconds(20);
  int status = 0;
  while (waitpid(pid_, &status, WNOHANG) == 0) {
    if (absl::Now() > deadline) return -1;
    absl::SleepFor(absl::Milliseconds(10));
  }
  exit_status_ = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  MutexLock lock(&mutex_);
  while (!closed_) changed_.wait(mutex_);  // the whole log is here
  return exit_status_;
}

std::string TurbokvdProcess::log() {
  MutexLock lock(&mutex_);
  return log_;
}

size_t TurbokvdProcess::PeakMemoryBytes() const {
  std::ifstream file(absl::StrCat("/proc/", pid_, "/status"));
  for (std::string line; std::getline(file, line);) {
    if (line.rfind("VmHWM:", 0) == 0) return std::strtoull(line.c_str() + 6, nullptr, 10) << 10;
  }
  return 0;
}

std::shared_ptr<CacheChannel> TurbokvdProcess::Connect(const std::string& client) {
  ChannelOptions options;
  options.address = absl::StrCat("127.0.0.1:", WaitForPort());
  options.client_id = client;
  return CacheChannel::Connect(options).value();
}

}  // namespace turbokv::testing
