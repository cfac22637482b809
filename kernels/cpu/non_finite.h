// Which value is to blame when a page cannot be encoded.
#pragma once

#include <cstdint>
#include <string>

#include "kernels/format/page_layout.h"
#include "kernels/kv_view.h"

namespace turbokv::cpu {

// Where the first NaN or infinity of `kv` is: "K of token 300, head 2, channel 17 is NaN", tokens
// counted from `first_token`. Empty when all values are finite.
std::string DescribeNonFinite(const KvView& kv, const PageShape& shape, int64_t first_token);

}  // namespace turbokv::cpu
