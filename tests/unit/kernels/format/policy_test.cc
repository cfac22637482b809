#include "kernels/format/policy.h"

#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace turbokv {
namespace {

using ::testing::HasSubstr;

absl::StatusOr<std::string> Canonical(absl::string_view text, int layers) {
  const absl::StatusOr<Policy> policy = Policy::Parse(text);
  if (!policy.ok()) return policy.status();
  const absl::StatusOr<std::vector<LayerCodecs>> expanded = policy->Expand(layers);
  if (!expanded.ok()) return expanded.status();
  return CanonicalPolicy(*expanded);
}

struct Good {
  const char* text;
  const char* canonical;  // of 4 layers
};

TEST(PolicyTest, ExpandsToTheCanonicalForm) {
  const Good table[] = {
      {"balanced", "0-3:k=int5,v=int5,kmean=on"},
      {"safe", "0-3:k=int6,v=int6,kmean=on"},
      {"compact", "0-3:k=turbo4,v=turbo3,kmean=on"},
      {" turbo3 ", "0-3:k=turbo3,v=turbo3,kmean=on"},
      {"bf16", "0-3:k=bf16,v=bf16,kmean=off"},
      {"k=q8_0", "0-3:k=q8_0,v=int5,kmean=on"},
      {"v=turbo2", "0-3:k=int5,v=turbo2,kmean=on"},
      {"kmean=off", "0-3:k=int5,v=int5,kmean=off"},
      {"k=q8_0,v=turbo4;0-1,3:k=bf16,v=bf16",
       "0-1:k=bf16,v=bf16,kmean=off;2:k=q8_0,v=turbo4,kmean=on;3:k=bf16,v=bf16,kmean=off"},
      {"k=q8_0;0-2:k=int6;1-3:v=fp16;2:k=turbo4",
       "0:k=int6,v=int5,kmean=on;1:k=int6,v=fp16,kmean=on;2:k=turbo4,v=fp16,kmean=on;"
       "3:k=q8_0,v=fp16,kmean=on"},
      {"0:k=fp8_e4m3", "0:k=fp8_e4m3,v=int5,kmean=on;1-3:k=int5,v=int5,kmean=on"},
      {"policy=compact", "0-3:k=turbo4,v=turbo3,kmean=on"},
      {"v=int8,policy=compact", "0-3:k=turbo4,v=int8,kmean=on"},
      {"policy=safe,kmean=off,recent=128,sinks=0;3:v=q4_0",
       "0-2:k=int6,v=int6,kmean=off;3:k=int6,v=q4_0,kmean=off"},
      {"turbo3:0-1,q8_0:2-3", "0-1:k=turbo3,v=turbo3,kmean=on;2-3:k=q8_0,v=q8_0,kmean=on"},
      {"turbo3:0-1,3,q8_0:2",
       "0-1:k=turbo3,v=turbo3,kmean=on;2:k=q8_0,v=q8_0,kmean=on;"
       "3:k=turbo3,v=turbo3,kmean=on"},
      {" k = q8_0 , v = turbo4 ; 0 - 1 , 3 : k = bf16 ",
       "0-1:k=bf16,v=turbo4,kmean=off;2:k=q8_0,v=turbo4,kmean=on;3:k=bf16,v=turbo4,kmean=off"},
      // Overridden everywhere: what is not implemented is not taken.
      {"k=turbo3_tcq;0-3:k=int4", "0-3:k=int4,v=int5,kmean=on"},
  };
  for (const Good& row : table) {
    const absl::StatusOr<std::string> canonical = Canonical(row.text, 4);
    ASSERT_TRUE(canonical.ok()) << row.text << ": " << canonical.status();
    EXPECT_EQ(*canonical, row.canonical) << row.text;
  }
}

TEST(PolicyTest, DefaultIsAPreset) {
  EXPECT_EQ(*Canonical(kDefaultPolicy, 2), "0-1:k=int5,v=int5,kmean=on");
  for (const Preset& preset : PolicyPresets()) {
    EXPECT_TRUE(Canonical(preset.name, 32).ok());
    EXPECT_EQ(*Canonical(preset.name, 32), *Canonical(preset.rules, 32));
  }
}

struct Bad {
  const char* text;
  absl::StatusCode code;
  const char* message;
};

TEST(PolicyTest, BadPoliciesAreRefusedByName) {
  constexpr absl::StatusCode kInvalid = absl::StatusCode::kInvalidArgument;
  constexpr absl::StatusCode kUnimplemented = absl::StatusCode::kUnimplemented;
  const Bad table[] = {
      {"", kInvalid, "unknown codec \"\""},
      {"fast", kInvalid, "balanced"},
      {"turbo9", kInvalid, "\"turbo9\""},
      {"k=turbo9", kInvalid, "unknown codec \"turbo9\"; known: bf16"},
      {"k=", kInvalid, "unknown codec \"\""},
      {"k=int5,k=int6", kInvalid, "key \"k\" is twice"},
      {"q=int5", kInvalid, "unknown key \"q\""},
      {"K=int5", kInvalid, "unknown key \"K\""},
      {"k=int5;", kInvalid, "a rule is empty"},
      {";k=int5", kInvalid, "a rule is empty"},
      {"k=int5,", kInvalid, "expected key=value"},
      {"k=int5,bf16", kInvalid, "found \"bf16\""},
      {"balanced;0:k=bf16", kInvalid, "found \"balanced\""},
      {"policy=fast", kInvalid, "unknown preset \"fast\"; known: safe balanced compact"},
      {"k=int5;policy=safe", kInvalid, "\"policy\" holds for all layers"},
      {"0-1:kmean=off", kInvalid, "\"kmean\" holds for all layers"},
      {"k=int5;recent=128", kInvalid, "\"recent\""},
      {"kmean=maybe", kInvalid, "\"maybe\""},
      {"recent=lots", kInvalid, "\"lots\""},
      {"recent=-1", kInvalid, "\"-1\""},
      {"recent=99999999999999999999", kInvalid, "is not in 0..16777216"},
      {"1-0:k=int5", kInvalid, "first <= last"},
      {"a:k=int5", kInvalid, "expected a layer, found \"a\""},
      {":k=int5", kInvalid, "expected a layer"},
      {"0-:k=int5", kInvalid, "expected a layer"},
      {"0--1:k=int5", kInvalid, "expected a layer"},
      {"-1:k=int5", kInvalid, "expected a layer"},
      {"0,:k=int5", kInvalid, "expected a layer"},
      {"0x1:k=int5", kInvalid, "expected a layer"},
      {"1024:k=int5", kInvalid, "is not in 0..1023"},
      {"0:1:k=int5", kInvalid, "unknown key \"1:k\""},
      {"0-3:int5", kInvalid, "unknown codec \"0-3\""},
      {"turbo3:0-3,q9:2", kInvalid, "unknown codec \"q9\""},
      {"0,turbo3:1", kInvalid, "expected codec:layers, found \"0\""},
      {"turbo3:", kInvalid, "expected a layer"},
      {"turbo3:0-1", kInvalid, "layer 2 of 4 has no codec"},
      {"turbo3:0-4", kInvalid, "names layer 4, and there are 4 layers"},
      {"k=int5;4:v=int5", kInvalid, "names layer 4"},
      {"turbo3_tcq:0-3", kUnimplemented, "k codec turbo3_tcq of layer 0"},
      {"turbo3:0-2,turbo2_tcq:3", kUnimplemented, "turbo2_tcq of layer 3"},
      {"k=int5,v=klt3", kUnimplemented, "v codec klt3 of layer 0"},
      {"recent=256", kUnimplemented, "recent=256"},
      {"sinks=4", kUnimplemented, "sinks=4"},
  };
  for (const Bad& row : table) {
    const absl::Status status = Canonical(row.text, 4).status();
    EXPECT_EQ(status.code(), row.code) << row.text << ": " << status;
    EXPECT_THAT(status.message(), HasSubstr(row.message)) << row.text;
    EXPECT_THAT(status.message(), HasSubstr("policy")) << row.text;
  }
}

TEST(PolicyTest, LimitsHold) {
  EXPECT_EQ(Policy::Parse(std::string(kMaxPolicyBytes + 1, ' ')).status().code(),
            absl::StatusCode::kInvalidArgument);
  const absl::StatusOr<Policy> policy = Policy::Parse("int5");
  ASSERT_TRUE(policy.ok());
  for (int layers : {-1, 0, kMaxLayers + 1}) EXPECT_FALSE(policy->Expand(layers).ok());
  EXPECT_EQ(policy->Expand(kMaxLayers)->size(), static_cast<size_t>(kMaxLayers));
}

TEST(PolicyTest, MessagesAreShortAndPrintable) {
  const std::string hostile = std::string(1000, 'x') + "\xff\n=1";
  const absl::Status status = Policy::Parse(hostile).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_LT(status.message().size(), 300u);
  for (char c : status.message()) EXPECT_TRUE(c >= 0x20 && c < 0x7f);
}

}  // namespace
}  // namespace turbokv
