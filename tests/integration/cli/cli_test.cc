// The tool against a real turbokvd.
#include <cmath>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "client/capture.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/integration/cli/process.h"
#include "tests/unit/client/temp_dir.h"

namespace turbokv {
namespace {

using nlohmann::json;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::StartsWith;

const char kCapture[] = TURBOKV_SOURCE_DIR "/examples/data/captures/tiny-d128.safetensors";
constexpr int kTokens = 640;
constexpr int kLayers = 4;

class CliTest : public ::testing::Test {
 protected:
  CommandResult Run(std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), TURBOKV_BINARY_DIR "/turbokv");
    return RunCommand(arguments, dir_.Path(""));
  }

  // Runs a command with --json that must succeed.
  json RunJson(std::vector<std::string> arguments) {
    arguments.push_back("--json");
    const CommandResult result = Run(arguments);
    EXPECT_EQ(result.exit_code, 0) << result.err;
    json document = json::parse(result.out, nullptr, /*allow_exceptions=*/false);
    EXPECT_FALSE(document.is_discarded()) << result.out;
    return document.is_discarded() ? json::object() : document;
  }

  void ExpectFailure(const std::vector<std::string>& arguments, int exit_code,
                     const std::string& message) {
    const CommandResult result = Run(arguments);
    EXPECT_EQ(result.exit_code, exit_code) << result.err;
    EXPECT_EQ(result.out, "");
    EXPECT_THAT(result.err, AllOf(StartsWith("turbokv"), HasSubstr(message)));
  }

  TempDir dir_;
};

// Commands that need a server.
class CliServerTest : public CliTest {
 protected:
  CliServerTest() : server_(dir_.Path("")) {}

  // The arguments of a command about the capture, stored as turbo4.
  std::vector<std::string> About(const std::string& command, std::vector<std::string> more = {}) {
    std::vector<std::string> arguments = {command,  kCapture,   "--policy",
                                          "turbo4", "--server", server_.address()};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return arguments;
  }

  ServerProcess server_;
};

double RelativeMse(const Tensor& exact, const Tensor& other, int heads, int first, int end) {
  const std::vector<float> a = *ToFloats(exact);
  const std::vector<float> b = *ToFloats(other);
  double error = 0, energy = 0;
  for (int head = 0; head < heads; ++head) {
    for (int i = (head * kTokens + first) * 128; i < (head * kTokens + end) * 128; ++i) {
      error += std::pow(b[i] - a[i], 2);
      energy += std::pow(a[i], 2);
    }
  }
  return error / energy;
}

TEST_F(CliServerTest, PutLookupGetStatsAndRemove) {
  EXPECT_EQ(RunJson(About("lookup"))["matched_tokens"], 0);

  const json put = RunJson(About("put"));
  EXPECT_EQ(put["stored_blocks"], 5);
  EXPECT_EQ(put["present_blocks"], 0);
  EXPECT_EQ(put["stored_tail"], true);
  EXPECT_EQ(put["raw_bytes"], kTokens * kLayers * 2 * 2 * 128 * 2);
  EXPECT_NEAR(put["compression_ratio"], 16 / 4.2, 0.1);
  EXPECT_DOUBLE_EQ(put["raw_bytes"].get<double>() / put["kept_bytes"].get<double>(),
                   put["compression_ratio"]);

  const json again = RunJson(About("put"));
  EXPECT_EQ(again["stored_blocks"], 0);
  EXPECT_EQ(again["present_blocks"], 5);

  const json lookup = RunJson(About("lookup"));
  EXPECT_EQ(lookup["matched_tokens"], kTokens);
  EXPECT_EQ(lookup["blocks"], 5);
  EXPECT_EQ(lookup["tail_found"], true);

  const json stats = RunJson({"stats", "--server", server_.address()});
  EXPECT_EQ(stats["blocks"], 5);
  EXPECT_EQ(stats["tails"], 1);
  EXPECT_EQ(stats["leases"], 0);
  EXPECT_EQ(stats["codecs"].size(), 2);
  EXPECT_EQ(stats["kept_bytes"], put["kept_bytes"]);

  EXPECT_EQ(RunJson(About("rm"))["removed"], 6);
  EXPECT_EQ(RunJson(About("rm"))["removed"], 0);
  EXPECT_EQ(RunJson(About("lookup"))["matched_tokens"], 0);
  ExpectFailure(About("get", {"--out", dir_.Path("none.safetensors")}), 1, "nothing is stored");
}

TEST_F(CliServerTest, GetGivesTheCodecsValuesAndTheExactTail) {
  RunJson(About("put"));
  const std::string path = dir_.Path("out.safetensors");
  const json get = RunJson(About("get", {"--out", path}));
  EXPECT_EQ(get["matched_tokens"], kTokens);
  EXPECT_EQ(get["tail_tokens"], 128);
  EXPECT_NEAR(get["compression_ratio"], 16 / 4.2, 0.1);

  const Capture exact = *OpenCapture(kCapture);
  const absl::StatusOr<Capture> served = OpenCapture(path);
  ASSERT_TRUE(served.ok()) << served.status();
  EXPECT_EQ(served->type, ValueType::kFp32);
  EXPECT_EQ(served->token_ids, exact.token_ids);
  for (int n = 0; n < kLayers; ++n) {
    const double mse = RelativeMse(exact.layer[n].v, served->layer[n].v, 2, 0, 512);
    EXPECT_NEAR(mse, 0.0092, 0.0005);
    EXPECT_EQ(RelativeMse(exact.layer[n].v, served->layer[n].v, 2, 512, kTokens), 0);
    EXPECT_EQ(RelativeMse(exact.layer[n].k, served->layer[n].k, 2, 512, kTokens), 0);
  }

  // Cold, every token went through the codec: what eval measures offline.
  RunJson(About("get", {"--out", path, "--no-tail"}));
  const absl::StatusOr<Capture> cold = OpenCapture(path);
  ASSERT_TRUE(cold.ok()) << cold.status();
  const json eval = RunJson({"eval", kCapture, "--policy", "turbo4"});
  for (int n = 0; n < kLayers; ++n) {
    EXPECT_NEAR(RelativeMse(exact.layer[n].k, cold->layer[n].k, 2, 0, kTokens) /
                    eval["layers"][n]["k"]["relative_mse"].get<double>(),
                1.0, 1e-5);
  }
}

TEST_F(CliServerTest, TokenFilesFindPrefixes) {
  RunJson(About("put"));
  const Capture capture = *OpenCapture(kCapture);
  std::string text;
  for (int i = 0; i < 300; ++i)
    text += std::to_string(capture.token_ids[i]) + (i % 9 ? ", " : "\n");
  const std::string tokens = dir_.Write("ids.txt", text);
  const std::vector<std::string> shape = {"--tokens",   tokens,
                                          "--layers",   "4",
                                          "--kv-heads", "2",
                                          "--head-dim", "128",
                                          "--policy",   "turbo4",
                                          "--server",   server_.address(),
                                          "--model",    "tiny-d128.safetensors"};
  std::vector<std::string> lookup = {"lookup"};
  lookup.insert(lookup.end(), shape.begin(), shape.end());
  // Two full blocks of the 300 tokens; the tail belongs to the whole sequence only.
  EXPECT_EQ(RunJson(lookup)["matched_tokens"], 256);
  std::vector<std::string> get = {"get", "--dtype", "source", "--out", dir_.Path("p.safetensors")};
  get.insert(get.end(), shape.begin(), shape.end());
  EXPECT_EQ(RunJson(get)["matched_tokens"], 256);
  const Capture prefix = *OpenCapture(dir_.Path("p.safetensors"));
  EXPECT_EQ(prefix.tokens, 256);
  EXPECT_EQ(prefix.type, ValueType::kBf16);

  lookup.insert(lookup.end(), {"--rope", "theta=500000"});
  EXPECT_EQ(RunJson(lookup)["matched_tokens"], 0) << "another RoPE is another cache";
  dir_.Write("ids.txt", "1 2 x3");
  ExpectFailure(lookup, 1, "\"x3\" (number 3) is no token id");
}

TEST_F(CliServerTest, BenchReportsAndCleansUp) {
  const json bench =
      RunJson({"bench", "--server", server_.address(), "--sequences", "3", "--tokens", "300",
               "--layers", "2", "--kv-heads", "2", "--threads", "2", "--policy", "q8_0"});
  for (const char* phase : {"store", "lookup", "fetch"}) {
    EXPECT_GT(bench[phase]["tokens_per_second"], 0) << phase;
    EXPECT_GE(bench[phase]["latency_ms"]["max"], bench[phase]["latency_ms"]["p50"]) << phase;
  }
  EXPECT_EQ(bench["missed_blocks"], 0);
  EXPECT_EQ(bench["store"]["bytes"], 3 * 300 * 2 * 2 * 2 * 128 * 2);
  EXPECT_GT(bench["fetch"]["first_layer_ms"]["p50"], 0);
  const json stats = RunJson({"stats", "--server", server_.address()});
  EXPECT_EQ(stats["blocks"], 0);
  EXPECT_EQ(stats["tails"], 0);
}

TEST_F(CliServerTest, ProgressGoesToStandardErrorOnRequest) {
  const CommandResult quiet = Run(About("put"));
  EXPECT_EQ(quiet.err, "");
  EXPECT_THAT(quiet.out, HasSubstr("stored 5 blocks"));
  const CommandResult loud = Run(About("put", {"--progress", "--json"}));
  EXPECT_THAT(loud.err, AllOf(HasSubstr("storing ["), HasSubstr("2.5 MiB of 2.5 MiB (100 %)")));
  EXPECT_FALSE(json::parse(loud.out, nullptr, false).is_discarded());
}

TEST_F(CliTest, UsageErrorsExitWithTwo) {
  ExpectFailure({}, 2, "A command");
  ExpectFailure({"fly"}, 2, "fly");
  ExpectFailure({"put"}, 2, "turbokv put: CAPTURE is required");
  ExpectFailure({"get", kCapture}, 2, "--out is required");
  ExpectFailure({"get", "--out", "x"}, 2, "CAPTURE or --tokens");
  ExpectFailure({"lookup", "--tokens", "x"}, 2, "--tokens requires --layers");
  ExpectFailure({"eval", kCapture, "--policy", "turbo5"}, 2, "unknown codec \"turbo5\"");
  ExpectFailure({"eval", kCapture, "--frobnicate"}, 2, "--frobnicate");
  ExpectFailure({"convert", "a", "b"}, 2, "--to or --from");
  ExpectFailure({"convert", "a", "b", "--to", "llama.cpp"}, 2, "--to requires --policy");
  ExpectFailure({"bench", "--tokens", "0"}, 2, "--tokens");
}

TEST_F(CliTest, RuntimeErrorsExitWithOneAndSayWhatToDo) {
  ExpectFailure({"put", dir_.Path("none")}, 1,
                "turbokv put: " + dir_.Path("none") + ": cannot open");
  ExpectFailure({"eval", kCapture, "--policy", "9:k=bf16"}, 1, "layer 9");
  ExpectFailure({"eval", kCapture, "--policy", "k=turbo3_tcq"}, 1, "turbo3_tcq");
  ExpectFailure({"stats", "--server", "127.0.0.1:1"}, 1, "Check that turbokvd runs");
  ExpectFailure({"convert", kCapture, dir_.Path("o"), "--to", "llama.cpp", "--policy", "int4"}, 1,
                "turbo2, turbo3");
}

TEST_F(CliTest, DamagedCapturesAreRefusedByEveryReader) {
  std::ifstream file(kCapture, std::ios::binary);
  const std::string whole{std::istreambuf_iterator<char>(file), {}};
  for (size_t size : {size_t{0}, size_t{7}, size_t{100}, size_t{2000}, whole.size() - 1}) {
    const std::string cut = dir_.Write("cut.safetensors", whole.substr(0, size));
    ExpectFailure({"eval", cut}, 1, "cut.safetensors: ");
    ExpectFailure({"put", cut}, 1, "cut.safetensors: ");
    ExpectFailure({"convert", cut, "x", "--from", "llama.cpp"}, 1, "cut.safetensors: ");
  }
  std::string long_header = whole;
  long_header[7] = '\x80';
  ExpectFailure({"eval", dir_.Write("header.safetensors", long_header)}, 1,
                "header length 92233720");
}

TEST_F(CliTest, EvalReportsLayersAndMeans) {
  const json eval = RunJson({"eval", kCapture, "--policy", "turbo3"});
  ASSERT_EQ(eval["layers"].size(), kLayers);
  EXPECT_EQ(eval["policy"], "0-3:k=turbo3,v=turbo3,kmean=on");
  double sum = 0;
  for (const json& layer : eval["layers"]) {
    EXPECT_NEAR(layer["v"]["relative_mse"], 0.034, 0.001);
    EXPECT_LT(layer["k"]["relative_mse"], 0.034) << "centring takes most of K's energy";
    EXPECT_GT(layer["output_error"], 0);
    sum += layer["attention_kld"].get<double>();
  }
  EXPECT_NEAR(eval["mean"]["attention_kld"], sum / kLayers, 1e-12);
  EXPECT_NEAR(eval["bits_per_value"], 3.2, 0.05);
}

TEST_F(CliTest, ConvertThereAndBack) {
  const std::string blocks = dir_.Path("blocks.safetensors");
  const std::string values = dir_.Path("values.safetensors");
  const json to =
      RunJson({"convert", kCapture, blocks, "--to", "llama.cpp", "--policy", "k=turbo4,v=turbo3"});
  EXPECT_EQ(to["output_bytes"], kTokens * kLayers * 2 * (66 + 50));
  const json from = RunJson({"convert", blocks, values, "--from", "llama.cpp"});
  EXPECT_EQ(from["policy"], "0-3:k=turbo4,v=turbo3,kmean=off");
  const Capture exact = *OpenCapture(kCapture);
  const Capture back = *OpenCapture(values);
  EXPECT_NEAR(RelativeMse(exact.layer[2].k, back.layer[2].k, 2, 0, kTokens), 0.0092, 0.001);
  EXPECT_NEAR(RelativeMse(exact.layer[2].v, back.layer[2].v, 2, 0, kTokens), 0.034, 0.002);
}

TEST_F(CliTest, HelpGivesEveryCommandAnExample) {
  const CommandResult help = Run({"--help"});
  EXPECT_EQ(help.exit_code, 0);
  for (const char* command : {"put", "get", "lookup", "rm", "stats", "bench", "eval", "convert"}) {
    EXPECT_THAT(help.out, HasSubstr(command));
    const CommandResult one = Run({command, "--help"});
    EXPECT_EQ(one.exit_code, 0);
    EXPECT_THAT(one.out,
                AllOf(HasSubstr(std::string("  turbokv ") + command), HasSubstr("--json")));
  }
  EXPECT_THAT(Run({"--version"}).out, StartsWith("turbokv "));
}

}  // namespace
}  // namespace turbokv
