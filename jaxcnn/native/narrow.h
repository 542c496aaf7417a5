// The loss's gradient of pictures of few maps, by products: what a pixel of dy adds to one row of
// dx, kw c numbers side by side, is that pixel's o numbers times a matrix. A library that takes the
// c maps of dx for a register's lanes leaves most of them empty.

#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>

#include "product.h"
#include "work.h"

namespace native::narrow {

using products::At;
using products::kPanel;

// w [kh][kw c][o] -> panels of [o, kh wide], wide the next multiple of 16 from kw c on.
inline void Kernel(const float* w, int64_t kh, int64_t across, int64_t o, int64_t wide, float* u) {
  for (int64_t i = 0; i < kh * wide; ++i)
    for (int64_t k = 0; k < o; ++k)
      u[(i / kPanel * o + k) * kPanel + i % kPanel] =
          i % wide < across ? w[(i / wide * across + i % wide) * o + k] : 0.0f;
}

// m [rows][columns][kh][wide], of rows and columns of dy -> added to dx, its rows `line` apart
// and its pixels c: row r, column j to the rows r .. r + kh - 1, from pixel j on. What lies across
// numbers just written would wait for them, so the columns, which do, are the outer loop.
AVX2 inline void Add(const float* m, int64_t rows, int64_t columns, int64_t kh, int64_t wide,
                     int64_t c, int64_t line, float* dx) {
  for (int64_t j = 0; j < columns; ++j)
    for (int64_t r = 0; r < rows; ++r)
      for (int64_t i = 0; i < kh; ++i) {
        const float* from = m + ((r * columns + j) * kh + i) * wide;
        float* to = dx + (r + i) * line + j * c;
        for (int64_t k = 0; k < wide; k += 8) At(to + k) += At(from + k);
      }
}

// Whether the gradient of pictures is faster by products, which of 8 maps it no longer is.
inline bool Fits(const Shape& s) {
  return products::Supported() && s.down == 1 && s.right == 1 && s.groups == 1 && s.c <= 6 &&
         s.kw > 1;
}

inline void Run(ffi::ThreadPool& pool, const Shape& s, const float* w, const float* g, float* out) {
  const int64_t across = s.kw * s.c, wide = (across + kPanel - 1) / kPanel * kPanel;
  const int64_t n = s.kh * wide, step = std::max<int64_t>(1, 64 / s.columns);  // rows at a time
  // Of dx with its padding, and at the end what a product is wider than the kernel.
  const int64_t high = s.rows - 1 + s.kh, line = (s.columns - 1) * s.c + wide;
  float* u = Scratch(n * s.o * sizeof(float), 0);
  Kernel(w, s.kh, across, s.o, wide, u);
  const Shares shares(pool, s.n);
  Parallel(pool, shares.count, [&](int64_t share) {
    float* m = Scratch(step * s.columns * n * sizeof(float), 1);
    float* dx = Scratch(high * line * sizeof(float), 3);
    const int64_t first = shares.from(share);
    for (int64_t p = first; p < first + shares.many(share); ++p) {
      std::fill_n(dx, high * line, 0.0f);
      for (int64_t row = 0; row < s.rows; row += step) {
        const int64_t rows = std::min(step, s.rows - row), pixels = rows * s.columns;
        const float* from = g + (p * s.rows + row) * s.columns * s.o;
        products::Product(pixels, s.o, n, {from, s.o, 1}, u, m, n, false);
        Add(m, rows, s.columns, s.kh, wide, s.c, line, dx + row * line);
      }
      for (int64_t row = 0; row < s.h; ++row)
        std::memcpy(out + (p * s.h + row) * s.w * s.c, dx + (row + s.top) * line + s.left * s.c,
                    s.w * s.c * sizeof(float));
    }
  });
}

}  // namespace native::narrow
