// Matrix products by OpenBLAS.
#pragma once

namespace turbokv::examples {

// Threads of every later product, process-wide. 1 where the caller runs products in parallel
// itself.
void SetBlasThreads(int threads);

// A row-major matrix inside a larger one: rows are `stride` floats apart.
struct ConstMatrix {
  const float* data;
  int stride;
};

// c [rows][columns] = scale * a [rows][inner] * b^T, b is [columns][inner].
void MultiplyTransposed(int rows, int columns, int inner, float scale, ConstMatrix a, ConstMatrix b,
                        float* c, int c_stride);

// c [rows][columns] = a [rows][inner] * b [inner][columns].
void Multiply(int rows, int columns, int inner, ConstMatrix a, ConstMatrix b, float* c,
              int c_stride);

}  // namespace turbokv::examples
