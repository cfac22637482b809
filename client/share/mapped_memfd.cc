#include "client/share/mapped_memfd.h"

#include <fcntl.h>
#include <linux/magic.h>
#include <sys/stat.h>
#include <sys/vfs.h>

#include <cerrno>
#include <cstring>

#include "absl/strings/str_cat.h"

namespace turbokv {

absl::Status CheckSealedMemory(absl::string_view what, int fd, uint64_t bytes) {
  const auto refuse = [&](auto... reason) {
    return absl::InvalidArgumentError(absl::StrCat(what, ": the descriptor ", reason...));
  };
  struct stat file;
  struct statfs system;
  if (fstat(fd, &file) != 0 || fstatfs(fd, &system) != 0) {
    return refuse("cannot be examined: ", std::strerror(errno));
  }
  // A memfd of huge pages can run out of them at any access.
  if (!S_ISREG(file.st_mode) || system.f_type != TMPFS_MAGIC) {
    return refuse("is no memory (memfd) of normal pages");
  }
  const int seals = fcntl(fd, F_GET_SEALS);
  constexpr int kNeeded = F_SEAL_SHRINK | F_SEAL_GROW;
  if (seals < 0 || (seals & kNeeded) != kNeeded) {
    return refuse("is of memory that can still be resized (seals ", seals < 0 ? 0 : seals,
                  ", needed ", kNeeded, ")");
  }
  if (static_cast<uint64_t>(file.st_size) != bytes) {
    return refuse("has ", file.st_size, " bytes instead of ", bytes);
  }
  return absl::OkStatus();
}

}  // namespace turbokv
