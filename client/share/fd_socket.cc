#include "client/share/fd_socket.h"

#include <fcntl.h>
#include <linux/sockios.h>
#include <poll.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include <algorithm>
#include <cerrno>
#include <climits>
#include <cstring>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/status_macros.h"

#ifndef SO_PEERPIDFD
#define SO_PEERPIDFD 77
#endif

namespace turbokv {
namespace {

constexpr int kBacklog = 64;
constexpr size_t kMaxPathBytes = sizeof(sockaddr_un::sun_path) - 1;
constexpr mode_t kSocketMode = 0660;
// Room for more than one, so that a surplus is seen and closed.
constexpr size_t kControlFds = 4;

std::string ErrnoText() { return std::strerror(errno); }

absl::StatusOr<sockaddr_un> AddressOf(const std::string& path) {
  if (path.empty() || path.size() > kMaxPathBytes || path.find('\0') != std::string::npos) {
    return absl::InvalidArgumentError(absl::StrCat("socket path '", path, "' of ", path.size(),
                                                   " bytes: must have 1..", kMaxPathBytes,
                                                   " bytes, none of them zero"));
  }
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::memcpy(address.sun_path, path.data(), path.size());
  return address;
}

absl::StatusOr<UniqueFd> NewSocket(int flags) {
  UniqueFd fd(socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | flags, 0));
  if (!fd) return absl::ResourceExhaustedError(absl::StrCat("cannot make a socket: ", ErrnoText()));
  return fd;
}

int PollTimeoutMs(absl::Time deadline) {
  if (deadline == absl::InfiniteFuture()) return -1;
  const int64_t ms = absl::ToInt64Milliseconds(
      absl::Ceil(std::max(absl::ZeroDuration(), deadline - absl::Now()), absl::Milliseconds(1)));
  return static_cast<int>(std::min<int64_t>(ms, INT_MAX));
}

std::vector<UniqueFd> TakeFds(msghdr* message) {
  std::vector<UniqueFd> fds;
  for (cmsghdr* part = CMSG_FIRSTHDR(message); part != nullptr; part = CMSG_NXTHDR(message, part)) {
    if (part->cmsg_level != SOL_SOCKET || part->cmsg_type != SCM_RIGHTS) continue;
    const size_t count = (part->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (size_t i = 0; i < count; ++i) {
      int fd;
      std::memcpy(&fd, CMSG_DATA(part) + i * sizeof(int), sizeof(fd));
      fds.emplace_back(fd);
    }
  }
  return fds;
}

// Makes way for a socket at `path`: nothing there, or a socket that nobody listens on.
absl::Status RemoveStaleSocket(const std::string& path, const sockaddr_un& address) {
  struct stat file;
  if (lstat(path.c_str(), &file) != 0) {
    if (errno == ENOENT) return absl::OkStatus();
    return absl::InvalidArgumentError(absl::StrCat("socket path '", path, "': ", ErrnoText()));
  }
  if (!S_ISSOCK(file.st_mode)) {
    return absl::AlreadyExistsError(
        absl::StrCat("socket path '", path, "': there is a file that is no socket"));
  }
  TURBOKV_ASSIGN_OR_RETURN(const UniqueFd probe, NewSocket(SOCK_NONBLOCK));
  if (connect(probe.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) == 0 ||
      errno != ECONNREFUSED) {
    return absl::AlreadyExistsError(
        absl::StrCat("socket path '", path, "': another process may be listening there"));
  }
  if (unlink(path.c_str()) != 0 && errno != ENOENT) {
    return absl::AlreadyExistsError(
        absl::StrCat("socket path '", path, "': cannot remove the stale socket: ", ErrnoText()));
  }
  return absl::OkStatus();
}

// Two processes that start at once must not take each other's fresh socket for a stale one: between
// bind and listen it looks like that. The lock goes with the descriptor.
absl::StatusOr<UniqueFd> LockDirectoryOf(const std::string& path) {
  const size_t slash = path.rfind('/');
  const std::string directory =
      slash == std::string::npos ? "." : path.substr(0, std::max<size_t>(slash, 1));
  UniqueFd fd(open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!fd) {
    return absl::InvalidArgumentError(
        absl::StrCat("socket path '", path, "': directory '", directory, "': ", ErrnoText()));
  }
  constexpr int kTries = 50;
  for (int i = 0; i < kTries; ++i) {
    if (flock(fd.get(), LOCK_EX | LOCK_NB) == 0) return fd;
    absl::SleepFor(absl::Milliseconds(20));
  }
  return absl::UnavailableError(absl::StrCat("socket path '", path, "': directory '", directory,
                                             "' is locked by another process"));
}

}  // namespace

absl::StatusOr<FdSocket> FdSocket::Connect(const std::string& path, absl::Time deadline) {
  TURBOKV_ASSIGN_OR_RETURN(const sockaddr_un address, AddressOf(path));
  TURBOKV_ASSIGN_OR_RETURN(UniqueFd fd, NewSocket(0));
  // A blocking connect waits for room in the backlog, as long as a send may take.
  const int timeout_ms = PollTimeoutMs(deadline);
  if (timeout_ms >= 0) {
    const timeval timeout = absl::ToTimeval(absl::Milliseconds(std::max(timeout_ms, 1)));
    setsockopt(fd.get(), SOL_SOCKET, SO_SNDTIMEO, &timeout, sizeof(timeout));
  }
  while (connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0) {
    if (errno == EINTR) continue;
    const std::string text = absl::StrCat("cannot connect to '", path, "': ", ErrnoText());
    if (errno == EAGAIN) return absl::DeadlineExceededError(text);
    if (errno == EACCES || errno == EPERM) return absl::PermissionDeniedError(text);
    return absl::UnavailableError(text);
  }
  return FdSocket(std::move(fd));
}

absl::Status FdSocket::Await(short events, absl::Time deadline) const {
  pollfd poll_fd{fd_.get(), events, 0};
  while (true) {
    const int ready = poll(&poll_fd, 1, PollTimeoutMs(deadline));
    if (ready > 0) return absl::OkStatus();
    if (ready == 0 && absl::Now() >= deadline) {
      return absl::DeadlineExceededError("the other end of the socket did not answer in time");
    }
    if (ready < 0 && errno != EINTR) {
      return absl::UnavailableError(absl::StrCat("cannot wait on the socket: ", ErrnoText()));
    }
  }
}

absl::Status FdSocket::Send(absl::Span<const uint8_t> message, int fd, absl::Time deadline) {
  iovec part{const_cast<uint8_t*>(message.data()), message.size()};
  msghdr header{};
  header.msg_iov = &part;
  header.msg_iovlen = 1;
  alignas(cmsghdr) uint8_t control[CMSG_SPACE(sizeof(int))] = {};
  if (fd >= 0) {
    header.msg_control = control;
    header.msg_controllen = sizeof(control);
    cmsghdr* rights = CMSG_FIRSTHDR(&header);
    rights->cmsg_level = SOL_SOCKET;
    rights->cmsg_type = SCM_RIGHTS;
    rights->cmsg_len = CMSG_LEN(sizeof(int));
    std::memcpy(CMSG_DATA(rights), &fd, sizeof(fd));
  }
  while (sendmsg(fd_.get(), &header, MSG_DONTWAIT | MSG_NOSIGNAL) < 0) {
    if (errno == EINTR) continue;
    if (errno != EAGAIN) {
      return absl::UnavailableError(absl::StrCat("cannot send: ", ErrnoText()));
    }
    TURBOKV_RETURN_IF_ERROR(Await(POLLOUT, deadline));
  }
  return absl::OkStatus();
}

absl::StatusOr<FdSocket::Received> FdSocket::ReceiveMessage(absl::Span<uint8_t> buffer,
                                                            size_t max_fds, absl::Time deadline) {
  alignas(cmsghdr) uint8_t control[CMSG_SPACE(kControlFds * sizeof(int))];
  bool was_reset = false;
  while (true) {
    iovec part{buffer.data(), buffer.size()};
    msghdr header{};
    header.msg_iov = &part;
    header.msg_iovlen = 1;
    if (max_fds > 0) {
      header.msg_control = control;
      header.msg_controllen = sizeof(control);
    }
    const ssize_t got = recvmsg(fd_.get(), &header, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    if (got < 0) {
      if (errno == EINTR) continue;
      // A reset is reported once, before what the peer sent last: that may say why it closed.
      if (errno == ECONNRESET && !std::exchange(was_reset, true)) continue;
      if (errno != EAGAIN) {
        return absl::UnavailableError(absl::StrCat("cannot receive: ", ErrnoText()));
      }
      TURBOKV_RETURN_IF_ERROR(Await(POLLIN, deadline));
      continue;
    }
    std::vector<UniqueFd> fds = TakeFds(&header);
    if (got == 0) return absl::UnavailableError("the other end of the socket has closed it");
    if ((header.msg_flags & MSG_TRUNC) != 0) {
      return absl::InvalidArgumentError(
          absl::StrCat("a message of more than ", buffer.size(), " bytes"));
    }
    if ((header.msg_flags & MSG_CTRUNC) != 0 || fds.size() > max_fds) {
      return absl::InvalidArgumentError(
          absl::StrCat("a message with more than ", max_fds, " file descriptors"));
    }
    Received received;
    received.bytes = static_cast<size_t>(got);
    if (!fds.empty()) received.fd = std::move(fds.front());
    return received;
  }
}

absl::StatusOr<FdSocket::Received> FdSocket::ReceiveWithFd(absl::Span<uint8_t> buffer,
                                                           absl::Time deadline) {
  return ReceiveMessage(buffer, 1, deadline);
}

absl::StatusOr<size_t> FdSocket::Receive(absl::Span<uint8_t> buffer, absl::Time deadline) {
  TURBOKV_ASSIGN_OR_RETURN(const Received received, ReceiveMessage(buffer, 0, deadline));
  return received.bytes;
}

bool FdSocket::PeerAlive() const {
  pollfd poll_fd{fd_.get(), POLLRDHUP, 0};
  return poll(&poll_fd, 1, 0) == 0 || (poll_fd.revents & (POLLHUP | POLLERR | POLLRDHUP)) == 0;
}

bool FdSocket::HasUnreceived() const {
  int bytes = 0;
  return ioctl(fd_.get(), SIOCOUTQ, &bytes) == 0 && bytes > 0;
}

absl::StatusOr<PeerCredentials> FdSocket::Peer() const {
  ucred credentials{};
  socklen_t size = sizeof(credentials);
  if (getsockopt(fd_.get(), SOL_SOCKET, SO_PEERCRED, &credentials, &size) != 0) {
    return absl::UnavailableError(absl::StrCat("no credentials of the peer: ", ErrnoText()));
  }
  return PeerCredentials{credentials.pid, credentials.uid, credentials.gid};
}

UniqueFd FdSocket::PeerProcess() const {
  int pid_fd = -1;
  socklen_t size = sizeof(pid_fd);
  const bool ok = getsockopt(fd_.get(), SOL_SOCKET, SO_PEERPIDFD, &pid_fd, &size) == 0;
  return UniqueFd(ok ? pid_fd : -1);
}

void FdSocket::Shutdown() { shutdown(fd_.get(), SHUT_RDWR); }

absl::StatusOr<FdListener> FdListener::Listen(const std::string& path) {
  TURBOKV_ASSIGN_OR_RETURN(const sockaddr_un address, AddressOf(path));
  TURBOKV_ASSIGN_OR_RETURN(const UniqueFd lock, LockDirectoryOf(path));
  TURBOKV_RETURN_IF_ERROR(RemoveStaleSocket(path, address));
  TURBOKV_ASSIGN_OR_RETURN(UniqueFd fd, NewSocket(SOCK_NONBLOCK));
  if (bind(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("cannot bind the socket '", path, "': ", ErrnoText()));
  }
  // Nobody can connect before listen, so nobody connects while the mode is the umask's.
  struct stat file;
  if (chmod(path.c_str(), kSocketMode) != 0 || lstat(path.c_str(), &file) != 0 ||
      listen(fd.get(), kBacklog) != 0) {
    const std::string text = ErrnoText();
    unlink(path.c_str());
    return absl::InvalidArgumentError(absl::StrCat("cannot listen on '", path, "': ", text));
  }
  return FdListener(std::move(fd), path, file.st_dev, file.st_ino);
}

FdListener::~FdListener() {
  struct stat file;
  if (fd_ && lstat(path_.c_str(), &file) == 0 && file.st_dev == device_ && file.st_ino == inode_) {
    unlink(path_.c_str());
  }
}

absl::StatusOr<FdSocket> FdListener::Accept() {
  UniqueFd fd(accept4(fd_.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
  if (fd) return FdSocket(std::move(fd));
  const std::string text = absl::StrCat("cannot accept on '", path_, "': ", ErrnoText());
  if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) {
    return absl::ResourceExhaustedError(text);
  }
  return absl::UnavailableError(text);
}

}  // namespace turbokv
