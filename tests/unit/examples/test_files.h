// Model directories for tests: the repository's, and damaged copies of it.
#pragma once

#include <filesystem>
#include <string>

namespace turbokv::examples {

std::string DataPath(const std::string& name);  // under examples/data/
std::string ModelDir();                         // of tiny-d128
std::string ReadAll(const std::string& path);
void WriteAll(const std::string& path, const std::string& contents);

// A copy of ModelDir() in a temporary directory that goes away with this.
class ModelCopy {
 public:
  ModelCopy();
  ~ModelCopy();
  ModelCopy(const ModelCopy&) = delete;
  ModelCopy& operator=(const ModelCopy&) = delete;

  std::string dir() const { return dir_.string(); }
  std::string path(const std::string& name) const { return (dir_ / name).string(); }
  // Replaces the first `from` in a file, which must contain it.
  void Replace(const std::string& name, const std::string& from, const std::string& to) const;

 private:
  std::filesystem::path dir_;
};

}  // namespace turbokv::examples
