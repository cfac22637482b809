# The CUDA language and its settings; included only with TURBOKV_CUDA.
# sm_90a (Hopper: bulk copies, programmatic launches) and sm_80 (Ampere and what can run its code).
set(TURBOKV_CUDA_ARCHITECTURES "80-real;90a-real" CACHE STRING "GPU architectures to build for")
set(CMAKE_CUDA_ARCHITECTURES ${TURBOKV_CUDA_ARCHITECTURES})
if(NOT CMAKE_CUDA_COMPILER)
  find_program(TURBOKV_NVCC nvcc HINTS /usr/local/cuda/bin)
  set(CMAKE_CUDA_COMPILER ${TURBOKV_NVCC})
endif()
if(CCACHE_PROGRAM)
  set(CMAKE_CUDA_COMPILER_LAUNCHER ${CCACHE_PROGRAM})
endif()
enable_language(CUDA)
# CMake 3.25 does not know that nvcc has C++20.
set(CMAKE_CUDA20_STANDARD_COMPILE_OPTION -std=c++20)
set(CMAKE_CUDA20_EXTENSION_COMPILE_OPTION -std=c++20)
set(CMAKE_CUDA_STANDARD 20)
set(CMAKE_CUDA_STANDARD_REQUIRED ON)
# The runtime is linked statically: turbokvd needs nothing of the toolkit where it runs.
set(CMAKE_CUDA_RUNTIME_LIBRARY Static)
find_package(CUDAToolkit 12.4 REQUIRED)

# turbokv_cuda_library(name SRCS a.cu b.cc... [DEPS t...] [PRIVATE_DEPS t...])
function(turbokv_cuda_library name)
  turbokv_library(${name} ${ARGN})
  target_compile_options(${name} PRIVATE
    $<$<COMPILE_LANGUAGE:CUDA>:-lineinfo --expt-relaxed-constexpr -Werror=all-warnings
                               -Xcompiler=-Wall>)
  target_link_libraries(${name} PUBLIC CUDA::cudart_static)
endfunction()
