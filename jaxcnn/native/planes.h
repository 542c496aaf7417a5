// Convolutions of gray pictures to a few maps, which as a register's lanes would leave most of it
// empty: here the lanes are pixels. A picture lies with its padding, and each map in a plane of its
// own whose rows are as long, so that one sum runs over all pixels; what comes out behind a row's
// columns is of no use.

#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <vector>

#include "product.h"
#include "work.h"

namespace native::planes {

using products::At;
using products::Eight;

constexpr int64_t kMost = 8;              // maps
constexpr int64_t kLanes = 4;             // registers of pixels at once
constexpr int64_t kStep = 8 * kLanes;     // so many pixels
constexpr int64_t kRoom = kMost * kMost;  // so many numbers behind a picture are read, or written

inline bool Fits(const Shape& s) {
  return products::Supported() && s.c == 1 && s.o <= kMost && s.kw <= kMost &&
         s.down == 1 && s.right == 1;
}

struct Plane {  // of a map: numbers of a row, of all that is computed, and from plane to plane
  int64_t line, size, apart;

  explicit Plane(const Shape& s)
      : line(s.w + s.left + s.behind),
        size((s.rows * line + kStep - 1) / kStep * kStep),
        apart(size + 2 * kMost) {}
};

// Eight numbers of each of eight planes -> all numbers of each of eight pixels, and back.
INLINE void Turn(Eight* a) {
  typedef int32_t Where __attribute__((vector_size(32)));
  constexpr Where low1 = {0, 8, 1, 9, 4, 12, 5, 13}, high1 = {2, 10, 3, 11, 6, 14, 7, 15};
  constexpr Where low2 = {0, 1, 8, 9, 4, 5, 12, 13}, high2 = {2, 3, 10, 11, 6, 7, 14, 15};
  constexpr Where low4 = {0, 1, 2, 3, 8, 9, 10, 11}, high4 = {4, 5, 6, 7, 12, 13, 14, 15};
  Eight b[8];
#pragma GCC unroll 4
  for (int i = 0; i < 8; i += 2) {
    b[i] = __builtin_shuffle(a[i], a[i + 1], low1);
    b[i + 1] = __builtin_shuffle(a[i], a[i + 1], high1);
  }
#pragma GCC unroll 2
  for (int i = 0; i < 8; i += 4) {
    a[i] = __builtin_shuffle(b[i], b[i + 2], low2);
    a[i + 1] = __builtin_shuffle(b[i], b[i + 2], high2);
    a[i + 2] = __builtin_shuffle(b[i + 1], b[i + 3], low2);
    a[i + 3] = __builtin_shuffle(b[i + 1], b[i + 3], high2);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    b[i] = __builtin_shuffle(a[i], a[i + 4], low4);
    b[i + 4] = __builtin_shuffle(a[i], a[i + 4], high4);
  }
#pragma GCC unroll 8
  for (int i = 0; i < 8; ++i) a[i] = b[i];
}

// f.template operator()<many>(first): n in parts of three, two or one.
template <class F>
INLINE void Parts(int64_t n, F f) {
  int64_t at = 0;
  for (; n - at == 3 || n - at > 4; at += 3) f.template operator()<3>(at);
  for (; n - at >= 2; at += 2) f.template operator()<2>(at);
  if (at < n) f.template operator()<1>(at);
}

// x, padded, and kMaps maps of w [kh, kw, o] -> those maps' planes y, each from its bias.
template <int kMaps>
INLINE void Maps(Shape s, Plane plane, const float* x, const float* w, const float* bias,
                 float* y) {
  for (int64_t at = 0; at < plane.size; at += kStep) {
    Eight sums[kMaps][kLanes];
#pragma GCC unroll 3
    for (int m = 0; m < kMaps; ++m)
#pragma GCC unroll 4
      for (int l = 0; l < kLanes; ++l) sums[m][l] = Eight{} + (bias ? bias[m] : 0.0f);
    for (int64_t i = 0; i < s.kh; ++i)
      for (int64_t j = 0; j < s.kw; ++j) {
        const float* from = x + i * plane.line + j + at;
        const float* tap = w + (i * s.kw + j) * s.o;
#pragma GCC unroll 4
        for (int l = 0; l < kLanes; ++l)
#pragma GCC unroll 3
          for (int m = 0; m < kMaps; ++m) sums[m][l] += tap[m] * At(from + 8 * l);
      }
#pragma GCC unroll 3
    for (int m = 0; m < kMaps; ++m)
#pragma GCC unroll 4
      for (int l = 0; l < kLanes; ++l) At(y + m * plane.apart + at + 8 * l) = sums[m][l];
  }
}

// x, padded, and planes g of the maps' gradient -> added to the lanes of dw [kh, kw, o, 8], of
// kWide columns and kMaps maps.
template <int kWide, int kMaps>
INLINE void Taps(Shape s, Plane plane, const float* x, const float* g, float* dw) {
  for (int64_t i = 0; i < s.kh; ++i, x += plane.line, dw += s.kw * s.o * 8) {
    Eight sums[kWide][kMaps];
#pragma GCC unroll 3
    for (int j = 0; j < kWide; ++j)
#pragma GCC unroll 3
      for (int m = 0; m < kMaps; ++m) sums[j][m] = At(dw + (j * s.o + m) * 8);
    for (int64_t at = 0; at < plane.size; at += 8)
#pragma GCC unroll 3
      for (int m = 0; m < kMaps; ++m)
#pragma GCC unroll 3
        for (int j = 0; j < kWide; ++j)
          sums[j][m] += At(x + at + j) * At(g + m * plane.apart + at);
#pragma GCC unroll 3
    for (int j = 0; j < kWide; ++j)
#pragma GCC unroll 3
      for (int m = 0; m < kMaps; ++m) At(dw + (j * s.o + m) * 8) = sums[j][m];
  }
}

// A picture with its padding and what is read behind it, all but the picture zero.
INLINE float* Blank(Shape s, Plane plane) {
  const int64_t size = plane.size + (s.kh - 1) * plane.line + kMost;
  return std::fill_n(Scratch(size * sizeof(float), 1), size, 0.0f) - size;
}

INLINE void Fill(Shape s, Plane plane, const float* x, float* padded) {
  for (int64_t row = 0; row < s.h; ++row)
    std::memcpy(padded + (row + s.top) * plane.line + s.left, x + row * s.w, s.w * sizeof(float));
}

// `many` pictures of x, from p on -> of y.
AVX2 inline void Forward(Kind kind, Shape s, int64_t p, int64_t many, const float* x,
                         const float* w, const float* bias, const float* beside, float* y) {
  const Plane plane(s);
  const int64_t map = s.rows * s.columns * s.o;
  float* padded = Blank(s, plane);
  float* maps = Scratch(kMost * plane.apart * sizeof(float), 2);
  float* room = Scratch((map + kRoom) * sizeof(float), 3);
  for (int64_t end = p + many; p < end; ++p) {
    Fill(s, plane, x + p * s.h * s.w, padded);
    Parts(s.o, [&]<int kMaps>(int64_t m) ALWAYS {
      Maps<kMaps>(s, plane, padded, w + m, bias ? bias + m : nullptr, maps + m * plane.apart);
    });
    // What is written behind a picture the next one overwrites, if it is this thread's. And what is
    // added may lie where y does.
    float* made = Added(kind) || (end - 1 - p) * map < kRoom ? room : y + p * map;
    for (int64_t row = 0; row < s.rows; ++row)
      for (int64_t j = 0; j < s.columns; j += 8) {
        const float* from = maps + row * plane.line + j;
        Eight a[8];
#pragma GCC unroll 8
        for (int m = 0; m < 8; ++m) a[m] = At(from + m * plane.apart);
        Turn(a);
#pragma GCC unroll 8
        for (int i = 0; i < 8; ++i) At(made + (row * s.columns + j + i) * s.o) = a[i];
      }
    if (Added(kind))
      for (int64_t k = 0; k < map; ++k) y[p * map + k] = made[k] + beside[p * map + k];
    else if (made == room)
      std::memcpy(y + p * map, made, map * sizeof(float));
    if (Rectified(kind))
      for (int64_t k = p * map; k < (p + 1) * map; ++k) y[k] = y[k] < 0 ? 0 : y[k];
  }
}

// `many` pictures of x and g, from p on -> dw.
AVX2 inline void Kernel(Shape s, int64_t p, int64_t many, const float* x, const float* g,
                        float* dw) {
  const Plane plane(s);
  const int64_t map = s.rows * s.columns * s.o, taps = s.kh * s.kw * s.o;
  float* padded = Blank(s, plane);
  float* maps = Scratch(kMost * plane.apart * sizeof(float), 2);
  float* copy = Scratch((map + kRoom) * sizeof(float), 3);
  std::fill_n(maps, kMost * plane.apart, 0.0f);
  std::vector<float> lanes(taps * 8);
  for (int64_t end = p + many; p < end; ++p) {
    Fill(s, plane, x + p * s.h * s.w, padded);
    const float* of = g + p * map;
    if ((s.n - 1 - p) * map < kRoom) of = (float*)std::memcpy(copy, of, map * sizeof(float));
    for (int64_t row = 0; row < s.rows; ++row) {
      float* line = maps + row * plane.line;
      for (int64_t j = 0; j < s.columns; j += 8) {
        Eight a[8];
#pragma GCC unroll 8
        for (int i = 0; i < 8; ++i) a[i] = At(of + (row * s.columns + j + i) * s.o);
        Turn(a);
#pragma GCC unroll 8
        for (int m = 0; m < 8; ++m) At(line + m * plane.apart + j) = a[m];
      }
#pragma GCC unroll 8
      for (int m = 0; m < 8; ++m) At(line + m * plane.apart + s.columns) = Eight{};
    }
    Parts(s.kw, [&]<int kWide>(int64_t j) ALWAYS {
      Parts(s.o, [&]<int kMaps>(int64_t m) ALWAYS {
        float* to = lanes.data() + (j * s.o + m) * 8;
        Taps<kWide, kMaps>(s, plane, padded + j, maps + m * plane.apart, to);
      });
    });
  }
  for (int64_t i = 0; i < taps; ++i) {
    dw[i] = 0;
    for (int l = 0; l < 8; ++l) dw[i] += lanes[i * 8 + l];
  }
}

inline void Run(ffi::ThreadPool& pool, Kind kind, const Shape& s, const float* x, const float* w,
                const float* g, float* out, const float* beside) {
  const Shares shares(pool, s.n);
  const int64_t taps = s.kh * s.kw * s.o;
  std::vector<float> sums(kind == kKernel ? shares.count * taps : 0);
  Parallel(pool, shares.count, [&](int64_t i) {
    const int64_t p = shares.from(i), many = shares.many(i);
    if (kind == kKernel) return Kernel(s, p, many, x, g, sums.data() + i * taps);
    Forward(kind, s, p, many, x, w, Biased(kind) ? g : nullptr, beside, out);
  });
  if (kind == kKernel) AddUp(sums, taps, out);
}

}  // namespace native::planes
