// Max pooling and its gradient. NaN is kept, and of equal largest values the first, row by row,
// takes all of the gradient. A window's padding is never its largest value.
//
// A register's maps are computed at a time, however many are left, so numbers past the end of a
// pixel are read; where that would be past the end of a batch, of a copy with room behind it.

#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>

#include "product.h"
#include "work.h"

namespace native::pooling {

struct Windows {
  int64_t n, h, w, c, rows, columns, high, wide, down, right, top, left;
};

template <int kMaps>  // of a register
struct Maps {
  typedef float Lane __attribute__((vector_size(4 * kMaps), aligned(4), may_alias));
  typedef int32_t Mask __attribute__((vector_size(4 * kMaps)));

  static INLINE Lane& At(const float* p) { return *(Lane*)p; }
  static INLINE Lane Larger(Lane a, Lane b) { return (a > b) | (a != a) ? a : b; }
};

struct Part {
  int64_t from, many;
};

INLINE Part Inside(int64_t at, int64_t window, int64_t size) {
  const int64_t from = std::max<int64_t>(at, 0);
  return {from, std::min(at + window, size) - from};
}

// x [h, w, c] -> y [rows, columns, c], room behind both. v: a row of x.
template <int kMaps>
INLINE void Largest(Windows s, const float* x, float* v, float* y) {
  using M = Maps<kMaps>;
  using Lane = typename M::Lane;
  for (int64_t r = 0; r < s.rows; ++r) {
    const auto [row, high] = Inside(r * s.down - s.top, s.high, s.h);
    for (int64_t k = 0; k < s.w * s.c; k += kMaps) {
      Lane largest = Lane{} - INFINITY;
      for (int64_t i = 0; i < high; ++i)
        largest = M::Larger(M::At(x + (row + i) * s.w * s.c + k), largest);
      M::At(v + k) = largest;
    }
    for (int64_t j = 0; j < s.columns; ++j, y += s.c) {
      const auto [column, wide] = Inside(j * s.right - s.left, s.wide, s.w);
      for (int64_t k = 0; k < s.c; k += kMaps) {
        Lane largest = Lane{} - INFINITY;
        for (int64_t i = 0; i < wide; ++i)
          largest = M::Larger(M::At(v + (column + i) * s.c + k), largest);
        M::At(y + k) = largest;
      }
    }
  }
}

// x, y and the gradient g of y, room behind all -> added to dx, whose pixels are `apart` numbers
// apart: whole registers, for what lies across numbers just written would wait for them.
template <int kMaps>
INLINE void Gradient(Windows s, const float* x, const float* y, const float* g, float* dx,
                     int64_t apart) {
  using M = Maps<kMaps>;
  using Mask = typename M::Mask;
  for (int64_t r = 0; r < s.rows; ++r) {
    const auto [row, high] = Inside(r * s.down - s.top, s.high, s.h);
    for (int64_t j = 0; j < s.columns; ++j, y += s.c, g += s.c) {
      const auto [column, wide] = Inside(j * s.right - s.left, s.wide, s.w);
      for (int64_t k = 0; k < s.c; k += kMaps) {
        const auto largest = M::At(y + k);
        Mask left = (Mask)M::At(g + k);
        const float* from = x + (row * s.w + column) * s.c + k;
        float* to = dx + (row * s.w + column) * apart + k;
        for (int64_t i = 0; i < high; ++i, from += s.w * s.c, to += s.w * apart)
          for (int64_t l = 0; l < wide; ++l) {
            const Mask here = M::At(from + l * s.c) == largest;
            M::At(to + l * apart) += (typename M::Lane)(left & here);
            left &= ~here;
          }
      }
    }
  }
}

// `pixels` of c maps that are `apart` numbers apart -> side by side, and nothing behind them.
template <int kMaps>
INLINE void Close(int64_t pixels, int64_t c, int64_t apart, const float* from, float* to) {
  int64_t i = 0;
  for (; (pixels - i) * c >= apart; ++i)  // what is written past a pixel the next ones overwrite
    for (int64_t k = 0; k < c; k += kMaps)
      Maps<kMaps>::At(to + i * c + k) = Maps<kMaps>::At(from + i * apart + k);
  for (; i < pixels; ++i) std::memcpy(to + i * c, from + i * apart, c * sizeof(float));
}

// The p-th of n pictures of `size` numbers: where it lies or, where fewer than `room` follow it, in
// this thread's slot.
INLINE const float* Picture(const float* x, int64_t p, int64_t n, int64_t size, int64_t room,
                            int slot) {
  if ((n - 1 - p) * size >= room) return x + p * size;
  float* copy = Scratch((size + room) * sizeof(float), slot);
  return static_cast<const float*>(std::memcpy(copy, x + p * size, size * sizeof(float)));
}

// `many` pictures, from p on; y and g are null for the pooling itself, which makes `out`.
template <int kMaps>
INLINE void Pictures(Windows s, int64_t p, int64_t many, const float* x, const float* y,
                     const float* g, float* out) {
  const int64_t picture = s.h * s.w * s.c, map = s.rows * s.columns * s.c;
  const int64_t apart = (s.c + kMaps - 1) / kMaps * kMaps;
  const bool whole = apart == s.c;
  const int64_t room = whole ? 0 : kMaps;
  for (int64_t end = p + many; p < end; ++p) {
    const float* from = Picture(x, p, s.n, picture, room, 0);
    if (!g) {
      float* v = Scratch((s.w * s.c + kMaps) * sizeof(float), 1);
      float* made = whole ? out + p * map : Scratch((map + kMaps) * sizeof(float), 2);
      Largest<kMaps>(s, from, v, made);
      if (!whole) std::memcpy(out + p * map, made, map * sizeof(float));
    } else {
      float* made = whole ? out + p * picture : Scratch(s.h * s.w * apart * sizeof(float), 3);
      std::fill_n(made, s.h * s.w * apart, 0.0f);
      Gradient<kMaps>(s, from, Picture(y, p, s.n, map, room, 1),
                      Picture(g, p, s.n, map, room, 2), made, apart);
      if (!whole) Close<kMaps>(s.h * s.w, s.c, apart, made, out + p * picture);
    }
  }
}

AVX2 inline void ByAvx2(const Windows& s, int64_t p, int64_t many, const float* x, const float* y,
                        const float* g, float* out) {
  Pictures<8>(s, p, many, x, y, g, out);
}

inline void ByAny(const Windows& s, int64_t p, int64_t many, const float* x, const float* y,
                  const float* g, float* out) {
  Pictures<4>(s, p, many, x, y, g, out);
}

inline void Run(ffi::ThreadPool& pool, const Windows& s, const float* x, const float* y,
                const float* g, float* out) {
  static const auto by = products::Supported() ? ByAvx2 : ByAny;
  const Shares shares(pool, s.n);
  Parallel(pool, shares.count,
           [&](int64_t i) { by(s, shares.from(i), shares.many(i), x, y, g, out); });
}

}  // namespace native::pooling
