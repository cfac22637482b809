// What every command of the tool is made of.
#pragma once

#include <CLI/CLI.hpp>
#include <functional>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "client/channel.h"

namespace turbokv::cli {

// What the chosen command does, once the command line has been parsed.
using Action = std::function<absl::Status()>;

// Keeps the order in which fields are written.
using Json = nlohmann::ordered_json;

struct OutputOptions {
  bool json = false;
  bool progress = false;
};
void AddOutputOptions(CLI::App* command, OutputOptions* options);

void AddServerOptions(CLI::App* command, ChannelOptions* options);

// --policy, checked for its form while the command line is parsed.
CLI::Option* AddPolicyOption(CLI::App* command, std::string* policy, const std::string& help);

// One document on standard output.
void PrintJson(const Json& document);

// "12.3 MiB".
std::string HumanBytes(double bytes);

std::string HexText(const uint8_t* bytes, size_t count);

// Each adds its command to `app`; `*action` is set when it is the one given.
void AddPut(CLI::App* app, Action* action);
void AddGet(CLI::App* app, Action* action);
void AddLookup(CLI::App* app, Action* action);
void AddRemove(CLI::App* app, Action* action);
void AddStats(CLI::App* app, Action* action);
void AddBench(CLI::App* app, Action* action);
void AddEval(CLI::App* app, Action* action);
void AddConvert(CLI::App* app, Action* action);
void AddDoctor(CLI::App* app, Action* action);

}  // namespace turbokv::cli
