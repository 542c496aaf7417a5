// The loss's gradient of pictures of few maps, by products: what a pixel of dy adds to one row of
// dx, kw c numbers side by side, is that pixel's o numbers times a matrix. A library that takes the
// c maps of dx for a register's lanes leaves most of them empty.

#pragma once

#include <cstdint>

#include "product.h"

namespace narrow {

using products::At;
using products::kPanel;

// w [kh][kw c][o] -> panels of [o, kh wide], wide the next multiple of 16 from kw c on.
inline void Kernel(const float* w, int64_t kh, int64_t across, int64_t o, int64_t wide, float* u) {
  for (int64_t i = 0; i < kh * wide; ++i)
    for (int64_t k = 0; k < o; ++k)
      u[(i / kPanel * o + k) * kPanel + i % kPanel] =
          i % wide < across ? w[(i / wide * across + i % wide) * o + k] : 0.0f;
}

// m [rows][columns][kh][wide], of rows and columns of dy -> added to dx, whose rows are `line` apart
// and whose pixels c: of row r and column j to the rows r .. r + kh - 1, from pixel j on. What lies
// across numbers just written would wait for them, so the columns, which do, are the outer loop.
FMA inline void Add(const float* m, int64_t rows, int64_t columns, int64_t kh, int64_t wide,
                    int64_t c, int64_t line, float* dx) {
  for (int64_t j = 0; j < columns; ++j)
    for (int64_t r = 0; r < rows; ++r)
      for (int64_t i = 0; i < kh; ++i) {
        const float* from = m + ((r * columns + j) * kh + i) * wide;
        float* to = dx + (r + i) * line + j * c;
        for (int64_t k = 0; k < wide; k += 8) At(to + k) += At(from + k);
      }
}

}  // namespace narrow
