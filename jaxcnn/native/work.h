// What each form of a convolution is told, and how its work is spread over XLA's threads.

#pragma once

#include <omp.h>

#include <algorithm>
#include <atomic>
#include <compare>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "xla/ffi/api/ffi.h"

namespace native {

namespace ffi = xla::ffi;

enum Kind { kForward, kBias, kBiasRelu, kAdd, kAddRelu, kInput, kKernel };

constexpr bool Biased(Kind kind) { return kBias <= kind && kind <= kAddRelu; }
constexpr bool Added(Kind kind) { return kind == kAdd || kind == kAddRelu; }
constexpr bool Rectified(Kind kind) { return kind == kBiasRelu || kind == kAddRelu; }

struct Shape {  // of one share
  int64_t n, h, w, c, rows, columns, o, kh, kw;
  int64_t down, right, top, bottom, left, behind, groups;
  auto operator<=>(const Shape&) const = default;
};

// f(0) .. f(n - 1) by the caller and by whatever threads of the pool are free; the caller waits
// only for what another thread has begun, so a full pool cannot hold it up for ever.
inline void Parallel(ffi::ThreadPool& pool, int64_t n, std::function<void(int64_t)> f) {
  struct Shared {
    std::function<void(int64_t)> f;
    std::atomic<int64_t> next{0}, done{0};
    std::string error;
    std::mutex mutex;
    std::condition_variable over;
  };
  auto shared = std::make_shared<Shared>();
  shared->f = std::move(f);
  auto work = [shared, n] {
    omp_set_num_threads(1);  // of this thread: the pool's threads are the only ones
    for (int64_t i; (i = shared->next++) < n;) {
      std::string error;
      try {
        shared->f(i);
      } catch (const std::exception& e) {
        error = e.what();
      }
      std::lock_guard<std::mutex> lock(shared->mutex);
      if (!error.empty()) shared->error = error;
      if (++shared->done == n) shared->over.notify_all();
    }
  };
  for (int64_t i = 1; i < n; ++i) pool.Schedule([work] { work(); });
  work();
  std::unique_lock<std::mutex> lock(shared->mutex);
  shared->over.wait(lock, [&] { return shared->done == n; });
  if (!shared->error.empty()) throw std::runtime_error(shared->error);
}

// n pictures in as many shares as the pool has threads, or fewer; each thread takes one.
struct Shares {
  int64_t n, each, count;

  Shares(const ffi::ThreadPool& pool, int64_t n) : n(n) {
    const int64_t threads = std::max<int64_t>(1, pool.num_threads());
    each = (n + threads - 1) / threads;
    count = (n + each - 1) / each;
  }
  int64_t from(int64_t i) const { return i * each; }
  int64_t many(int64_t i) const { return std::min(each, n - i * each); }
};

// The sum of `sums`' rows, as long as out.
inline void AddUp(const std::vector<float>& sums, int64_t size, float* out) {
  std::copy_n(sums.begin(), size, out);
  for (size_t i = size; i < sums.size(); ++i) out[i % size] += sums[i];
}

inline float* Scratch(size_t bytes, int slot) {  // kept by each thread
  thread_local std::vector<float> kept[4];
  if (kept[slot].size() * sizeof(float) < bytes) kept[slot].resize(bytes / sizeof(float) + 1);
  return kept[slot].data();
}

}  // namespace native
