// CRC32C by a block, in pieces that run side by side.
//
// Reflected: bit s of a word stands for x^(31 - s). Everything is linear, so a message may be cut
// anywhere and what its parts leave be moved into place by powers of x. A warp reads rows of 128
// bytes; lane l has word l of every row, a polynomial in y = x^1024 whose coefficients are words.
// P(y) is P(x)^1024 and thus zero modulo P: where y^32 is replaced by the lower terms of P(y), 32
// words at a time, with nothing but exclusive ors, only 32 rows are left.
#pragma once

#include "kernels/cuda/primitives/host_device.cuh"

namespace turbokv::cuda {

inline constexpr int kCrcRowBytes = 128;
inline constexpr int kCrcWarps = 8;

// The low terms of P, reflected: bit s is the coefficient of x^(31 - s).
inline constexpr uint32_t kCrcPolynomial = 0x82f63b78u;
inline constexpr uint32_t kCrcOne = 0x80000000u;  // x^0

constexpr uint32_t CrcTimesX(uint32_t a) { return a & 1 ? a >> 1 ^ kCrcPolynomial : a >> 1; }
constexpr uint32_t CrcProduct(uint32_t a, uint32_t b) {
  uint32_t product = 0;
  for (uint32_t bit = kCrcOne; bit != 0; bit >>= 1) {
    if (a & bit) product ^= b;
    b = CrcTimesX(b);
  }
  return product;
}
// x^exponent; negative exponents as well.
constexpr uint32_t CrcPower(int64_t exponent) {
  // x^-1 = (P - 1) / x, reflected: P without its lowest term, shifted.
  uint32_t base = exponent >= 0 ? kCrcOne >> 1 : (kCrcPolynomial ^ kCrcOne) << 1 | 1;
  uint64_t rest = exponent >= 0 ? exponent : -exponent;
  uint32_t power = kCrcOne;
  for (; rest != 0; rest >>= 1) {
    if (rest & 1) power = CrcProduct(power, base);
    base = CrcProduct(base, base);
  }
  return power;
}

// Whether P has x^degree, degree below 32.
constexpr bool CrcTerm(int degree) { return kCrcPolynomial >> (31 - degree) & 1; }

// Rows: folds one word of a lane after the other.
class CrcFold {
 public:
  // The next 32 rows.
  TURBOKV_HOST_DEVICE void Add(const uint32_t (&rows)[32]) {
    TURBOKV_UNROLL
    for (int n = 0; n < 32; ++n) {
      // What is eliminated at row n goes 32 - degree rows further on.
      uint32_t word = rows[n];
      TURBOKV_UNROLL
      for (int degree = 0; degree < 32; ++degree) {
        if (CrcTerm(degree)) word ^= eliminated_[(n + degree) % 32];
      }
      eliminated_[n] = word;
    }
  }

  // The coefficient of y^(31 - k) of all rows times y^32, modulo P(y).
  TURBOKV_HOST_DEVICE uint32_t Rest(int k) const {
    uint32_t word = 0;
    TURBOKV_UNROLL
    for (int degree = 0; degree < 32; ++degree) {
      if (CrcTerm(degree) && k + degree < 32) word ^= eliminated_[(k + degree) & 31];
    }
    return word;
  }

 private:
  uint32_t eliminated_[32] = {};
};

// Products with x^1024 by bytes: entry [b][i] is x^1024 times the word with byte b = i.
struct CrcRowShift {
  uint32_t entries[4][256];
};
constexpr CrcRowShift MakeCrcRowShift() {
  CrcRowShift table{};
  for (int byte = 0; byte < 4; ++byte) {
    uint32_t of_bit[8] = {};
    for (int bit = 0; bit < 8; ++bit) {
      of_bit[bit] = CrcProduct(CrcPower(8 * kCrcRowBytes), uint32_t{1} << (8 * byte + bit));
    }
    for (int i = 0; i < 256; ++i) {
      for (int bit = 0; bit < 8; ++bit) {
        if (i >> bit & 1) table.entries[byte][i] ^= of_bit[bit];
      }
    }
  }
  return table;
}
TURBOKV_HOST_DEVICE uint32_t ShiftRow(const CrcRowShift& table, uint32_t word) {
  return table.entries[0][word & 0xff] ^ table.entries[1][word >> 8 & 0xff] ^
         table.entries[2][word >> 16 & 0xff] ^ table.entries[3][word >> 24];
}

// How a page's rows are dealt to warps, and where what a warp leaves belongs.
struct CrcPlan {
  int32_t rows;
  int32_t rows_per_warp;            // a multiple of 32; the first warp's first rows may be missing
  uint32_t warp_shifts[kCrcWarps];  // by the rows behind those of the warp, and y^-32
};
constexpr CrcPlan MakeCrcPlan(int64_t page_bytes) {
  CrcPlan plan{};
  plan.rows = static_cast<int32_t>(page_bytes / kCrcRowBytes);
  plan.rows_per_warp = (plan.rows + 32 * kCrcWarps - 1) / (32 * kCrcWarps) * 32;
  constexpr uint32_t kNoRowsBehind = CrcPower(-32 * kCrcRowBytes * 8);
  const uint32_t warp_rows = CrcPower(int64_t{plan.rows_per_warp} * kCrcRowBytes * 8);
  uint32_t shift = kNoRowsBehind;
  for (int warp = kCrcWarps - 1; warp >= 0; --warp) {
    plan.warp_shifts[warp] = shift;
    shift = CrcProduct(shift, warp_rows);
  }
  return plan;
}
// The first row of a warp; rows below 0 are zeros that are not there.
constexpr int64_t FirstRow(const CrcPlan& plan, int warp) {
  return plan.rows - int64_t{kCrcWarps - warp} * plan.rows_per_warp;
}

// By the words behind those of a lane, and the x^32 of every CRC.
struct CrcLaneShifts {
  uint32_t powers[32];
};
constexpr CrcLaneShifts MakeCrcLaneShifts() {
  CrcLaneShifts shifts{};
  for (int lane = 0; lane < 32; ++lane) shifts.powers[lane] = CrcPower(32 * (32 - lane));
  return shifts;
}

}  // namespace turbokv::cuda
