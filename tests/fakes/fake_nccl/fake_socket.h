// The wire of the fake: one Unix socket between two processes (or two communicators of one).
#pragma once

#include <atomic>
#include <cstddef>
#include <string>

namespace turbokv::fake_nccl {

enum class IoResult { kDone, kAborted, kPeerGone };

// A listening socket with an abstract name; -1: errno tells.
int Listen(const std::string& name);
// A connected, non-blocking socket; -1 once `abort` is set.
int Accept(int listener, const std::atomic<bool>& abort);
int ConnectTo(const std::string& name, const std::atomic<bool>& abort);

// All of `bytes`, or why not.
IoResult WriteAll(int socket, const void* data, size_t bytes, const std::atomic<bool>& abort);
IoResult ReadAll(int socket, void* data, size_t bytes, const std::atomic<bool>& abort);
// Whether the peer has closed and left nothing to be read.
bool PeerHasClosed(int socket);

}  // namespace turbokv::fake_nccl
