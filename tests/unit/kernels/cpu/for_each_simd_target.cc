#include "tests/unit/kernels/cpu/for_each_simd_target.h"

#include "gtest/gtest.h"
#include "kernels/cpu/simd_targets.h"
// After simd_targets.h, which chooses the targets.
#include "hwy/highway.h"

namespace turbokv::testing {

void ForEachSimdTarget(const std::function<void()>& test) {
  int64_t targets = hwy::SupportedTargets() & HWY_TARGETS;
  ASSERT_NE(targets, 0);
  for (; targets != 0; targets &= targets - 1) {
    const int64_t target = targets & -targets;
    SCOPED_TRACE(hwy::TargetName(target));
    hwy::SetSupportedTargetsForTest(target);
    hwy::GetChosenTarget().Update(hwy::SupportedTargets());
    test();
  }
  hwy::SetSupportedTargetsForTest(0);
  hwy::GetChosenTarget().Update(hwy::SupportedTargets());
}

}  // namespace turbokv::testing
