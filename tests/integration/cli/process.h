// Processes that a test starts: turbokvd in the background, the tool in the foreground.
#pragma once

#include <sys/types.h>

#include <string>
#include <vector>

namespace turbokv {

struct CommandResult {
  int exit_code = -1;
  std::string out, err;
};

// Runs `arguments` (the first is the program) to its end; its output goes through files in
// `directory`.
CommandResult RunCommand(const std::vector<std::string>& arguments, const std::string& directory);

// A turbokvd on a free port of the loopback, for as long as this object lives.
class ServerProcess {
 public:
  explicit ServerProcess(const std::string& directory);
  ~ServerProcess();  // SIGTERM; expects a clean end
  ServerProcess(const ServerProcess&) = delete;
  ServerProcess& operator=(const ServerProcess&) = delete;

  std::string address() const { return "127.0.0.1:" + port_; }

 private:
  pid_t pid_ = -1;
  std::string port_;
};

}  // namespace turbokv
