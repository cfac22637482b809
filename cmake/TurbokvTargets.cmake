# One line per target: what it is made of and what it may use.
include(GoogleTest)

function(turbokv_target_defaults target)
  target_compile_options(${target} PRIVATE $<$<COMPILE_LANGUAGE:CXX>:${TURBOKV_WARNINGS}>)
  target_include_directories(${target} PUBLIC $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}>
                                              $<INSTALL_INTERFACE:include/turbokv>)
endfunction()

# turbokv_library(name SRCS a.cc... [DEPS t...] [PRIVATE_DEPS t...])
function(turbokv_library name)
  cmake_parse_arguments(ARG "" "" "SRCS;DEPS;PRIVATE_DEPS" ${ARGN})
  if(ARG_SRCS)
    add_library(${name} STATIC ${ARG_SRCS})
    turbokv_target_defaults(${name})
    target_link_libraries(${name} PUBLIC ${ARG_DEPS} PRIVATE ${ARG_PRIVATE_DEPS})
  else()
    add_library(${name} INTERFACE)
    target_include_directories(${name} INTERFACE $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}>
                                                 $<INSTALL_INTERFACE:include/turbokv>)
    target_link_libraries(${name} INTERFACE ${ARG_DEPS})
  endif()
  add_library(turbokv::${name} ALIAS ${name})
endfunction()

# turbokv_binary(name SRCS a.cc... [DEPS t...])
function(turbokv_binary name)
  cmake_parse_arguments(ARG "" "" "SRCS;DEPS" ${ARGN})
  add_executable(${name} ${ARG_SRCS})
  turbokv_target_defaults(${name})
  target_link_libraries(${name} PRIVATE ${ARG_DEPS})
endfunction()

# turbokv_test(name SRCS a_test.cc... [DEPS t...] [LABELS unit|integration|fault|fuzz|slow])
# A binary of GoogleTest tests; CTest runs it as one test named after the binary.
function(turbokv_test name)
  cmake_parse_arguments(ARG "" "" "SRCS;DEPS;LABELS" ${ARGN})
  turbokv_binary(${name} SRCS ${ARG_SRCS} DEPS ${ARG_DEPS} GTest::gmock GTest::gtest_main)
  target_compile_definitions(${name} PRIVATE
    TURBOKV_SOURCE_DIR="${PROJECT_SOURCE_DIR}" TURBOKV_BINARY_DIR="${CMAKE_RUNTIME_OUTPUT_DIRECTORY}")
  add_test(NAME ${name} COMMAND ${name})
  if(NOT ARG_LABELS)
    set(ARG_LABELS unit)
  endif()
  set_tests_properties(${name} PROPERTIES LABELS "${ARG_LABELS}" TIMEOUT 600)
endfunction()

# turbokv_benchmark(name SRCS a_bench.cc... [DEPS t...])
# A Google Benchmark binary; CTest runs it for a moment so that it cannot rot.
function(turbokv_benchmark name)
  cmake_parse_arguments(ARG "" "" "SRCS;DEPS" ${ARGN})
  turbokv_binary(${name} SRCS ${ARG_SRCS} DEPS ${ARG_DEPS} benchmark::benchmark)
  if(TURBOKV_BUILD_TESTS)
    add_test(NAME ${name}_runs COMMAND ${name} --benchmark_min_time=0.001 --smoke)
    set_tests_properties(${name}_runs PROPERTIES LABELS bench TIMEOUT 600)
  endif()
endfunction()
