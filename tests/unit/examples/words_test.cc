#include "examples/llama/words.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>
#include <string>

namespace turbokv::examples {
namespace {

using ::testing::ElementsAre;

TEST(SplitWords, FollowsTheGpt2Pattern) {
  EXPECT_THAT(SplitWords("Hello world"), ElementsAre("Hello", " world"));
  EXPECT_THAT(SplitWords("it's they'll I'd'x"),
              ElementsAre("it", "'s", " they", "'ll", " I", "'d", "'", "x"));
  EXPECT_THAT(SplitWords("a1 22b"), ElementsAre("a", "1", " 22", "b"));
  EXPECT_THAT(SplitWords("x = f(y);"), ElementsAre("x", " =", " f", "(", "y", ");"));
}

TEST(SplitWords, LeavesTheLastSpaceToTheNextWord) {
  EXPECT_THAT(SplitWords("a   b"), ElementsAre("a", "  ", " b"));
  EXPECT_THAT(SplitWords("a\n    b"), ElementsAre("a", "\n   ", " b"));
  EXPECT_THAT(SplitWords("a\n\nb"), ElementsAre("a", "\n", "\n", "b"));
  EXPECT_THAT(SplitWords("a\tb"), ElementsAre("a", "\t", "b"));
  EXPECT_THAT(SplitWords("a  "), ElementsAre("a", "  "));
  EXPECT_THAT(SplitWords(" "), ElementsAre(" "));
  EXPECT_THAT(SplitWords(""), ElementsAre());
}

TEST(SplitWords, KnowsUnicodeClasses) {
  EXPECT_THAT(SplitWords("größe 漢字 ٣٤"), ElementsAre("größe", " 漢字", " ٣٤"));
  EXPECT_THAT(SplitWords("x²½"), ElementsAre("x", "²½"));
  EXPECT_THAT(SplitWords("ok😀!"), ElementsAre("ok", "😀!"));
  EXPECT_THAT(SplitWords("a\u00a0\u3000b"), ElementsAre("a", "\u00a0", "\u3000", "b"));
  EXPECT_THAT(SplitWords("𝔘𝔫x"), ElementsAre("𝔘𝔫x"));  // outside the basic plane
}

TEST(SplitWords, CoversAnyBytes) {
  std::mt19937 random(7);
  for (int round = 0; round < 2000; ++round) {
    std::string text(random() % 40, '\0');
    for (char& c : text) c = static_cast<char>(random());
    std::string joined;
    for (std::string_view word : SplitWords(text)) {
      ASSERT_FALSE(word.empty());
      joined += word;
    }
    ASSERT_EQ(joined, text);
  }
}

}  // namespace
}  // namespace turbokv::examples
