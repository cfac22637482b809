#include "kernels/cuda/attention/compile_pages.cuh"

TURBOKV_COMPILE_PAGES(CompiledPagesTurbo4Turbo3, kTurbo4, kTurbo3)
