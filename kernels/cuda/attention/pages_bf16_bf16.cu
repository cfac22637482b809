#include "kernels/cuda/attention/compile_pages.cuh"

TURBOKV_COMPILE_PAGES(CompiledPagesBf16Bf16, kBf16, kBf16)
