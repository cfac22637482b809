// How far the float path may be from the reference, in units of 2^-24 (half a float ulp at 1).
//
// Y = H(s1 x), of `n` channels, by tensor cores over 16 channels (J), then float stages; all errors
// relative to |Y| = sqrt(n) |x|, x without mean. Per component:
//   - Products are exact. Tensor cores align the terms of a sum to the largest and cut what is
//   below
//     24 bits and one more: at most 16 x max|x_J| an accumulator; over J, by Cauchy-Schwarz,
//     16 sqrt(8) |x|, which is 4 of |Y|. Sums are cut, not rounded, twice on Ampere: 4.
//   - 3 float stages: 3.                                                              Sum: 11.
// The norm, by the same terms in l2 (16 for the cut terms, 4, 3), sums of squares in chains of 8
// and trees (6), the approximate inverse root and products (4):                       Sum: 33.
// With a mean m, values as given are at most |x| + |m|, and sums begin with one more term, rounded
// once, of at most 4 |m_J|. Errors grow by what |m| / |x| is times
//   - of a component: cut terms 4.25 + 17, rounding 1:                                    23.
//   - of the norm: cut terms in l2 17 + 68, rounding 1:                                   86.
// Guards below, times 2.2, are above that (of a normalised value: 23 + 86 x 0.22).
#pragma once

namespace turbokv::cuda {

inline constexpr float kHalfUlp = 0x1p-24f;
inline constexpr float kMeanShare = 2.2f;
// Of a normalised value: 11, and 33 x the largest threshold, 0.22; rounding of factors, 1; and of
// thresholds, whose last four bits are not their own (turbo_cells.cuh): 16 x 0.22.
inline constexpr float kTurboGuard = 25 * kHalfUlp;
// Of norm / |centroids|, relative: 33, and 8 of the sum of squares, its root and the quotient.
inline constexpr float kTurboScaleGuard = 43 * kHalfUlp;
// Of y = Y / sqrt(n) relative to |x|: 11; rounding of minimum, scaling and place: 11.
inline constexpr float kIntGuard = 24 * kHalfUlp;

}  // namespace turbokv::cuda
