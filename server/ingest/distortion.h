// How far encoded values are from the values they stand for.
#pragma once

#include <vector>

#include "kernels/format/llama_blocks.h"
#include "kernels/format/page_header.h"
#include "kernels/kv_view.h"

namespace turbokv {

// Energy of the error of K or V in `page` over the energy of the (uncentred) values in `kv`; 0
// where both are 0. `scratch` is grown as needed and may be used again.
double RelativeMse(PageTensor tensor, const KvView& kv, const PageView& page,
                   std::vector<float>* scratch);

}  // namespace turbokv
