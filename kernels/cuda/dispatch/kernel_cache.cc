#include "kernels/cuda/dispatch/kernel_cache.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <cstdlib>
#include <ctime>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/types/span.h"
#include "base/logging.h"
#include "base/status_macros.h"
#include "kernels/format/crc32c.h"

namespace turbokv::cuda {
namespace {

constexpr uint64_t kMagic = 0x31304e524b564b54;  // "TKVKRN01" in memory
// Far above any kernel's image: a file's size is not trusted before its checksum is.
constexpr uint64_t kMaxImageBytes = 64 << 20;

struct FileHeader {
  uint64_t magic = kMagic;
  uint64_t image_bytes = 0;
  uint32_t image_crc32c = 0;
  uint32_t reserved = 0;
};

uint32_t ChecksumOf(absl::string_view image) {
  return Crc32c({reinterpret_cast<const uint8_t*>(image.data()), image.size()});
}

class FileDescriptor {
 public:
  explicit FileDescriptor(int fd) : fd_(fd) {}
  FileDescriptor(FileDescriptor&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  FileDescriptor(const FileDescriptor&) = delete;
  FileDescriptor& operator=(const FileDescriptor&) = delete;
  ~FileDescriptor() {
    if (fd_ >= 0) close(fd_);
  }

  int get() const { return fd_; }
  bool valid() const { return fd_ >= 0; }

 private:
  int fd_;
};

// Only this user can have written what `fd` is.
absl::Status CheckPrivate(int fd, absl::string_view path) {
  struct stat status {};
  if (fstat(fd, &status) != 0) return absl::ErrnoToStatus(errno, absl::StrCat("stat ", path));
  if (status.st_uid != geteuid()) {
    return absl::PermissionDeniedError(
        absl::StrCat(path, " belongs to user ", status.st_uid, ", not to user ", geteuid()));
  }
  if ((status.st_mode & (S_IWGRP | S_IWOTH)) != 0) {
    return absl::PermissionDeniedError(
        absl::StrCat(path, " can be written by others: mode 0", (status.st_mode >> 6) & 7,
                     (status.st_mode >> 3) & 7, status.st_mode & 7, ", wanted 0700"));
  }
  return absl::OkStatus();
}

absl::StatusOr<FileDescriptor> OpenDirectory(const std::string& path) {
  FileDescriptor directory(open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!directory.valid()) return absl::ErrnoToStatus(errno, absl::StrCat("open ", path));
  TURBOKV_RETURN_IF_ERROR(CheckPrivate(directory.get(), path));
  return directory;
}

absl::Status MakeDirectories(const std::string& path) {
  for (size_t end = path.find('/', 1);; end = path.find('/', end + 1)) {
    const std::string prefix = path.substr(0, end);
    if (mkdir(prefix.c_str(), 0700) != 0 && errno != EEXIST) {
      return absl::ErrnoToStatus(errno, absl::StrCat("mkdir ", prefix));
    }
    if (end == std::string::npos) return absl::OkStatus();
  }
}

bool ReadExactly(int fd, void* data, size_t size) {
  auto* bytes = static_cast<char*>(data);
  while (size > 0) {
    const ssize_t count = read(fd, bytes, size);
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) return false;
    bytes += count;
    size -= static_cast<size_t>(count);
  }
  return true;
}

absl::Status WriteAll(int fd, const void* data, size_t size) {
  const auto* bytes = static_cast<const char*>(data);
  while (size > 0) {
    const ssize_t count = write(fd, bytes, size);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return absl::ErrnoToStatus(errno, "write");
    bytes += count;
    size -= static_cast<size_t>(count);
  }
  return absl::OkStatus();
}

absl::Status WriteImage(int fd, absl::string_view image) {
  const FileHeader header = {.image_bytes = image.size(), .image_crc32c = ChecksumOf(image)};
  TURBOKV_RETURN_IF_ERROR(WriteAll(fd, &header, sizeof(header)));
  return WriteAll(fd, image.data(), image.size());
}

// A name that no other thread or process uses, whichever machine shares the directory.
absl::Status WriteFile(const FileDescriptor& directory, const std::string& name,
                       absl::string_view image) {
  static std::atomic<uint64_t> counter = 0;
  timespec now{};
  clock_gettime(CLOCK_REALTIME, &now);
  const std::string temporary =
      absl::StrCat(".", name, ".", getpid(), ".", now.tv_nsec, ".", counter.fetch_add(1));
  const FileDescriptor file(openat(directory.get(), temporary.c_str(),
                                   O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600));
  if (!file.valid()) return absl::ErrnoToStatus(errno, absl::StrCat("create ", temporary));
  absl::Status status = WriteImage(file.get(), image);
  if (status.ok() &&
      renameat(directory.get(), temporary.c_str(), directory.get(), name.c_str()) != 0) {
    status = absl::ErrnoToStatus(errno, absl::StrCat("rename ", temporary));
  }
  if (!status.ok()) unlinkat(directory.get(), temporary.c_str(), 0);
  return status;
}

std::string FromEnvironment(const char* variable) {
  const char* value = std::getenv(variable);
  return value == nullptr ? "" : value;
}

}  // namespace

void KernelCache::WarnOnce(const absl::Status& status) {
  if (warned_.exchange(true)) return;
  LogWarning("compiled kernels are not cached on disk",
             {{"directory", directory_}, {"reason", status.message()}});
}

std::optional<std::string> KernelCache::Read(absl::string_view name) {
  if (directory_.empty()) return std::nullopt;
  absl::StatusOr<FileDescriptor> directory = OpenDirectory(directory_);
  if (!directory.ok()) {
    if (!absl::IsNotFound(directory.status())) WarnOnce(directory.status());
    return std::nullopt;
  }
  const std::string file_name(name);
  const FileDescriptor file(
      openat(directory->get(), file_name.c_str(), O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC));
  if (!file.valid()) return std::nullopt;
  if (absl::Status status = CheckPrivate(file.get(), file_name); !status.ok()) {
    WarnOnce(status);
    return std::nullopt;
  }
  FileHeader header;
  struct stat status {};
  if (!ReadExactly(file.get(), &header, sizeof(header)) || header.magic != kMagic ||
      header.image_bytes > kMaxImageBytes || fstat(file.get(), &status) != 0 ||
      static_cast<uint64_t>(status.st_size) != sizeof(header) + header.image_bytes) {
    return std::nullopt;
  }
  std::string image(header.image_bytes, '\0');
  if (!ReadExactly(file.get(), image.data(), image.size()) ||
      ChecksumOf(image) != header.image_crc32c) {
    return std::nullopt;
  }
  return image;
}

void KernelCache::Write(absl::string_view name, absl::string_view image) {
  if (directory_.empty()) return;
  absl::Status status = MakeDirectories(directory_);
  if (status.ok()) {
    absl::StatusOr<FileDescriptor> directory = OpenDirectory(directory_);
    status = directory.ok() ? WriteFile(*directory, std::string(name), image) : directory.status();
  }
  if (!status.ok()) WarnOnce(status);
}

std::string KernelCacheDirectory() {
  std::string directory = FromEnvironment("TURBOKV_KERNEL_CACHE");
  if (!directory.empty()) return directory;
  directory = FromEnvironment("XDG_CACHE_HOME");
  if (!directory.empty()) return directory + "/turbokv";
  directory = FromEnvironment("HOME");
  return directory.empty() ? "" : directory + "/.cache/turbokv";
}

}  // namespace turbokv::cuda
