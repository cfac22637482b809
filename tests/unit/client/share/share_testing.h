// Sockets, memory and descriptors as the tests of sharing need them.
#pragma once

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <functional>
#include <iterator>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "client/share/fd_socket.h"
#include "client/share/unique_fd.h"

namespace turbokv::testing {

inline constexpr int kAllSeals = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL;

// A folder for one test's sockets, with a short name.
class SocketFolder {
 public:
  SocketFolder() {
    char name[] = "/tmp/tkvs.XXXXXX";
    if (mkdtemp(name) == nullptr) std::abort();
    path_ = name;
  }
  ~SocketFolder() { std::filesystem::remove_all(path_); }
  std::string Path(const std::string& name) const { return absl::StrCat(path_, "/", name); }

 private:
  std::string path_;
};

inline std::pair<FdSocket, FdSocket> SocketPair() {
  int fds[2];
  if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fds) != 0) std::abort();
  return {FdSocket(UniqueFd(fds[0])), FdSocket(UniqueFd(fds[1]))};
}

inline size_t OpenFds() {
  return std::distance(std::filesystem::directory_iterator("/proc/self/fd"),
                       std::filesystem::directory_iterator());
}

// A memfd of `bytes` times `fill`.
inline UniqueFd FilledMemfd(size_t bytes, uint8_t fill, int seals = kAllSeals) {
  UniqueFd fd(memfd_create("test", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  const std::vector<uint8_t> content(bytes, fill);
  if (!fd || write(fd.get(), content.data(), bytes) != static_cast<ssize_t>(bytes)) std::abort();
  if (seals != 0 && fcntl(fd.get(), F_ADD_SEALS, seals) != 0) std::abort();
  return fd;
}

// One packet with any number of descriptors.
inline bool SendRaw(int socket, const std::vector<uint8_t>& bytes, const std::vector<int>& fds) {
  iovec part{const_cast<uint8_t*>(bytes.data()), bytes.size()};
  std::vector<uint8_t> control(CMSG_SPACE(fds.size() * sizeof(int)));
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  if (!fds.empty()) {
    message.msg_control = control.data();
    message.msg_controllen = control.size();
    cmsghdr* rights = CMSG_FIRSTHDR(&message);
    rights->cmsg_level = SOL_SOCKET;
    rights->cmsg_type = SCM_RIGHTS;
    rights->cmsg_len = CMSG_LEN(fds.size() * sizeof(int));
    std::memcpy(CMSG_DATA(rights), fds.data(), fds.size() * sizeof(int));
  }
  return sendmsg(socket, &message, MSG_NOSIGNAL) == static_cast<ssize_t>(bytes.size());
}

inline absl::Time Soon() { return absl::Now() + absl::Seconds(10); }

// Waits until `condition` holds, at most ten seconds.
inline bool Eventually(const std::function<bool()>& condition) {
  const absl::Time deadline = Soon();
  while (!condition()) {
    if (absl::Now() > deadline) return false;
    absl::SleepFor(absl::Milliseconds(2));
  }
  return true;
}

}  // namespace turbokv::testing
