// The coordinate-wise recurrent network of a learned optimizer on the CPU: forward steps, the backward pass of a
// truncation, and the ascent of the smoothness penalty. No dependency but the compiler; compiler.py
// calls it. The plain PyTorch reference is LearnedOptimizer.step with autograd.
//
// Every coordinate runs the same network, so LANES coordinates are carried side by side, one in each lane of VECS
// vector registers, and a tile of them stays in cache for a whole segment of inner steps:
//
//   state    [tiles][rows][LANES]    hidden units h, then cells c, layer by layer: a row is one unit of LANES coordinates
//   features [steps][F][N], update [steps][N]    rows of all coordinates
//
// `advance` alone takes the state as rows of all coordinates, [rows][N], too, and copies them to a tile in cache.
//
// Gates are never written to memory in the forward pass. The backward pass computes them anew from the state at the
// segment's start and the features, in cache.
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <type_traits>
#include <utility>
#include <vector>
#if defined(__SSE2__)
#include <immintrin.h>
#endif

namespace {

// Vectors side by side, and how many sums fill the registers: by how many of them there are (32, or 16).
#if defined(__AVX512F__)
constexpr int VECTOR_BYTES = 64, VECS = 4, SUMS_AT_ONCE = 20;
#elif defined(__AVX__)
constexpr int VECTOR_BYTES = 32, VECS = 2, SUMS_AT_ONCE = 10;
#else
constexpr int VECTOR_BYTES = 16, VECS = 2, SUMS_AT_ONCE = 10;
#endif

template <typename T> struct Simd {
  typedef T V __attribute__((vector_size(VECTOR_BYTES), may_alias));
  using Int = std::conditional_t<sizeof(T) == 4, int32_t, int64_t>;
  typedef Int I __attribute__((vector_size(VECTOR_BYTES), may_alias));
  static constexpr int WIDTH = VECTOR_BYTES / sizeof(T);
  static constexpr int LANES = VECS * WIDTH;
};
template <typename T> using Vec = typename Simd<T>::V;

#define LREG_INLINE inline __attribute__((always_inline))

// ---- elementary functions ------------------------------------------------------------------------------------------

// A NaN in x passes through all of them. (The compiler makes two instructions of the comparison, so it is spelt out.)
template <typename T> LREG_INLINE Vec<T> at_least(T limit, Vec<T> x) {
#if defined(__AVX512F__)
  if constexpr (sizeof(T) == 4) return (Vec<T>)_mm512_max_ps(_mm512_set1_ps(limit), (__m512)x);
  else return (Vec<T>)_mm512_max_pd(_mm512_set1_pd(limit), (__m512d)x);
#elif defined(__AVX__)
  if constexpr (sizeof(T) == 4) return (Vec<T>)_mm256_max_ps(_mm256_set1_ps(limit), (__m256)x);
  else return (Vec<T>)_mm256_max_pd(_mm256_set1_pd(limit), (__m256d)x);
#else
  return x < limit ? Vec<T>{} + limit : x;
#endif
}

template <typename T> LREG_INLINE Vec<T> at_most(T limit, Vec<T> x) {
#if defined(__AVX512F__)
  if constexpr (sizeof(T) == 4) return (Vec<T>)_mm512_min_ps(_mm512_set1_ps(limit), (__m512)x);
  else return (Vec<T>)_mm512_min_pd(_mm512_set1_pd(limit), (__m512d)x);
#elif defined(__AVX__)
  if constexpr (sizeof(T) == 4) return (Vec<T>)_mm256_min_ps(_mm256_set1_ps(limit), (__m256)x);
  else return (Vec<T>)_mm256_min_pd(_mm256_set1_pd(limit), (__m256d)x);
#else
  return x > limit ? Vec<T>{} + limit : x;
#endif
}

template <typename T> constexpr T LARGEST_EXPONENT = sizeof(T) == 4 ? T(87) : T(708);

// For |SIGN x| <= LARGEST_EXPONENT: e^(SIGN x) = power (1 + p), by SIGN x = n ln 2 + r with |r| <= ln 2 / 2, power = 2^n,
// p = e^r - 1.
template <typename T, int SIGN> LREG_INLINE void split_exp(Vec<T> x, Vec<T>& p, Vec<T>& power) {
  using S = Simd<T>;
  constexpr bool single = sizeof(T) == 4;
  // 1.5 * 2^(mantissa bits) rounds to an integer; with the exponent's bias the low bits are those of 2^n.
  constexpr T shift = single ? T(12582912.0 + 127) : T(6755399441055744.0 + 1023);
  Vec<T> n = x * T(SIGN * 1.44269504088896340736) + shift;
  typename S::I bits = (typename S::I)n;
  n -= shift;
  Vec<T> r, q;
  if constexpr (single) {  // Chebyshev: p is off by less than 8e-9
    r = T(SIGN) * x - n * T(0.693147180559945309417);
    q = r * T(0.0013933650354413984) + T(0.008363180121712041);
    q = q * r + T(0.04166646491457779);
    q = q * r + T(0.16666576975794942);
    q = q * r + T(0.5);
  } else {  // Taylor: the remainder r^14 / 14! is below 5e-18
    r = T(SIGN) * x - n * T(6.93147180369123816490e-01) - n * T(1.90821492927058770002e-10);
    q = r * T(1.0 / 6227020800.0) + T(1.0 / 479001600.0);
    q = q * r + T(1.0 / 39916800.0);
    q = q * r + T(1.0 / 3628800.0);
    q = q * r + T(1.0 / 362880.0);
    q = q * r + T(1.0 / 40320.0);
    q = q * r + T(1.0 / 5040.0);
    q = q * r + T(1.0 / 720.0);
    q = q * r + T(1.0 / 120.0);
    q = q * r + T(1.0 / 24.0);
    q = q * r + T(1.0 / 6.0);
    q = q * r + T(0.5);
  }
  p = q * (r * r) + r;
  power = (Vec<T>)(bits << (single ? 23 : 52));
}

template <typename T> LREG_INLINE Vec<T> sigmoid(Vec<T> x) {
  Vec<T> p, power;
  split_exp<T, -1>(at_most<T>(LARGEST_EXPONENT<T>, at_least<T>(-LARGEST_EXPONENT<T>, x)), p, power);
  return T(1) / (power * p + (power + T(1)));
}

// e^x - 1 for x <= 0, without cancellation near 0.
template <typename T> LREG_INLINE Vec<T> expm1_below(Vec<T> x) {
  Vec<T> p, power;
  split_exp<T, 1>(at_least<T>(-LARGEST_EXPONENT<T>, x), p, power);
  return power * p + (power - T(1));
}

// e^x; beyond LARGEST_EXPONENT as there.
template <typename T> LREG_INLINE Vec<T> exp_of(Vec<T> x) {
  Vec<T> p, power;
  split_exp<T, 1>(at_most<T>(LARGEST_EXPONENT<T>, at_least<T>(-LARGEST_EXPONENT<T>, x)), p, power);
  return power * p + power;
}

template <typename T> LREG_INLINE Vec<T> load(const T* from) { return *(const Vec<T>*)from; }
template <typename T> LREG_INLINE void store(T* to, Vec<T> value) { *(Vec<T>*)to = value; }

// Past the caches: for what nobody reads before they have been filled anew.
template <typename T> LREG_INLINE void stream(T* to, Vec<T> value) {
#if defined(__AVX512F__)
  _mm512_stream_ps((float*)to, (__m512)value);
#elif defined(__AVX__)
  _mm256_stream_ps((float*)to, (__m256)value);
#elif defined(__SSE2__)
  _mm_stream_ps((float*)to, (__m128)value);
#else
  store<T>(to, value);
#endif
}

// HALVES / 2 tanh x = top / bottom to 2.3e-8 (with rounding 6e-7): a rational function of degree 9 by 8, minimax in the
// relative error up to 9, where 1 - tanh x rounds off. Four bottoms multiplied stay below 1e35.
template <int HALVES> LREG_INLINE void tanh_parts(Vec<float> x, Vec<float>& top, Vec<float>& bottom) {
  constexpr float factor = HALVES / 2.0f;
  x = at_most<float>(9, at_least<float>(-9, x));
  const Vec<float> z = x * x;
  top = z * (factor * 0.01720152795f) + factor * 26.46303177f;
  bottom = z + 421.3890381f;
  top = top * z + factor * 4479.117676f;
  bottom = bottom * z + 33137.07031f;
  top = top * z + factor * 171285.1875f;
  bottom = bottom * z + 597844.75f;
  top = (top * z + factor * 1279679.25f) * x;
  bottom = bottom * z + 1279679.25f;
}

// In double precision tanh x = -m / (2 + m) with m = expm1(-2 |x|): tiny x keep their relative precision.
template <typename T> LREG_INLINE Vec<T> tanh_of(Vec<T> x) {
  if constexpr (sizeof(T) == 4) {
    Vec<T> top, bottom;
    tanh_parts<2>(x, top, bottom);
    return top / bottom;
  } else {
    using I = typename Simd<T>::I;
    constexpr typename Simd<T>::Int sign_bit = typename Simd<T>::Int(1) << (8 * sizeof(T) - 1);
    const I sign = (I)x & sign_bit;
    Vec<T> m = expm1_below<T>(T(-2) * (Vec<T>)((I)x & ~sign_bit));
    return (Vec<T>)((I)(m / (T(2) + m)) ^ sign ^ sign_bit);
  }
}

// Two of them with one division, which takes as long as all the rest of one. Where one is a NaN both are: they must be
// of the same coordinates.
template <typename T> LREG_INLINE void tanh_of_both(Vec<T>& a, Vec<T>& b) {
  if constexpr (sizeof(T) == 4) {
    Vec<T> top[2], bottom[2];
    tanh_parts<2>(a, top[0], bottom[0]);
    tanh_parts<2>(b, top[1], bottom[1]);
    const Vec<T> inverse = T(1) / (bottom[0] * bottom[1]);
    a = top[0] * (bottom[1] * inverse);
    b = top[1] * (bottom[0] * inverse);
  } else {
    a = tanh_of<T>(a);
    b = tanh_of<T>(b);
  }
}

// The gates of a unit from their sums, LANES apart. In single precision sigmoid x = 1/2 + 1/2 tanh(x / 2): the sums of
// the sigmoids come halved (GATE_SCALE), and one division does for all four.
template <typename T> constexpr T GATE_SCALE = sizeof(T) == 4 ? T(0.5) : T(1);
template <typename T>
LREG_INLINE void gates_of_sums(const T* sums, Vec<T>& enter, Vec<T>& forget, Vec<T>& cell, Vec<T>& leave) {
  constexpr int L = Simd<T>::LANES;
  if constexpr (sizeof(T) == 4) {
    Vec<T> top[4], bottom[4];
    tanh_parts<1>(load<T>(sums), top[0], bottom[0]);
    tanh_parts<1>(load<T>(sums + L), top[1], bottom[1]);
    tanh_parts<2>(load<T>(sums + 2 * L), top[2], bottom[2]);
    tanh_parts<1>(load<T>(sums + 3 * L), top[3], bottom[3]);
    const Vec<T> first = bottom[0] * bottom[1], last = bottom[2] * bottom[3], inverse = T(1) / (first * last);
    const Vec<T> of_first = inverse * last, of_last = inverse * first;
    enter = top[0] * (bottom[1] * of_first) + T(0.5);
    forget = top[1] * (bottom[0] * of_first) + T(0.5);
    cell = top[2] * (bottom[3] * of_last);
    leave = top[3] * (bottom[2] * of_last) + T(0.5);
  } else {
    enter = sigmoid<T>(load<T>(sums));
    forget = sigmoid<T>(load<T>(sums + L));
    cell = tanh_of<T>(load<T>(sums + 2 * L));
    leave = sigmoid<T>(load<T>(sums + 3 * L));
  }
}

// ---- the network ---------------------------------------------------------------------------------------------------

enum Kind { LSTM = 0, RNN = 1 };
enum Output { LINEAR = 0, TANH = 1 };  // update = scale * u, or scale * tanh(u)

struct Shape {
  int64_t kind, features, pre, layers, hidden, output;  // pre: a linear + ELU layer of `hidden` units comes first
};

// Pointers to meta-parameters, or to their gradients: [pre.weight, pre.bias], (input, hidden, bias) of every layer,
// head.weight, head.bias. RNN: no biases (null).
template <typename T> struct Weights {
  T *pre_weight = nullptr, *pre_bias = nullptr, *head_weight = nullptr, *head_bias = nullptr;
  T *input[8] = {}, *hidden[8] = {}, *bias[8] = {};
  Weights(const Shape& s, T* const* all) {
    if (s.pre) { pre_weight = *all++; pre_bias = *all++; }
    for (int l = 0; l < s.layers; ++l) { input[l] = *all++; hidden[l] = *all++; bias[l] = *all++; }
    head_weight = *all++;
    head_bias = *all++;
  }
};

// Rows of the state: layer l has h at l * 2H and c at l * 2H + H; the RNN has h alone.
LREG_INLINE int state_rows(const Shape& s) { return (s.kind == LSTM ? 2 : 1) * s.layers * s.hidden; }
LREG_INLINE int fan_in(const Shape& s, int layer) { return layer == 0 && !s.pre ? s.features : s.hidden; }
LREG_INLINE int gates_of(const Shape& s) { return s.kind == LSTM ? 4 : 1; }

// The meta-parameters in the order in which the kernels read them: the four gates of a unit side by side, for the way
// forward [k][unit][gate], scaled as gates_of_sums takes them, and for the way back every matrix turned over,
// [unit][gate][k].
template <typename T> struct Packed : Weights<T> {
  std::vector<T> memory;
  T *input_back[8] = {}, *hidden_back[8] = {}, *pre_back = nullptr;

  Packed(const Shape& s, const Weights<T>& plain, bool backward) : Weights<T>(plain) {
    const int H = s.hidden, G = gates_of(s);
    size_t size = s.features * H;
    for (int l = 0; l < s.layers; ++l) size += 2 * (fan_in(s, l) + H) * G * H + G * H;
    memory.resize(size);
    T* next = memory.data();
    auto by_unit = [&](T*& matrix, int count) {
      T* to = next;
      for (int k = 0; k < count; ++k)
        for (int unit = 0; unit < H; ++unit)
          for (int g = 0; g < G; ++g) *next++ = (g == 2 ? T(1) : GATE_SCALE<T>) * matrix[k * G * H + g * H + unit];
      matrix = to;
    };
    auto turned = [&](const T* matrix, int count, int gates) {
      T* to = next;
      for (int unit = 0; unit < H; ++unit)
        for (int g = 0; g < gates; ++g)
          for (int k = 0; k < count; ++k) *next++ = matrix[k * gates * H + g * H + unit];
      return to;
    };
    if (backward) {
      if (s.pre) pre_back = turned(this->pre_weight, s.features, 1);
      for (int l = 0; l < s.layers; ++l) {
        input_back[l] = turned(this->input[l], fan_in(s, l), G);
        hidden_back[l] = turned(this->hidden[l], H, G);
      }
    }
    if (s.kind != LSTM) return;
    for (int l = 0; l < s.layers; ++l) {
      by_unit(this->input[l], fan_in(s, l));
      by_unit(this->hidden[l], H);
      by_unit(this->bias[l], 1);
    }
  }
};

// What the backward pass keeps of one step of one layer, in rows of LANES: c, tanh(c), h, and the LSTM's gates unless
// the forward pass has kept them.
struct Kept {
  int cell, squashed, out, gates, rows;
  Kept(const Shape& s, bool with_gates) {
    const int H = s.hidden, lstm = s.kind == LSTM;
    cell = 0;
    squashed = cell + lstm * H;
    out = squashed + lstm * H;
    gates = out + H;
    rows = gates + lstm * with_gates * 4 * H;
  }
};

// sums[r][v] += W[k][r] x[k] for k < count: the heart of every pass. W is [count][columns]: what is read together lies
// together.
template <typename T, int R>
LREG_INLINE void accumulate(Vec<T> (&sums)[R][VECS], const T* weights, int columns, const T* x, int count) {
  constexpr int L = Simd<T>::LANES, W = Simd<T>::WIDTH;
  for (int k = 0; k < count; ++k) {
    Vec<T> in[VECS];
    for (int v = 0; v < VECS; ++v) in[v] = load<T>(x + k * L + v * W);
    for (int r = 0; r < R; ++r) {
      const T w = weights[k * columns + r];
      for (int v = 0; v < VECS; ++v) sums[r][v] += w * in[v];
    }
  }
}

enum From { ZERO, NUMBERS, ROWS };  // what sums start from: nothing, a number for each row, rows of LANES

// out[r] = start[r] + sum_k W1[k][r] x1[k] + sum_k W2[k][r] x2[k] for r < rows.
template <typename T, From FROM>
void affine(int rows, const T* start, T* out, const T* w1, const T* x1, int count1, const T* w2 = nullptr,
            const T* x2 = nullptr, int count2 = 0) {
  constexpr int L = Simd<T>::LANES, W = Simd<T>::WIDTH;
  int row = 0;
  auto blocks = [&](auto number) {
    constexpr int R = decltype(number)::value;
    for (; row + R <= rows; row += R) {
      Vec<T> sums[R][VECS];
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
        for (int v = 0; v < VECS; ++v)
          sums[r][v] = FROM == ROWS ? load<T>(start + (row + r) * L + v * W)
                                    : FROM == NUMBERS ? Vec<T>{} + start[row + r] : Vec<T>{};
      accumulate<T, R>(sums, w1 + row, rows, x1, count1);
      accumulate<T, R>(sums, w2 + row, rows, x2, count2);
      for (int r = 0; r < R; ++r)
        for (int v = 0; v < VECS; ++v) store<T>(out + (row + r) * L + v * W, sums[r][v]);
    }
  };
  blocks(std::integral_constant<int, SUMS_AT_ONCE / VECS>{});
  blocks(std::integral_constant<int, 2>{});
  blocks(std::integral_constant<int, 1>{});
}

// The sums that enter a layer's gates (RNN: its units), G H rows. base: bias + W_hidden h where it is known already.
template <typename T>
LREG_INLINE void enter_layer(int rows, int H, const T* x, int inputs, const T* h, const T* base, const T* w_input,
                             const T* w_hidden, const T* bias, T* sums) {
  if (base) affine<T, ROWS>(rows, base, sums, w_input, x, inputs);
  else if (bias) affine<T, NUMBERS>(rows, bias, sums, w_input, x, inputs, w_hidden, h, H);
  else affine<T, ZERO>(rows, nullptr, sums, w_input, x, inputs, w_hidden, h, H);
}

// tanh of c, rows of H units, and h = leave tanh(c), `leave` being every fourth row of the gates. KEEP: tanh(c) is kept.
template <typename T, bool KEEP> LREG_INLINE void lstm_outputs(int H, const T* gates, const T* c, T* squashed_out, T* h_out) {
  constexpr int L = Simd<T>::LANES, W = Simd<T>::WIDTH;
  for (int unit = 0; unit < H; unit += 2)
    for (int i = 0; i < L; i += W) {
      const int units[2] = {unit, unit + 1 < H ? unit + 1 : unit};  // the last of an odd number is taken twice
      Vec<T> squashed[2] = {load<T>(c + units[0] * L + i), load<T>(c + units[1] * L + i)};
      tanh_of_both<T>(squashed[0], squashed[1]);
      for (int u = 0; u < 2; ++u) {
        const int at = units[u] * L + i;
        if (KEEP) store<T>(squashed_out + at, squashed[u]);
        store<T>(h_out + at, load<T>(gates + (4 * units[u] + 3) * L + i) * squashed[u]);
      }
    }
}

enum Gates { CACHED, DROPPED, WRITTEN };

// One LSTM layer for a tile, from the sums that enter its gates, [unit][gate] rows, which become the gates. Two passes:
// each is short enough for the processor to overlap many units. CACHED: gates and tanh(c) are kept there. Else h, c and
// what they become are numbers in memory, so those of the next tile, `soon` numbers on, are sent for meanwhile; WRITTEN:
// the gates are written to memory too.
template <typename T, Gates GATES>
void lstm_units(int H, T* gates, const T* c, T* c_out, T* squashed_out, T* h_out, T* written = nullptr, int soon = 0) {
  constexpr int L = Simd<T>::LANES, W = Simd<T>::WIDTH;
  for (int unit = 0; unit < H; ++unit)
    for (int i = 0; i < L; i += W) {
      const int at = unit * L + i;
      if (GATES != CACHED) {
        const int64_t ahead = soon + at;
        __builtin_prefetch(c + ahead - H * L);  // h lies before c
        __builtin_prefetch(c + ahead);
        __builtin_prefetch(h_out + ahead, 1);
        __builtin_prefetch(c_out + ahead, 1);
      }
      T* sums = gates + 4 * unit * L + i;
      Vec<T> enter, forget, cell, leave;
      gates_of_sums<T>(sums, enter, forget, cell, leave);
      store<T>(c_out + at, forget * load<T>(c + at) + enter * cell);
      store<T>(sums + 3 * L, leave);
      if (GATES == CACHED) {
        store<T>(sums, enter);
        store<T>(sums + L, forget);
        store<T>(sums + 2 * L, cell);
      }
      if (GATES == WRITTEN) {
        T* to = written + 4 * unit * L + i;
        stream<T>(to, enter);
        stream<T>(to + L, forget);
        stream<T>(to + 2 * L, cell);
        stream<T>(to + 3 * L, leave);
      }
    }
  lstm_outputs<T, GATES == CACHED>(H, gates, c_out, squashed_out, h_out);
}

// The same where the gates are known.
template <typename T> void lstm_again(int H, const T* gates, const T* c, T* c_out, T* squashed_out, T* h_out) {
  constexpr int L = Simd<T>::LANES, W = Simd<T>::WIDTH;
  for (int unit = 0; unit < H; ++unit)
    for (int i = 0; i < L; i += W) {
      const T* gate = gates + 4 * unit * L + i;
      const int at = unit * L + i;
      store<T>(c_out + at, load<T>(gate + L) * load<T>(c + at) + load<T>(gate) * load<T>(gate + 2 * L));
    }
  lstm_outputs<T, true>(H, gates, c_out, squashed_out, h_out);
}

template <typename T> void rnn_units(int H, const T* sums, T* h_out) {
  constexpr int L = Simd<T>::LANES;
  for (int unit = 0; unit < H; unit += 2)
    for (int i = unit * L; i < (unit + 1) * L; i += Simd<T>::WIDTH) {
      const int other = unit + 1 < H ? i + L : i;
      Vec<T> first = load<T>(sums + i), second = load<T>(sums + other);
      tanh_of_both<T>(first, second);
      store<T>(h_out + i, first);
      store<T>(h_out + other, second);
    }
}

// The layer before the network: ELU(W f + b), H rows.
template <typename T> void pre_layer(const Shape& s, const Weights<T>& w, const T* features, T* out) {
  constexpr int L = Simd<T>::LANES, W = Simd<T>::WIDTH;
  affine<T, NUMBERS>(s.hidden, w.pre_bias, out, w.pre_weight, features, s.features);
  for (int i = 0; i < s.hidden * L; i += W) {
    Vec<T> x = load<T>(out + i);
    store<T>(out + i, x > T(0) ? x : expm1_below<T>(at_most<T>(T(0), x)));
  }
}

// u = head . h + bias, LANES numbers.
template <typename T> LREG_INLINE void head(const Shape& s, const Weights<T>& w, const T* h, T* raw) {
  constexpr int L = Simd<T>::LANES, W = Simd<T>::WIDTH;
  Vec<T> sums[VECS];
  for (int v = 0; v < VECS; ++v) sums[v] = Vec<T>{} + (w.head_bias ? w.head_bias[0] : T(0));
  for (int k = 0; k < s.hidden; ++k)
    for (int v = 0; v < VECS; ++v) sums[v] += w.head_weight[k] * load<T>(h + k * L + v * W);
  for (int v = 0; v < VECS; ++v) store<T>(raw + v * W, sums[v]);
}

// The update of a lane from the head's output, and its derivative.
template <typename T> LREG_INLINE void output(const Shape& s, T scale, T* raw, T* update, T* slope) {
  constexpr int W = Simd<T>::WIDTH;
  for (int i = 0; i < Simd<T>::LANES; i += W) {
    Vec<T> u = load<T>(raw + i);
    Vec<T> squashed = s.output == TANH ? tanh_of<T>(u) : u;
    store<T>(update + i, scale * squashed);
    store<T>(slope + i, s.output == TANH ? scale * (T(1) - squashed * squashed) : Vec<T>{} + scale);
  }
}

// From the slope of h (rows dh) and of c (rows dc) to those of the gates, [unit][gate] rows, and of the c before.
template <typename T>
void lstm_slopes(int H, const T* gates, const T* squasheds, const T* c_before, const T* dh, T* dc, bool first_use_of_dc,
                 T* slopes) {
  constexpr int L = Simd<T>::LANES, W = Simd<T>::WIDTH;
  for (int unit = 0; unit < H; ++unit)
    for (int i = 0; i < L; i += W) {
      const int at = unit * L + i;
      const T* gate = gates + 4 * unit * L + i;
      T* to = slopes + 4 * unit * L + i;
      Vec<T> enter = load<T>(gate), forget = load<T>(gate + L), cell = load<T>(gate + 2 * L);
      Vec<T> leave = load<T>(gate + 3 * L), squashed = load<T>(squasheds + at), d = load<T>(dh + at);
      Vec<T> slope = d * leave * (T(1) - squashed * squashed);
      if (!first_use_of_dc) slope += load<T>(dc + at);
      store<T>(to, slope * cell * enter * (T(1) - enter));
      store<T>(to + L, slope * load<T>(c_before + at) * forget * (T(1) - forget));
      store<T>(to + 2 * L, slope * enter * (T(1) - cell * cell));
      store<T>(to + 3 * L, d * squashed * leave * (T(1) - leave));
      store<T>(dc + at, slope * forget);
    }
}

template <typename T> void rnn_slopes(int H, const T* out, const T* dh, T* slopes) {
  constexpr int L = Simd<T>::LANES, W = Simd<T>::WIDTH;
  for (int i = 0; i < H * L; i += W) {
    Vec<T> h = load<T>(out + i);
    store<T>(slopes + i, load<T>(dh + i) * (T(1) - h * h));
  }
}

// ---- weight gradients ----------------------------------------------------------------------------------------------

// Sum of the lanes, halving: a vector of N numbers is added as two of N / 2.
template <typename T, int BYTES> LREG_INLINE T sum_of_lanes(const T* lanes) {
  if constexpr (BYTES == sizeof(T)) {
    return *lanes;
  } else {
    typedef T Half __attribute__((vector_size(BYTES / 2), may_alias, aligned(sizeof(T))));
    constexpr int count = BYTES / 2 / sizeof(T);
    Half sum = *(const Half*)lanes + *(const Half*)(lanes + count);
    return sum_of_lanes<T, BYTES / 2>((const T*)&sum);
  }
}

template <typename T> LREG_INLINE T sum_of(Vec<T> x) { return sum_of_lanes<T, VECTOR_BYTES>((const T*)&x); }

// The lanes of a or b, counted through both.
template <typename T, int... I> LREG_INLINE Vec<T> pick(Vec<T> a, Vec<T> b, std::integer_sequence<int, I...>) {
#if defined(__clang__)
  return __builtin_shufflevector(a, b, I...);
#else
  return __builtin_shuffle(a, b, typename Simd<T>::I{I...});
#endif
}

// Of two rows STEP apart: what the upper and what the lower one is after the exchange.
template <int STEP, int... I> constexpr auto upper(std::integer_sequence<int, I...>) {
  return std::integer_sequence<int, ((I & STEP) ? (int)sizeof...(I) + I - STEP : I)...>{};
}
template <int STEP, int... I> constexpr auto lower(std::integer_sequence<int, I...>) {
  return std::integer_sequence<int, ((I & STEP) ? (int)sizeof...(I) + I : I + STEP)...>{};
}

// A square of WIDTH vectors turned over, by exchanging ever larger blocks across the diagonal.
template <typename T, int STEP = 1> LREG_INLINE void turn_square(Vec<T> (&rows)[Simd<T>::WIDTH]) {
  constexpr int W = Simd<T>::WIDTH;
  using Lanes = std::make_integer_sequence<int, W>;
  if constexpr (STEP < W) {
    for (int i = 0; i < W; ++i)
      if (!(i & STEP)) {
        Vec<T> a = rows[i], b = rows[i + STEP];
        rows[i] = pick<T>(a, b, upper<STEP>(Lanes{}));
        rows[i + STEP] = pick<T>(a, b, lower<STEP>(Lanes{}));
      }
    turn_square<T, 2 * STEP>(rows);
  }
}

template <typename T> constexpr int whole_vectors(int rows) {
  return (rows + Simd<T>::WIDTH - 1) / Simd<T>::WIDTH * Simd<T>::WIDTH;
}

// `rows` rows of LANES to LANES rows of whole vectors, filled up with zeros.
template <typename T> void turn(const T* from, int rows, T* to) {
  constexpr int L = Simd<T>::LANES, W = Simd<T>::WIDTH;
  const int stride = whole_vectors<T>(rows);
  for (int row = 0; row < rows; row += W)
    for (int lane = 0; lane < L; lane += W) {
      Vec<T> square[W];
      for (int i = 0; i < W; ++i) square[i] = row + i < rows ? load<T>(from + (row + i) * L + lane) : Vec<T>{};
      turn_square<T>(square);
      for (int i = 0; i < W; ++i) store<T>(to + (lane + i) * stride + row, square[i]);
    }
}

// What is contracted at once: the lanes of a few inner steps one after another, so that sums stay in registers for long.
constexpr int STEPS_AT_ONCE = 4;
template <typename T> struct Lanes {
  int steps = 0;
  const T* x[STEPS_AT_ONCE];  // of each step rows of LANES
};

// out[c][r] += sum over the lanes of turned[lane][r] x[c][lane], for V vectors of r and C columns from `column` on.
template <typename T, int V, int C>
LREG_INLINE void contract_block(const T* turned, int stride, const Lanes<T>& lanes, int column, T* out) {
  constexpr int L = Simd<T>::LANES, W = Simd<T>::WIDTH;
  Vec<T> sums[C][V] = {};
  for (int step = 0; step < lanes.steps; ++step) {
    const T* x = lanes.x[step] + column * L;
    for (int lane = 0; lane < L; ++lane, turned += stride) {
      Vec<T> slope[V];
      for (int v = 0; v < V; ++v) slope[v] = load<T>(turned + v * W);
      for (int c = 0; c < C; ++c)
        for (int v = 0; v < V; ++v) sums[c][v] += x[c * L + lane] * slope[v];
    }
  }
  for (int c = 0; c < C; ++c)
    for (int v = 0; v < V; ++v) store<T>(out + c * stride + v * W, load<T>(out + c * stride + v * W) + sums[c][v]);
}

template <typename T, int V, int C>
LREG_INLINE void contract_columns(const T* turned, int stride, const Lanes<T>& lanes, int& c, int columns, T* out) {
  for (; c + C <= columns; c += C) contract_block<T, V, C>(turned, stride, lanes, c, out + c * stride);
}

// All rows and columns, in blocks whose sums fill the registers.
template <typename T> void contract(const T* turned, int rows, const Lanes<T>& lanes, int columns, T* out) {
  constexpr int W = Simd<T>::WIDTH;
  const int stride = whole_vectors<T>(rows);
  int row = 0;
  auto some = [&](auto number) {
    constexpr int V = decltype(number)::value, C = SUMS_AT_ONCE / V;
    for (; row + V * W <= stride; row += V * W) {
      int c = 0;
      contract_columns<T, V, C>(turned + row, stride, lanes, c, columns, out + row);
      contract_columns<T, V, 2>(turned + row, stride, lanes, c, columns, out + row);
      contract_columns<T, V, 1>(turned + row, stride, lanes, c, columns, out + row);
    }
  };
  some(std::integral_constant<int, 5>{});
  some(std::integral_constant<int, 2>{});
  some(std::integral_constant<int, 1>{});
}

// out[r] += sum over so many lanes, a multiple of 4.
template <typename T> void sum_lanes(const T* turned, int rows, int lanes, T* out) {
  constexpr int W = Simd<T>::WIDTH;
  const int stride = whole_vectors<T>(rows);
  for (int row = 0; row < stride; row += W) {
    Vec<T> sums[4] = {};
    for (int lane = 0; lane < lanes; lane += 4)
      for (int i = 0; i < 4; ++i) sums[i] += load<T>(turned + (lane + i) * stride + row);
    store<T>(out + row, load<T>(out + row) + ((sums[0] + sums[1]) + (sums[2] + sums[3])));
  }
}

// ---- tiles ---------------------------------------------------------------------------------------------------------

// Memory that a thread has used before: fresh pages cost more than much of what is done with them.
struct Spare {
  static constexpr size_t MOST = size_t(1) << 26;  // bytes of a thread; the rest goes back
  std::vector<std::pair<size_t, void*>> blocks;
  size_t held = 0;

  void* take(size_t bytes) {
    for (auto& block : blocks)
      if (block.first == bytes) {
        void* found = block.second;
        block = blocks.back();
        blocks.pop_back();
        held -= bytes;
        return found;
      }
    return std::aligned_alloc(64, bytes);
  }
  void give(void* data, size_t bytes) {
    if (held + bytes > MOST) return std::free(data);
    blocks.push_back({bytes, data});
    held += bytes;
  }
  ~Spare() {
    for (auto& block : blocks) std::free(block.second);
  }
};
thread_local Spare spare;

template <typename T> struct Buffer {  // uninitialised, aligned
  size_t bytes;
  T* data;
  explicit Buffer(size_t count) : bytes((count * sizeof(T) + 63) / 64 * 64), data((T*)spare.take(bytes)) {}
  ~Buffer() { spare.give(data, bytes); }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
};

// units [N][H] of the coordinates of a tile, as H rows of LANES; beyond N zeros.
template <typename T> LREG_INLINE void gather(const T* from, int64_t first, int64_t coordinates, int units, T* rows) {
  constexpr int L = Simd<T>::LANES;
  int there = (int)(coordinates - first < L ? coordinates - first : L);
  for (int u = 0; u < units; ++u) {
    for (int lane = 0; lane < there; ++lane) rows[u * L + lane] = from[(first + lane) * units + u];
    for (int lane = there; lane < L; ++lane) rows[u * L + lane] = T(0);
  }
}

template <typename T> LREG_INLINE void scatter(const T* rows, int64_t first, int64_t coordinates, int units, T* to) {
  constexpr int L = Simd<T>::LANES;
  int there = (int)(coordinates - first < L ? coordinates - first : L);
  for (int u = 0; u < units; ++u)
    for (int lane = 0; lane < there; ++lane) to[(first + lane) * units + u] = rows[u * L + lane];
}

// A row's part in a tile; of fixed size, so no call, in all tiles but the last of a piece.
template <typename T> LREG_INLINE void copy_lanes(T* to, const T* from, int lanes) {
  constexpr int L = Simd<T>::LANES;
  if (lanes == L) std::memcpy(to, from, L * sizeof(T));
  else std::memcpy(to, from, lanes * sizeof(T));
}

// `rows` rows of all coordinates to a tile's, from the coordinate `first` on; beyond N zeros. And back.
template <typename T> LREG_INLINE void to_tile(const T* from, int64_t first, int64_t coordinates, int rows, T* tile) {
  constexpr int L = Simd<T>::LANES;
  const int lanes = (int)(coordinates - first < L ? coordinates - first : L);
  for (int r = 0; r < rows; ++r) {
    copy_lanes(tile + r * L, from + r * coordinates + first, lanes);
    for (int lane = lanes; lane < L; ++lane) tile[r * L + lane] = T(0);
  }
}

template <typename T> LREG_INLINE void from_tile(const T* tile, int64_t first, int64_t coordinates, int rows, T* to) {
  constexpr int L = Simd<T>::LANES;
  const int lanes = (int)(coordinates - first < L ? coordinates - first : L);
  for (int r = 0; r < rows; ++r) copy_lanes(to + r * coordinates + first, tile + r * L, lanes);
}

// What a thread needs to take a tile forward.
template <typename T> struct Scratch {
  Buffer<T> in, entered, sums, raw;
  explicit Scratch(const Shape& s)
      : in(s.features * Simd<T>::LANES), entered(s.hidden * Simd<T>::LANES),
        sums(gates_of(s) * s.hidden * Simd<T>::LANES), raw(3 * Simd<T>::LANES) {}
};

// One step of a tile from the features in `scratch.in`: state, rows of LANES, to next, which may be the same memory: a
// layer's state is read before it is written. Returns the update, LANES numbers.
template <typename T>
LREG_INLINE const T* forward_tile(const Shape& s, T scale, const Packed<T>& p, Scratch<T>& scratch, const T* state, T* next,
                                  int soon, T* gates = nullptr) {
  constexpr int L = Simd<T>::LANES;
  const int H = s.hidden, units = (s.kind == LSTM ? 2 : 1) * H;  // rows of a layer's state
  const T* x = scratch.in.data;
  if (s.pre) { pre_layer<T>(s, p, x, scratch.entered.data); x = scratch.entered.data; }
  for (int l = 0; l < s.layers; ++l) {
    const T* h = state + l * units * L;
    T* out = next + l * units * L;
    T* sums = scratch.sums.data;
    enter_layer<T>(gates_of(s) * H, H, x, fan_in(s, l), h, nullptr, p.input[l], p.hidden[l], p.bias[l], sums);
    if (s.kind == RNN)
      rnn_units<T>(H, sums, out);
    else if (gates)
      lstm_units<T, WRITTEN>(H, sums, h + H * L, out + H * L, nullptr, out, gates + l * 4 * H * L, soon);
    else
      lstm_units<T, DROPPED>(H, sums, h + H * L, out + H * L, nullptr, out, nullptr, soon);
    x = out;
  }
  T* raw = scratch.raw.data;
  head<T>(s, p, x, raw);
  output<T>(s, scale, raw, raw + L, raw + 2 * L);
  return raw + L;
}

template <typename T>
void forward(const Shape& s, T scale, const Weights<T>& w, int64_t coordinates, const T* features, const T* state, T* next,
             T* update, T* gates, int threads) {
  constexpr int L = Simd<T>::LANES;
  const int rows = state_rows(s), gate_rows = s.layers * gates_of(s) * s.hidden;
  const int64_t tiles = (coordinates + L - 1) / L;
  const Packed<T> p(s, w, false);
#pragma omp parallel num_threads(threads)
  {
    Scratch<T> scratch(s);
#pragma omp for schedule(dynamic, 4)
    for (int64_t tile = 0; tile < tiles; ++tile) {
      to_tile<T>(features, tile * L, coordinates, s.features, scratch.in.data);
      const int64_t at = tile * rows * L;
      const T* moved = forward_tile<T>(s, scale, p, scratch, state + at, next + at, rows * L,
                                       gates ? gates + tile * gate_rows * L : nullptr);
      from_tile<T>(moved, tile * L, coordinates, 1, update);
    }
  }
}

// A piece of the coordinates whose state lies in rows: part u (h or c of a layer) is H rows at parts[u], strides[u] apart.
template <typename T> struct Piece {
  int64_t size;
  T* const* parts;
  const int64_t* strides;
};

// One step in place. features are F rows and update is one, of all pieces one after another, `coordinates` numbers each.
// A thread takes CHUNK coordinates at a time, a tile of them after another; the rows of the next are fetched meanwhile.
template <typename T>
void advance(const Shape& s, T scale, const Weights<T>& w, int64_t coordinates, int64_t count, const int64_t* sizes,
             T* const* parts, const int64_t* strides, const T* features, T* update, int threads) {
  constexpr int L = Simd<T>::LANES, TILES = 512 / L, CHUNK = TILES * L;
  const int H = s.hidden, rows = state_rows(s), number = rows / H;
  struct Chunk { Piece<T> piece; int64_t first, column; };
  std::vector<Chunk> chunks;
  int64_t column = 0;
  for (int64_t i = 0; i < count; column += sizes[i++])
    for (int64_t first = 0; first < sizes[i]; first += CHUNK)
      chunks.push_back({{sizes[i], parts + i * number, strides + i * number}, first, column + first});
  const Packed<T> p(s, w, false);
#pragma omp parallel num_threads(threads)
  {
    Scratch<T> scratch(s);
    Buffer<T> tile((size_t)rows * L);
    std::memset(tile.data, 0, (size_t)rows * L * sizeof(T));  // lanes beyond a piece's end compute something
    std::vector<T*> row(rows);
#pragma omp for schedule(dynamic, 1)
    for (int64_t c = 0; c < (int64_t)chunks.size(); ++c) {
      const Chunk& chunk = chunks[c];
      const int64_t size = chunk.piece.size - chunk.first < CHUNK ? chunk.piece.size - chunk.first : CHUNK;
      for (int r = 0; r < rows; ++r)
        row[r] = chunk.piece.parts[r / H] + (r % H) * chunk.piece.strides[r / H] + chunk.first;
      for (int64_t at = 0; at < size; at += L) {
        const int lanes = (int)(size - at < L ? size - at : L);
        for (int r = 0; r < rows; ++r) {
          copy_lanes(tile.data + r * L, row[r] + at, lanes);
          for (int line = 0; line < L; line += 64 / (int)sizeof(T)) __builtin_prefetch(row[r] + at + L + line, 1);
        }
        for (int f = 0; f < s.features; ++f) {
          copy_lanes(scratch.in.data + f * L, features + f * coordinates + chunk.column + at, lanes);
          for (int lane = lanes; lane < L; ++lane) scratch.in.data[f * L + lane] = T(0);
        }
        const T* moved = forward_tile<T>(s, scale, p, scratch, tile.data, tile.data, 0);
        copy_lanes(update + chunk.column + at, moved, lanes);
        for (int r = 0; r < rows; ++r) copy_lanes(row[r] + at, tile.data + r * L, lanes);
      }
    }
  }
}

// Where one inner step of a tile lies in the cache while a segment is pulled back.
template <typename T> struct Entry {
  T* in;        // features, F rows
  T* entered;   // after the layer before, H rows
  T* layers;    // Kept rows of every layer
  T* output;    // slope of the head's output: LANES
  const T* before[8];  // state before the step: h of every layer
  const T* cells[8];
  const T* gates[8];
};

template <typename T> struct Tile {
  const Shape& s;
  const Packed<T>& w;
  T scale;
  Kept at;

  int entry_rows() const { return s.features + (s.pre ? s.hidden : 0) + s.layers * at.rows + 1; }
  T* layer(const Entry<T>& e, int l) const { return e.layers + (int64_t)l * at.rows * Simd<T>::LANES; }
  const T* input_of(const Entry<T>& e, int l) const {
    return l ? layer(e, l - 1) + at.out * Simd<T>::LANES : s.pre ? e.entered : e.in;
  }

  Entry<T> place(T* memory) const {
    constexpr int L = Simd<T>::LANES;
    Entry<T> e;
    e.in = memory;
    e.entered = e.in + s.features * L;
    e.layers = e.entered + (s.pre ? s.hidden * L : 0);
    e.output = e.layers + (int64_t)s.layers * at.rows * L;
    for (int l = 0; l < s.layers; ++l) e.gates[l] = layer(e, l) + at.gates * L;
    return e;
  }

  void after(Entry<T>& e, const Entry<T>& previous) const {
    for (int l = 0; l < s.layers; ++l) {
      e.before[l] = layer(previous, l) + at.out * Simd<T>::LANES;
      e.cells[l] = layer(previous, l) + at.cell * Simd<T>::LANES;
    }
  }

  void start(Entry<T>& e, const T* state) const {
    constexpr int L = Simd<T>::LANES;
    for (int l = 0; l < s.layers; ++l) {
      e.before[l] = state + l * (s.kind == LSTM ? 2 : 1) * s.hidden * L;
      e.cells[l] = e.before[l] + s.hidden * L;
    }
  }

  // Run the step, keep what its backward pass needs. base: per layer, 4H (RNN: H) rows of bias + W_hidden h, or null.
  void run(const Entry<T>& e, const T* base, T* update) const {
    constexpr int L = Simd<T>::LANES;
    const int H = s.hidden;
    if (s.pre) pre_layer<T>(s, w, e.in, e.entered);
    for (int l = 0; l < s.layers; ++l) {
      T *kept = layer(e, l), *out = kept + at.out * L, *sums = s.kind == LSTM ? kept + at.gates * L : out;
      const T* known = base ? base + (int64_t)l * gates_of(s) * H * L : nullptr;
      enter_layer<T>(gates_of(s) * H, H, input_of(e, l), fan_in(s, l), e.before[l], known, w.input[l], w.hidden[l],
                     w.bias[l], sums);
      if (s.kind == LSTM)
        lstm_units<T, CACHED>(H, sums, e.cells[l], kept + at.cell * L, kept + at.squashed * L, out);
      else
        rnn_units<T>(H, sums, out);
    }
    finish(e, update);
  }

  // The same from the LSTM's gates, which the forward pass has kept: those of the tile's layers one after another.
  void run_again(Entry<T>& e, const T* gates, T* update) const {
    constexpr int L = Simd<T>::LANES;
    const int H = s.hidden;
    if (s.pre) pre_layer<T>(s, w, e.in, e.entered);
    for (int l = 0; l < s.layers; ++l) {
      T* kept = layer(e, l);
      e.gates[l] = gates + l * 4 * H * L;
      lstm_again<T>(H, e.gates[l], e.cells[l], kept + at.cell * L, kept + at.squashed * L, kept + at.out * L);
    }
    finish(e, update);
  }

  void finish(const Entry<T>& e, T* update) const {
    T raw[Simd<T>::LANES] __attribute__((aligned(64)));
    head<T>(s, w, layer(e, s.layers - 1) + at.out * Simd<T>::LANES, raw);
    output<T>(s, scale, raw, update, e.output);
  }

  // From the slope of the update, du, [LANES], and those of the state after the step, dstate (state rows; null: none),
  // to those of the gates (kept in the entry) and of the state before, added up in dbefore. dx: H rows of scratch.
  // dfeatures: F rows, or null.
  void pull(const Entry<T>& e, const T* du, T* dh_all, T* dc_all, bool alone, T* all_slopes, T* dx, T* dfeatures) const {
    constexpr int L = Simd<T>::LANES, W = Simd<T>::WIDTH;
    const int H = s.hidden, G = gates_of(s);
    for (int v = 0; v < VECS; ++v) store<T>(e.output + v * W, load<T>(e.output + v * W) * load<T>(du + v * W));
    for (int l = s.layers - 1; l >= 0; --l) {
      T* kept = layer(e, l);
      T *dh = dh_all + l * H * L, *slopes = all_slopes + l * G * H * L;
      for (int k = 0; k < H; ++k)
        for (int v = 0; v < VECS; ++v) {
          T* to = dh + k * L + v * W;
          Vec<T> above = l == s.layers - 1 ? w.head_weight[k] * load<T>(e.output + v * W) : load<T>(dx + k * L + v * W);
          store<T>(to, alone ? above : load<T>(to) + above);
        }
      if (s.kind == LSTM)
        lstm_slopes<T>(H, e.gates[l], kept + at.squashed * L, e.cells[l], dh, dc_all + l * H * L, alone, slopes);
      else
        rnn_slopes<T>(H, kept + at.out * L, dh, slopes);
      if (l || s.pre || dfeatures) affine<T, ZERO>(fan_in(s, l), nullptr, l || s.pre ? dx : dfeatures, w.input_back[l], slopes, G * H);
    }
    if (s.pre) {
      for (int i = 0; i < H * L; i += W) {
        Vec<T> y = load<T>(e.entered + i), d = load<T>(dx + i);
        store<T>(dx + i, y > T(0) ? d : d * (y + T(1)));
      }
      if (dfeatures) affine<T, ZERO>(s.features, nullptr, dfeatures, w.pre_back, dx, H);
    }
  }

  // The slopes of h before the step, from those of the gates; added where the step is a side branch.
  void pull_to_state(const T* all_slopes, T* dh_all, bool add) const {
    constexpr int L = Simd<T>::LANES;
    const int H = s.hidden;
    for (int l = 0; l < s.layers; ++l) {
      T* dh = dh_all + l * H * L;
      const T* slopes = all_slopes + l * gates_of(s) * H * L;
      if (add) affine<T, ROWS>(H, dh, dh, w.hidden_back[l], slopes, gates_of(s) * H);
      else affine<T, ZERO>(H, nullptr, dh, w.hidden_back[l], slopes, gates_of(s) * H);
    }
  }
};

// The gradient by the meta-parameters of some tiles: matrices [column][whole vectors of rows], the head's by lanes.
template <typename T> struct Sums {
  const Shape& s;
  Buffer<T> memory, turned;
  T *input[8], *hidden[8], *bias[8], *pre_weight, *pre_bias, *head_weight, *head_bias;
  Lanes<T> features, below[8], before[8];  // of the steps that wait for `finish`: inputs, and of layers, and h before

  // Slopes of a layer's gates, of the steps that wait; behind the last layer those of the layer before the network.
  T* slopes(int layer) const { return turned.data + layer * STEPS_AT_ONCE * Simd<T>::LANES * gate_rows(s); }

  static size_t gate_rows(const Shape& s) { return whole_vectors<T>(gates_of(s) * s.hidden); }
  static size_t size(const Shape& s) {
    size_t columns = 0;
    for (int l = 0; l < s.layers; ++l) columns += fan_in(s, l) + s.hidden + 1;
    return columns * gate_rows(s) + (s.features + 1) * whole_vectors<T>(s.hidden) + (s.hidden + 1) * Simd<T>::WIDTH;
  }

  explicit Sums(const Shape& s)
      : s(s), memory(size(s)), turned((s.layers + 1) * STEPS_AT_ONCE * Simd<T>::LANES * gate_rows(s)) {
    std::memset(memory.data, 0, size(s) * sizeof(T));
    T* next = memory.data;
    auto take = [&](size_t count) { T* here = next; next += count; return here; };
    for (int l = 0; l < s.layers; ++l) {
      input[l] = take(fan_in(s, l) * gate_rows(s));
      hidden[l] = take(s.hidden * gate_rows(s));
      bias[l] = take(gate_rows(s));
    }
    pre_weight = take(s.features * whole_vectors<T>(s.hidden));
    pre_bias = take(whole_vectors<T>(s.hidden));
    head_weight = take(s.hidden * Simd<T>::WIDTH);
    head_bias = take(Simd<T>::WIDTH);
  }

  // A step that has just been pulled back; dx: slopes of the layer before, if there is one. Its rows must stay where
  // they are until `finish`.
  void add(const Tile<T>& tile, const Entry<T>& e, const T* all_slopes, const T* dx) {
    constexpr int L = Simd<T>::LANES, W = Simd<T>::WIDTH;
    const int H = s.hidden, step = features.steps;
    for (int l = 0; l < s.layers; ++l) {
      turn<T>(all_slopes + l * gates_of(s) * H * L, gates_of(s) * H, slopes(l) + step * L * gate_rows(s));
      below[l].x[step] = tile.input_of(e, l);
      before[l].x[step] = e.before[l];
      below[l].steps = before[l].steps = step + 1;
    }
    if (s.pre) turn<T>(dx, H, slopes(s.layers) + step * L * whole_vectors<T>(H));
    features.x[step] = e.in;
    features.steps = step + 1;
    const T* out = tile.layer(e, s.layers - 1) + tile.at.out * L;
    for (int k = 0; k <= H; ++k) {
      Vec<T> sum = load<T>(head_weight + k * W);  // head_bias lies behind
      for (int v = 0; v < VECS; ++v) {
        Vec<T> slope = load<T>(e.output + v * W);
        sum += k < H ? slope * load<T>(out + k * L + v * W) : slope;
      }
      store<T>(head_weight + k * W, sum);
    }
    if (features.steps == STEPS_AT_ONCE) finish();
  }

  // Contract the steps that are waiting.
  void finish() {
    const int H = s.hidden, rows = gates_of(s) * H, lanes = features.steps * Simd<T>::LANES;
    for (int l = 0; l < s.layers; ++l) {
      contract<T>(slopes(l), rows, below[l], fan_in(s, l), input[l]);
      contract<T>(slopes(l), rows, before[l], H, hidden[l]);
      if (s.kind == LSTM) sum_lanes<T>(slopes(l), rows, lanes, bias[l]);
    }
    if (s.pre) {
      contract<T>(slopes(s.layers), H, features, s.features, pre_weight);
      sum_lanes<T>(slopes(s.layers), H, lanes, pre_bias);
    }
    features.steps = 0;
    for (int l = 0; l < s.layers; ++l) below[l].steps = before[l].steps = 0;
  }

  void put(const Weights<T>& grad) const {
    const int H = s.hidden, rows = gates_of(s) * H;
    auto matrix = [H](const T* from, int columns, int rows, T* to) {
      if (to)
        for (int c = 0; c < columns; ++c)
          for (int r = 0, gates = rows / H; r < rows; ++r)
            to[c * rows + r % gates * H + r / gates] = from[c * whole_vectors<T>(rows) + r];
    };
    for (int l = 0; l < s.layers; ++l) {
      matrix(input[l], fan_in(s, l), rows, grad.input[l]);
      matrix(hidden[l], H, rows, grad.hidden[l]);
      matrix(bias[l], 1, rows, grad.bias[l]);
    }
    matrix(pre_weight, s.features, H, grad.pre_weight);
    matrix(pre_bias, 1, H, grad.pre_bias);
    for (int k = 0; k < H; ++k) grad.head_weight[k] = sum_of<T>(load<T>(head_weight + k * Simd<T>::WIDTH));
    if (grad.head_bias) grad.head_bias[0] = sum_of<T>(load<T>(head_bias));
  }
};

// The segment's part of the gradient by the meta-parameters, and the slopes of the state at its start.
//
// du [steps][N]: slopes of the updates. dstate: slopes of the state after the segment in, before it out. branch [steps]
// [F][N] with branch_du: a second input to every step from the same state, whose state goes nowhere (null: none).
// groups: sums are made in this many fixed groups of tiles, so that the result does not depend on the threads.
template <typename T>
void backward(const Shape& s, T scale, const Weights<T>& w, int64_t coordinates, int steps, const T* features,
              const T* state, const T* gates, const T* du, T* dstate, const T* branch, const T* branch_du, int groups,
              T* gradients, const int64_t* offsets, int64_t gradient_size, int threads) {
  constexpr int L = Simd<T>::LANES, W = Simd<T>::WIDTH;
  const int H = s.hidden, G = gates_of(s), rows = state_rows(s), sides = branch ? steps : 0;
  const int64_t tiles = (coordinates + L - 1) / L;
  const Packed<T> packed(s, w, true);
  const Tile<T> tile{s, packed, scale, Kept(s, !gates)}, side_tile{s, packed, scale, Kept(s, true)};
  const int64_t entry_size = tile.entry_rows() * L, side_size = side_tile.entry_rows() * L;
  const int pieces = s.kind == LSTM ? 2 : 1;
#pragma omp parallel for schedule(dynamic) num_threads(threads)
  for (int group = 0; group < groups; ++group) {
    T* mine = gradients + group * gradient_size;
    std::memset(mine, 0, gradient_size * sizeof(T));
    T* pointers[32];
    int count = (s.pre ? 2 : 0) + 3 * (int)s.layers + 2;
    for (int i = 0; i < count; ++i) pointers[i] = offsets[i] < 0 ? nullptr : mine + offsets[i];
    Weights<T> grad(s, pointers);
    Sums<T> sums(s);
    Buffer<T> memory(steps * entry_size + sides * side_size), slopes((4 * s.layers * H + H + 1) * L);
    Buffer<T> gate_slopes(s.layers * G * H * L);
    T *dh = slopes.data, *dc = dh + s.layers * H * L, *side_dh = dc + s.layers * H * L, *side_dc = side_dh + s.layers * H * L;
    T *dx = side_dc + s.layers * H * L, *line = dx + H * L;
    std::vector<Entry<T>> entry(steps + sides);
    for (int e = 0; e < steps; ++e) entry[e] = tile.place(memory.data + e * entry_size);
    for (int e = 0; e < sides; ++e) entry[steps + e] = side_tile.place(memory.data + steps * entry_size + e * side_size);
    const int64_t from = tiles * group / groups, to = tiles * (group + 1) / groups;
    for (int64_t number = from; number < to; ++number) {
      const T* start = state + number * rows * L;
      T* carried = dstate + number * rows * L;
      for (int l = 0; l < s.layers; ++l) {
        std::memcpy(dh + l * H * L, carried + l * pieces * H * L, H * L * sizeof(T));
        if (s.kind == LSTM) std::memcpy(dc + l * H * L, carried + (l * 2 + 1) * H * L, H * L * sizeof(T));
      }
      for (int t = 0; t < steps; ++t) {
        if (t) tile.after(entry[t], entry[t - 1]); else tile.start(entry[t], start);
        to_tile<T>(features + (int64_t)t * coordinates * s.features, number * L, coordinates, s.features, entry[t].in);
        if (gates) tile.run_again(entry[t], gates + (t * tiles + number) * s.layers * G * H * L, line);
        else tile.run(entry[t], nullptr, line);
        if (branch) {
          Entry<T>& side = entry[steps + t];
          if (t) tile.after(side, entry[t - 1]); else tile.start(side, start);
          to_tile<T>(branch + (int64_t)t * coordinates * s.features, number * L, coordinates, s.features, side.in);
          side_tile.run(side, nullptr, line);
        }
      }
      for (int t = steps - 1; t >= 0; --t) {
        to_tile<T>(du + (int64_t)t * coordinates, number * L, coordinates, 1, line);
        tile.pull(entry[t], line, dh, dc, false, gate_slopes.data, dx, nullptr);
        tile.pull_to_state(gate_slopes.data, dh, false);
        sums.add(tile, entry[t], gate_slopes.data, dx);
        if (branch) {
          const Entry<T>& side = entry[steps + t];
          to_tile<T>(branch_du + (int64_t)t * coordinates, number * L, coordinates, 1, line);
          side_tile.pull(side, line, side_dh, side_dc, true, gate_slopes.data, dx, nullptr);
          side_tile.pull_to_state(gate_slopes.data, dh, true);
          if (s.kind == LSTM)
            for (int i = 0; i < s.layers * H * L; i += W) store<T>(dc + i, load<T>(dc + i) + load<T>(side_dc + i));
          sums.add(side_tile, side, gate_slopes.data, dx);
        }
      }
      sums.finish();
      for (int l = 0; l < s.layers; ++l) {
        std::memcpy(carried + l * pieces * H * L, dh + l * H * L, H * L * sizeof(T));
        if (s.kind == LSTM) std::memcpy(carried + (l * 2 + 1) * H * L, dc + l * H * L, H * L * sizeof(T));
      }
    }
    sums.put(grad);
  }
}

// Projected sign ascent of (u(s) - u(s'))^2 from `offset` [F][N] in the box of half-width epsilon, the state held
// fixed; the first `free` features move. Out: the offset found, and the update there.
template <typename T>
void ascent(const Shape& s, T scale, const Weights<T>& w, int64_t coordinates, const T* features, const T* state,
            const T* clean, T epsilon, T length, int iterations, int free, T* offset, T* update, int threads) {
  constexpr int L = Simd<T>::LANES, W = Simd<T>::WIDTH;
  const int H = s.hidden, G = gates_of(s), F = s.features, rows = state_rows(s);
  const int64_t tiles = (coordinates + L - 1) / L;
  const Packed<T> packed(s, w, true);
  const Tile<T> tile{s, packed, scale, Kept(s, true)};
#pragma omp parallel num_threads(threads)
  {
    Buffer<T> memory(tile.entry_rows() * L), base(s.layers * G * H * L), slopes((2 * s.layers * H + H + 3 * F + 4) * L), gate_slopes(s.layers * G * H * L);
    T *dh = slopes.data, *dc = dh + s.layers * H * L, *dx = dc + s.layers * H * L, *center = dx + H * L;
    T *moved = center + F * L, *uphill = moved + F * L, *wanted = uphill + F * L, *found = wanted + L, *du = found + L;
    Entry<T> e = tile.place(memory.data);
#pragma omp for schedule(dynamic, 4)
    for (int64_t number = 0; number < tiles; ++number) {
      to_tile<T>(features, number * L, coordinates, F, center);
      to_tile<T>(offset, number * L, coordinates, F, moved);
      to_tile<T>(clean, number * L, coordinates, 1, wanted);
      tile.start(e, state + number * rows * L);
      for (int l = 0; l < s.layers; ++l)
        enter_layer<T>(G * H, H, nullptr, 0, e.before[l], nullptr, packed.input[l], packed.hidden[l], packed.bias[l],
                       base.data + (int64_t)l * G * H * L);
      for (int k = 0; k <= iterations; ++k) {
        for (int i = 0; i < F * L; i += W) store<T>(e.in + i, load<T>(center + i) + load<T>(moved + i));
        tile.run(e, base.data, found);
        if (k == iterations) break;
        for (int v = 0; v < VECS; ++v) store<T>(du + v * W, T(2) * (load<T>(found + v * W) - load<T>(wanted + v * W)));
        tile.pull(e, du, dh, dc, true, gate_slopes.data, dx, uphill);
        for (int i = 0; i < (free < F ? free : F) * L; i += W) {
          Vec<T> up = load<T>(uphill + i), zero = {};
          Vec<T> step = up > T(0) ? zero + length : (up < T(0) ? zero - length : zero);
          Vec<T> at = load<T>(moved + i) + step;
          at = at > epsilon ? zero + epsilon : at;
          store<T>(moved + i, at < -epsilon ? zero - epsilon : at);
        }
      }
      from_tile<T>(moved, number * L, coordinates, F, offset);
      from_tile<T>(found, number * L, coordinates, 1, update);
    }
  }
}

// Units [N][H] of each part of the state to tiles, and back.
template <typename T, bool PACK>
void repack(T* const* parts, int count, int H, int64_t coordinates, T* tiles, int threads) {
  constexpr int L = Simd<T>::LANES;
  const int64_t number = (coordinates + L - 1) / L;
#pragma omp parallel for schedule(static) num_threads(threads)
  for (int64_t tile = 0; tile < number; ++tile)
    for (int part = 0; part < count; ++part) {
      T* rows = tiles + (tile * count + part) * H * L;
      if (PACK)
        gather<T>(parts[part], tile * L, coordinates, H, rows);
      else
        scatter<T>(rows, tile * L, coordinates, H, parts[part]);
    }
}

// ---- a linear map of hand-made features ----------------------------------------------------------------------------

// One inner step of `lin` (engine/optimizers/learned/lin.py) on rows of P coordinates, each row with coefficients of its
// own: moments, features and update in two passes, nothing else written to memory. The state is moved on in place.
template <typename T>
void linear(int64_t rows, int64_t P, const T* constants, const T* theta, const T* grad, T* means, T* square, T* time,
            T* kept, const T* coefficients, T* update, int threads) {
  const T fast = constants[0], slow = constants[1], decay = constants[2], floor = constants[3], largest = constants[4];
#pragma omp parallel for schedule(static) num_threads(threads)
  for (int64_t row = 0; row < rows; ++row) {
    const T *x = theta + row * P, *g = grad + row * P, *c = coefficients + row * 9;
    T *m = means + row * P * 2, *v = square + row * P, *t = time + row * P, *old = kept + row * P, *u = update + row * P;
    const T age = P ? t[0] + T(1) : T(1);
    double squares = 0, changes = 0, ages = 0;  // ages: how far any coordinate's is from the first one's
#pragma omp simd reduction(+ : squares, changes, ages)
    for (int64_t i = 0; i < P; ++i) {
      T slope = g[i] > largest ? largest : (g[i] < -largest ? -largest : g[i]);
      m[2 * i] = fast * m[2 * i] + (T(1) - fast) * slope;
      m[2 * i + 1] = slow * m[2 * i + 1] + (T(1) - slow) * slope;
      v[i] = decay * v[i] + (T(1) - decay) * slope * slope;
      t[i] += T(1);
      T change = x[i] - old[i], apart = t[i] - age;
      squares += v[i];
      changes += change * change;
      ages += apart < T(0) ? -apart : apart;
    }
    const bool alike = ages == 0;
    if (!alike) {
      squares = 0;
      for (int64_t i = 0; i < P; ++i) squares += v[i] / (T(1) - std::exp(std::log(decay) * t[i]));
    } else {
      squares /= T(1) - std::exp(std::log(decay) * age);
    }
    const T overall = T(1) / std::sqrt(T(squares / P) + floor), moved = c[7] / std::sqrt(T(changes / P) + floor);
    auto pass = [&](auto corrected) {
#pragma omp simd
      for (int64_t i = 0; i < P; ++i) {
        T slope = g[i] > largest ? largest : (g[i] < -largest ? -largest : g[i]);
        T by_fast, by_slow, by_square;
        corrected(i, by_fast, by_slow, by_square);
        T first = m[2 * i] * by_fast, second = m[2 * i + 1] * by_slow;
        T each = T(1) / std::sqrt(v[i] * by_square + floor);
        u[i] = (c[0] * slope + c[1] * first + c[2] * second) * overall +
               (c[3] * slope + c[4] * first + c[5] * second) * each + c[6] * slope + moved * (x[i] - old[i]) +
               c[8] * x[i];
        old[i] = x[i];
      }
    };
    const T a = std::log(fast), b = std::log(slow), d = std::log(decay);
    const T fast_now = T(1) / (T(1) - std::exp(a * age)), slow_now = T(1) / (T(1) - std::exp(b * age));
    const T square_now = T(1) / (T(1) - std::exp(d * age));
    if (alike)
      pass([&](int64_t, T& one, T& two, T& three) { one = fast_now, two = slow_now, three = square_now; });
    else
      pass([&](int64_t i, T& one, T& two, T& three) {
        one = T(1) / (T(1) - std::exp(a * t[i])), two = T(1) / (T(1) - std::exp(b * t[i]));
        three = T(1) / (T(1) - std::exp(d * t[i]));
      });
  }
}

}  // namespace

// ---- a network of two hidden layers --------------------------------------------------------------------------------

// What `mlp` (engine/optimizers/learned/tensor_mlp.py) computes for a coordinate: two layers of H units with ReLU and two
// outputs, d and a, of which the update is -scale d exp(exponent a). Nothing goes from one inner step to the next, so the
// steps of a truncation are as many more coordinates. Features are [N][F].
template <typename T> struct Dense {
  int F, H;
  T scale, exponent;
  const T *weight[3], *bias[3];  // [inputs][outputs]

  Dense(int64_t features, int64_t hidden, T scale, T exponent, T* const* weights)
      : F((int)features), H((int)hidden), scale(scale), exponent(exponent) {
    for (int layer = 0; layer < 3; ++layer) { weight[layer] = weights[2 * layer]; bias[layer] = weights[2 * layer + 1]; }
  }

  int inputs(int layer) const { return layer ? H : F; }
  int outputs(int layer) const { return layer < 2 ? H : 2; }
  int rows() const { return F + 2 * H + 2; }                         // of a tile: the inputs of every layer, and d and a
  int first_row(int layer) const { return layer ? F + (layer - 1) * H : 0; }  // of the inputs of a layer; 3: of d

  // From the features in `tile` to the update, LANES numbers.
  void run(T* tile, T* update) const {
    constexpr int L = Simd<T>::LANES, W = Simd<T>::WIDTH;
    for (int layer = 0; layer < 3; ++layer) {
      T* out = tile + first_row(layer + 1) * L;
      affine<T, NUMBERS>(outputs(layer), bias[layer], out, weight[layer], tile + first_row(layer) * L, inputs(layer));
      if (layer < 2)
        for (int i = 0; i < H * L; i += W) store<T>(out + i, at_least<T>(0, load<T>(out + i)));
    }
    const T* out = tile + first_row(3) * L;
    for (int i = 0; i < L; i += W)
      store<T>(update + i, -scale * load<T>(out + i) * exp_of<T>(exponent * load<T>(out + L + i)));
  }
};

template <typename T>
void dense_forward(const Dense<T>& net, int64_t coordinates, const T* features, T* update, int threads) {
  constexpr int L = Simd<T>::LANES;
  const int64_t tiles = (coordinates + L - 1) / L;
#pragma omp parallel num_threads(threads)
  {
    Buffer<T> tile(net.rows() * L), line(L);
#pragma omp for schedule(static)
    for (int64_t number = 0; number < tiles; ++number) {
      gather<T>(features, number * L, coordinates, net.F, tile.data);
      net.run(tile.data, line.data);
      from_tile<T>(line.data, number * L, coordinates, 1, update);
    }
  }
}

// The gradient by the meta-parameters, one for each of `groups` groups of coordinates as in `backward`: weight and bias
// of every layer, `size` numbers.
template <typename T>
void dense_backward(const Dense<T>& net, int64_t coordinates, const T* features, const T* du, int groups, T* gradients,
                    int64_t size, int threads) {
  constexpr int L = Simd<T>::LANES, W = Simd<T>::WIDTH;
  const int H = net.H;
  const int64_t tiles = (coordinates + L - 1) / L;
  std::vector<T> back[3];  // weights of a layer, [outputs][inputs]
  for (int layer = 1; layer < 3; ++layer)
    for (int out = 0; out < net.outputs(layer); ++out)
      for (int in = 0; in < H; ++in) back[layer].push_back(net.weight[layer][in * net.outputs(layer) + out]);
#pragma omp parallel for schedule(dynamic) num_threads(threads)
  for (int group = 0; group < groups; ++group) {
    const int tile_size = net.rows() * L, widest = whole_vectors<T>(H > 2 ? H : 2);
    Buffer<T> tile(STEPS_AT_ONCE * tile_size), slopes(2 * widest * L), line(2 * L);
    Buffer<T> turned(3 * STEPS_AT_ONCE * L * widest), sums((net.F + 2 * H + 3) * widest);
    std::memset(sums.data, 0, (net.F + 2 * H + 3) * widest * sizeof(T));
    Lanes<T> lanes[3];
    auto of_layer = [&](int layer) { return turned.data + layer * STEPS_AT_ONCE * L * widest; };
    auto sum_of_layer = [&](int layer) { return sums.data + (net.first_row(layer) + layer) * widest; };
    auto finish = [&] {
      for (int layer = 0; layer < 3; ++layer) {
        const int outputs = net.outputs(layer), inputs = net.inputs(layer);
        contract<T>(of_layer(layer), outputs, lanes[layer], inputs, sum_of_layer(layer));
        sum_lanes<T>(of_layer(layer), outputs, lanes[layer].steps * L, sum_of_layer(layer) + inputs * whole_vectors<T>(outputs));
        lanes[layer].steps = 0;
      }
    };
    for (int64_t number = tiles * group / groups, end = tiles * (group + 1) / groups; number < end; ++number) {
      const int step = lanes[0].steps;
      T *mine = tile.data + step * tile_size, *slope = slopes.data, *below = slope + widest * L, *update = line.data, *d = update + L;
      gather<T>(features, number * L, coordinates, net.F, mine);
      net.run(mine, update);
      to_tile<T>(du, number * L, coordinates, 1, d);
      const T* out = mine + net.first_row(3) * L;
      for (int i = 0; i < L; i += W) {
        store<T>(slope + i, -net.scale * exp_of<T>(net.exponent * load<T>(out + L + i)) * load<T>(d + i));
        store<T>(slope + L + i, net.exponent * load<T>(update + i) * load<T>(d + i));
      }
      for (int layer = 2; layer >= 0; --layer) {
        const int outputs = net.outputs(layer);
        turn<T>(slope, outputs, of_layer(layer) + step * L * whole_vectors<T>(outputs));
        lanes[layer].x[step] = mine + net.first_row(layer) * L;
        lanes[layer].steps = step + 1;
        if (!layer) break;
        affine<T, ZERO>(H, nullptr, below, back[layer].data(), slope, outputs);
        const T* unit = mine + net.first_row(layer) * L;
        for (int i = 0; i < H * L; i += W) {
          Vec<T> zero = {};
          store<T>(below + i, load<T>(unit + i) > zero ? load<T>(below + i) : zero);
        }
        std::swap(slope, below);
      }
      if (step + 1 == STEPS_AT_ONCE) finish();
    }
    finish();
    T* to = gradients + group * size;
    for (int layer = 0; layer < 3; ++layer)
      for (int row = 0; row <= net.inputs(layer); ++row, to += net.outputs(layer))  // the biases lie behind
        std::memcpy(to, sum_of_layer(layer) + row * whole_vectors<T>(net.outputs(layer)), net.outputs(layer) * sizeof(T));
  }
}

// ---- C interface ---------------------------------------------------------------------------------------------------

#define LREG_EXPORT(T, name)                                                                                           \
  extern "C" void lreg_forward_##name(const int64_t* shape, T scale, T* const* weights, int64_t coordinates,          \
                                      const T* features, const T* state, T* next, T* update, T* gates, int threads) {  \
    const Shape s = *(const Shape*)shape;                                                                              \
    forward<T>(s, scale, Weights<T>(s, weights), coordinates, features, state, next, update, gates, threads);          \
  }                                                                                                                    \
  extern "C" void lreg_advance_##name(const int64_t* shape, T scale, T* const* weights, int64_t coordinates,          \
                                      int64_t count, const int64_t* sizes, T* const* parts, const int64_t* strides,    \
                                      const T* features, T* update, int threads) {                                     \
    const Shape s = *(const Shape*)shape;                                                                              \
    advance<T>(s, scale, Weights<T>(s, weights), coordinates, count, sizes, parts, strides, features, update,          \
               threads);                                                                                               \
  }                                                                                                                    \
  extern "C" void lreg_backward_##name(const int64_t* shape, T scale, T* const* weights, int64_t coordinates,         \
                                       int steps, const T* features, const T* state, const T* gates, const T* du, T* dstate, \
                                       const T* branch, const T* branch_du, int groups, T* gradients,                  \
                                       const int64_t* offsets, int64_t size, int threads) {                            \
    const Shape s = *(const Shape*)shape;                                                                              \
    backward<T>(s, scale, Weights<T>(s, weights), coordinates, steps, features, state, gates, du, dstate, branch, branch_du,  \
                groups, gradients, offsets, size, threads);                                                            \
  }                                                                                                                    \
  extern "C" void lreg_ascent_##name(const int64_t* shape, T scale, T* const* weights, int64_t coordinates,           \
                                     const T* features, const T* state, const T* clean, T epsilon, T length,           \
                                     int iterations, int free, T* offset, T* update, int threads) {                    \
    const Shape s = *(const Shape*)shape;                                                                              \
    ascent<T>(s, scale, Weights<T>(s, weights), coordinates, features, state, clean, epsilon, length, iterations,      \
              free, offset, update, threads);                                                                          \
  }

#define LREG_EXPORT_REPACK(T, name)                                                                                    \
  extern "C" void lreg_pack_##name(T* const* parts, int count, int hidden, int64_t n, T* tiles, int threads) {         \
    repack<T, true>(parts, count, hidden, n, tiles, threads);                                                          \
  }                                                                                                                    \
  extern "C" void lreg_unpack_##name(T* const* parts, int count, int hidden, int64_t n, T* tiles, int threads) {       \
    repack<T, false>(parts, count, hidden, n, tiles, threads);                                                         \
  }

#define LREG_EXPORT_LINEAR(T, name)                                                                                    \
  extern "C" void lreg_linear_##name(int64_t rows, int64_t size, const T* constants, const T* theta, const T* grad,    \
                                     T* means, T* square, T* time, T* kept, const T* coefficients, T* update,          \
                                     int threads) {                                                                    \
    linear<T>(rows, size, constants, theta, grad, means, square, time, kept, coefficients, update, threads);           \
  }

#define LREG_EXPORT_DENSE(T, name)                                                                                     \
  extern "C" void lreg_dense_forward_##name(int64_t features, int64_t hidden, T scale, T exponent, T* const* weights,  \
                                            int64_t n, const T* x, T* update, int threads) {                           \
    dense_forward<T>(Dense<T>(features, hidden, scale, exponent, weights), n, x, update, threads);                     \
  }                                                                                                                    \
  extern "C" void lreg_dense_backward_##name(int64_t features, int64_t hidden, T scale, T exponent, T* const* weights, \
                                             int64_t n, const T* x, const T* du, int groups, T* gradients,             \
                                             int64_t size, int threads) {                                              \
    dense_backward<T>(Dense<T>(features, hidden, scale, exponent, weights), n, x, du, groups, gradients, size,         \
                      threads);                                                                                        \
  }

LREG_EXPORT_DENSE(float, float)
LREG_EXPORT_DENSE(double, double)
LREG_EXPORT_LINEAR(float, float)
LREG_EXPORT_LINEAR(double, double)
LREG_EXPORT_REPACK(float, float)
LREG_EXPORT_REPACK(double, double)
LREG_EXPORT(float, float)
LREG_EXPORT(double, double)

extern "C" int lreg_lanes(int bytes) { return bytes == 4 ? Simd<float>::LANES : Simd<double>::LANES; }

// The vector instructions that this file was compiled to, and whether the processor has them.
#if defined(__AVX512F__)
extern "C" const char* lreg_isa() { return "AVX-512"; }
extern "C" int lreg_runs_here() { return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq"); }
#elif defined(__AVX2__)
extern "C" const char* lreg_isa() { return "AVX2"; }
extern "C" int lreg_runs_here() { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); }
#elif defined(__AVX__)
extern "C" const char* lreg_isa() { return "AVX"; }
extern "C" int lreg_runs_here() { return __builtin_cpu_supports("avx"); }
#elif defined(__SSE2__)
extern "C" const char* lreg_isa() { return "SSE2"; }
extern "C" int lreg_runs_here() { return 1; }
#elif defined(__ARM_NEON)
extern "C" const char* lreg_isa() { return "NEON"; }
extern "C" int lreg_runs_here() { return 1; }
#else
extern "C" const char* lreg_isa() { return "128-bit vectors"; }
extern "C" int lreg_runs_here() { return 1; }
#endif
