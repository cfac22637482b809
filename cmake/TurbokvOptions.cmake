# Build-wide settings: language level, warnings, sanitizers, where binaries land.
option(TURBOKV_BUILD_TESTS "Build the unit, integration, fault and fuzz tests" ON)
option(TURBOKV_BUILD_BENCHMARKS "Build the benchmarks" ON)
option(TURBOKV_CUDA "Build the CUDA kernels (needs nvcc >= 12.4)" OFF)
set(TURBOKV_SANITIZER "" CACHE STRING "Empty, 'address' (with undefined) or 'thread'")

set(CMAKE_CXX_STANDARD 20)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_POSITION_INDEPENDENT_CODE ON)
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)
set(CMAKE_RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/bin)

find_program(CCACHE_PROGRAM ccache)
if(CCACHE_PROGRAM)
  set(CMAKE_CXX_COMPILER_LAUNCHER ${CCACHE_PROGRAM})
endif()

# Applied to our own targets only (TurbokvTargets.cmake), not to generated code.
set(TURBOKV_WARNINGS -Wall -Wextra -Werror -Wshadow -Wnon-virtual-dtor -Woverloaded-virtual
                     -Wno-missing-field-initializers)
if(CMAKE_CXX_COMPILER_ID MATCHES Clang)
  list(APPEND TURBOKV_WARNINGS -Wthread-safety)
endif()

if(TURBOKV_SANITIZER STREQUAL "address")
  set(TURBOKV_SANITIZER_FLAGS -fsanitize=address,undefined -fno-sanitize-recover=all)
elseif(TURBOKV_SANITIZER STREQUAL "thread")
  set(TURBOKV_SANITIZER_FLAGS -fsanitize=thread)
elseif(NOT TURBOKV_SANITIZER STREQUAL "")
  message(FATAL_ERROR "TURBOKV_SANITIZER is '${TURBOKV_SANITIZER}'; use 'address' or 'thread'")
endif()
if(TURBOKV_SANITIZER)
  # Sanitizers check our logic, not code generation for every vector unit: AVX2 and the portable
  # target are enough, and build in a third of the time.
  add_compile_options(${TURBOKV_SANITIZER_FLAGS} -fno-omit-frame-pointer -g1)
  add_link_options(${TURBOKV_SANITIZER_FLAGS})
  add_compile_definitions(TURBOKV_FEW_SIMD_TARGETS)
endif()
