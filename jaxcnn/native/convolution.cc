// Convolutions of XLA's CPU by oneDNN: forward, gradient of the input, gradient of the kernel.
// Where they are faster, by forms of our own. And max pooling.
//
// Pictures are NHWC, kernels HWIO, float32. A batch is split into as many shares as XLA's thread
// pool has threads, or fewer for little work, whoever else is computing: the kernel's gradient is a
// sum over shares, and so a run's numbers depend on the machine but never on its company.

#include <omp.h>

#include <algorithm>
#include <compare>
#include <cstring>
#include <map>
#include <mutex>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "dnnl.hpp"
#include "narrow.h"
#include "planes.h"
#include "pooling.h"
#include "winograd.h"
#include "work.h"
#include "xla/ffi/api/ffi.h"

namespace native {
namespace {

using dnnl::memory;
using Tag = memory::format_tag;

struct Plan {
  dnnl::primitive primitive;
  memory::desc pictures, maps;  // [n, h, w, c] and [n, rows, columns, o]
  memory::desc kernel, plain;   // as oneDNN wants it, and HWIO
  memory::desc bias;
  memory::desc scratch;
  dnnl::primitive reorder;      // between the two, if they differ
  bool reordered;
};

dnnl::engine& Engine() {
  static dnnl::engine engine(dnnl::engine::kind::cpu, 0);
  return engine;
}

memory Bind(const memory::desc& d, const float* p) {
  return memory(d, Engine(), const_cast<float*>(p));
}

// What `make` makes of `key`, once; it stays in its place.
template <class Made, class Key>
const Made& Known(const Key& key, Made (*make)(const Key&)) {
  static std::mutex mutex;
  static std::map<Key, Made> known;
  std::lock_guard<std::mutex> lock(mutex);
  auto found = known.find(key);
  if (found == known.end()) found = known.emplace(key, make(key)).first;
  return found->second;
}

// Scratch memory comes from the caller. oneDNN's own belongs to the thread that made the primitive,
// and it computes wrong numbers in another.
dnnl::primitive_attr Attributes(Kind kind) {
  dnnl::primitive_attr attributes;
  attributes.set_scratchpad_mode(dnnl::scratchpad_mode::user);
  dnnl::post_ops after;
  if (Added(kind)) after.append_sum(1.0f);
#if DNNL_VERSION_MAJOR >= 3
  if (Rectified(kind)) after.append_eltwise(dnnl::algorithm::eltwise_relu, 0.0f, 0.0f);
#else
  if (Rectified(kind)) after.append_eltwise(1.0f, dnnl::algorithm::eltwise_relu, 0.0f, 0.0f);
#endif
  attributes.set_post_ops(after);
  return attributes;
}

// oneDNN 2 describes an operation before its primitive, oneDNN 3 both at once.
#if DNNL_VERSION_MAJOR >= 3
template <class Primitive, class... Hint, class... Args>
auto Describe(const dnnl::primitive_attr& attributes, std::tuple<Hint...> hint, Args... args) {
  return std::apply(
      [&](auto... h) {
        return typename Primitive::primitive_desc(Engine(), args..., h..., attributes);
      },
      hint);
}
#else
template <class Primitive, class... Hint, class... Args>
auto Describe(const dnnl::primitive_attr& attributes, std::tuple<Hint...> hint, Args... args) {
  return std::apply(
      [&](auto... h) {
        return typename Primitive::primitive_desc({args...}, attributes, Engine(), h...);
      },
      hint);
}
#endif

Plan MakePlan(const std::pair<Kind, Shape>& key) {
  const Kind kind = key.first;
  const Shape& s = key.second;
  const auto f32 = memory::data_type::f32;
  const auto direct = dnnl::algorithm::convolution_direct;
  const int64_t g = s.groups;
  memory::desc src({s.n, s.c, s.h, s.w}, f32, Tag::nhwc);
  memory::desc dst({s.n, s.o, s.rows, s.columns}, f32, Tag::nhwc);
  memory::dims size{s.o, s.c, s.kh, s.kw};
  if (g > 1) size = {g, s.o / g, s.c / g, s.kh, s.kw};
  memory::desc any(size, f32, Tag::any);
  memory::dims stride{s.down, s.right}, low{s.top, s.left}, high{s.bottom, s.behind};

  Plan plan;
  plan.bias = memory::desc({s.o}, f32, Tag::x);
  const auto attributes = Attributes(kind);
  const auto how = dnnl::prop_kind::forward_training;  // the other one's first choices are slower
  auto forward =
      Biased(kind) ? Describe<dnnl::convolution_forward>(attributes, std::tuple<>(), how, direct,
                                                         src, any, plan.bias, dst, stride, low,
                                                         high)
                   : Describe<dnnl::convolution_forward>(attributes, std::tuple<>(), how, direct,
                                                         src, any, dst, stride, low, high);
  // The first choice for few channels takes two to four times as long as the second.
  auto choose = [&](auto& described) {
    while (s.c / g < 16 && std::string(described.impl_info_str()).starts_with("brg"))
      if (!described.next_impl()) break;
  };
  if (kind == kForward || Biased(kind)) {
    choose(forward);
    plan.kernel = forward.weights_desc();
    plan.scratch = forward.scratchpad_desc();
    plan.primitive = dnnl::convolution_forward(forward);
  } else if (kind == kInput) {
    auto d = Describe<dnnl::convolution_backward_data>(
        attributes, std::make_tuple(forward), direct, src, any, dst, stride, low, high);
    choose(d);
    plan.kernel = d.weights_desc();
    plan.scratch = d.scratchpad_desc();
    plan.primitive = dnnl::convolution_backward_data(d);
  } else {
    auto d = Describe<dnnl::convolution_backward_weights>(
        attributes, std::make_tuple(forward), direct, src, any, dst, stride, low, high);
    plan.kernel = d.diff_weights_desc();
    plan.scratch = d.scratchpad_desc();
    plan.primitive = dnnl::convolution_backward_weights(d);
  }
  plan.pictures = src;
  plan.maps = dst;
  plan.plain = memory::desc(size, f32, g == 1 ? Tag::hwio : Tag::hwigo);
  plan.reordered = plan.kernel != plan.plain;
  if (plan.reordered) {
    auto from = plan.plain, to = plan.kernel;
    if (kind == kKernel) std::swap(from, to);
    plan.reorder = dnnl::reorder({Engine(), from, Engine(), to});
  }
  return plan;
}

// x, w, g are pictures, kernel and the maps' gradient; the one that `kind` makes is not read. Of a
// biased kind, g is the bias; `beside` are the maps that are added, in the place of `out` or not.
void Run(ffi::ThreadPool& pool, Kind kind, const Shape& s, const float* x, const float* w,
         const float* g, float* out, const float* beside = nullptr) {
  if (winograd::Fits(s)) return winograd::Run(pool, kind, s, x, w, g, out, beside);
  if (kind == kInput && narrow::Fits(s)) return narrow::Run(pool, s, w, g, out);
  if (kind != kInput && planes::Fits(s)) return planes::Run(pool, kind, s, x, w, g, out, beside);
  const Shares shares(pool, s.n);
  const int64_t picture = s.h * s.w * s.c, map = s.rows * s.columns * s.o;
  const int64_t weights = s.kh * s.kw * (s.c / s.groups) * s.o;
  auto share = [&](int64_t i) {
    Shape one = s;
    one.n = shares.many(i);
    return one;
  };
  // w as a plan wants it, in this thread's scratch memory if that is otherwise than it lies.
  auto arranged = [&](const Plan& plan, int slot) {
    if (!plan.reordered) return w;
    dnnl::stream stream(Engine());
    float* to = Scratch(plan.kernel.get_size(), slot);
    plan.reorder.execute(
        stream, {{DNNL_ARG_FROM, Bind(plan.plain, w)}, {DNNL_ARG_TO, Bind(plan.kernel, to)}});
    stream.wait();
    return static_cast<const float*>(to);
  };
  omp_set_num_threads(1);
  const Plan& first = Known(std::pair{kind, share(0)}, MakePlan);
  const float* shared = kind == kKernel ? nullptr : arranged(first, 0);
  std::vector<float> sums(kind == kKernel ? shares.count * weights : 0);
  Parallel(pool, shares.count, [&](int64_t i) {
    const Plan& plan = Known(std::pair{kind, share(i)}, MakePlan);
    dnnl::stream stream(Engine());
    const int64_t at = shares.from(i);
    auto scratch = Bind(plan.scratch, Scratch(plan.scratch.get_size(), 2));
    const float* kernel = shared;  // a last share of fewer pictures may want it otherwise
    if (kind != kKernel && plan.kernel != first.kernel) kernel = arranged(plan, 1);
    if (kind == kForward || Biased(kind)) {
      if (Added(kind) && beside != out)
        std::memcpy(out + at * map, beside + at * map, share(i).n * map * sizeof(float));
      std::unordered_map<int, memory> args{{DNNL_ARG_SRC, Bind(plan.pictures, x + at * picture)},
                                           {DNNL_ARG_WEIGHTS, Bind(plan.kernel, kernel)},
                                           {DNNL_ARG_DST, Bind(plan.maps, out + at * map)},
                                           {DNNL_ARG_SCRATCHPAD, scratch}};
      if (kind != kForward) args.insert({DNNL_ARG_BIAS, Bind(plan.bias, g)});
      plan.primitive.execute(stream, args);
    } else if (kind == kInput) {
      plan.primitive.execute(stream, {{DNNL_ARG_DIFF_SRC, Bind(plan.pictures, out + at * picture)},
                                      {DNNL_ARG_WEIGHTS, Bind(plan.kernel, kernel)},
                                      {DNNL_ARG_DIFF_DST, Bind(plan.maps, g + at * map)},
                                      {DNNL_ARG_SCRATCHPAD, scratch}});
    } else {
      float* sum = sums.data() + i * weights;
      float* to = plan.reordered ? Scratch(plan.kernel.get_size(), 1) : sum;
      plan.primitive.execute(stream, {{DNNL_ARG_SRC, Bind(plan.pictures, x + at * picture)},
                                      {DNNL_ARG_DIFF_WEIGHTS, Bind(plan.kernel, to)},
                                      {DNNL_ARG_DIFF_DST, Bind(plan.maps, g + at * map)},
                                      {DNNL_ARG_SCRATCHPAD, scratch}});
      if (plan.reordered)
        plan.reorder.execute(stream, {{DNNL_ARG_FROM, Bind(plan.kernel, to)},
                                      {DNNL_ARG_TO, Bind(plan.plain, sum)}});
    }
    stream.wait();
  });
  if (kind == kKernel) AddUp(sums, weights, out);
}

// A row's numbers are added to those of the row before, which is fast however few maps there are.
AVX2 void Sums(int64_t rows, int64_t line, int64_t o, const float* g, float* out) {
  std::vector<float> sums(line);
  for (int64_t row = 0; row < rows; ++row)
    for (int64_t k = 0; k < line; ++k) sums[k] += g[row * line + k];
  AddUp(sums, o, out);
}

// The gradient of a bias: the sum of g [n, rows, columns, o], of each map.
void RunBias(ffi::ThreadPool& pool, int64_t n, int64_t rows, int64_t columns, int64_t o,
             const float* g, float* out) {
  const Shares shares(pool, n);
  const int64_t line = columns * o;
  std::vector<float> sums(shares.count * o);
  Parallel(pool, shares.count, [&](int64_t i) {
    const float* from = g + shares.from(i) * rows * line;
    Sums(shares.many(i) * rows, line, o, from, sums.data() + i * o);
  });
  AddUp(sums, o, out);
}

using In = ffi::Buffer<ffi::F32, 4>;
using Out = ffi::ResultBuffer<ffi::F32, 4>;
using Bias = ffi::Buffer<ffi::F32, 1>;
using Ints = ffi::Span<const int64_t>;

template <class F>
ffi::Error Done(F f) {
  try {
    f();
  } catch (const std::exception& e) {
    return ffi::Error::Internal(std::string("native: ") + e.what());
  }
  return ffi::Error::Success();
}

template <Kind kind>
ffi::Error Handle(ffi::ThreadPool pool, In a, In b, Out out, Ints stride, Ints pads,
                  int64_t groups) {
  auto x = (kind == kInput ? *out : a).dimensions();
  auto w = (kind == kKernel ? *out : b).dimensions();
  auto y = (kind == kForward ? *out : kind == kInput ? a : b).dimensions();
  Shape s{x[0], x[1], x[2], x[3], y[1], y[2], y[3], w[0], w[1],
          stride[0], stride[1], pads[0], pads[1], pads[2], pads[3], groups};
  const float* first = a.typed_data();
  const float* second = b.typed_data();
  return Done([&] {
    Run(pool, kind, s, kind == kInput ? nullptr : first, kind == kKernel ? nullptr : second,
        kind == kInput ? first : second, out->typed_data());
  });
}

ffi::Error Forward(ffi::ThreadPool& pool, Kind kind, In x, In w, Bias bias, const float* beside,
                   Out out, Ints stride, Ints pads, int64_t groups) {
  auto a = x.dimensions(), b = w.dimensions(), y = out->dimensions();
  Shape s{a[0], a[1], a[2], a[3], y[1], y[2], y[3], b[0], b[1],
          stride[0], stride[1], pads[0], pads[1], pads[2], pads[3], groups};
  return Done([&] {
    Run(pool, kind, s, x.typed_data(), w.typed_data(), bias.typed_data(), out->typed_data(),
        beside);
  });
}

template <Kind kind>
ffi::Error HandleBiased(ffi::ThreadPool pool, In x, In w, Bias bias, Out out, Ints stride,
                        Ints pads, int64_t groups) {
  return Forward(pool, kind, x, w, bias, nullptr, out, stride, pads, groups);
}

template <Kind kind>
ffi::Error HandleAdded(ffi::ThreadPool pool, In x, In w, Bias bias, In beside, Out out,
                       Ints stride, Ints pads, int64_t groups) {
  return Forward(pool, kind, x, w, bias, beside.typed_data(), out, stride, pads, groups);
}

ffi::Error HandleBiasGradient(ffi::ThreadPool pool, In g, ffi::ResultBuffer<ffi::F32, 1> out) {
  auto y = g.dimensions();
  return Done([&] { RunBias(pool, y[0], y[1], y[2], y[3], g.typed_data(), out->typed_data()); });
}

pooling::Windows WindowsOf(In x, In y, Ints window, Ints stride, Ints pads) {
  auto a = x.dimensions(), b = y.dimensions();
  return {a[0], a[1], a[2], a[3], b[1], b[2], window[0], window[1], stride[0], stride[1],
          pads[0], pads[2]};
}

ffi::Error HandlePool(ffi::ThreadPool pool, In x, Out y, Ints window, Ints stride, Ints pads) {
  return Done([&] {
    pooling::Run(pool, WindowsOf(x, *y, window, stride, pads), x.typed_data(), nullptr, nullptr,
                 y->typed_data());
  });
}

ffi::Error HandlePoolGradient(ffi::ThreadPool pool, In x, In y, In g, Out dx, Ints window,
                              Ints stride, Ints pads) {
  return Done([&] {
    pooling::Run(pool, WindowsOf(x, y, window, stride, pads), x.typed_data(), y.typed_data(),
                 g.typed_data(), dx->typed_data());
  });
}

}  // namespace

#define HANDLER(name, function, ...)                                                        \
  XLA_FFI_DEFINE_HANDLER_SYMBOL(                                                            \
      name, function,                                                                       \
      ffi::Ffi::Bind().Ctx<ffi::ThreadPool>() __VA_ARGS__.Ret<In>().Attr<Ints>("stride")    \
          .Attr<Ints>("pads").Attr<int64_t>("groups"))

HANDLER(jaxcnn_conv, Handle<kForward>, .Arg<In>().Arg<In>());        // x, w -> y
HANDLER(jaxcnn_conv_input, Handle<kInput>, .Arg<In>().Arg<In>());    // g, w -> dx
HANDLER(jaxcnn_conv_kernel, Handle<kKernel>, .Arg<In>().Arg<In>());  // x, g -> dw
// x, w, bias -> y, and its maximum with 0; x, w, bias, more -> y + more, and its maximum with 0
HANDLER(jaxcnn_conv_bias, HandleBiased<kBias>, .Arg<In>().Arg<In>().Arg<Bias>());
HANDLER(jaxcnn_conv_bias_relu, HandleBiased<kBiasRelu>, .Arg<In>().Arg<In>().Arg<Bias>());
HANDLER(jaxcnn_conv_add, HandleAdded<kAdd>, .Arg<In>().Arg<In>().Arg<Bias>().Arg<In>());
HANDLER(jaxcnn_conv_add_relu, HandleAdded<kAddRelu>, .Arg<In>().Arg<In>().Arg<Bias>().Arg<In>());

XLA_FFI_DEFINE_HANDLER_SYMBOL(jaxcnn_conv_bias_gradient, HandleBiasGradient,  // g -> its sums
                              ffi::Ffi::Bind().Ctx<ffi::ThreadPool>().Arg<In>().Ret<Bias>());

#define POOL(name, function, ...)                                                              \
  XLA_FFI_DEFINE_HANDLER_SYMBOL(                                                               \
      name, function,                                                                          \
      ffi::Ffi::Bind().Ctx<ffi::ThreadPool>() __VA_ARGS__.Ret<In>().Attr<Ints>("window")       \
          .Attr<Ints>("stride").Attr<Ints>("pads"))

// x -> y; x, y, g -> dx
POOL(jaxcnn_max_pool, HandlePool, .Arg<In>());
POOL(jaxcnn_max_pool_gradient, HandlePoolGradient, .Arg<In>().Arg<In>().Arg<In>());

extern "C" const char* jaxcnn_onednn() {
  static const std::string version = [] {
    const auto* v = dnnl_version();
    return std::to_string(v->major) + "." + std::to_string(v->minor) + "." +
           std::to_string(v->patch);
  }();
  return version.c_str();
}

}  // namespace native
