#include "kernels/cuda/dispatch/jit.h"

#include <cuda_runtime_api.h>
#include <openssl/evp.h>

#include <array>
#include <chrono>
#include <cstdint>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/logging.h"
#include "base/status_macros.h"
#include "kernels/cuda/dispatch/driver_loader.h"
#include "kernels/cuda/dispatch/embedded_headers.h"

namespace turbokv::cuda {
namespace {

// Length first, so that no two sequences of fields run together the same way.
void AppendField(absl::string_view field, std::string* text) {
  absl::StrAppend(text, field.size(), ":", field, "\n");
}

absl::StatusOr<std::string> HexSha256(absl::string_view text) {
  std::array<unsigned char, EVP_MAX_MD_SIZE> digest;
  unsigned int size = 0;
  if (EVP_Digest(text.data(), text.size(), digest.data(), &size, EVP_sha256(), nullptr) != 1) {
    return absl::InternalError("OpenSSL has no SHA-256");
  }
  return absl::BytesToHexString({reinterpret_cast<const char*>(digest.data()), size});
}

// 0 without a driver.
int DriverVersion() {
  int version = 0;
  return cudaDriverGetVersion(&version) == cudaSuccess ? version : 0;
}

}  // namespace

Jit& Jit::OfProcess() {
  static Jit* const kJit = new Jit({});
  return *kJit;
}

Jit::Jit(JitConfig config) : config_(std::move(config)), cache_(config_.cache_directory) {}

absl::StatusOr<const Nvrtc*> Jit::OpenNvrtc() {
  MutexLock lock(&mutex_);
  if (!nvrtc_.has_value()) {
    TURBOKV_ASSIGN_OR_RETURN(nvrtc_, Nvrtc::Open(config_.nvrtc_candidates));
  }
  return &*nvrtc_;
}

absl::StatusOr<std::string> Jit::CacheName(const JitRequest& request) {
  TURBOKV_ASSIGN_OR_RETURN(const Nvrtc* nvrtc, OpenNvrtc());
  std::string inputs;
  AppendField(nvrtc->version(), &inputs);
  AppendField(absl::StrCat(DriverVersion()), &inputs);
  AppendField(GpuArchName(request.arch), &inputs);
  for (const std::string& option : Nvrtc::Options(request.arch)) AppendField(option, &inputs);
  AppendField(request.source, &inputs);
  for (const EmbeddedHeader& header : EmbeddedHeaders()) {
    AppendField(header.path, &inputs);
    AppendField(header.text, &inputs);
  }
  TURBOKV_ASSIGN_OR_RETURN(const std::string digest, HexSha256(inputs));
  return digest + ".kernel";
}

absl::StatusOr<Jit::Image> Jit::MakeImage(const JitRequest& request) {
  const auto start = std::chrono::steady_clock::now();
  TURBOKV_ASSIGN_OR_RETURN(const Nvrtc* nvrtc, OpenNvrtc());
  TURBOKV_ASSIGN_OR_RETURN(const std::string name, CacheName(request));
  Image image;
  if (std::optional<std::string> cached = cache_.Read(name); cached.has_value()) {
    image = {.bytes = *std::move(cached), .from_cache = true};
  } else {
    TURBOKV_ASSIGN_OR_RETURN(image.bytes, nvrtc->Compile(request.source, request.arch));
    cache_.Write(name, image.bytes);
  }
  const std::chrono::duration<double, std::milli> elapsed =
      std::chrono::steady_clock::now() - start;
  LogInfo("kernel was not compiled ahead", {{"kernel", request.name},
                                            {"cache", image.from_cache ? "hit" : "miss"},
                                            {"ms", absl::StrFormat("%.1f", elapsed.count())}});
  return image;
}

Jit::Entry* Jit::EntryOf(const JitRequest& request) {
  MutexLock lock(&mutex_);
  std::unique_ptr<Entry>& entry =
      entries_[absl::StrCat(GpuArchName(request.arch), "\n", request.source)];
  if (entry == nullptr) entry = std::make_unique<Entry>();
  return entry.get();
}

absl::StatusOr<const void*> Jit::Kernel(const JitRequest& request) {
  Entry* const entry = EntryOf(request);
  MutexLock lock(&entry->mutex);
  if (entry->kernel != nullptr) return entry->kernel;
  TURBOKV_ASSIGN_OR_RETURN(const Image image, MakeImage(request));
  TURBOKV_ASSIGN_OR_RETURN(entry->kernel, config_.load == nullptr ? LoadKernelImage(image.bytes)
                                                                  : config_.load(image.bytes));
  return entry->kernel;
}

}  // namespace turbokv::cuda
