#include "tests/integration/cli/process.h"

#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <fstream>
#include <iterator>
#include <thread>

#include "gtest/gtest.h"

namespace turbokv {
namespace {

constexpr std::chrono::seconds kStartTimeout{60};

std::string ReadAll(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

void RedirectTo(const std::string& path, int target) {
  const int fd = open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600);
  if (fd < 0 || dup2(fd, target) < 0) _exit(126);
}

pid_t Start(const std::vector<std::string>& arguments, const std::string& out,
            const std::string& err) {
  std::vector<char*> argv;
  for (const std::string& argument : arguments) argv.push_back(const_cast<char*>(argument.c_str()));
  argv.push_back(nullptr);
  const pid_t pid = fork();
  if (pid == 0) {
    RedirectTo(out, STDOUT_FILENO);
    RedirectTo(err, STDERR_FILENO);
    execv(argv[0], argv.data());
    _exit(127);
  }
  return pid;
}

int WaitFor(pid_t pid) {
  int status = 0;
  if (waitpid(pid, &status, 0) != pid) return -1;
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

}  // namespace

CommandResult RunCommand(const std::vector<std::string>& arguments, const std::string& directory) {
  const std::string out = directory + "/stdout";
  const std::string err = directory + "/stderr";
  CommandResult result;
  result.exit_code = WaitFor(Start(arguments, out, err));
  result.out = ReadAll(out);
  result.err = ReadAll(err);
  return result;
}

ServerProcess::ServerProcess(const std::string& directory) {
  const std::string log = directory + "/turbokvd.log";
  pid_ = Start({TURBOKV_BINARY_DIR "/turbokvd", "--listen", "127.0.0.1:0", "--metrics-listen",
                "127.0.0.1:0", "--memory", "256MiB"},
               directory + "/turbokvd.out", log);
  const auto deadline = std::chrono::steady_clock::now() + kStartTimeout;
  constexpr char kPortField[] = " port=";
  while (std::chrono::steady_clock::now() < deadline) {
    const std::string text = ReadAll(log);
    const size_t field = text.find(kPortField);
    if (field != std::string::npos && text.find('\n', field) != std::string::npos) {
      const size_t begin = field + sizeof(kPortField) - 1;
      port_ = text.substr(begin, text.find_first_not_of("0123456789", begin) - begin);
      return;
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
  ADD_FAILURE() << "turbokvd did not start:\n" << ReadAll(log);
}

ServerProcess::~ServerProcess() {
  kill(pid_, SIGTERM);
  EXPECT_EQ(WaitFor(pid_), 0) << "turbokvd did not end cleanly";
}

}  // namespace turbokv
