// How far encoded values are from the values they stand for.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "kernels/format/llama_blocks.h"
#include "kernels/format/page_header.h"
#include "kernels/kv_view.h"

namespace turbokv {

// Energy of the error of K or V in `page` over the energy of the (uncentred) values in `kv`; 0
// where both are 0. `scratch` is grown as needed and may be used again.
double RelativeMse(PageTensor tensor, const KvView& kv, const PageView& page,
                   std::vector<float>* scratch);

// Where the first NaN or infinity of `kv` is: "K of token 300, head 2, channel 17 is NaN", tokens
// counted from `first_token`. Empty when all values are finite.
std::string DescribeNonFinite(const KvView& kv, const PageShape& shape, int64_t first_token);

}  // namespace turbokv
