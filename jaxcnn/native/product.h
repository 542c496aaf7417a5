// Products of matrices of which some are small, where a library's would cost more by the call than
// they take: what is multiplied from the right lies in panels of 16 columns, one behind the other.

#pragma once

#include <cstdint>

#ifdef __clang__
#error only g++ will do: of its vectors clang 14 makes a library that crashes
#endif
#ifdef __x86_64__
#define AVX2 __attribute__((target("avx2,fma")))
#define AVX512 __attribute__((target("avx512f")))
#else
#define AVX2
#define AVX512
#endif
#define ALWAYS __attribute__((always_inline))
#define INLINE inline ALWAYS

namespace native::products {

inline bool Supported() {  // elsewhere they were never timed, and convolutions stay oneDNN's
#ifdef __x86_64__
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
#else
  return false;
#endif
}

struct Avx {
  typedef float Lane __attribute__((vector_size(32), aligned(4), may_alias));
  static constexpr int kRows = 4;  // of a product at once: as many sums as hide how late they are
};
struct Avx512 {
  typedef float Lane __attribute__((vector_size(64), aligned(4), may_alias));
  static constexpr int kRows = 8;
};
using Eight = Avx::Lane;

constexpr int64_t kPanel = 16;

INLINE Eight& At(const float* p) { return *(Eight*)p; }

struct Matrix {  // its rows and columns, so far apart
  const float* at;
  int64_t row, column;
};

// kRows rows of a [., k], times a panel b [k, 16] -> or added to `to`, whose rows are so far apart.
template <class Isa, int kRows>
INLINE void Block(int64_t k, Matrix a, const float* b, float* to, int64_t apart, bool added) {
  using Lane = typename Isa::Lane;
  constexpr int kSize = sizeof(Lane) / sizeof(float), kLanes = kPanel / kSize;
  Lane sums[kRows][kLanes];
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r)
#pragma GCC unroll 2
    for (int l = 0; l < kLanes; ++l)
      sums[r][l] = added ? *(Lane*)(to + r * apart + l * kSize) : Lane{};
  for (int64_t i = 0; i < k; ++i) {
    Lane right[kLanes];
#pragma GCC unroll 2
    for (int l = 0; l < kLanes; ++l) right[l] = *(const Lane*)(b + i * kPanel + l * kSize);
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r)
#pragma GCC unroll 2
      for (int l = 0; l < kLanes; ++l) sums[r][l] += a.at[r * a.row + i * a.column] * right[l];
  }
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r)
#pragma GCC unroll 2
    for (int l = 0; l < kLanes; ++l) *(Lane*)(to + r * apart + l * kSize) = sums[r][l];
}

template <class Isa>
INLINE void Blocks(int64_t rows, int64_t k, int64_t n, Matrix a, const float* b, float* to,
                   int64_t apart, bool added) {
  for (int64_t j = 0; j < n; j += kPanel) {
    auto from = [&](int64_t row) { return Matrix{a.at + row * a.row, a.row, a.column}; };
    int64_t row = 0;
    for (; row + Isa::kRows <= rows; row += Isa::kRows)
      Block<Isa, Isa::kRows>(k, from(row), b + j * k, to + row * apart + j, apart, added);
    for (; row < rows; ++row)
      Block<Isa, 1>(k, from(row), b + j * k, to + row * apart + j, apart, added);
  }
}

AVX2 inline void ByAvx2(int64_t rows, int64_t k, int64_t n, Matrix a, const float* b, float* to,
                        int64_t apart, bool added) {
  Blocks<Avx>(rows, k, n, a, b, to, apart, added);
}

AVX512 inline void ByAvx512(int64_t rows, int64_t k, int64_t n, Matrix a, const float* b,
                            float* to, int64_t apart, bool added) {
  Blocks<Avx512>(rows, k, n, a, b, to, apart, added);
}

// a [rows, k] times b, panels of [k, n] -> to [rows, n], its rows so far apart, or added to it.
inline void Product(int64_t rows, int64_t k, int64_t n, Matrix a, const float* b, float* to,
                    int64_t apart, bool added) {
#ifdef __x86_64__
  static const auto by = __builtin_cpu_supports("avx512f") ? ByAvx512 : ByAvx2;
#else
  constexpr auto by = ByAvx2;
#endif
  by(rows, k, n, a, b, to, apart, added);
}

}  // namespace native::products
