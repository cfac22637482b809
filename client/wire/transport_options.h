// What both ends of a connection agree on: sizes of messages, frames and windows.
// Measured on loopback: bench/results/2026-11-23-transport.md.
#pragma once

#include <cstddef>

#include "grpcpp/support/channel_arguments.h"

namespace turbokv {

// The largest message: 65536 block keys and what goes with them. Bulk data comes in chunks of at
// most 1 MiB.
inline constexpr size_t kMaxMessageBytes = (size_t{2} << 20) + (size_t{64} << 10);

// Bytes that a peer may send on one stream beyond what the application has asked for. It bounds
// what a stream holds while its reader is busy.
inline constexpr int kStreamWindowBytes = 2 << 20;

// Calls set(argument name, value) for each setting that client and server share.
template <typename SetFn>
void ForEachTransportArgument(SetFn set) {
  // One HTTP/2 frame a message instead of one every 16 KiB.
  set(GRPC_ARG_HTTP2_MAX_FRAME_SIZE, (16 << 20) - 1);
  // A fixed window: probing starts at 64 KiB, and each probe is a round trip.
  set(GRPC_ARG_HTTP2_BDP_PROBE, 0);
  set(GRPC_ARG_HTTP2_STREAM_LOOKAHEAD_BYTES, kStreamWindowBytes);
  // A write completes once no more than this is left to send, so that the next message is there
  // before the socket has run dry.
  set(GRPC_ARG_HTTP2_WRITE_BUFFER_SIZE, 512 << 10);
  set(GRPC_ARG_TCP_READ_CHUNK_SIZE, 64 << 10);
  set(GRPC_ARG_TCP_MIN_READ_CHUNK_SIZE, 16 << 10);
  set(GRPC_ARG_TCP_MAX_READ_CHUNK_SIZE, 128 << 10);
  set(GRPC_ARG_MAX_RECEIVE_MESSAGE_LENGTH, static_cast<int>(kMaxMessageBytes));
  set(GRPC_ARG_MAX_METADATA_SIZE, 16 << 10);
}

}  // namespace turbokv
