#include "kernels/cuda/attention/compile_pages.cuh"

TURBOKV_COMPILE_PAGES(CompiledPagesTurbo3Turbo3, kTurbo3, kTurbo3)
