#include "examples/llama/blas.h"

#include <cblas.h>

namespace turbokv::examples {

void SetBlasThreads(int threads) { openblas_set_num_threads(threads); }

void MultiplyTransposed(int rows, int columns, int inner, float scale, ConstMatrix a, ConstMatrix b,
                        float* c, int c_stride) {
  if (rows == 1) {
    cblas_sgemv(CblasRowMajor, CblasNoTrans, columns, inner, scale, b.data, b.stride, a.data, 1,
                0.0f, c, 1);
    return;
  }
  cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, rows, columns, inner, scale, a.data,
              a.stride, b.data, b.stride, 0.0f, c, c_stride);
}

void Multiply(int rows, int columns, int inner, ConstMatrix a, ConstMatrix b, float* c,
              int c_stride) {
  cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, rows, columns, inner, 1.0f, a.data,
              a.stride, b.data, b.stride, 0.0f, c, c_stride);
}

}  // namespace turbokv::examples
