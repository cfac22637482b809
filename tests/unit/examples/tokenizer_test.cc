#include "examples/llama/tokenizer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>

#include "client/capture.h"
#include "tests/unit/examples/test_files.h"

namespace turbokv::examples {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

Tokenizer TinyTokenizer() {
  absl::StatusOr<Tokenizer> tokenizer = Tokenizer::Load(ModelDir());
  EXPECT_TRUE(tokenizer.ok()) << tokenizer.status();
  return *std::move(tokenizer);
}

TEST(Tokenizer, AgreesWithTheCaptureOfTheSample) {
  const auto capture = OpenCapture(DataPath("captures/tiny-d128.safetensors"));
  ASSERT_TRUE(capture.ok()) << capture.status();
  std::vector<int32_t> ids = TinyTokenizer().Encode(ReadAll(DataPath("sample.py.txt")));
  ASSERT_GE(ids.size(), capture->token_ids.size());
  ids.resize(capture->token_ids.size());
  EXPECT_EQ(ids, capture->token_ids);
}

TEST(Tokenizer, GivesAnyBytesBack) {
  const Tokenizer tokenizer = TinyTokenizer();
  EXPECT_EQ(tokenizer.vocab(), 4096);
  std::vector<std::string> texts = {"",
                                    " ",
                                    "def f(x):\n\treturn x  # größe 漢字 😀\r\n",
                                    ReadAll(DataPath("sample.py.txt")),
                                    std::string(100000, 'a'),
                                    std::string(100000, ' ') + "x",
                                    std::string("\0\xff\xc3\x28\xf8", 5)};
  std::mt19937 random(3);
  for (int round = 0; round < 200; ++round) {
    std::string text(random() % 60, '\0');
    for (char& c : text) c = static_cast<char>(random());
    texts.push_back(text);
  }
  for (const std::string& text : texts) {
    EXPECT_EQ(tokenizer.Decode(tokenizer.Encode(text)), text);
  }
}

TEST(Tokenizer, RecognisesAddedTokens) {
  const Tokenizer tokenizer = TinyTokenizer();
  EXPECT_THAT(tokenizer.Encode("<|end|>"), ElementsAre(0));
  EXPECT_THAT(tokenizer.Encode("!<|end|>\"<|end|>"), ElementsAre(1, 0, 2, 0));
  EXPECT_EQ(tokenizer.Decode({1, 0, 2, -1, 4096}), "!<|end|>\"");
}

TEST(Tokenizer, NamesWhatIsWrongWithItsFile) {
  const struct {
    const char* from;
    const char* to;
    const char* message;
  } cases[] = {
      {"\"BPE\"", "\"Unigram\"", "Unigram"},
      {"\"ByteLevel\"", "\"Whitespace\"", "ByteLevel"},
      {"\"merges\"", "\"mergers\"", "merges is missing"},
      {"\"vocab\"", "\"vocabulary\"", "vocab is missing"},
      {"\"!\"", "\"!!!!\"", "lacks a token for byte 33"},
  };
  for (const auto& test : cases) {
    const ModelCopy copy;
    copy.Replace("tokenizer.json", test.from, test.to);
    const auto tokenizer = Tokenizer::Load(copy.dir());
    ASSERT_FALSE(tokenizer.ok()) << test.to;
    EXPECT_THAT(std::string(tokenizer.status().message()), HasSubstr(test.message));
    EXPECT_THAT(std::string(tokenizer.status().message()), HasSubstr("tokenizer.json"));
  }
}

TEST(Tokenizer, RefusesADamagedFile) {
  const ModelCopy copy;
  const std::string whole = ReadAll(copy.path("tokenizer.json"));
  WriteAll(copy.path("tokenizer.json"), whole.substr(0, whole.size() / 2));
  EXPECT_EQ(Tokenizer::Load(copy.dir()).status().code(), absl::StatusCode::kInvalidArgument);
  WriteAll(copy.path("tokenizer.json"), "[1, 2]");
  EXPECT_EQ(Tokenizer::Load(copy.dir()).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(Tokenizer::Load(copy.dir() + "/none").status().code(), absl::StatusCode::kNotFound);
}

}  // namespace
}  // namespace turbokv::examples
