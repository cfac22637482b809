// The demo as its users run it: turbokvd and the two workers as processes.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <stdlib.h>
#include <sys/wait.h>

#include <cstdio>
#include <fstream>
#include <map>
#include <string>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"

namespace turbokv {
namespace {

using ::testing::HasSubstr;

struct Output {
  int exit_code = -1;
  std::string text;  // stdout and stderr

  std::string last_line() const {
    const std::vector<std::string> lines =
        absl::StrSplit(absl::StripSuffix(text, "\n"), absl::ByChar('\n'));
    return lines.back();
  }

  // The last line's key=value pairs.
  std::map<std::string, double> values() const {
    std::map<std::string, double> values;
    for (absl::string_view pair : absl::StrSplit(last_line(), ' ')) {
      const std::vector<std::string> parts = absl::StrSplit(pair, '=');
      double value = 0;
      EXPECT_EQ(parts.size(), 2u) << last_line();
      EXPECT_TRUE(absl::SimpleAtod(parts.back(), &value)) << last_line();
      values[parts.front()] = value;
    }
    return values;
  }
};

Output RunCommand(const std::string& command) {
  // One thread for matrix products: a sanitizer cannot see into OpenBLAS's own.
  FILE* pipe = popen(absl::StrCat("OPENBLAS_NUM_THREADS=1 ", command, " 2>&1").c_str(), "r");
  EXPECT_NE(pipe, nullptr);
  Output output;
  char buffer[4096];
  for (size_t bytes; (bytes = fread(buffer, 1, sizeof(buffer), pipe)) > 0;) {
    output.text.append(buffer, bytes);
  }
  const int status = pclose(pipe);
  output.exit_code = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  return output;
}

Output RunDemo(const std::string& options) {
  return RunCommand(
      absl::StrCat(TURBOKV_SOURCE_DIR, "/examples/run_demo.sh ", TURBOKV_BINARY_DIR, " ", options));
}

// Checks what holds for every successful run.
std::map<std::string, double> ExpectSaneResult(const Output& output) {
  EXPECT_EQ(output.exit_code, 0) << output.text;
  if (output.exit_code != 0) return {};
  std::map<std::string, double> values = output.values();
  std::vector<std::string> keys;
  for (const auto& [key, value] : values) keys.push_back(key);
  EXPECT_THAT(keys, testing::UnorderedElementsAre(
                        "prompt_tokens", "generated_tokens", "compression_ratio", "wire_ratio",
                        "mean_kld", "top1_agreement", "ttft_ms", "store_ms", "fetch_ms"));
  EXPECT_GE(values["mean_kld"], 0);
  EXPECT_LE(values["top1_agreement"], 1);
  for (const char* key : {"ttft_ms", "store_ms", "fetch_ms"}) {
    EXPECT_GT(values[key], 0) << key;
    EXPECT_LT(values[key], 60000) << key;
  }
  return values;
}

TEST(Demo, DecodesOnWhatPrefillStored) {
  const Output output = RunDemo("");
  const std::map<std::string, double> values = ExpectSaneResult(output);
  ASSERT_FALSE(values.empty());
  EXPECT_GE(values.at("prompt_tokens"), 640);
  EXPECT_GE(values.at("generated_tokens"), 128);
  // The default policy: 5.3 bits a value, and what headers and alignment add.
  EXPECT_GT(values.at("compression_ratio"), 2.8);
  EXPECT_LT(values.at("compression_ratio"), 16 / 5.3125);
  EXPECT_NEAR(values.at("wire_ratio"), values.at("compression_ratio"), 0.05);
  EXPECT_GT(values.at("mean_kld"), 0);
  EXPECT_LT(values.at("mean_kld"), 0.005);
  EXPECT_GT(values.at("top1_agreement"), 0.95);
  EXPECT_THAT(output.text, HasSubstr("Generated on compressed K/V"));
  EXPECT_THAT(output.text, HasSubstr("Generated on bf16 K/V"));
  EXPECT_THAT(output.text, HasSubstr("What compression cost"));
}

// What was generated, without times, which differ.
std::string GeneratedText(const Output& output) {
  const size_t begin = output.text.find("--- Generated on compressed K/V");
  const size_t end = output.text.find("--- What compression cost");
  EXPECT_NE(begin, std::string::npos) << output.text;
  EXPECT_NE(end, std::string::npos) << output.text;
  return begin < end ? output.text.substr(begin, end - begin) : "";
}

TEST(Demo, EveryRoadGivesTheSameText) {
  const Output grpc = RunDemo("--transport grpc");
  const Output shm = RunDemo("--transport=shm");
  ASSERT_FALSE(ExpectSaneResult(grpc).empty());
  ASSERT_FALSE(ExpectSaneResult(shm).empty());
  EXPECT_THAT(grpc.text, HasSubstr("Bytes travel by grpc: asked for"));
  EXPECT_THAT(shm.text, HasSubstr("Bytes travel by shm: asked for"));
  EXPECT_NE(GeneratedText(grpc), "");
  EXPECT_EQ(GeneratedText(grpc), GeneratedText(shm));
}

TEST(Demo, PolicyChangesTheRatio) {
  const auto compact = ExpectSaneResult(RunDemo("--policy k=turbo4,v=turbo3 --seed 3"));
  ASSERT_FALSE(compact.empty());
  EXPECT_GT(compact.at("compression_ratio"), 4.0);
  EXPECT_GT(compact.at("top1_agreement"), 0.9);
  const auto exact = ExpectSaneResult(RunDemo("--policy bf16 --tokens 140"));
  ASSERT_FALSE(exact.empty());
  EXPECT_EQ(exact.at("generated_tokens"), 140);
  EXPECT_NEAR(exact.at("compression_ratio"), 1.0, 0.01);
  EXPECT_LT(exact.at("mean_kld"), 1e-6);
  EXPECT_EQ(exact.at("top1_agreement"), 1);
}

TEST(Demo, TakesPromptsOfAnyLength) {
  const Output brief = RunDemo("--prompt 'def main():' --tokens 20");
  const auto values = ExpectSaneResult(brief);
  ASSERT_FALSE(values.empty());
  EXPECT_LT(values.at("prompt_tokens"), 10);
  EXPECT_EQ(values.at("compression_ratio"), 1);
  EXPECT_EQ(values.at("wire_ratio"), 1);
  EXPECT_LT(values.at("mean_kld"), 1e-6);
  EXPECT_THAT(brief.text, HasSubstr("nothing of it is compressed"));

  std::string path = testing::TempDir() + "/long_prompt.txt";
  {
    std::ofstream file(path);
    for (int i = 0; i < 2000; ++i) file << "value_" << i << " = compute(" << i * 7 << ")\n";
  }
  const Output endless = RunDemo(absl::StrCat("--tokens 16 --prompt ", path));
  const auto cut = ExpectSaneResult(endless);
  ASSERT_FALSE(cut.empty());
  EXPECT_EQ(cut.at("prompt_tokens"), 2048 - 16);
  EXPECT_THAT(endless.text, HasSubstr("are left out"));
}

TEST(Demo, SaysWhatIsWrong) {
  const struct {
    const char* options;
    const char* message;
  } cases[] = {
      {"--policy nonsense", "nonsense"},
      {"--policy turbo3_tcq", "turbo3_tcq"},
      {"--prompt ''", "the prompt is empty"},
      {"--model /nowhere", "/nowhere/config.json"},
      {"--transport pigeon", "'pigeon': expected auto"},
      {"--transport cuda", "transport cuda is not to be had"},
      {"--tokens 5000", "--tokens 5000 leaves no room"},
  };
  for (const auto& test : cases) {
    const Output output = RunDemo(test.options);
    EXPECT_NE(output.exit_code, 0) << test.options;
    EXPECT_THAT(output.text, HasSubstr(test.message));
  }
}

// turbokvd on its own, for workers that are run one by one.
class DemoWorkers : public testing::Test {
 protected:
  void SetUp() override {
    const Output started = RunCommand(absl::StrCat(
        "log=$(mktemp); ", TURBOKV_BINARY_DIR,
        "/turbokvd --listen 127.0.0.1:0 --metrics-listen 127.0.0.1:0 --memory 256MiB "
        ">$log 2>&1 & pid=$!; for i in $(seq 100); do grep -q ' listening ' $log && break; "
        "sleep 0.1; done; echo $pid $(sed -n 's/.* port=\\([0-9]*\\).*/\\1/p' $log); rm $log"));
    const std::vector<std::string> words =
        absl::StrSplit(absl::StripSuffix(started.text, "\n"), ' ');
    ASSERT_EQ(words.size(), 2u) << started.text;
    pid_ = words[0];
    server_ = "127.0.0.1:" + words[1];
  }

  void TearDown() override { RunCommand("kill " + pid_); }

  Output Worker(const std::string& name, const std::string& options) const {
    return RunCommand(absl::StrCat(TURBOKV_BINARY_DIR, "/turbokv-demo-", name, " --server ",
                                   server_, " ", options));
  }

  std::string pid_, server_;
};

TEST_F(DemoWorkers, AMissSaysWhatToDo) {
  const Output before = Worker("decode", "");
  EXPECT_EQ(before.exit_code, 1);
  EXPECT_THAT(before.text, HasSubstr("holds nothing of this prompt"));
  EXPECT_THAT(before.text, HasSubstr("turbokv-demo-prefill"));
  ASSERT_EQ(Worker("prefill", "--policy turbo4").exit_code, 0);
  // Another policy, another spec: a miss, never its pages.
  EXPECT_THAT(Worker("decode", "--policy turbo3").text, HasSubstr("holds nothing of this prompt"));
  EXPECT_EQ(Worker("decode", "--policy turbo4 --tokens 128").exit_code, 0);
}

TEST_F(DemoWorkers, ALongerPromptSharesThePrefix) {
  const std::string path = testing::TempDir() + "/longer_prompt.txt";
  {
    std::ifstream sample(TURBOKV_SOURCE_DIR "/examples/data/sample.py.txt");
    std::ofstream file(path);
    file << sample.rdbuf() << "\n\ndef another_function(argument):\n    return argument + 1\n";
  }
  ASSERT_EQ(Worker("prefill", "").exit_code, 0);
  // No tail for this prompt: the worker computes what is missing itself.
  const Output output = Worker("decode", absl::StrCat("--store-ms 1 --prompt ", path));
  EXPECT_THAT(output.text, HasSubstr("computing the rest of the prompt here"));
  const auto values = ExpectSaneResult(output);
  ASSERT_FALSE(values.empty());
  EXPECT_LT(values.at("mean_kld"), 0.01);
  EXPECT_GT(values.at("top1_agreement"), 0.95);
}

TEST_F(DemoWorkers, ASecondPrefillFindsTheBlocks) {
  ASSERT_EQ(Worker("prefill", "").values().at("present_blocks"), 0);
  const auto second = Worker("prefill", "").values();
  EXPECT_EQ(second.at("stored_blocks"), 0);
  EXPECT_GE(second.at("present_blocks"), 5);
}

}  // namespace
}  // namespace turbokv
