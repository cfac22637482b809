#include "client/safetensors.h"

#include <sys/stat.h>

#include <random>

#include "client/safetensors_header.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/unit/client/safetensors_builder.h"
#include "tests/unit/client/temp_dir.h"

namespace turbokv {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

constexpr char kTwoTensors[] = R"({"__metadata__":{"model":"m"},)"
                               R"("a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},)"
                               R"("b":{"dtype":"U8","shape":[2,2],"data_offsets":[8,12]}})";

absl::StatusOr<SafetensorsFile> Parse(const std::string& file) {
  return SafetensorsFile::Parse(AsBytes(file), "x.safetensors");
}

TEST(SafetensorsTest, ReadsTensorsAndMetadata) {
  const std::string bytes = SafetensorsBytes(kTwoTensors, "abcdefghijkl");
  const absl::StatusOr<SafetensorsFile> file = Parse(bytes);
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_EQ(file->metadata().at("model"), "m");
  ASSERT_EQ(file->tensors().size(), 2);
  const Tensor b = *file->Get("b");
  EXPECT_EQ(b.type, TensorType::kU8);
  EXPECT_EQ(b.shape, (std::vector<int64_t>{2, 2}));
  EXPECT_EQ(b.elements(), 4);
  EXPECT_EQ(std::string(b.bytes.begin(), b.bytes.end()), "ijkl");
}

TEST(SafetensorsTest, AcceptsEmptyFilesScalarsAndEmptyTensors) {
  EXPECT_TRUE(Parse(SafetensorsBytes("{}", "")).ok());
  EXPECT_TRUE(Parse(SafetensorsBytes("{}      ", "")).ok());
  const std::string bytes =
      SafetensorsBytes(R"({"e":{"dtype":"F32","shape":[0,4],"data_offsets":[0,0]},)"
                       R"("s":{"dtype":"I64","shape":[],"data_offsets":[0,8]}})",
                       "12345678");
  const absl::StatusOr<SafetensorsFile> file = Parse(bytes);
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_EQ(file->Get("e")->elements(), 0);
  EXPECT_EQ(file->Get("s")->elements(), 1);
}

TEST(SafetensorsTest, NamesTheFileAndTheMissingTensor) {
  const std::string bytes = SafetensorsBytes(kTwoTensors, "abcdefghijkl");
  const absl::Status status = Parse(bytes)->Get("layers.0.k").status();
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(status.message()),
              AllOf(HasSubstr("x.safetensors"), HasSubstr("layers.0.k")));
}

struct BadFile {
  const char* what;
  std::string bytes;
  const char* message;
};

// One tensor whose entry is `entry`, over `data`.
std::string OneTensor(const std::string& entry, const std::string& data) {
  return SafetensorsBytes("{\"a\":" + entry + "}", data);
}

std::string Entry(const std::string& dtype, const std::string& shape, const std::string& offsets) {
  return "{\"dtype\":\"" + dtype + "\",\"shape\":" + shape + ",\"data_offsets\":" + offsets + "}";
}

std::vector<BadFile> BadFiles() {
  const std::string two = Entry("U8", "[2]", "[0,2]");
  const std::string deep(200'000, '[');
  return {
      {"Empty", "", "0 bytes are no safetensors file"},
      {"CutLength", "1234567", "7 bytes are no safetensors file"},
      {"HugeHeader", SafetensorsBytes("{}", "", uint64_t{1} << 63),
       "header length 9223372036854775808"},
      {"AllOnesHeader", SafetensorsBytes("{}", "", ~uint64_t{0}), "above the limit"},
      {"HeaderBeyondEnd", SafetensorsBytes("{}", "", 3), "beyond the file's end"},
      {"NoHeader", SafetensorsBytes("", "abc"), "not valid JSON"},
      {"CutHeader", SafetensorsBytes(R"({"a":{"dtype":"U8")", ""), "not valid JSON"},
      {"TrailingJson", SafetensorsBytes("{}{}", ""), "not valid JSON"},
      {"BadUtf8", SafetensorsBytes("{\"\xff\":{}}", ""), "not valid JSON"},
      {"Array", SafetensorsBytes("[]", ""), "an array"},
      {"Number", SafetensorsBytes("7", ""), "a number"},
      {"DeepArrays", SafetensorsBytes(deep, ""), "an array"},
      {"DeepShape", OneTensor("{\"shape\":" + deep, ""), "an array"},
      {"DeepObjects", OneTensor(R"({"shape":{"a":{"b":{}}}})", ""), "an object"},
      {"TensorIsNumber", OneTensor("3", ""), "a number"},
      {"TensorIsNull", OneTensor("null", ""), "null"},
      {"UnknownType", OneTensor(Entry("F8_E5M2", "[2]", "[0,2]"), "ab"),
       "\"F8_E5M2\" is not supported"},
      {"TypeIsNumber", OneTensor(R"({"dtype":1,"shape":[],"data_offsets":[0,1]})", "a"),
       "a number"},
      {"NoType", OneTensor(R"({"shape":[1],"data_offsets":[0,1]})", "a"), "dtype is missing"},
      {"NoShape", OneTensor(R"({"dtype":"U8","data_offsets":[0,1]})", "a"), "shape is missing"},
      {"NoOffsets", OneTensor(R"({"dtype":"U8","shape":[1]})", "a"), "data_offsets is missing"},
      {"UnknownField", OneTensor(R"({"strides":[1]})", "a"), "unknown field \"strides\""},
      {"RepeatedField", OneTensor(R"({"dtype":"U8","dtype":"U8"})", ""), "dtype is repeated"},
      {"RepeatedName", SafetensorsBytes("{\"a\":" + two + ",\"a\":" + two + "}", "ab"),
       "the name \"a\" is repeated"},
      {"RepeatedMetadata", SafetensorsBytes(R"({"__metadata__":{},"__metadata__":{}})", ""),
       "is repeated"},
      {"RepeatedMetadataKey", SafetensorsBytes(R"({"__metadata__":{"a":"1","a":"2"}})", ""),
       "\"a\" is repeated"},
      {"MetadataNumber", SafetensorsBytes(R"({"__metadata__":{"a":1}})", ""), "a number"},
      {"NegativeShape", OneTensor(Entry("U8", "[-1]", "[0,2]"), "ab"), "the negative number -1"},
      {"FractionalShape", OneTensor(Entry("U8", "[1.5]", "[0,2]"), "ab"), "\"1.5\""},
      {"HugeNumber", OneTensor(Entry("U8", "[18446744073709551615]", "[0,2]"), "ab"), "2^63"},
      {"BeyondInteger", OneTensor(Entry("U8", "[99999999999999999999999]", "[0,2]"), "ab"),
       "number"},
      {"ShapeOverflow", OneTensor(Entry("U8", "[4294967296,4294967296]", "[0,2]"), "ab"),
       "more than 2^63 - 1 elements"},
      {"ByteOverflow", OneTensor(Entry("I64", "[2305843009213693952]", "[0,0]"), ""), "elements"},
      {"ManyDimensions", OneTensor(Entry("U8", "[1,1,1,1,1,1,1,1,1]", "[0,1]"), "a"),
       "more than 8"},
      {"ShapeTooSmall", OneTensor(Entry("U8", "[1]", "[0,2]"), "ab"), "span 2 bytes"},
      {"ShapeTooLarge", OneTensor(Entry("F32", "[2]", "[0,4]"), "abcd"), "span 4 bytes"},
      {"OddExtent", OneTensor(Entry("F32", "[1]", "[0,5]"), "abcde"), "span 5 bytes"},
      {"Backwards", OneTensor(Entry("U8", "[2]", "[2,0]"), "ab"), "end before"},
      {"OneOffset", OneTensor(Entry("U8", "[2]", "[2]"), "ab"), "1 numbers, not 2"},
      {"BeyondData", OneTensor(Entry("U8", "[4]", "[0,4]"), "abc"), "truncated or damaged"},
      {"FarBeyondData",
       OneTensor(Entry("U8", "[9223372036854775807]", "[0,9223372036854775807]"), "abc"),
       "truncated or damaged"},
      {"Overlap",
       SafetensorsBytes("{\"a\":" + two + ",\"b\":" + Entry("U8", "[2]", "[1,3]") + "}", "abc"),
       "\"a\" and \"b\" overlap"},
      {"SamePlace", SafetensorsBytes("{\"a\":" + two + ",\"b\":" + two + "}", "ab"), "overlap"},
      {"Gap",
       SafetensorsBytes("{\"a\":" + two + ",\"b\":" + Entry("U8", "[1]", "[3,4]") + "}", "abcd"),
       "1 bytes of data before tensor \"b\" belong to no tensor"},
      {"TrailingData", OneTensor(two, "abc"), "1 bytes at the end"},
  };
}

class BadSafetensorsTest : public ::testing::TestWithParam<BadFile> {};

TEST_P(BadSafetensorsTest, IsRefusedWithTheReason) {
  const absl::Status status = Parse(GetParam().bytes).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
  EXPECT_THAT(std::string(status.message()),
              AllOf(HasSubstr("x.safetensors: "), HasSubstr(GetParam().message)));
  EXPECT_LT(status.message().size(), 400);
}

TEST_P(BadSafetensorsTest, IsRefusedAsAFileToo) {
  TempDir dir;
  const absl::Status status =
      SafetensorsFile::Open(dir.Write("bad.safetensors", GetParam().bytes)).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
}

INSTANTIATE_TEST_SUITE_P(, BadSafetensorsTest, ::testing::ValuesIn(BadFiles()),
                         [](const auto& test) { return std::string(test.param.what); });

TEST(SafetensorsTest, EveryTruncationIsRefused) {
  const std::string whole = SafetensorsBytes(kTwoTensors, "abcdefghijkl");
  ASSERT_TRUE(Parse(whole).ok());
  for (size_t size = 0; size < whole.size(); ++size) {
    EXPECT_FALSE(Parse(whole.substr(0, size)).ok()) << size;
  }
}

// Whatever a damaged header says, tensors stay inside the file.
TEST(SafetensorsTest, DamagedFilesAreRefusedOrStayInBounds) {
  const std::string whole = SafetensorsBytes(kTwoTensors, "abcdefghijkl");
  std::mt19937 random(7);
  for (int round = 0; round < 20'000; ++round) {
    std::string damaged = whole;
    const int flips = 1 + static_cast<int>(random() % 3);
    for (int i = 0; i < flips; ++i)
      damaged[random() % damaged.size()] = static_cast<char>(random());
    const absl::StatusOr<SafetensorsFile> file = Parse(damaged);
    if (!file.ok()) continue;
    const absl::Span<const uint8_t> all = AsBytes(damaged);
    for (const auto& [name, tensor] : file->tensors()) {
      ASSERT_GE(tensor.bytes.data(), all.data());
      ASSERT_LE(tensor.bytes.data() + tensor.bytes.size(), all.data() + all.size());
      ASSERT_EQ(tensor.bytes.size(), tensor.elements() * TensorTypeBytes(tensor.type));
    }
  }
}

TEST(SafetensorsTest, OpenTellsMissingFilesFromOtherThings) {
  TempDir dir;
  const absl::Status missing = SafetensorsFile::Open(dir.Path("none")).status();
  EXPECT_EQ(missing.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(missing.message()), HasSubstr("/none: cannot open"));
  EXPECT_EQ(SafetensorsFile::Open(dir.Path("")).status().code(),
            absl::StatusCode::kInvalidArgument);
  ASSERT_EQ(mkfifo(dir.Path("pipe").c_str(), 0600), 0);
  EXPECT_EQ(SafetensorsFile::Open(dir.Path("pipe")).status().code(),
            absl::StatusCode::kInvalidArgument);
}

TEST(SafetensorsTest, WrittenFilesReadBackTheSame) {
  TempDir dir;
  const std::vector<uint8_t> odd = {1, 2, 3};
  const std::vector<float> floats = {1.5f, -2.0f};
  const std::vector<int64_t> wide = {1, int64_t{1} << 40};
  const std::string path = dir.Path("out.safetensors");
  ASSERT_TRUE(WriteSafetensors(path,
                               {{"a.odd", TensorOf(TensorType::kU8, {3}, odd)},
                                {"b \"quoted\" \n", TensorOf(TensorType::kF32, {2, 1}, floats)},
                                {"c", TensorOf(TensorType::kI64, {2}, wide)},
                                {"d", TensorOf(TensorType::kF32, {0, 5}, std::vector<float>{})}},
                               {{"key", "v\xc3\xa4lue"}})
                  .ok());
  const absl::StatusOr<SafetensorsFile> file = SafetensorsFile::Open(path);
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_EQ(file->tensors().size(), 4);
  EXPECT_EQ(file->metadata().at("key"), "v\xc3\xa4lue");
  EXPECT_EQ(file->Get("a.odd")->bytes, absl::MakeConstSpan(odd));
  EXPECT_EQ(file->Get("b \"quoted\" \n")->shape, (std::vector<int64_t>{2, 1}));
  EXPECT_EQ(*ToFloats(*file->Get("b \"quoted\" \n")), floats);
  // Wide types come first, so that each tensor is aligned.
  for (const auto& [name, tensor] : file->tensors()) {
    EXPECT_EQ(reinterpret_cast<uintptr_t>(tensor.bytes.data()) % TensorTypeBytes(tensor.type), 0)
        << name;
  }
}

TEST(SafetensorsTest, WritingReplacesAtomicallyAndLeavesNothingBehindOnFailure) {
  TempDir dir;
  const std::vector<uint8_t> bytes = {1};
  const Tensor good = TensorOf(TensorType::kU8, {1}, bytes);
  const std::string path = dir.Write("out.safetensors", "old");
  const absl::Status mismatch =
      WriteSafetensors(path, {{"a", TensorOf(TensorType::kF32, {1}, bytes)}});
  EXPECT_EQ(mismatch.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(std::filesystem::file_size(path), 3);
  EXPECT_TRUE(WriteSafetensors(path, {{"a", good}}).ok());
  EXPECT_TRUE(SafetensorsFile::Open(path).ok());
  EXPECT_EQ(WriteSafetensors(dir.Path("no/such/place"), {{"a", good}}).code(),
            absl::StatusCode::kNotFound);
  // Onto a directory: the data is written, the rename fails.
  std::filesystem::create_directories(dir.Path("taken/full"));
  EXPECT_FALSE(WriteSafetensors(dir.Path("taken"), {{"a", good}}).ok());
  const auto entries = std::filesystem::directory_iterator(dir.Path(""));
  EXPECT_EQ(std::distance(begin(entries), end(entries)), 2);
}

TEST(SafetensorsTest, ToFloatsConvertsUnalignedValues) {
  const std::string bytes = std::string("x") + std::string("\x80\x3f\x00\xc0", 4);
  const Tensor bf16 = {TensorType::kBf16, {2}, AsBytes(bytes).subspan(1)};
  EXPECT_EQ(*ToFloats(bf16), (std::vector<float>{1.0f, -2.0f}));
  const std::string half = std::string("x") + std::string("\x00\x3c\x00\xc0", 4);
  const Tensor fp16 = {TensorType::kF16, {2}, AsBytes(half).subspan(1)};
  EXPECT_EQ(*ToFloats(fp16), (std::vector<float>{1.0f, -2.0f}));
  const Tensor ids = {TensorType::kI32, {1}, AsBytes(bytes).subspan(1)};
  EXPECT_EQ(ToFloats(ids).status().code(), absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace turbokv
