#include "server/ingest/distortion.h"

#include "kernels/cpu/codec.h"
#include "kernels/cpu/kv_rows.h"

namespace turbokv {

double RelativeMse(PageTensor tensor, const KvView& kv, const PageView& page,
                   std::vector<float>* scratch) {
  const PageShape& shape = page.layout.shape;
  const ptrdiff_t token_stride = ptrdiff_t{shape.kv_heads} * shape.head_dim;
  scratch->resize(kPageTokens * token_stride);
  KvOutput output;
  (tensor == PageTensor::kK ? output.k : output.v) = scratch->data();
  output.token_stride = token_stride;
  output.head_stride = shape.head_dim;
  cpu::DecodePage(page, output);

  double error = 0;
  double energy = 0;
  cpu::ForEachRow(kv, tensor == PageTensor::kK ? kv.k : kv.v, shape,
                  [&](int token, int head, const float* row) {
                    const float* decoded =
                        scratch->data() + token * token_stride + head * shape.head_dim;
                    for (int i = 0; i < shape.head_dim; ++i) {
                      const double difference = double{decoded[i]} - row[i];
                      error += difference * difference;
                      energy += double{row[i]} * row[i];
                    }
                  });
  return energy > 0 ? error / energy : 0;
}

}  // namespace turbokv
