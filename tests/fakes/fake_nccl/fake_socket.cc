#include "tests/fakes/fake_nccl/fake_socket.h"

#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstring>
#include <thread>

namespace turbokv::fake_nccl {
namespace {

constexpr int kPollMs = 10;

// An abstract name begins with a zero byte, and leaves no file.
socklen_t AddressOf(const std::string& name, sockaddr_un* address) {
  *address = {};
  address->sun_family = AF_UNIX;
  std::memcpy(address->sun_path + 1, name.data(), name.size());
  return static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + 1 + name.size());
}

// False when `abort` is set or the poll fails.
bool Await(int socket, short events, const std::atomic<bool>& abort) {
  while (!abort) {
    pollfd entry = {socket, events, 0};
    const int ready = poll(&entry, 1, kPollMs);
    if (ready > 0) return true;
    if (ready < 0 && errno != EINTR) return false;
  }
  return false;
}

bool WouldBlock() { return errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR; }

}  // namespace

int Listen(const std::string& name) {
  const int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (listener < 0) return -1;
  sockaddr_un address;
  const socklen_t length = AddressOf(name, &address);
  if (bind(listener, reinterpret_cast<sockaddr*>(&address), length) == 0 &&
      listen(listener, 1) == 0) {
    return listener;
  }
  close(listener);
  return -1;
}

int Accept(int listener, const std::atomic<bool>& abort) {
  if (!Await(listener, POLLIN, abort)) return -1;
  return accept4(listener, nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK);
}

int ConnectTo(const std::string& name, const std::atomic<bool>& abort) {
  sockaddr_un address;
  const socklen_t length = AddressOf(name, &address);
  while (!abort) {
    const int peer = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (peer >= 0 && connect(peer, reinterpret_cast<sockaddr*>(&address), length) == 0) return peer;
    if (peer >= 0) close(peer);
    std::this_thread::sleep_for(std::chrono::milliseconds(kPollMs));
  }
  return -1;
}

IoResult WriteAll(int socket, const void* data, size_t bytes, const std::atomic<bool>& abort) {
  const char* next = static_cast<const char*>(data);
  while (bytes > 0) {
    const ssize_t written = send(socket, next, bytes, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (written > 0) {
      next += written;
      bytes -= static_cast<size_t>(written);
    } else if (!WouldBlock()) {
      return IoResult::kPeerGone;
    } else if (!Await(socket, POLLOUT, abort)) {
      return IoResult::kAborted;
    }
    if (abort) return IoResult::kAborted;
  }
  return IoResult::kDone;
}

IoResult ReadAll(int socket, void* data, size_t bytes, const std::atomic<bool>& abort) {
  char* next = static_cast<char*>(data);
  while (bytes > 0) {
    const ssize_t got = recv(socket, next, bytes, MSG_DONTWAIT);
    if (got > 0) {
      next += got;
      bytes -= static_cast<size_t>(got);
    } else if (got == 0 || !WouldBlock()) {
      return IoResult::kPeerGone;
    } else if (!Await(socket, POLLIN, abort)) {
      return IoResult::kAborted;
    }
    if (abort) return IoResult::kAborted;
  }
  return IoResult::kDone;
}

bool PeerHasClosed(int socket) {
  char byte;
  const ssize_t got = recv(socket, &byte, 1, MSG_PEEK | MSG_DONTWAIT);
  return got == 0 || (got < 0 && !WouldBlock());
}

}  // namespace turbokv::fake_nccl
