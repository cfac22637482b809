// Kernels compiled on first use: by NVRTC for the device at hand, kept on disk, loaded once.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "base/mutex.h"
#include "kernels/cuda/dispatch/gpu_arch.h"
#include "kernels/cuda/dispatch/kernel_cache.h"
#include "kernels/cuda/dispatch/nvrtc.h"

namespace turbokv::cuda {

struct JitRequest {
  std::string name;    // for the log
  std::string source;  // a translation unit that defines `extern "C" __global__ turbokv_kernel`
  GpuArch arch = GpuArch::kAny;
};

struct JitConfig {
  std::vector<std::string> nvrtc_candidates = NvrtcCandidates();
  std::string cache_directory = KernelCacheDirectory();
  // From the image to what is launched; LoadKernelImage if empty.
  std::function<absl::StatusOr<const void*>(const std::string& image)> load;
};

// May be used from any thread.
class Jit {
 public:
  // The one of this process, set up from the environment. Never destroyed: kernels stay loaded.
  static Jit& OfProcess();

  explicit Jit(JitConfig config);
  Jit(const Jit&) = delete;
  Jit& operator=(const Jit&) = delete;

  // The loaded kernel. Of callers that ask for the same at once, one compiles and the others wait;
  // a failure is not remembered. UNIMPLEMENTED without NVRTC; INTERNAL with the compiler's words.
  absl::StatusOr<const void*> Kernel(const JitRequest& request);

  struct Image {
    std::string bytes;
    bool from_cache = false;
  };
  // Needs no GPU.
  absl::StatusOr<Image> MakeImage(const JitRequest& request);

  // The name of the request's file in the cache: a digest of all that the image depends on.
  absl::StatusOr<std::string> CacheName(const JitRequest& request);

 private:
  struct Entry {
    Mutex mutex;
    const void* kernel ABSL_GUARDED_BY(mutex) = nullptr;
  };

  Entry* EntryOf(const JitRequest& request);
  absl::StatusOr<const Nvrtc*> OpenNvrtc();

  const JitConfig config_;
  KernelCache cache_;
  Mutex mutex_;
  std::optional<Nvrtc> nvrtc_ ABSL_GUARDED_BY(mutex_);  // once set, never changed
  absl::flat_hash_map<std::string, std::unique_ptr<Entry>> entries_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace turbokv::cuda
