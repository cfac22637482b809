#include "client/nccl/cuda_stream_ops.h"

#include <cuda_runtime_api.h>

#include <array>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"

namespace turbokv {
namespace {

absl::Status ToStatus(cudaError_t error, const char* call) {
  if (error == cudaSuccess) return absl::OkStatus();
  return absl::InternalError(
      absl::StrCat(call, ": ", cudaGetErrorName(error), " (", cudaGetErrorString(error), ")"));
}

class CudaChannelStream final : public ChannelStream {
 public:
  ~CudaChannelStream() override {
    // CUDA frees both once the work before is done; errors leave nothing to do.
    for (cudaEvent_t event : events_) {
      if (event != nullptr) cudaEventDestroy(event);
    }
    if (stream_ != nullptr) cudaStreamDestroy(stream_);
  }

  absl::Status Create(int device_index) {
    TURBOKV_RETURN_IF_ERROR(ToStatus(cudaSetDevice(device_index),
                                     absl::StrCat("cudaSetDevice(", device_index, ")").c_str()));
    // A high priority: small kernels of NCCL are not kept waiting by long ones of the encoder.
    int least = 0;
    int greatest = 0;
    TURBOKV_RETURN_IF_ERROR(ToStatus(cudaDeviceGetStreamPriorityRange(&least, &greatest),
                                     "cudaDeviceGetStreamPriorityRange"));
    TURBOKV_RETURN_IF_ERROR(
        ToStatus(cudaStreamCreateWithPriority(&stream_, cudaStreamNonBlocking, greatest),
                 "cudaStreamCreateWithPriority"));
    for (cudaEvent_t& event : events_) {
      TURBOKV_RETURN_IF_ERROR(ToStatus(cudaEventCreateWithFlags(&event, cudaEventDisableTiming),
                                       "cudaEventCreateWithFlags"));
    }
    return absl::OkStatus();
  }

  void* handle() const override { return stream_; }

  absl::StatusOr<uint64_t> Mark() override {
    TURBOKV_RETURN_IF_ERROR(ToStatus(cudaEventRecord(events_[next_mark_ % events_.size()], stream_),
                                     "cudaEventRecord"));
    return next_mark_++;
  }

  absl::StatusOr<bool> Reached(uint64_t mark) override {
    const cudaError_t error = cudaEventQuery(events_[mark % events_.size()]);
    if (error == cudaErrorNotReady) return false;
    TURBOKV_RETURN_IF_ERROR(ToStatus(error, "cudaEventQuery"));
    return true;
  }

 private:
  cudaStream_t stream_ = nullptr;
  std::array<cudaEvent_t, kMaxStreamMarks> events_{};
  uint64_t next_mark_ = 0;
};

class CudaOps final : public StreamOps {
 public:
  absl::StatusOr<std::unique_ptr<ChannelStream>> MakeStream(int device_index) override {
    auto stream = std::make_unique<CudaChannelStream>();
    TURBOKV_RETURN_IF_ERROR(stream->Create(device_index));
    return std::unique_ptr<ChannelStream>(std::move(stream));
  }
};

}  // namespace

StreamOps* CudaStreamOps() {
  static CudaOps* const ops = new CudaOps();
  return ops;
}

}  // namespace turbokv
