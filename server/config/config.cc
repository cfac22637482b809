#include "server/config/config.h"

#include <yaml-cpp/yaml.h>

#include <cerrno>
#include <cstring>
#include <fstream>
#include <map>
#include <sstream>

#include "CLI/CLI.hpp"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/status_macros.h"
#include "server/config/settings.h"

namespace turbokv {
namespace {

constexpr size_t kMaxConfigFileBytes = size_t{1} << 20;

// Where a setting was given: "turbokvd.yaml:3", or its flag.
using Origins = std::map<absl::string_view, std::string>;

absl::Status ErrorAt(absl::string_view place, absl::string_view reason) {
  return absl::InvalidArgumentError(absl::StrCat(place, ": ", reason));
}

std::string LineOf(const std::string& file, const YAML::Mark& mark) {
  return mark.is_null() ? file : absl::StrCat(file, ":", mark.line + 1);
}

std::string KnownKeys() {
  return absl::StrJoin(AllSettings(), ", ", [](std::string* out, const Setting& setting) {
    absl::StrAppend(out, setting.key);
  });
}

absl::Status ApplyYamlEntry(const YAML::Node& key, const YAML::Node& value, const std::string& file,
                            ServerConfig* config, Origins* origins) {
  const std::string place = LineOf(file, key.Mark());
  if (!key.IsScalar()) return ErrorAt(place, "expected a setting's name");
  const Setting* setting = FindSetting(key.Scalar());
  if (setting == nullptr) {
    return ErrorAt(place,
                   absl::StrCat("unknown setting '", key.Scalar(), "'; known: ", KnownKeys()));
  }
  const auto [origin, is_first] = origins->try_emplace(setting->key, place);
  if (!is_first) {
    return ErrorAt(place, absl::StrCat(setting->key, ": was set already at ", origin->second));
  }
  if (!value.IsScalar()) {
    return ErrorAt(place, absl::StrCat(setting->key, ": expected one value, ", setting->range));
  }
  const absl::Status status = setting->set(value.Scalar(), config);
  return status.ok() ? status : ErrorAt(place, absl::StrCat(setting->key, ": ", status.message()));
}

absl::Status ApplyYamlDocument(const std::string& text, const std::string& file,
                               ServerConfig* config, Origins* origins) {
  // yaml-cpp reports malformed text by exceptions; they end here.
  try {
    const std::vector<YAML::Node> documents = YAML::LoadAll(text);
    if (documents.size() > 1) {
      return ErrorAt(LineOf(file, documents[1].Mark()), "a second YAML document; expected one");
    }
    if (documents.empty() || documents[0].IsNull()) return absl::OkStatus();
    if (!documents[0].IsMap()) {
      return ErrorAt(LineOf(file, documents[0].Mark()), "expected lines of 'setting: value'");
    }
    for (const auto& entry : documents[0]) {
      TURBOKV_RETURN_IF_ERROR(ApplyYamlEntry(entry.first, entry.second, file, config, origins));
    }
  } catch (const YAML::Exception& error) {
    return ErrorAt(LineOf(file, error.mark), absl::StrCat("not valid YAML: ", error.msg));
  }
  return absl::OkStatus();
}

// Limits that settings set each other; the place blamed is where the first of the two was given.
absl::Status CheckTogether(const ServerConfig& config, const Origins& origins) {
  const auto place = [&origins](absl::string_view first, absl::string_view second) {
    auto origin = origins.find(first);
    if (origin == origins.end()) origin = origins.find(second);
    return origin == origins.end() ? std::string("defaults") : origin->second;
  };
  if (config.default_lease > config.max_lease) {
    return ErrorAt(
        place("default_lease", "max_lease"),
        absl::StrCat("default_lease of ", absl::FormatDuration(config.default_lease),
                     " is longer than max_lease of ", absl::FormatDuration(config.max_lease)));
  }
  if (config.slab_bytes > config.memory_bytes) {
    return ErrorAt(place("slab_size", "memory"),
                   absl::StrCat("slab_size of ", config.slab_bytes,
                                " bytes is more than memory of ", config.memory_bytes, " bytes"));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::string> ReadConfigFile(const std::string& path) {
  std::ifstream stream(path, std::ios::binary);
  std::string text(kMaxConfigFileBytes + 1, '\0');
  if (stream) stream.read(text.data(), static_cast<std::streamsize>(text.size()));
  if (stream.bad() || (stream.fail() && !stream.eof())) {
    return ErrorAt(path, absl::StrCat("cannot read the file: ", std::strerror(errno)));
  }
  text.resize(static_cast<size_t>(stream.gcount()));
  if (text.size() > kMaxConfigFileBytes) {
    return ErrorAt(path, absl::StrCat("longer than ", kMaxConfigFileBytes, " bytes"));
  }
  return text;
}

constexpr char kDescription[] =
    "turbokvd keeps the attention keys and values (K/V) of language models, compressed, so that\n"
    "prefill workers can hand them to decode workers.\n\n"
    "Settings come from their defaults, then from the YAML file of --config (the same names with\n"
    "'_' for '-', e.g. 'memory: 40GiB'), then from flags. SIZE: 512MiB, 40GiB. DURATION: 30s,\n"
    "500ms. Reference: docs/configuration.md.";

// Flags as given: the text of each setting, empty and not given alike absent.
struct Flags {
  std::string config_file;
  std::map<absl::string_view, std::string> values;
};

// Sets up CLI11 and runs it; a help or version request is a CommandLine to return at once.
absl::StatusOr<CommandLine> ParseFlags(int argc, const char* const* argv, Flags* flags) {
  CommandLine line;
  CLI::App app(kDescription, "turbokvd");
  app.set_help_flag("-h,--help", "Print this help and exit");
  app.set_version_flag("--version", std::string("turbokvd ") + TURBOKV_VERSION,
                       "Print the version and exit");
  app.add_option("--config", flags->config_file, "YAML file with settings")->type_name("FILE");
  std::map<absl::string_view, CLI::Option*> options;
  for (const Setting& setting : AllSettings()) {
    const std::string help = absl::StrCat(setting.help, " Default: ", setting.show(line.config));
    options[setting.key] = app.add_option(setting.flag(), flags->values[setting.key], help)
                               ->type_name(std::string(setting.value_name));
  }
  // CLI11 reports wrong flags, and the wish for help, by exceptions; they end here.
  try {
    app.parse(argc, argv);
  } catch (const CLI::CallForHelp&) {
    line.exit_early = true;
    line.text = app.help();
  } catch (const CLI::CallForVersion& version) {
    line.exit_early = true;
    line.text = absl::StrCat(version.what(), "\n");
  } catch (const CLI::ParseError& error) {
    return absl::InvalidArgumentError(absl::StrCat(error.what(), " (see turbokvd --help)"));
  }
  for (const auto& [key, option] : options) {
    if (option->count() == 0) flags->values.erase(key);
  }
  return line;
}

}  // namespace

absl::Status ApplyYaml(const std::string& text, const std::string& file, ServerConfig* config) {
  Origins origins;
  TURBOKV_RETURN_IF_ERROR(ApplyYamlDocument(text, file, config, &origins));
  return CheckTogether(*config, origins);
}

absl::StatusOr<CommandLine> ParseCommandLine(int argc, const char* const* argv) {
  Flags flags;
  TURBOKV_ASSIGN_OR_RETURN(CommandLine line, ParseFlags(argc, argv, &flags));
  if (line.exit_early) return line;
  Origins origins;
  if (!flags.config_file.empty()) {
    TURBOKV_ASSIGN_OR_RETURN(const std::string text, ReadConfigFile(flags.config_file));
    TURBOKV_RETURN_IF_ERROR(ApplyYamlDocument(text, flags.config_file, &line.config, &origins));
  }
  for (const auto& [key, text] : flags.values) {
    const Setting& setting = *FindSetting(key);
    const absl::Status status = setting.set(text, &line.config);
    if (!status.ok()) return ErrorAt(setting.flag(), status.message());
    origins[key] = setting.flag();
  }
  TURBOKV_RETURN_IF_ERROR(CheckTogether(line.config, origins));
  return line;
}

}  // namespace turbokv
