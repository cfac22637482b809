#include "server/config/config.h"

#include <unistd.h>

#include <fstream>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/config/settings.h"

namespace turbokv {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::StartsWith;

absl::StatusOr<CommandLine> Parse(std::vector<const char*> arguments) {
  arguments.insert(arguments.begin(), "turbokvd");
  return ParseCommandLine(static_cast<int>(arguments.size()), arguments.data());
}

std::string ParseError(const std::vector<const char*>& arguments) {
  const auto line = Parse(arguments);
  EXPECT_EQ(line.status().code(), absl::StatusCode::kInvalidArgument);
  return std::string(line.status().message());
}

std::string YamlError(const std::string& text) {
  ServerConfig config;
  const absl::Status status = ApplyYaml(text, "t.yaml", &config);
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << text;
  return std::string(status.message());
}

class ConfigFile {
 public:
  explicit ConfigFile(const std::string& text)
      : path_(absl::StrCat(::testing::TempDir(), "/turbokv_config_test.", getpid(), ".yaml")) {
    std::ofstream(path_) << text;
  }
  ~ConfigFile() { unlink(path_.c_str()); }
  const std::string& path() const { return path_; }

 private:
  const std::string path_;
};

TEST(ByteSizeTest, ReadsPlainNumbersAndBinaryUnits) {
  EXPECT_EQ(*ParseByteSize("1073741824"), size_t{1} << 30);
  EXPECT_EQ(*ParseByteSize("512MiB"), size_t{512} << 20);
  EXPECT_EQ(*ParseByteSize("40GiB"), size_t{40} << 30);
  EXPECT_EQ(*ParseByteSize("3KiB"), 3072);
  EXPECT_EQ(*ParseByteSize("2TiB"), size_t{2} << 40);
  EXPECT_EQ(*ParseByteSize("0"), 0);
}

TEST(ByteSizeTest, RefusesEverythingElse) {
  for (const char* text : {"", "GiB", "4GB", "4 GiB", "-1", "+1", "1.5GiB", "0x10", "4gib", "1e9",
                           "18446744073709551616", "17179869184GiB", "99999999TiB"}) {
    const auto bytes = ParseByteSize(text);
    EXPECT_EQ(bytes.status().code(), absl::StatusCode::kInvalidArgument) << text;
    EXPECT_THAT(std::string(bytes.status().message()),
                AllOf(StartsWith(absl::StrCat("'", text, "'")), HasSubstr("512MiB")));
  }
}

TEST(CommandLineTest, DefaultsNeedNoArguments) {
  const auto line = Parse({});
  ASSERT_TRUE(line.ok()) << line.status();
  EXPECT_FALSE(line->exit_early);
  EXPECT_EQ(line->config.listen, ServerConfig().listen);
  EXPECT_EQ(line->config.memory_bytes, ServerConfig().memory_bytes);
}

TEST(CommandLineTest, EverySettingsDefaultIsAcceptedAsItIsShown) {
  for (const Setting& setting : AllSettings()) {
    ServerConfig config;
    EXPECT_TRUE(setting.set(setting.show(config), &config).ok()) << setting.key;
    EXPECT_EQ(setting.show(config), setting.show(ServerConfig())) << setting.key;
  }
}

TEST(CommandLineTest, FlagsSetEverySetting) {
  const auto line = Parse(
      {"--listen", "unix:/run/t.sock", "--metrics-listen=[::1]:0", "--memory=1GiB",
       "--slab-size=8MiB", "--encode-threads=3", "--max-concurrent-stores=5",
       "--max-concurrent-fetches=6", "--default-lease=1m30s", "--max-lease=2h", "--drain-timeout=0",
       "--stall-timeout=500ms", "--distortion-sample-rate=0.5", "--log-level=debug"});
  ASSERT_TRUE(line.ok()) << line.status();
  const ServerConfig& config = line->config;
  EXPECT_EQ(config.listen, "unix:/run/t.sock");
  EXPECT_EQ(config.metrics_listen, "[::1]:0");
  EXPECT_EQ(config.memory_bytes, size_t{1} << 30);
  EXPECT_EQ(config.slab_bytes, size_t{8} << 20);
  EXPECT_EQ(config.encode_threads, 3);
  EXPECT_EQ(config.max_concurrent_stores, 5);
  EXPECT_EQ(config.max_concurrent_fetches, 6);
  EXPECT_EQ(config.default_lease, absl::Seconds(90));
  EXPECT_EQ(config.max_lease, absl::Hours(2));
  EXPECT_EQ(config.drain_timeout, absl::ZeroDuration());
  EXPECT_EQ(config.stall_timeout, absl::Milliseconds(500));
  EXPECT_EQ(config.distortion_sample_rate, 0.5);
  EXPECT_EQ(config.log_level, "debug");
}

TEST(CommandLineTest, FlagsWinOverTheFile) {
  const ConfigFile file("memory: 1GiB\nencode_threads: 2  # comment\nlog_level: error\n");
  const auto line = Parse({"--memory=2GiB", "--config", file.path().c_str()});
  ASSERT_TRUE(line.ok()) << line.status();
  EXPECT_EQ(line->config.memory_bytes, size_t{2} << 30);
  EXPECT_EQ(line->config.encode_threads, 2);
  EXPECT_EQ(line->config.log_level, "error");
}

TEST(CommandLineTest, HelpExplainsEverySettingAndVersionIsShort) {
  for (const char* flag : {"--help", "-h"}) {
    const auto help = Parse({flag});
    ASSERT_TRUE(help.ok());
    EXPECT_TRUE(help->exit_early);
    for (const Setting& setting : AllSettings()) EXPECT_THAT(help->text, HasSubstr(setting.flag()));
    EXPECT_THAT(help->text, AllOf(HasSubstr("--config"), HasSubstr("Default: 4GiB")));
  }
  const auto version = Parse({"--version"});
  ASSERT_TRUE(version.ok());
  EXPECT_TRUE(version->exit_early);
  EXPECT_THAT(version->text, StartsWith("turbokvd "));
}

TEST(CommandLineTest, ErrorsNameTheFlagTheValueAndWhatIsExpected) {
  EXPECT_THAT(ParseError({"--memory=12XB"}), StartsWith("--memory: '12XB': expected a size"));
  EXPECT_THAT(ParseError({"--memory=1KiB"}), HasSubstr("1MiB to 64TiB"));
  EXPECT_THAT(ParseError({"--slab-size=5000"}), HasSubstr("a multiple of 4KiB"));
  EXPECT_THAT(ParseError({"--encode-threads=many"}), HasSubstr("a whole number from 0 to 1024"));
  EXPECT_THAT(ParseError({"--max-concurrent-stores=0"}), HasSubstr("from 1 to 65536"));
  EXPECT_THAT(ParseError({"--default-lease=30"}), HasSubstr("such as 30s or 500ms"));
  EXPECT_THAT(ParseError({"--default-lease=inf"}), HasSubstr("to 24h"));
  EXPECT_THAT(ParseError({"--distortion-sample-rate=nan"}), HasSubstr("from 0 to 1"));
  EXPECT_THAT(ParseError({"--log-level=loud"}), HasSubstr("debug, info, warning or error"));
  EXPECT_THAT(ParseError({"--no-such-flag"}),
              AllOf(HasSubstr("--no-such-flag"), HasSubstr("--help")));
  EXPECT_THAT(ParseError({"stray"}), HasSubstr("stray"));
  EXPECT_THAT(ParseError({"--memory"}), HasSubstr("--memory"));
}

TEST(CommandLineTest, ReadsGpuMemoryAsASizeOrAShare) {
  EXPECT_EQ(Parse({"--gpu-memory", "40GiB"})->config.gpu_memory.bytes, size_t{40} << 30);
  EXPECT_EQ(Parse({"--gpu-memory=80%"})->config.gpu_memory.percent, 80);
  EXPECT_FALSE(Parse({"--gpu-memory=0"})->config.gpu_memory.wanted());
  for (const char* text : {"--gpu-memory=96%", "--gpu-memory=0%", "--gpu-memory=%",
                           "--gpu-memory=1KiB", "--gpu-memory=-1", "--gpu-memory=1.5%"}) {
    EXPECT_THAT(ParseError({text}), StartsWith("--gpu-memory: '")) << text;
  }
}

TEST(CommandLineTest, ReadsListsOfGpus) {
  EXPECT_THAT(Parse({"--gpus", "0,3"})->config.gpus, ::testing::ElementsAre(0, 3));
  EXPECT_THAT(Parse({"--gpus", "all"})->config.gpus, ::testing::IsEmpty());
  for (const char* text : {"--gpus=1,1", "--gpus=16", "--gpus=-1", "--gpus=0,", "--gpus=x"}) {
    EXPECT_THAT(ParseError({text}), HasSubstr("different numbers from 0 to 15")) << text;
  }
}

TEST(CommandLineTest, ReadsTheSharingSocket) {
  EXPECT_EQ(Parse({"--share-socket", "/run/turbokv.sock"})->config.share_socket,
            "/run/turbokv.sock");
  const std::string too_long = absl::StrCat("--share-socket=/", std::string(107, 'x'));
  for (const char* text : {"--share-socket=turbokv.sock", too_long.c_str()}) {
    EXPECT_THAT(ParseError({text}), HasSubstr("an absolute path of at most 107 bytes"));
  }
}

TEST(CommandLineTest, RefusesMalformedAddresses) {
  for (const char* address : {"", "7070", ":7070", "host", "host:", "host:x", "host:65536",
                              "::1:7070", "host:-1", "a:1,b:2", "unix:", "host:7070s"}) {
    const std::string flag = absl::StrCat("--listen=", address);
    EXPECT_THAT(ParseError({flag.c_str()}), HasSubstr("--listen")) << address;
  }
  EXPECT_THAT(ParseError({"--metrics-listen=unix:/x"}), HasSubstr("HOST:PORT"));
}

TEST(CommandLineTest, SettingsAreCheckedTogether) {
  EXPECT_THAT(ParseError({"--default-lease=20m"}),
              AllOf(StartsWith("--default-lease: "), HasSubstr("longer than max_lease of 10m")));
  EXPECT_THAT(ParseError({"--max-lease=1s"}), StartsWith("--max-lease: default_lease of 30s"));
  EXPECT_THAT(ParseError({"--slab-size=2GiB", "--memory=1GiB"}), StartsWith("--slab-size: "));
  const ConfigFile file("# leases\ndefault_lease: 20m\n");
  EXPECT_THAT(ParseError({"--config", file.path().c_str()}),
              StartsWith(absl::StrCat(file.path(), ":2: default_lease of 20m")));
  EXPECT_TRUE(Parse({"--config", file.path().c_str(), "--max-lease=30m"}).ok());
}

TEST(CommandLineTest, UnreadableFilesAreNamed) {
  EXPECT_THAT(ParseError({"--config=/no/such/file.yaml"}),
              AllOf(StartsWith("/no/such/file.yaml: "), HasSubstr("No such file")));
  EXPECT_THAT(ParseError({"--config=/"}), StartsWith("/: cannot read"));
}

TEST(YamlTest, ErrorsCarryFileLineAndReason) {
  EXPECT_THAT(YamlError("memory: 1GiB\nmemroy: 2GiB\n"),
              AllOf(StartsWith("t.yaml:2: unknown setting 'memroy'; known: listen, "),
                    HasSubstr("memory"), HasSubstr("log_level")));
  EXPECT_THAT(YamlError("\n\nmemory: lots\n"), StartsWith("t.yaml:3: memory: 'lots': expected"));
  EXPECT_THAT(YamlError("memory: [1, 2]\n"), StartsWith("t.yaml:1: memory: expected one value"));
  EXPECT_THAT(YamlError("memory:\n  size: 1\n"),
              StartsWith("t.yaml:1: memory: expected one value"));
  EXPECT_THAT(YamlError("memory:\n"), StartsWith("t.yaml:1: memory: expected one value"));
  EXPECT_THAT(YamlError("memory: 1GiB\nmemory: 2GiB\n"),
              StartsWith("t.yaml:2: memory: was set already at t.yaml:1"));
  EXPECT_THAT(YamlError("- memory\n"), StartsWith("t.yaml:1: expected lines of"));
  EXPECT_THAT(YamlError("just text"), StartsWith("t.yaml:1: expected lines of"));
  EXPECT_THAT(YamlError("memory: 1GiB\n  bad: indent\n"), StartsWith("t.yaml:2: not valid YAML"));
  EXPECT_THAT(YamlError("memory: \"1GiB\n"), StartsWith("t.yaml:1: "));
  EXPECT_THAT(YamlError("[a, b]: 1\n"), StartsWith("t.yaml:1: expected a setting's name"));
  EXPECT_THAT(YamlError("memory: 1GiB\n---\nmemory: 2GiB\n"), HasSubstr("second YAML document"));
  EXPECT_THAT(YamlError("max_lease: 1s\n"), StartsWith("t.yaml:1: default_lease of 30s"));
}

TEST(YamlTest, EmptyFilesChangeNothing) {
  for (const char* text : {"", "\n", "# only a comment\n", "---\n", "{}\n"}) {
    ServerConfig config;
    EXPECT_TRUE(ApplyYaml(text, "t.yaml", &config).ok()) << text;
  }
}

TEST(YamlTest, HostileTextIsRefusedWithoutHarm) {
  YamlError(std::string(100'000, '['));
  YamlError(std::string("memory: \xff\xfe\x00\x01", 13));
  YamlError("a: &a [x]\nb: *nothing\n");
}

// docs/configuration.md: | `--flag` | `key` | default | range | meaning |
TEST(ConfigurationDocTest, TheTableListsExactlyTheSettings) {
  std::ifstream doc(TURBOKV_SOURCE_DIR "/docs/configuration.md");
  ASSERT_TRUE(doc) << "docs/configuration.md is missing";
  std::vector<std::string> rows;
  for (std::string line; std::getline(doc, line);) {
    if (line.rfind("| `--", 0) == 0) rows.push_back(line);
  }
  std::vector<std::string> expected;
  for (const Setting& setting : AllSettings()) {
    expected.push_back(absl::StrCat("| `", setting.flag(), "` | `", setting.key, "` | `",
                                    setting.show(ServerConfig()), "` | ", setting.range, " | ",
                                    setting.help, " |"));
  }
  EXPECT_THAT(rows, ::testing::ElementsAreArray(expected));
}

}  // namespace
}  // namespace turbokv
