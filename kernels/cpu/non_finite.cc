#include "kernels/cpu/non_finite.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "kernels/cpu/kv_rows.h"

namespace turbokv::cpu {
namespace {

std::string FirstNonFinite(absl::string_view tensor, const KvView& kv, const void* values,
                           const PageShape& shape, int64_t first_token) {
  std::string found;
  ForEachRow(kv, values, shape, [&](int token, int head, const float* row) {
    const float* bad = std::find_if_not(row, row + shape.head_dim,
                                        [](float value) { return std::isfinite(value); });
    if (bad == row + shape.head_dim || !found.empty()) return;
    found = absl::StrCat(tensor, " of token ", first_token + token, ", head ", head, ", channel ",
                         bad - row, " is ", std::isnan(*bad) ? "NaN" : "infinite");
  });
  return found;
}

}  // namespace

std::string DescribeNonFinite(const KvView& kv, const PageShape& shape, int64_t first_token) {
  std::string found = FirstNonFinite("K", kv, kv.k, shape, first_token);
  return found.empty() ? FirstNonFinite("V", kv, kv.v, shape, first_token) : found;
}

}  // namespace turbokv::cpu
