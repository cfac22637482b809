// Runs a test on every SIMD target that this binary has and this machine supports.
#pragma once

#include <functional>

namespace turbokv::testing {

// Calls `test` once a target, with a gtest trace that names it.
void ForEachSimdTarget(const std::function<void()>& test);

}  // namespace turbokv::testing
