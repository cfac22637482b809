// StreamOps for the fake of NCCL; "device memory" is any host memory.
#pragma once

#include <memory>

#include "client/nccl/stream_ops.h"
#include "tests/fakes/fake_nccl/fake_stream.h"

namespace turbokv::fake_nccl {

class FakeChannelStream : public ChannelStream {
 public:
  void* handle() const override { return const_cast<FakeStream*>(&stream_); }
  absl::StatusOr<uint64_t> Mark() override { return stream_.launched.load(); }
  FakeStream* stream() { return &stream_; }
  absl::StatusOr<bool> Reached(uint64_t mark) override { return stream_.finished.load() >= mark; }

 private:
  FakeStream stream_;
};

class FakeStreamOps final : public StreamOps {
 public:
  absl::StatusOr<std::unique_ptr<ChannelStream>> MakeStream(int /*device_index*/) override {
    return std::unique_ptr<ChannelStream>(std::make_unique<FakeChannelStream>());
  }
};

}  // namespace turbokv::fake_nccl
