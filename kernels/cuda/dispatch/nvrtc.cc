#include "kernels/cuda/dispatch/nvrtc.h"

#include <dlfcn.h>

#include <algorithm>
#include <memory>
#include <type_traits>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/status_macros.h"
#include "kernels/cuda/dispatch/embedded_headers.h"

namespace turbokv::cuda {
namespace {

// Of a compiler's log in a status: the first errors say what is wrong.
constexpr size_t kMaxLogBytes = 8192;

template <typename Function>
bool ResolveSymbol(void* library, const char* name, Function* function) {
  *function = reinterpret_cast<Function>(dlsym(library, name));
  return *function != nullptr;
}

}  // namespace

std::vector<std::string> NvrtcCandidates() {
  const std::vector<std::string> names = {"libnvrtc.so.13", "libnvrtc.so.12", "libnvrtc.so"};
  std::vector<std::string> candidates = names;
  for (const std::string& name : names) candidates.push_back("/usr/local/cuda/lib64/" + name);
  return candidates;
}

absl::StatusOr<Nvrtc> Nvrtc::Open(absl::Span<const std::string> candidates) {
  absl::Status failure;  // of a library that is there, and not what it should be
  for (const std::string& candidate : candidates) {
    void* library = dlopen(candidate.c_str(), RTLD_NOW | RTLD_LOCAL);
    if (library == nullptr) continue;
    absl::StatusOr<Functions> functions = Resolve(library, candidate);
    if (!functions.ok()) {
      failure = functions.status();
      dlclose(library);
      continue;
    }
    Nvrtc nvrtc;
    nvrtc.functions_ = *std::move(functions);
    int major = 0;
    int minor = 0;
    TURBOKV_RETURN_IF_ERROR(nvrtc.ToStatus(nvrtc.functions_.version(&major, &minor), "version"));
    nvrtc.version_ = absl::StrCat(major, ".", minor);
    return nvrtc;
  }
  if (!failure.ok()) return failure;
  return absl::UnimplementedError(
      absl::StrCat("it is not compiled ahead, and there is no NVRTC to compile it (tried ",
                   absl::StrJoin(candidates, ", "),
                   "); install libnvrtc of CUDA 12 or later (package cuda-nvrtc-13-0, or pip's "
                   "nvidia-cuda-nvrtc) where the linker or LD_LIBRARY_PATH finds it"));
}

absl::StatusOr<Nvrtc::Functions> Nvrtc::Resolve(void* library, absl::string_view path) {
  Functions all;
  if (!ResolveSymbol(library, "nvrtcVersion", &all.version) ||
      !ResolveSymbol(library, "nvrtcGetErrorString", &all.error_string) ||
      !ResolveSymbol(library, "nvrtcCreateProgram", &all.create_program) ||
      !ResolveSymbol(library, "nvrtcDestroyProgram", &all.destroy_program) ||
      !ResolveSymbol(library, "nvrtcCompileProgram", &all.compile_program) ||
      !ResolveSymbol(library, "nvrtcGetProgramLogSize", &all.log_size) ||
      !ResolveSymbol(library, "nvrtcGetProgramLog", &all.log) ||
      !ResolveSymbol(library, "nvrtcGetCUBINSize", &all.cubin_size) ||
      !ResolveSymbol(library, "nvrtcGetCUBIN", &all.cubin) ||
      !ResolveSymbol(library, "nvrtcGetPTXSize", &all.ptx_size) ||
      !ResolveSymbol(library, "nvrtcGetPTX", &all.ptx)) {
    return absl::UnimplementedError(
        absl::StrCat(path, " is not NVRTC of CUDA 12 or later: ", dlerror()));
  }
  return all;
}

absl::Status Nvrtc::ToStatus(nvrtcResult result, absl::string_view what) const {
  if (result == NVRTC_SUCCESS) return absl::OkStatus();
  return absl::InternalError(
      absl::StrCat("NVRTC ", version_, " ", what, ": ", functions_.error_string(result)));
}

std::string Nvrtc::LogOf(nvrtcProgram program) const {
  size_t size = 0;
  if (functions_.log_size(program, &size) != NVRTC_SUCCESS || size == 0) return "";
  std::string log(size, '\0');
  if (functions_.log(program, log.data()) != NVRTC_SUCCESS) return "";
  log.resize(std::min(size - 1, kMaxLogBytes));  // without the NUL
  return log;
}

absl::StatusOr<std::string> Nvrtc::ImageOf(nvrtcProgram program, GpuArch arch) const {
  const auto get_size = TakesPtx(arch) ? functions_.ptx_size : functions_.cubin_size;
  const auto get_image = TakesPtx(arch) ? functions_.ptx : functions_.cubin;
  size_t size = 0;
  TURBOKV_RETURN_IF_ERROR(ToStatus(get_size(program, &size), "image size"));
  std::string image(size, '\0');
  TURBOKV_RETURN_IF_ERROR(ToStatus(get_image(program, image.data()), "image"));
  return image;
}

std::vector<std::string> Nvrtc::Options(GpuArch arch) {
  // Unannotated constexpr functions are called from kernels: nvcc's --expt-relaxed-constexpr.
  return {absl::StrCat("--gpu-architecture=", GpuArchName(arch)), "--std=c++20",
          "--device-as-default-execution-space"};
}

absl::StatusOr<std::string> Nvrtc::Compile(const std::string& source, GpuArch arch) const {
  std::vector<const char*> names;
  std::vector<const char*> texts;
  for (const EmbeddedHeader& header : EmbeddedHeaders()) {
    names.push_back(header.path);
    texts.push_back(header.text);
  }
  nvrtcProgram created = nullptr;
  TURBOKV_RETURN_IF_ERROR(ToStatus(
      functions_.create_program(&created, source.c_str(), "turbokv_kernel.cu",
                                static_cast<int>(names.size()), texts.data(), names.data()),
      "program"));
  const auto destroy = [this](nvrtcProgram program) { functions_.destroy_program(&program); };
  const std::unique_ptr<std::remove_pointer_t<nvrtcProgram>, decltype(destroy)> program(created,
                                                                                        destroy);
  const std::vector<std::string> options = Options(arch);
  std::vector<const char*> option_texts;
  option_texts.reserve(options.size());
  for (const std::string& option : options) option_texts.push_back(option.c_str());
  const nvrtcResult result = functions_.compile_program(
      program.get(), static_cast<int>(option_texts.size()), option_texts.data());
  if (result != NVRTC_SUCCESS) {
    return absl::InternalError(
        absl::StrCat(ToStatus(result, "compilation").message(), "\n", LogOf(program.get())));
  }
  return ImageOf(program.get(), arch);
}

}  // namespace turbokv::cuda
