// A 3x3 convolution of stride 1 as sixteen products of matrices, 16 / 36 of its multiplications:
// F(2x2, 3x3) of Lavin & Gray 2016, "Fast Algorithms for Convolutional Neural Networks", section
// 4.1. Its rounding is that of the sum itself (larger tiles multiply less, and round worse).
//
//     y = A^T [(G w G^T) * (B^T x B)] A        and of the loss's gradient dy
//     dw = G^T [(A dy A^T) * (B^T x B)] G
//
// of each tile, 2x2 of y. dx is a convolution again, of dy with w turned and transposed.
// A tensor of sixteen parts has part 4 i + j at that multiple of its `stride`. The numbers of maps
// are multiples of 16; what is multiplied from the right lies in panels, as product.h has them.

#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <vector>

#include "product.h"
#include "work.h"

namespace native::winograd {

using products::At;
using products::Eight;
using products::kPanel;

// What the tiles below will need: of 16 maps a picture does not stay in the caches.
INLINE void Fetch(const float* p) { __builtin_prefetch(p); }

struct Tiles {  // of pictures of h x w, seen from `top` rows above and `left` columns before
  int64_t h, w, top, left, down, across;  // down x across tiles a picture
};

struct Place {  // of a tile: its picture, its first row and column
  int64_t p, row, column;
};

INLINE Place Where(const Tiles& t, int64_t tile) {
  const int64_t i = tile / t.across;
  return {i / t.down, 2 * (i % t.down) - t.top, 2 * (tile % t.across) - t.left};
}

struct Patch {
  const float* at;
  int64_t row;  // so far apart they are
};

// The size x size pixels of a tile, `many` maps of x [n, h, w, c]: where they lie or, with zeros
// for what is outside, in `copy`.

INLINE Patch Pixels(const Tiles& t, int64_t tile, int size, const float* x, int64_t c,
                    int64_t many, float* copy) {
  const auto [p, row, column] = Where(t, tile);
  auto from = [&](int64_t i, int64_t j) { return x + ((p * t.h + i) * t.w + j) * c; };
  if (row >= 0 && column >= 0 && row + size <= t.h && column + size <= t.w)
    return {from(row, column), t.w * c};
  for (int64_t i = 0; i < size; ++i)
    for (int64_t j = 0; j < size; ++j) {
      const int64_t a = row + i, b = column + j;
      float* to = copy + (i * size + j) * c;
      if (0 <= a && a < t.h && 0 <= b && b < t.w)
        std::memcpy(to, from(a, b), many * sizeof(float));
      else
        std::memset(to, 0, many * sizeof(float));
    }
  return {copy, size * c};
}

// B^T x B: of x [n, h, w, c] the tiles from `first` on -> v [16][count, c].
AVX2 inline void Pictures(const Tiles& t, int64_t first, int64_t count, const float* x, int64_t c,
                          float* v, int64_t stride) {
  std::vector<float> copy(16 * c);
  for (int64_t tile = 0; tile < count; ++tile) {
    const auto [from, row] = Pixels(t, first + tile, 4, x, c, c, copy.data());
    for (int64_t k = 0; k < c; k += 8) {
      Eight r[16];
#pragma GCC unroll 4
      for (int j = 0; j < 4; ++j) {
        const float* f = from + j * c + k;
        if (k % kPanel == 0 && j < 2) Fetch(f + 4 * row), Fetch(f + 5 * row);
        Eight a = At(f), b = At(f + row), d = At(f + 2 * row), e = At(f + 3 * row);
        r[j] = a - d, r[4 + j] = b + d, r[8 + j] = d - b, r[12 + j] = b - e;
      }
      float* to = v + tile * c + k;
#pragma GCC unroll 4
      for (int i = 0; i < 16; i += 4) {
        Eight a = r[i], b = r[i + 1], d = r[i + 2], e = r[i + 3];
        At(to + i * stride) = a - d, At(to + (i + 1) * stride) = b + d;
        At(to + (i + 2) * stride) = d - b, At(to + (i + 3) * stride) = b - e;
      }
    }
  }
}

// A dy A^T: of `many` maps of g [n, h, w, o] the tiles from `first` on
// -> u [16][many / 16][count, 16].
AVX2 inline void Gradients(const Tiles& t, int64_t first, int64_t count, const float* g, int64_t o,
                           int64_t many, float* u, int64_t stride) {
  std::vector<float> copy(4 * o);
  for (int64_t tile = 0; tile < count; ++tile) {
    const auto [from, row] = Pixels(t, first + tile, 2, g, o, many, copy.data());
    for (int64_t k = 0; k < many; k += 8) {
      Eight r[8];
#pragma GCC unroll 2
      for (int j = 0; j < 2; ++j) {
        const float* f = from + j * o + k;
        Eight a = At(f), b = At(f + row);
        if (k % kPanel == 0) Fetch(f + 2 * row), Fetch(f + 3 * row);
        r[j] = a, r[2 + j] = a + b, r[4 + j] = a - b, r[6 + j] = -b;
      }
      float* to = u + (k / kPanel * count + tile) * kPanel + k % kPanel;
#pragma GCC unroll 4
      for (int i = 0; i < 4; ++i) {
        Eight a = r[2 * i], b = r[2 * i + 1];
        At(to + 4 * i * stride) = a, At(to + (4 * i + 1) * stride) = a + b;
        At(to + (4 * i + 2) * stride) = a - b, At(to + (4 * i + 3) * stride) = -b;
      }
    }
  }
}

// A^T m A: m [16][count, many] -> the tiles from `first` on, of so many maps of y [n, h, w, o];
// with a bias [many] or null, maps beside it that are added (y itself, if they lie there) or null,
// and ReLU or not.
AVX2 inline void Maps(const Tiles& t, int64_t first, int64_t count, const float* m, int64_t stride,
                      int64_t o, int64_t many, const float* bias, const float* beside, bool relu,
                      float* y) {
  const std::vector<float> zeros(many);
  std::vector<float> nowhere(many);
  const float* more = bias ? bias : zeros.data();
  const Eight least = Eight{} + (relu ? 0.0f : -__builtin_inff());
  for (int64_t tile = 0; tile < count; ++tile) {
    const auto [p, row, column] = Where(t, first + tile);
    float* to[4];
    const float* add[4];
    for (int i = 0; i < 4; ++i) {
      const int64_t a = row + i / 2, b = column + i % 2, at = ((p * t.h + a) * t.w + b) * o;
      const bool in = a < t.h && b < t.w;
      to[i] = in ? y + at : nowhere.data();
      add[i] = in && beside ? beside + at : zeros.data();
    }
    for (int64_t k = 0; k < many; k += 8) {
      const float* from = m + tile * many + k;
      Eight r[8];
#pragma GCC unroll 4
      for (int j = 0; j < 4; ++j) {
        Eight a = At(from + j * stride), b = At(from + (4 + j) * stride);
        Eight d = At(from + (8 + j) * stride), e = At(from + (12 + j) * stride);
        r[j] = a + b + d, r[4 + j] = b - d - e;
      }
      const Eight sums[4] = {r[0] + r[1] + r[2], r[1] - r[2] - r[3], r[4] + r[5] + r[6],
                             r[5] - r[6] - r[7]};
#pragma GCC unroll 4
      for (int i = 0; i < 4; ++i) {
        if (k % kPanel == 0) Fetch(to[i] + k + 2 * t.w * o);
        const Eight sum = sums[i] + At(more + k) + At(add[i] + k);
        At(to[i] + k) = sum < least ? least : sum;  // NaN stays
      }
    }
  }
}

// G w G^T: of w [9][c, o] its rows from `first` on -> u [16][o / 16][c, 16]. If `turned`, of the
// kernel that is turned, which exchanges the first of four with the last, and transposed:
// -> u [16][c / 16][o, 16].
AVX2 inline void Kernel(const float* w, int64_t c, int64_t o, int64_t first, int64_t rows,
                        bool turned, float* u) {
  const int64_t size = c * o;
  auto at = [turned](int i) { return turned && i % 3 == 0 ? 3 - i : i; };
  for (int64_t panel = 0; panel < o; panel += kPanel)  // what is written lies close together
    for (int64_t row = first; row < first + rows; ++row)
      for (int64_t k = panel; k < panel + kPanel; k += 8) {
        Eight r[12];
#pragma GCC unroll 3
        for (int j = 0; j < 3; ++j) {
          const float* from = w + j * size + row * o + k;
          Eight a = At(from), b = At(from + 3 * size), d = At(from + 6 * size);
          r[j] = a, r[3 + j] = (a + d + b) / 2, r[6 + j] = (a + d - b) / 2, r[9 + j] = d;
        }
        for (int i = 0; i < 4; ++i) {
          const Eight a = r[3 * i], b = r[3 * i + 1], d = r[3 * i + 2];
          const Eight parts[4] = {a, (a + d + b) / 2, (a + d - b) / 2, d};
          for (int j = 0; j < 4; ++j) {
            float* to = u + (4 * at(i) + at(j)) * size;
            if (turned)
              for (int n = 0; n < 8; ++n)
                to[(row / kPanel * o + k + n) * kPanel + row % kPanel] = parts[j][n];
            else
              At(to + (panel / kPanel * c + row) * kPanel + k % kPanel) = parts[j];
          }
        }
      }
}

// G^T m G: from `first` on `count` of each of the sum of m [blocks][16][c, o] -> w [9][c, o].
AVX2 inline void KernelGradient(const float* m, int64_t blocks, int64_t size, int64_t first,
                                int64_t count, float* w) {
  for (int64_t k = first; k < first + count; k += 8) {
    Eight sums[16];
    for (int i = 0; i < 16; ++i) {
      sums[i] = At(m + i * size + k);
      for (int64_t b = 1; b < blocks; ++b) sums[i] += At(m + (16 * b + i) * size + k);
    }
    Eight r[12];
    for (int j = 0; j < 4; ++j) {
      Eight a = sums[j], b = sums[4 + j], d = sums[8 + j], e = sums[12 + j];
      r[j] = a + (b + d) / 2, r[4 + j] = (b - d) / 2, r[8 + j] = (b + d) / 2 + e;
    }
    for (int i = 0; i < 3; ++i) {
      Eight a = r[4 * i], b = r[4 * i + 1], d = r[4 * i + 2], e = r[4 * i + 3];
      At(w + 3 * i * size + k) = a + (b + d) / 2;
      At(w + (3 * i + 1) * size + k) = (b - d) / 2;
      At(w + (3 * i + 2) * size + k) = (b + d) / 2 + e;
    }
  }
}

// Whether Winograd's form is faster. Of few tiles, its kernel costs more than it saves.
inline bool Fits(const Shape& s) {
  const int64_t tiles = s.n * ((s.rows + 1) / 2) * ((s.columns + 1) / 2);
  return products::Supported() && s.kh == 3 && s.kw == 3 && s.down == 1 && s.right == 1 &&
         s.groups == 1 && s.c % kPanel == 0 && s.o % kPanel == 0 &&
         std::min(s.rows, s.columns) >= 2 && tiles >= 32;
}

// As convolution.cc's `Run`, of a shape that `Fits`. The work is split into blocks of tiles,
// whichever pictures they are of, and into slices of maps, where there are many.
inline void Run(ffi::ThreadPool& pool, Kind kind, const Shape& s, const float* x, const float* w,
                const float* g, float* out, const float* beside) {
  const bool turned = kind == kInput;  // the gradient of the pictures is a convolution of the maps'
  const int64_t c = turned ? s.o : s.c, o = turned ? s.c : s.o, weights = c * o;
  const int64_t rows = turned ? s.h : s.rows, columns = turned ? s.w : s.columns;
  const int64_t down = (rows + 1) / 2, across = (columns + 1) / 2, tiles = s.n * down * across;
  const Tiles maps{rows, columns, 0, 0, down, across};
  Tiles pictures{s.h, s.w, s.top, s.left, down, across};
  if (turned) pictures = {s.rows, s.columns, 2 - s.top, 2 - s.left, down, across};

  auto divided = [](int64_t n, int64_t by) { return (n + by - 1) / by; };
  // Another thread is not worth its waking for some 100,000 cycles of work.
  auto worth = [](int64_t work, int64_t most) { return std::clamp<int64_t>(work >> 17, 1, most); };
  const int64_t threads = worth(tiles * weights, std::max<int64_t>(1, pool.num_threads()));
  int64_t slices = std::max<int64_t>(1, std::min(threads, o / 128));
  while (threads % slices) --slices;
  const int64_t width = divided(o / kPanel, slices) * kPanel;
  const int64_t each = divided(divided(tiles, threads / slices), 8) * 8;
  const int64_t blocks = divided(tiles, each);
  // Tiles at a time: more, where a part of the kernel is larger than a core's own cache.
  const int64_t step = weights > 1 << 17 ? 256 : 64;
  auto worked = [&](auto f) {  // f(block, first tile, how many, first map, how many)
    Parallel(pool, blocks * slices, [&](int64_t i) {
      const int64_t block = i / slices, end = std::min(tiles, (block + 1) * each);
      const int64_t map = i % slices * width, many = std::min(width, o - map);
      for (int64_t at = block * each; at < end; at += step)
        f(block, at, std::min(step, end - at), map, many);
    });
  };
  auto rowed = [&](auto f) {  // f(first, count), over the kernel's input maps
    const int64_t panels = s.c / kPanel, some = divided(panels, worth(16 * weights, panels));
    Parallel(pool, divided(panels, some), [&](int64_t i) {
      f(i * some * kPanel, std::min(some, panels - i * some) * kPanel);
    });
  };
  // Scratch memory of 16 parts; those a power of two apart would share a cache's sets.
  auto scratch = [](int64_t part, int slot) { return Scratch(16 * part * sizeof(float), slot); };
  const int64_t v_part = step * c + 16, m_part = step * width + 16;

  if (kind == kKernel) {
    float* sums = scratch(blocks * weights, 0);
    worked([&](int64_t block, int64_t first, int64_t count, int64_t map, int64_t many) {
      float *v = scratch(v_part, 1), *u = scratch(m_part, 3);
      Pictures(pictures, first, count, x, c, v, v_part);
      Gradients(maps, first, count, g + map, o, many, u, m_part);
      for (int i = 0; i < 16; ++i)
        products::Product(c, count, many, {v + i * v_part, 1, c}, u + i * m_part,
                          sums + (16 * block + i) * weights + map, o, first > block * each);
    });
    rowed([&](int64_t first, int64_t count) {
      KernelGradient(sums, blocks, weights, first * o, count * o, out);
    });
    return;
  }
  float* u = scratch(weights, 0);
  rowed([&](int64_t first, int64_t count) { Kernel(w, s.c, s.o, first, count, turned, u); });
  worked([&](int64_t, int64_t first, int64_t count, int64_t map, int64_t many) {
    float *v = scratch(v_part, 1), *m = scratch(m_part, 3);
    Pictures(pictures, first, count, turned ? g : x, c, v, v_part);
    for (int i = 0; i < 16; ++i)
      products::Product(count, c, many, {v + i * v_part, c, 1}, u + i * weights + map * c,
                        m + i * m_part, many, false);
    Maps(maps, first, count, m, m_part, o, many, Biased(kind) ? g + map : nullptr,
         Added(kind) ? beside + map : nullptr, Rectified(kind), out + map);
  });
}

}  // namespace native::winograd
