#include "client/cli/command.h"

#include <array>
#include <cstdio>

#include "absl/strings/escaping.h"
#include "absl/strings/str_format.h"
#include "kernels/format/policy.h"

namespace turbokv::cli {

void AddOutputOptions(CLI::App* command, OutputOptions* options) {
  command->add_flag("--json", options->json, "Print one JSON document instead of text")
      ->group("Output");
  command
      ->add_flag("--progress", options->progress,
                 "Show progress on standard error even when that is no terminal")
      ->group("Output");
}

void AddServerOptions(CLI::App* command, ChannelOptions* options) {
  command
      ->add_option("--server", options->address, "Where turbokvd listens: HOST:PORT or unix:/PATH")
      ->envname("TURBOKV_SERVER")
      ->capture_default_str()
      ->group("Server");
  command->add_option("--tenant", options->tenant, "Whose cache this is")
      ->capture_default_str()
      ->group("Server");
  command
      ->add_option_function<std::string>(
          "--transport",
          [options](const std::string& text) { options->transport = *ParseTransport(text); },
          "How bytes travel: auto (the best there is), grpc, shm, cuda or nccl")
      ->check(CLI::Validator(
          [](const std::string& text) {
            return std::string(ParseTransport(text).status().message());
          },
          "ROAD"))
      ->default_str("auto")
      ->group("Server");
  command
      ->add_option("--share-socket", options->share_socket,
                   "The server's sharing socket, where this process sees it under another path")
      ->group("Server");
  command->add_option("--client-id", options->client_id, "This client, within the tenant")
      ->capture_default_str()
      ->group("Server");
}

CLI::Option* AddPolicyOption(CLI::App* command, std::string* policy, const std::string& help) {
  return command->add_option("--policy", *policy, help)
      ->check(CLI::Validator(
          [](const std::string& text) {
            return std::string(Policy::Parse(text).status().message());
          },
          "POLICY"));
}

void PrintJson(const Json& document) {
  // Paths and tensor names may be no UTF-8; JSON must be.
  const std::string text = document.dump(2, ' ', false, Json::error_handler_t::replace);
  std::printf("%s\n", text.c_str());
}

std::string HumanBytes(double bytes) {
  constexpr std::array<const char*, 5> kUnits = {"B", "KiB", "MiB", "GiB", "TiB"};
  size_t unit = 0;
  while (bytes >= 1024 && unit + 1 < kUnits.size()) {
    bytes /= 1024;
    ++unit;
  }
  return absl::StrFormat("%.*f %s", unit == 0 ? 0 : 1, bytes, kUnits[unit]);
}

std::string HexText(const uint8_t* bytes, size_t count) {
  return absl::BytesToHexString(absl::string_view(reinterpret_cast<const char*>(bytes), count));
}

}  // namespace turbokv::cli
