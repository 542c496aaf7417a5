// A 3x3 convolution of stride 1 as sixteen products of matrices, 16 / 36 of its multiplications:
// F(2x2, 3x3) of Lavin & Gray 2016, "Fast Algorithms for Convolutional Neural Networks", section
// 4.1. Its rounding is that of the sum itself (larger tiles multiply less, and round worse).
//
//     y = A^T [(G w G^T) * (B^T x B)] A        and of the loss's gradient dy
//     dw = G^T [(A dy A^T) * (B^T x B)] G
//
// of each tile, 2x2 of y. dx is a convolution again, of dy with w turned and transposed.
// A tensor of sixteen parts has part 4 i + j at that multiple of its `stride`.

#pragma once

#include <cstdint>
#include <vector>

#if defined(__x86_64__) && defined(__GLIBC__)
#define WIDEST __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define WIDEST
#endif

namespace winograd {

struct Tiles {  // `n` pictures of h x w, seen from `top` rows above and `left` columns before
  int64_t n, h, w, top, left, down, across;  // down x across tiles a picture
  int64_t count() const { return n * down * across; }
};

struct Place {  // of a tile: its picture, its first row and column
  int64_t p, row, column;
};

inline Place At(const Tiles& t, int64_t tile) {
  const int64_t i = tile / t.across;
  return {i / t.down, 2 * (i % t.down) - t.top, 2 * (tile % t.across) - t.left};
}

// The pixel at row, column of picture p, of x [n, h, w, c]; outside of it: `outside` [c].
template <class T>
T* Pixel(const Tiles& t, T* x, int64_t c, int64_t p, int64_t row, int64_t column, T* outside) {
  bool in = 0 <= row && row < t.h && 0 <= column && column < t.w;
  return in ? x + ((p * t.h + row) * t.w + column) * c : outside;
}

// B^T x B: x [n, h, w, c] -> v [16][tiles, c].
WIDEST void Pictures(const Tiles& t, const float* x, int64_t c, float* v, int64_t stride) {
  const std::vector<float> zeros(c);
  for (int64_t tile = 0; tile < t.count(); ++tile) {
    const auto [p, row, column] = At(t, tile);
    const float* from[16];
    for (int i = 0; i < 16; ++i)
      from[i] = Pixel(t, x, c, p, row + i / 4, column + i % 4, zeros.data());
    float* to = v + tile * c;
#pragma omp simd
    for (int64_t k = 0; k < c; ++k) {
      float r[16];
      for (int j = 0; j < 4; ++j) {
        float a = from[j][k], b = from[4 + j][k], d = from[8 + j][k], e = from[12 + j][k];
        r[j] = a - d, r[4 + j] = b + d, r[8 + j] = d - b, r[12 + j] = b - e;
      }
      for (int i = 0; i < 16; i += 4) {
        float a = r[i], b = r[i + 1], d = r[i + 2], e = r[i + 3];
        to[i * stride + k] = a - d, to[(i + 1) * stride + k] = b + d;
        to[(i + 2) * stride + k] = d - b, to[(i + 3) * stride + k] = b - e;
      }
    }
  }
}

// A dy A^T: g [n, h, w, o] -> u [16][tiles, o].
WIDEST void Gradients(const Tiles& t, const float* g, int64_t o, float* u, int64_t stride) {
  const std::vector<float> zeros(o);
  for (int64_t tile = 0; tile < t.count(); ++tile) {
    const auto [p, row, column] = At(t, tile);
    const float* from[4];
    for (int i = 0; i < 4; ++i)
      from[i] = Pixel(t, g, o, p, row + i / 2, column + i % 2, zeros.data());
    float* to = u + tile * o;
#pragma omp simd
    for (int64_t k = 0; k < o; ++k) {
      float r[8];
      for (int j = 0; j < 2; ++j) {
        float a = from[j][k], b = from[2 + j][k];
        r[j] = a, r[2 + j] = a + b, r[4 + j] = a - b, r[6 + j] = -b;
      }
      for (int i = 0; i < 4; ++i) {
        float a = r[2 * i], b = r[2 * i + 1];
        to[4 * i * stride + k] = a, to[(4 * i + 1) * stride + k] = a + b;
        to[(4 * i + 2) * stride + k] = a - b, to[(4 * i + 3) * stride + k] = -b;
      }
    }
  }
}

// A^T m A: m [16][tiles, o] -> y [n, h, w, o], with a bias [o] or null, maps beside it that are
// added (y itself, if they lie there) or null, and ReLU or not.
WIDEST void Maps(const Tiles& t, const float* m, int64_t stride, int64_t o, const float* bias,
                 const float* beside, bool relu, float* y) {
  const std::vector<float> zeros(o);
  std::vector<float> nowhere(o);
  const float* more = bias ? bias : zeros.data();
  const float least = relu ? 0.0f : -__builtin_inff();
  for (int64_t tile = 0; tile < t.count(); ++tile) {
    const auto [p, row, column] = At(t, tile);
    float* to[4];
    const float* add[4];
    for (int i = 0; i < 4; ++i) {
      to[i] = Pixel(t, y, o, p, row + i / 2, column + i % 2, nowhere.data());
      add[i] = beside ? Pixel(t, beside, o, p, row + i / 2, column + i % 2, zeros.data())
                      : zeros.data();
    }
    const float* from = m + tile * o;
#pragma omp simd
    for (int64_t k = 0; k < o; ++k) {
      float r[8];
      for (int j = 0; j < 4; ++j) {
        float a = from[j * stride + k], b = from[(4 + j) * stride + k];
        float d = from[(8 + j) * stride + k], e = from[(12 + j) * stride + k];
        r[j] = a + b + d, r[4 + j] = b - d - e;
      }
      float s[4] = {r[0] + r[1] + r[2], r[1] - r[2] - r[3], r[4] + r[5] + r[6],
                    r[5] - r[6] - r[7]};
      for (int i = 0; i < 4; ++i) {
        float sum = s[i] + more[k] + add[i][k];
        to[i][k] = sum < least ? least : sum;  // NaN stays
      }
    }
  }
}

// G w G^T: from `first` on `count` of the weights of each of w [9][c, o] -> u [16][c, o]; of the
// turned kernel, if `turned`: that exchanges the first of four with the last.
WIDEST void Kernel(const float* w, int64_t size, int64_t first, int64_t count, bool turned,
                   float* u) {
  float* to[16];
  for (int i = 0; i < 16; ++i) {
    auto at = [turned](int k) { return turned && k % 3 == 0 ? 3 - k : k; };
    to[i] = u + (4 * at(i / 4) + at(i % 4)) * size;
  }
#pragma omp simd
  for (int64_t k = first; k < first + count; ++k) {
    float r[12];
    for (int j = 0; j < 3; ++j) {
      float a = w[j * size + k], b = w[(3 + j) * size + k], d = w[(6 + j) * size + k];
      r[j] = a, r[3 + j] = (a + d + b) / 2, r[6 + j] = (a + d - b) / 2, r[9 + j] = d;
    }
    for (int i = 0; i < 4; ++i) {
      float a = r[3 * i], b = r[3 * i + 1], d = r[3 * i + 2];
      to[4 * i][k] = a, to[4 * i + 1][k] = (a + d + b) / 2;
      to[4 * i + 2][k] = (a + d - b) / 2, to[4 * i + 3][k] = d;
    }
  }
}

// G^T m G: from `first` on `count` of each of m [16][c, o] -> w [9][c, o].
WIDEST void KernelGradient(const float* m, int64_t size, int64_t first, int64_t count, float* w) {
#pragma omp simd
  for (int64_t k = first; k < first + count; ++k) {
    float r[12];
    for (int j = 0; j < 4; ++j) {
      float a = m[j * size + k], b = m[(4 + j) * size + k];
      float d = m[(8 + j) * size + k], e = m[(12 + j) * size + k];
      r[j] = a + (b + d) / 2, r[4 + j] = (b - d) / 2, r[8 + j] = (b + d) / 2 + e;
    }
    for (int i = 0; i < 3; ++i) {
      float a = r[4 * i], b = r[4 * i + 1], d = r[4 * i + 2], e = r[4 * i + 3];
      w[3 * i * size + k] = a + (b + d) / 2, w[(3 * i + 1) * size + k] = (b - d) / 2;
      w[(3 * i + 2) * size + k] = (b + d) / 2 + e;
    }
  }
}

}  // namespace winograd
