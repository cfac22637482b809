#include "kernels/cuda/attention/compiled_pages.h"

namespace turbokv::cuda {

std::vector<CompiledPages> AllCompiledPages() {
  std::vector<CompiledPages> all;
  for (const auto pair : {CompiledPagesInt5Int5, CompiledPagesInt6Int6, CompiledPagesTurbo4Turbo3,
                          CompiledPagesTurbo3Turbo3, CompiledPagesBf16Bf16}) {
    const std::vector<CompiledPages> kernels = pair();
    all.insert(all.end(), kernels.begin(), kernels.end());
  }
  return all;
}

}  // namespace turbokv::cuda
