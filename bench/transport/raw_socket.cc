#include "bench/transport/raw_socket.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <thread>
#include <vector>

namespace turbokv::bench {
namespace {

int Require(int result, const char* what) {
  if (result >= 0) return result;
  std::perror(what);
  std::exit(1);
}

void SendAll(int socket, size_t total_bytes, size_t chunk_bytes) {
  // As a server would: from memory larger than the caches.
  std::vector<uint8_t> source(std::max(chunk_bytes, size_t{64} << 20), 1);
  const size_t chunks = source.size() / chunk_bytes;
  for (size_t sent = 0, chunk = 0; sent < total_bytes; chunk = (chunk + 1) % chunks) {
    const uint8_t* next = source.data() + chunk * chunk_bytes;
    size_t left = std::min(chunk_bytes, total_bytes - sent);
    sent += left;
    while (left > 0) {
      const ssize_t done = Require(static_cast<int>(send(socket, next, left, 0)), "send");
      next += done;
      left -= done;
    }
  }
}

}  // namespace

double RawSocketSeconds(size_t total_bytes, size_t chunk_bytes) {
  const int listener = Require(socket(AF_INET, SOCK_STREAM, 0), "socket");
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  auto* generic = reinterpret_cast<sockaddr*>(&address);
  socklen_t length = sizeof(address);
  Require(bind(listener, generic, length), "bind");
  Require(listen(listener, 1), "listen");
  Require(getsockname(listener, generic, &length), "getsockname");
  const int receiver = Require(socket(AF_INET, SOCK_STREAM, 0), "socket");
  Require(connect(receiver, generic, length), "connect");
  const int sender = Require(accept(listener, nullptr, nullptr), "accept");

  std::vector<uint8_t> buffer(chunk_bytes);
  std::chrono::steady_clock::time_point start;
  std::thread thread([&] { SendAll(sender, total_bytes, chunk_bytes); });
  // The sender's memory is ready once the first byte is here.
  size_t received = Require(static_cast<int>(recv(receiver, buffer.data(), 1, 0)), "recv");
  start = std::chrono::steady_clock::now();
  while (received < total_bytes) {
    received += Require(static_cast<int>(recv(receiver, buffer.data(), chunk_bytes, 0)), "recv");
  }
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
  thread.join();
  for (const int fd : {sender, receiver, listener}) close(fd);
  return seconds.count();
}

}  // namespace turbokv::bench
