#include "tests/unit/examples/test_files.h"

#include <gtest/gtest.h>
#include <stdlib.h>

#include <fstream>
#include <iterator>

namespace turbokv::examples {

std::string DataPath(const std::string& name) {
  return std::string(TURBOKV_SOURCE_DIR) + "/examples/data/" + name;
}

std::string ModelDir() { return DataPath("tiny-d128"); }

std::string ReadAll(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  EXPECT_TRUE(file) << path;
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

void WriteAll(const std::string& path, const std::string& contents) {
  std::ofstream file(path, std::ios::binary | std::ios::trunc);
  file << contents;
  EXPECT_TRUE(file.good()) << path;
}

ModelCopy::ModelCopy() {
  std::string pattern = (std::filesystem::temp_directory_path() / "turbokv-model-XXXXXX").string();
  EXPECT_NE(mkdtemp(pattern.data()), nullptr);
  dir_ = pattern;
  for (const auto& entry : std::filesystem::directory_iterator(ModelDir())) {
    std::filesystem::copy_file(entry.path(), dir_ / entry.path().filename());
  }
}

ModelCopy::~ModelCopy() {
  std::error_code ignored;
  std::filesystem::remove_all(dir_, ignored);
}

void ModelCopy::Replace(const std::string& name, const std::string& from,
                        const std::string& to) const {
  std::string contents = ReadAll(path(name));
  const size_t found = contents.find(from);
  ASSERT_NE(found, std::string::npos) << from;
  contents.replace(found, from.size(), to);
  WriteAll(path(name), contents);
}

}  // namespace turbokv::examples
