#include "kernels/cuda/attention/compile_pages.cuh"

TURBOKV_COMPILE_PAGES(CompiledPagesInt5Int5, kInt5, kInt5)
