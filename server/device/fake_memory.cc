#include "server/device/fake_memory.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <iterator>

#include "absl/memory/memory.h"
#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/status_macros.h"

namespace turbokv {
namespace {

absl::Status SystemError(absl::string_view what) {
  return absl::ResourceExhaustedError(absl::StrCat(what, ": ", std::strerror(errno)));
}

absl::StatusOr<int> MakeFile(size_t bytes) {
  const int file = memfd_create("turbokv-fake-device", MFD_CLOEXEC | MFD_ALLOW_SEALING);
  if (file < 0) return SystemError("memfd_create");
  // Whoever maps it insists that its size cannot change.
  if (ftruncate(file, static_cast<off_t>(bytes)) == 0 &&
      fcntl(file, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW) == 0) {
    return file;
  }
  const absl::Status status = SystemError(absl::StrCat("memfd of ", bytes, " bytes"));
  close(file);
  return status;
}

absl::StatusOr<uint8_t*> ReserveAddresses(size_t bytes) {
  void* const base =
      mmap(nullptr, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (base == MAP_FAILED) return SystemError(absl::StrCat("reserving ", bytes, " bytes"));
  return static_cast<uint8_t*>(base);
}

}  // namespace

FakeMemory::~FakeMemory() {
  MutexLock lock(&mutex_);
  Check(regions_.empty(), "a device outlives its memory's owners");
}

absl::Status FakeMemory::Reserve(size_t bytes) {
  MutexLock lock(&mutex_);
  const size_t free = total_bytes_ - used_bytes_;
  if (bytes > free) {
    return absl::ResourceExhaustedError(absl::StrCat("cannot allocate ", bytes,
                                                     " bytes of fake device memory: ", free, " of ",
                                                     total_bytes_, " are free"));
  }
  used_bytes_ += bytes;
  return absl::OkStatus();
}

void FakeMemory::Return(size_t bytes) {
  MutexLock lock(&mutex_);
  used_bytes_ -= bytes;
}

size_t FakeMemory::free_bytes() const {
  MutexLock lock(&mutex_);
  return total_bytes_ - used_bytes_;
}

absl::StatusOr<std::unique_ptr<FakeMemory::Region>> FakeMemory::Allocate(size_t part_bytes,
                                                                         size_t parts) {
  TURBOKV_RETURN_IF_ERROR(Reserve(part_bytes * parts));
  auto region = absl::WrapUnique(new Region(this, part_bytes, parts));
  TURBOKV_RETURN_IF_ERROR(region->Map());
  MutexLock lock(&mutex_);
  regions_.emplace(region->device(), region.get());
  return region;
}

uint8_t* FakeMemory::Translate(const uint8_t* device, size_t bytes) const {
  MutexLock lock(&mutex_);
  auto after = regions_.upper_bound(device);
  Check(after != regions_.begin(), "a device address lies in memory of the device");
  const Region& region = *std::prev(after)->second;
  const auto offset = static_cast<size_t>(device - region.device());
  Check(offset <= region.size_bytes() && bytes <= region.size_bytes() - offset,
        "a range of device addresses lies in memory of the device");
  return region.host_ + offset;
}

absl::Status FakeMemory::Region::Map() {
  TURBOKV_ASSIGN_OR_RETURN(device_, ReserveAddresses(size_bytes()));
  TURBOKV_ASSIGN_OR_RETURN(host_, ReserveAddresses(size_bytes()));
  for (size_t part = 0; part < files_.size(); ++part) TURBOKV_RETURN_IF_ERROR(Renew(part));
  return absl::OkStatus();
}

FakeMemory::Region::~Region() {
  {
    MutexLock lock(&memory_->mutex_);
    memory_->regions_.erase(device_);
  }
  for (int file : files_) {
    if (file >= 0) close(file);
  }
  if (host_ != nullptr) munmap(host_, size_bytes());
  if (device_ != nullptr) munmap(device_, size_bytes());
  memory_->Return(size_bytes());
}

absl::StatusOr<int> FakeMemory::Region::OpenReadOnly(size_t part) const {
  // A duplicate would share the right to write.
  const std::string path = absl::StrCat("/proc/self/fd/", files_[part]);
  const int file = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (file < 0) return SystemError(absl::StrCat("opening ", path));
  return file;
}

absl::Status FakeMemory::Region::Renew(size_t part) {
  TURBOKV_ASSIGN_OR_RETURN(const int file, MakeFile(part_bytes_));
  if (mmap(host_ + part * part_bytes_, part_bytes_, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED,
           file, 0) == MAP_FAILED) {
    const absl::Status status = SystemError(absl::StrCat("mapping ", part_bytes_, " bytes"));
    close(file);
    return status;
  }
  if (files_[part] >= 0) close(files_[part]);
  files_[part] = file;
  return absl::OkStatus();
}

}  // namespace turbokv
