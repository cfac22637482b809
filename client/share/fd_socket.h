// Unix sockets that carry one message and at most one file descriptor at a time (SOCK_SEQPACKET,
// SCM_RIGHTS).
//
// The peer is not trusted: nothing that it sends leaks a descriptor, blocks past a deadline or
// raises a signal.
#pragma once

#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "client/share/unique_fd.h"

namespace turbokv {

// As the kernel recorded them when the peer connected, in this process's namespaces: a peer of
// another PID namespace has pid 0.
struct PeerCredentials {
  pid_t pid = 0;
  uid_t uid = 0;
  gid_t gid = 0;
};

// A connected end. Threads: PeerAlive from any; one thread sends and receives at a time.
//
// Errors of all methods: DEADLINE_EXCEEDED, nothing could be done until `deadline` (InfinitePast
// asks for what can be done at once); UNAVAILABLE, the peer has gone.
class FdSocket {
 public:
  struct Received {
    size_t bytes = 0;
    UniqueFd fd;  // close-on-exec; may be empty
  };

  FdSocket() = default;
  explicit FdSocket(UniqueFd fd) : fd_(std::move(fd)) {}

  // INVALID_ARGUMENT: a path that no socket can have. UNAVAILABLE: nobody listens there.
  static absl::StatusOr<FdSocket> Connect(const std::string& path, absl::Time deadline);

  // Sends one message, with a duplicate of `fd` unless that is -1. Never partly.
  absl::Status Send(absl::Span<const uint8_t> message, int fd, absl::Time deadline);

  // Receives one message of at most buffer.size() bytes. INVALID_ARGUMENT: a longer message, or
  // more descriptors than allowed (all of them are closed). A message of no bytes reads as a peer
  // that has gone.
  absl::StatusOr<Received> ReceiveWithFd(absl::Span<uint8_t> buffer, absl::Time deadline);
  // As ReceiveWithFd, with no descriptor allowed. One that is sent is never installed in this
  // process: closing a foreign descriptor can take as long as its file system likes.
  absl::StatusOr<size_t> Receive(absl::Span<uint8_t> buffer, absl::Time deadline);

  // False once the peer has closed its end or died.
  bool PeerAlive() const;
  // Whether the peer has still to receive something that was sent.
  bool HasUnreceived() const;
  absl::StatusOr<PeerCredentials> Peer() const;
  // Becomes readable when the process that connected exits, even where a child of it keeps the
  // socket open. Empty: it cannot be watched (Linux before 6.5), or has gone.
  UniqueFd PeerProcess() const;
  // Both directions, for both ends; whoever waits returns.
  void Shutdown();

  int fd() const { return fd_.get(); }

 private:
  absl::StatusOr<Received> ReceiveMessage(absl::Span<uint8_t> buffer, size_t max_fds,
                                          absl::Time deadline);
  // Returns when one of `events` (poll) is there, or the peer has gone.
  absl::Status Await(short events, absl::Time deadline) const;

  UniqueFd fd_;
};

// A listening socket in the file system, removed with this object.
class FdListener {
 public:
  // A socket file that nobody listens on is replaced; the file's mode is 0660.
  // INVALID_ARGUMENT: a path that no socket can have. ALREADY_EXISTS: somebody listens there, or it
  // is no socket. UNAVAILABLE: another process is setting up a socket in this directory.
  static absl::StatusOr<FdListener> Listen(const std::string& path);
  FdListener(FdListener&& other) noexcept = default;
  FdListener& operator=(FdListener&& other) = delete;
  ~FdListener();

  // Does not wait. UNAVAILABLE: no connection is waiting. RESOURCE_EXHAUSTED: this process or
  // system has no descriptors left, and the connection keeps waiting.
  absl::StatusOr<FdSocket> Accept();

  int fd() const { return fd_.get(); }
  const std::string& path() const { return path_; }

 private:
  FdListener(UniqueFd fd, std::string path, dev_t device, ino_t inode)
      : fd_(std::move(fd)), path_(std::move(path)), device_(device), inode_(inode) {}

  UniqueFd fd_;
  std::string path_;
  dev_t device_;  // of the file that was made, so that only this one is removed
  ino_t inode_;
};

}  // namespace turbokv
