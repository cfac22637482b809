// turbokv: the command line tool. docs/cli.md describes it.
#include <cstdio>
#include <string>

#include "base/logging.h"
#include "client/cli/command.h"

namespace turbokv::cli {
namespace {

constexpr int kRuntimeError = 1;
constexpr int kUsageError = 2;

// What a person can do about an error.
const char* Advice(absl::StatusCode code) {
  switch (code) {
    case absl::StatusCode::kUnavailable:
      return "Check that turbokvd runs and that --server (or TURBOKV_SERVER) names its address.";
    case absl::StatusCode::kDeadlineExceeded:
      return "The server did not answer in time: it may be overloaded. Try again.";
    case absl::StatusCode::kResourceExhausted:
      return "The server is full or busy. Try again later, or give it more memory.";
    case absl::StatusCode::kDataLoss:
      return "The damaged pages are gone from the cache. Try again to get what is left.";
    case absl::StatusCode::kNotFound:
      return "Check the name; for cached data, check that every field of the cache spec agrees.";
    case absl::StatusCode::kInvalidArgument:
    case absl::StatusCode::kUnimplemented:
      return "Correct the input; --help describes what the command takes.";
    case absl::StatusCode::kPermissionDenied:
      return "Check the permissions of the file.";
    default:
      return nullptr;
  }
}

int ReportError(const std::string& command, const absl::Status& status) {
  std::fprintf(stderr, "turbokv %s: %s\n", command.c_str(), std::string(status.message()).c_str());
  if (const char* advice = Advice(status.code())) std::fprintf(stderr, "  %s\n", advice);
  return kRuntimeError;
}

std::string CommandName(const CLI::App& app) {
  const auto commands = app.get_subcommands();
  return commands.empty() ? "" : " " + commands.front()->get_name();
}

int ReportUsage(const CLI::App& app, const CLI::ParseError& error) {
  const std::string name = "turbokv" + CommandName(app);
  std::fprintf(stderr, "%s: %s\n  Run `%s --help` for what it takes.\n", name.c_str(), error.what(),
               name.c_str());
  return kUsageError;
}

int Main(int argc, char** argv) {
  CLI::App app("Stores, finds and examines the compressed K/V caches of turbokvd.", "turbokv");
  app.set_version_flag("--version", "turbokv " TURBOKV_VERSION);
  app.require_subcommand(0, 1);
  app.get_formatter()->column_width(30);
  app.footer(
      "First steps, with a turbokvd on this machine:\n"
      "  turbokv put examples/data/captures/tiny-d128.safetensors\n"
      "  turbokv get examples/data/captures/tiny-d128.safetensors --out /tmp/back.safetensors\n"
      "`turbokv COMMAND --help` explains a command. Exit status: 0 success, 1 failure, 2 usage.");
  Action action;
  for (auto* add :
       {AddPut, AddGet, AddLookup, AddRemove, AddStats, AddBench, AddEval, AddConvert, AddDoctor}) {
    add(&app, &action);
  }
  try {
    app.parse(argc, argv);
    // Asked for only now: an unknown command shall be called one.
    if (app.get_subcommands().empty()) throw CLI::RequiredError("A command (put, get, eval...)");
  } catch (const CLI::Success& success) {  // --help or --version
    return app.exit(success);
  } catch (const CLI::ParseError& error) {
    return ReportUsage(app, error);
  }
  // Commands tell the road themselves; of the library's lines, warnings are enough.
  SetLogLevel("warning").IgnoreError();
  if (const absl::Status status = action(); !status.ok()) {
    return ReportError(app.get_subcommands().front()->get_name(), status);
  }
  if (std::fflush(stdout) != 0 || std::ferror(stdout)) {
    std::fprintf(stderr, "turbokv: cannot write to standard output\n");
    return kRuntimeError;
  }
  return 0;
}

}  // namespace
}  // namespace turbokv::cli

int main(int argc, char** argv) { return turbokv::cli::Main(argc, argv); }
