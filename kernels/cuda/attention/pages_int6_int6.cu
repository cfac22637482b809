#include "kernels/cuda/attention/compile_pages.cuh"

TURBOKV_COMPILE_PAGES(CompiledPagesInt6Int6, kInt6, kInt6)
