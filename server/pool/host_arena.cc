#include <fcntl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include "absl/cleanup/cleanup.h"
#include "absl/memory/memory.h"
#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "server/pool/arena.h"
#include "server/pool/slab_pool.h"

namespace turbokv {
namespace {

constexpr size_t kMaxSlabs = size_t{1} << 20;
constexpr rlim_t kOtherFiles = 1024;  // what the process opens beside its slabs

absl::Status Refused(absl::string_view what, size_t bytes) {
  return absl::ResourceExhaustedError(
      absl::StrCat("cannot ", what, " ", bytes, " bytes: ", std::strerror(errno)));
}

absl::StatusOr<uint8_t*> MapRange(size_t bytes, int protection) {
  void* base = mmap(nullptr, bytes, protection, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (base == MAP_FAILED) return Refused("map a memory budget of", bytes);
  return static_cast<uint8_t*>(base);
}

class AnonymousArena final : public Arena {
 public:
  AnonymousArena(uint8_t* base, size_t slab_bytes, uint32_t slab_count)
      : base_(base), slab_bytes_(slab_bytes), slab_count_(slab_count) {
    madvise(base_, slab_bytes_ * slab_count_, MADV_HUGEPAGE);  // a hint; works without
  }
  ~AnonymousArena() override { munmap(base_, slab_bytes_ * slab_count_); }

  uint8_t* base() const override { return base_; }
  size_t slab_bytes() const override { return slab_bytes_; }
  uint32_t slab_count() const override { return slab_count_; }
  absl::StatusOr<SharedSlab> Share(uint32_t) override {
    return absl::UnimplementedError("this pool's memory is private to the process");
  }
  absl::Status Renew(uint32_t) override { return absl::OkStatus(); }

 private:
  uint8_t* const base_;
  const size_t slab_bytes_;
  const uint32_t slab_count_;
};

// A memfd mapped at `address`. Nobody can resize it, and nobody but this mapping can write to it:
// its descriptors may be given away.
absl::StatusOr<int> MapMemfd(uint8_t* address, size_t bytes) {
  const int fd = memfd_create("turbokv-slab", MFD_CLOEXEC | MFD_ALLOW_SEALING);
  if (fd < 0) return Refused("create shared memory of", bytes);
  absl::Cleanup close_fd = [fd] { close(fd); };
  if (ftruncate(fd, static_cast<off_t>(bytes)) != 0) return Refused("size shared memory to", bytes);
  if (mmap(address, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED | MAP_NORESERVE, fd, 0) ==
      MAP_FAILED) {
    return Refused("map shared memory of", bytes);
  }
  madvise(address, bytes, MADV_HUGEPAGE);
  constexpr int kSeals = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_FUTURE_WRITE | F_SEAL_SEAL;
  if (fcntl(fd, F_ADD_SEALS, kSeals) != 0) return Refused("seal shared memory of", bytes);
  std::move(close_fd).Cancel();
  return fd;
}

class MemfdArena final : public Arena {
 public:
  MemfdArena(uint8_t* base, size_t slab_bytes, uint32_t slab_count)
      : base_(base), slab_bytes_(slab_bytes), fds_(slab_count, -1), shared_(slab_count) {}
  ~MemfdArena() override {
    munmap(base_, slab_bytes_ * fds_.size());
    for (const int fd : fds_) {
      if (fd >= 0) close(fd);
    }
  }

  absl::Status MapAll() {
    for (uint32_t slab = 0; slab < fds_.size(); ++slab) {
      TURBOKV_ASSIGN_OR_RETURN(fds_[slab], MapMemfd(SlabAddress(slab), slab_bytes_));
    }
    return absl::OkStatus();
  }

  uint8_t* base() const override { return base_; }
  size_t slab_bytes() const override { return slab_bytes_; }
  uint32_t slab_count() const override { return static_cast<uint32_t>(fds_.size()); }

  absl::StatusOr<SharedSlab> Share(uint32_t slab) override {
    const int fd = fcntl(fds_[slab], F_DUPFD_CLOEXEC, 0);
    if (fd < 0) return Refused("duplicate the descriptor of a slab of", slab_bytes_);
    shared_[slab] = true;
    SharedSlab handle;
    handle.kind = ShareKind::kMemfd;
    handle.fd = fd;
    return handle;
  }

  absl::Status Renew(uint32_t slab) override {
    if (!shared_[slab]) return absl::OkStatus();
    TURBOKV_ASSIGN_OR_RETURN(const int fd, MapMemfd(SlabAddress(slab), slab_bytes_));
    close(std::exchange(fds_[slab], fd));
    shared_[slab] = false;
    return absl::OkStatus();
  }

 private:
  uint8_t* SlabAddress(uint32_t slab) const { return base_ + slab * slab_bytes_; }

  uint8_t* const base_;
  const size_t slab_bytes_;
  std::vector<int> fds_;
  std::vector<bool> shared_;
};

// Each slab is an open file.
absl::Status AllowOpenFiles(uint32_t slab_count) {
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return absl::OkStatus();
  const rlim_t wanted = slab_count + kOtherFiles;
  if (limit.rlim_cur >= wanted) return absl::OkStatus();
  const rlim_t hard = limit.rlim_max;
  limit.rlim_cur = std::min(wanted, hard);
  if (wanted <= hard && setrlimit(RLIMIT_NOFILE, &limit) == 0) return absl::OkStatus();
  return absl::ResourceExhaustedError(
      absl::StrCat("sharing ", slab_count, " slabs takes as many open files and ", kOtherFiles,
                   " more; the limit is ", hard, ": choose a larger slab_size"));
}

}  // namespace

absl::Status CheckArenaSizes(size_t budget_bytes, size_t slab_bytes) {
  if (slab_bytes == 0 || slab_bytes % kSlabAlignmentBytes != 0) {
    return absl::InvalidArgumentError(absl::StrCat("slab size of ", slab_bytes,
                                                   " bytes: must be a positive multiple of ",
                                                   kSlabAlignmentBytes));
  }
  if (slab_bytes > budget_bytes) {
    return absl::InvalidArgumentError(absl::StrCat("slab size of ", slab_bytes,
                                                   " bytes: more than the memory budget of ",
                                                   budget_bytes, " bytes"));
  }
  if (budget_bytes / slab_bytes > kMaxSlabs) {
    return absl::InvalidArgumentError(
        absl::StrCat("slab size of ", slab_bytes, " bytes: cuts ", budget_bytes, " bytes into ",
                     budget_bytes / slab_bytes, " slabs, more than ", kMaxSlabs));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<Arena>> MakeHostArena(size_t budget_bytes, size_t slab_bytes,
                                                     bool shareable) {
  TURBOKV_RETURN_IF_ERROR(CheckArenaSizes(budget_bytes, slab_bytes));
  const auto slab_count = static_cast<uint32_t>(budget_bytes / slab_bytes);
  if (shareable) TURBOKV_RETURN_IF_ERROR(AllowOpenFiles(slab_count));
  TURBOKV_ASSIGN_OR_RETURN(
      uint8_t* const base,
      MapRange(slab_count * slab_bytes, shareable ? PROT_NONE : PROT_READ | PROT_WRITE));
  if (!shareable) return std::make_unique<AnonymousArena>(base, slab_bytes, slab_count);
  auto arena = std::make_unique<MemfdArena>(base, slab_bytes, slab_count);
  TURBOKV_RETURN_IF_ERROR(arena->MapAll());
  return arena;
}

}  // namespace turbokv
