// How far the float path may be from the reference, in units of 2^-24 (half a float ulp at 1).
//
// Y = H(s1 x), of `n` channels, by tensor cores over 16 channels (J), then float stages; all errors
// relative to |Y| = sqrt(n) |x|, x without mean. With a mean m, H is taken of x + m and H m is
// subtracted: errors grow by ratio = (|x| + |m|) / |x|. Per component:
//   - Products are exact. Tensor cores align the terms of a sum to the largest and cut what is
//   below
//     24 bits and one more: at most 16 x max|x_J| an accumulator; over J, by Cauchy-Schwarz,
//     16 sqrt(8) |x|, which is 4 of |Y|. Sums are cut, not rounded, twice on Ampere: 4.
//   - 3 float stages: 3. Subtraction of H m, and its own rounding: 2.                  Sum: 13.
// The norm, by the same terms in l2 (16 for the cut terms, 4, 3, 2), sums of squares in chains of 8
// and trees (6), the approximate inverse root and products (4):                        Sum: 35.
#pragma once

namespace turbokv::cuda {

inline constexpr float kHalfUlp = 0x1p-24f;
// Of a normalised value: 13, and 35 x the largest threshold, 0.22; rounding of factors, 1; and of
// thresholds, whose last four bits are not their own (turbo_cells.cuh): 16 x 0.22.
inline constexpr float kTurboGuard = 26 * kHalfUlp;
// Of norm / |centroids|, relative: 35, and 8 of the sum of squares, its root and the quotient.
inline constexpr float kTurboScaleGuard = 45 * kHalfUlp;
// Of y = Y / sqrt(n) relative to |x|: 13; rounding of minimum, scaling and place: 11.
inline constexpr float kIntGuard = 24 * kHalfUlp;

}  // namespace turbokv::cuda
