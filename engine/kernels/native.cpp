// The coordinate-wise recurrent network of a learned optimizer on the CPU: forward steps, the backward pass of a
// truncation, and the ascent of the smoothness penalty. No dependency but the compiler; engine/kernels/native.py
// builds it at first use. The plain PyTorch reference is LearnedOptimizer.step with autograd.
//
// Every coordinate runs the same network, so LANES coordinates are carried side by side, one in each lane of VECS
// vector registers, and a tile of them stays in cache for a whole segment of inner steps:
//
//   state    [tiles][rows][LANES]    hidden units h, then cells c, layer by layer: a row is one unit of LANES coordinates
//   features [steps][N][F], update [steps][N]    as PyTorch has them
//
// Gates are never written to memory in the forward pass. The backward pass computes them anew from the state at the
// segment's start and the features, in cache.
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <type_traits>
#include <vector>
#if defined(__AVX__)
#include <immintrin.h>
#endif

namespace {

// Vectors side by side, and the blocks of sums in registers: by how many of them there are (32, or 16).
#if defined(__AVX512F__)
constexpr int VECTOR_BYTES = 64, VECS = 4, ROWS_AT_ONCE = 6, COLUMNS_AT_ONCE = 4;
#elif defined(__AVX__)
constexpr int VECTOR_BYTES = 32, VECS = 2, ROWS_AT_ONCE = 4, COLUMNS_AT_ONCE = 2;
#else
constexpr int VECTOR_BYTES = 16, VECS = 2, ROWS_AT_ONCE = 4, COLUMNS_AT_ONCE = 2;
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

// For |x| <= LARGEST_EXPONENT: e^x = power (1 + p), by x = n ln 2 + r with |r| <= ln 2 / 2, power = 2^n, p = e^r - 1.
template <typename T> LREG_INLINE void split_exp(Vec<T> x, Vec<T>& p, Vec<T>& power) {
  using S = Simd<T>;
  constexpr bool single = sizeof(T) == 4;
  const T shift = single ? T(12582912.0) : T(6755399441055744.0);  // 1.5 * 2^(mantissa bits): rounds to an integer
  Vec<T> n = x * T(1.44269504088896340736) + shift;
  typename S::I bits = (typename S::I)n;
  n -= shift;
  Vec<T> r, q;
  if constexpr (single) {  // Chebyshev: p is off by less than 8e-9
    r = x - n * T(0.693147180559945309417);
    q = r * T(0.0013933650354413984) + T(0.008363180121712041);
    q = q * r + T(0.04166646491457779);
    q = q * r + T(0.16666576975794942);
    q = q * r + T(0.5);
  } else {  // Taylor: the remainder r^14 / 14! is below 5e-18
    r = x - n * T(6.93147180369123816490e-01) - n * T(1.90821492927058770002e-10);
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
  constexpr int mantissa = single ? 23 : 52;
  constexpr typename S::Int bias = single ? 127 : 1023;
  power = (Vec<T>)((bits + bias) << mantissa);  // the low bits of n + shift hold n
}

template <typename T> LREG_INLINE Vec<T> sigmoid(Vec<T> x) {
  Vec<T> p, power;
  split_exp<T>(at_most<T>(LARGEST_EXPONENT<T>, at_least<T>(-LARGEST_EXPONENT<T>, -x)), p, power);
  return T(1) / (power * p + (power + T(1)));
}

// e^x - 1 for x <= 0, without cancellation near 0.
template <typename T> LREG_INLINE Vec<T> expm1_below(Vec<T> x) {
  Vec<T> p, power;
  split_exp<T>(at_least<T>(-LARGEST_EXPONENT<T>, x), p, power);
  return power * p + (power - T(1));
}

// tanh x = -m / (2 + m) with m = expm1(-2 |x|): tiny x keep their relative precision.
template <typename T> LREG_INLINE Vec<T> tanh_of(Vec<T> x) {
  using I = typename Simd<T>::I;
  constexpr typename Simd<T>::Int sign_bit = typename Simd<T>::Int(1) << (8 * sizeof(T) - 1);
  const I sign = (I)x & sign_bit;
  Vec<T> m = expm1_below<T>(T(-2) * (Vec<T>)((I)x & ~sign_bit));
  return (Vec<T>)((I)(m / (T(2) + m)) ^ sign ^ sign_bit);
}

template <typename T> LREG_INLINE Vec<T> load(const T* from) { return *(const Vec<T>*)from; }
template <typename T> LREG_INLINE void store(T* to, Vec<T> value) { *(Vec<T>*)to = value; }

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

// What the backward pass keeps of one step of one layer, in rows of LANES: gates (then their slopes), c, tanh(c), h.
struct Kept {
  int gates, cell, squashed, out, rows;
  explicit Kept(const Shape& s) {
    int H = s.hidden;
    gates = 0;
    cell = gates_of(s) * H;
    squashed = cell + (s.kind == LSTM ? H : 0);
    out = squashed + (s.kind == LSTM ? H : 0);
    rows = out + H;
  }
};

// sums[g][v] += W[k][g * stride + unit] * x[k] for k < count: the heart of the forward pass.
template <typename T, int G>
LREG_INLINE void accumulate(Vec<T> (&sums)[G][VECS], const T* weights, int columns, int stride, int unit, const T* x, int count) {
  constexpr int L = Simd<T>::LANES, W = Simd<T>::WIDTH;
  for (int k = 0; k < count; ++k) {
    Vec<T> in[VECS];
    for (int v = 0; v < VECS; ++v) in[v] = load<T>(x + k * L + v * W);
    for (int g = 0; g < G; ++g) {
      const T w = weights[k * columns + g * stride + unit];
      for (int v = 0; v < VECS; ++v) sums[g][v] += w * in[v];
    }
  }
}

// One LSTM layer for a tile. `base` (4H rows) replaces bias + W_hidden h where it is known already. KEEP: write what
// the backward pass needs to `kept`; else h and c go to `h_out`, `c_out` (which must not be h).
template <typename T, bool KEEP>
void lstm_layer(int H, const T* x, int inputs, const T* h, const T* c, const T* base, const T* w_input, const T* w_hidden,
                const T* bias, T* h_out, T* c_out, T* kept, const Kept& at) {
  constexpr int L = Simd<T>::LANES, W = Simd<T>::WIDTH;
  for (int unit = 0; unit < H; ++unit) {
    Vec<T> sums[4][VECS];
    for (int g = 0; g < 4; ++g)
      for (int v = 0; v < VECS; ++v)
        sums[g][v] = base ? load<T>(base + (g * H + unit) * L + v * W) : Vec<T>{} + bias[g * H + unit];
    accumulate<T, 4>(sums, w_input, 4 * H, H, unit, x, inputs);
    if (!base) accumulate<T, 4>(sums, w_hidden, 4 * H, H, unit, h, H);
    for (int v = 0; v < VECS; ++v) {
      Vec<T> enter = sigmoid<T>(sums[0][v]), forget = sigmoid<T>(sums[1][v]);
      Vec<T> cell = tanh_of<T>(sums[2][v]), leave = sigmoid<T>(sums[3][v]);
      Vec<T> next = forget * load<T>(c + unit * L + v * W) + enter * cell;
      Vec<T> squashed = tanh_of<T>(next);
      Vec<T> out = leave * squashed;
      if (KEEP) {
        T* here = kept + unit * L + v * W;
        store<T>(here + (at.gates + 0 * H) * L, enter);
        store<T>(here + (at.gates + 1 * H) * L, forget);
        store<T>(here + (at.gates + 2 * H) * L, cell);
        store<T>(here + (at.gates + 3 * H) * L, leave);
        store<T>(here + at.cell * L, next);
        store<T>(here + at.squashed * L, squashed);
        store<T>(here + at.out * L, out);
      } else {
        store<T>(h_out + unit * L + v * W, out);
        store<T>(c_out + unit * L + v * W, next);
      }
    }
  }
}

template <typename T>
void rnn_layer(int H, const T* x, int inputs, const T* h, const T* base, const T* w_input, const T* w_hidden, T* h_out) {
  constexpr int L = Simd<T>::LANES, W = Simd<T>::WIDTH;
  int unit = 0;
  auto rows = [&](auto count) {  // several units at once keep the multipliers busy
    constexpr int G = decltype(count)::value;
    for (; unit + G <= H; unit += G) {
      Vec<T> sums[G][VECS];
      for (int g = 0; g < G; ++g)
        for (int v = 0; v < VECS; ++v) sums[g][v] = base ? load<T>(base + (unit + g) * L + v * W) : Vec<T>{};
      accumulate<T, G>(sums, w_input, H, 1, unit, x, inputs);
      if (!base) accumulate<T, G>(sums, w_hidden, H, 1, unit, h, H);
      for (int g = 0; g < G; ++g)
        for (int v = 0; v < VECS; ++v) store<T>(h_out + (unit + g) * L + v * W, tanh_of<T>(sums[g][v]));
    }
  };
  rows(std::integral_constant<int, 4>{});
  rows(std::integral_constant<int, 1>{});
}

// out[r] = bias[r] + sum_k W[k][r] x[k] for r < rows: what does not change along an ascent.
template <typename T>
void affine(int rows, const T* x, int count, const T* weights, const T* bias, T* out) {
  constexpr int L = Simd<T>::LANES, W = Simd<T>::WIDTH;
  int row = 0;
  auto some = [&](auto number) {
    constexpr int G = decltype(number)::value;
    for (; row + G <= rows; row += G) {
      Vec<T> sums[G][VECS];
      for (int g = 0; g < G; ++g)
        for (int v = 0; v < VECS; ++v) sums[g][v] = bias ? Vec<T>{} + bias[row + g] : Vec<T>{};
      accumulate<T, G>(sums, weights, rows, 1, row, x, count);
      for (int g = 0; g < G; ++g)
        for (int v = 0; v < VECS; ++v) store<T>(out + (row + g) * L + v * W, sums[g][v]);
    }
  };
  some(std::integral_constant<int, 4>{});
  some(std::integral_constant<int, 1>{});
}

// The layer before the network: ELU(W f + b), H rows.
template <typename T> void pre_layer(const Shape& s, const Weights<T>& w, const T* features, T* out) {
  constexpr int L = Simd<T>::LANES, W = Simd<T>::WIDTH;
  affine<T>(s.hidden, features, s.features, w.pre_weight, w.pre_bias, out);
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

// dx[k] = sum_r W[k][r] slope[r], for k < count and r < rows.
template <typename T>
void pull_to_inputs(const T* weights, int count, int rows, const T* slopes, T* dx, bool add) {
  constexpr int L = Simd<T>::LANES, W = Simd<T>::WIDTH;
  int k = 0;
  auto some = [&](auto number) {
    constexpr int G = decltype(number)::value;
    for (; k + G <= count; k += G) {
      Vec<T> sums[G][VECS] = {};
      for (int r = 0; r < rows; ++r) {
        Vec<T> in[VECS];
        for (int v = 0; v < VECS; ++v) in[v] = load<T>(slopes + r * L + v * W);
        for (int g = 0; g < G; ++g) {
          const T w_gr = weights[(k + g) * rows + r];
          for (int v = 0; v < VECS; ++v) sums[g][v] += w_gr * in[v];
        }
      }
      for (int g = 0; g < G; ++g)
        for (int v = 0; v < VECS; ++v) {
          T* to = dx + (k + g) * L + v * W;
          store<T>(to, add ? load<T>(to) + sums[g][v] : sums[g][v]);
        }
    }
  };
  some(std::integral_constant<int, 5>{});
  some(std::integral_constant<int, 1>{});
}

// From the slope of h (rows dh) and of c (rows dc) to those of the gates, in place of the gates, and of the c before.
template <typename T>
void lstm_slopes(int H, T* kept, const Kept& at, const T* c_before, const T* dh, T* dc, bool first_use_of_dc) {
  constexpr int L = Simd<T>::LANES, W = Simd<T>::WIDTH;
  for (int i = 0; i < H * L; i += W) {
    Vec<T> enter = load<T>(kept + (at.gates + 0 * H) * L + i), forget = load<T>(kept + (at.gates + 1 * H) * L + i);
    Vec<T> cell = load<T>(kept + (at.gates + 2 * H) * L + i), leave = load<T>(kept + (at.gates + 3 * H) * L + i);
    Vec<T> squashed = load<T>(kept + at.squashed * L + i), d = load<T>(dh + i);
    Vec<T> slope = d * leave * (T(1) - squashed * squashed);
    if (!first_use_of_dc) slope += load<T>(dc + i);
    store<T>(kept + (at.gates + 0 * H) * L + i, slope * cell * enter * (T(1) - enter));
    store<T>(kept + (at.gates + 1 * H) * L + i, slope * load<T>(c_before + i) * forget * (T(1) - forget));
    store<T>(kept + (at.gates + 2 * H) * L + i, slope * enter * (T(1) - cell * cell));
    store<T>(kept + (at.gates + 3 * H) * L + i, d * squashed * leave * (T(1) - leave));
    store<T>(dc + i, slope * forget);
  }
}

template <typename T> void rnn_slopes(int H, T* kept, const Kept& at, const T* dh) {
  constexpr int L = Simd<T>::LANES, W = Simd<T>::WIDTH;
  for (int i = 0; i < H * L; i += W) {
    Vec<T> h = load<T>(kept + at.out * L + i);
    store<T>(kept + at.gates * L + i, load<T>(dh + i) * (T(1) - h * h));
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

// out[c * rows + r] += sum over entries and lanes of slopes[e][r] * x[e][c], for R rows and C columns from r0, c0.
template <typename T, int R, int C>
LREG_INLINE void contract_block(const T* const* slopes, const T* const* x, int entries, int r0, int c0, int rows, T* out) {
  constexpr int L = Simd<T>::LANES, W = Simd<T>::WIDTH;
  Vec<T> sums[R][C] = {};
  for (int e = 0; e < entries; ++e)
    for (int v = 0; v < VECS; ++v) {
      Vec<T> d[R];
      for (int r = 0; r < R; ++r) d[r] = load<T>(slopes[e] + (r0 + r) * L + v * W);
      for (int c = 0; c < C; ++c) {
        Vec<T> in = load<T>(x[e] + (c0 + c) * L + v * W);
        for (int r = 0; r < R; ++r) sums[r][c] += d[r] * in;
      }
    }
  for (int r = 0; r < R; ++r)
    for (int c = 0; c < C; ++c) out[(c0 + c) * rows + r0 + r] += sum_of<T>(sums[r][c]);
}

template <typename T, int R>
void contract_rows(const T* const* slopes, int& r, int rows, const T* const* x, int columns, int entries, T* out) {
  for (; r + R <= rows; r += R) {
    int c = 0;
    for (; c + COLUMNS_AT_ONCE <= columns; c += COLUMNS_AT_ONCE) contract_block<T, R, COLUMNS_AT_ONCE>(slopes, x, entries, r, c, rows, out);
    for (; c + 2 <= columns; c += 2) contract_block<T, R, 2>(slopes, x, entries, r, c, rows, out);
    for (; c < columns; ++c) contract_block<T, R, 1>(slopes, x, entries, r, c, rows, out);
  }
}

// All rows and columns, in blocks whose sums fill the registers.
template <typename T>
void contract(const T* const* slopes, int rows, const T* const* x, int columns, int entries, T* out) {
  int r = 0;
  contract_rows<T, ROWS_AT_ONCE>(slopes, r, rows, x, columns, entries, out);
  contract_rows<T, 2>(slopes, r, rows, x, columns, entries, out);
  contract_rows<T, 1>(slopes, r, rows, x, columns, entries, out);
}

template <typename T> void sum_rows(const T* const* slopes, int rows, int entries, T* out) {
  constexpr int L = Simd<T>::LANES, W = Simd<T>::WIDTH;
  for (int r = 0; r < rows; ++r) {
    Vec<T> sum = {};
    for (int e = 0; e < entries; ++e)
      for (int v = 0; v < VECS; ++v) sum += load<T>(slopes[e] + r * L + v * W);
    out[r] += sum_of<T>(sum);
  }
}

// ---- tiles ---------------------------------------------------------------------------------------------------------

template <typename T> struct Buffer {  // uninitialised, aligned
  T* data;
  explicit Buffer(size_t count) : data((T*)std::aligned_alloc(64, (count * sizeof(T) + 63) / 64 * 64)) {}
  ~Buffer() { std::free(data); }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
};

// features [N][F] of the coordinates of a tile, as F rows of LANES; beyond N zeros.
template <typename T> LREG_INLINE void gather(const T* from, int64_t first, int64_t coordinates, int features, T* rows) {
  constexpr int L = Simd<T>::LANES;
  int there = (int)(coordinates - first < L ? coordinates - first : L);
  for (int f = 0; f < features; ++f) {
    for (int lane = 0; lane < there; ++lane) rows[f * L + lane] = from[(first + lane) * features + f];
    for (int lane = there; lane < L; ++lane) rows[f * L + lane] = T(0);
  }
}

template <typename T> LREG_INLINE void scatter(const T* rows, int64_t first, int64_t coordinates, int features, T* to) {
  constexpr int L = Simd<T>::LANES;
  int there = (int)(coordinates - first < L ? coordinates - first : L);
  for (int f = 0; f < features; ++f)
    for (int lane = 0; lane < there; ++lane) to[(first + lane) * features + f] = rows[f * L + lane];
}

template <typename T>
void forward(const Shape& s, T scale, const Weights<T>& w, int64_t coordinates, const T* features, const T* state, T* next,
             T* update, int threads) {
  constexpr int L = Simd<T>::LANES;
  const int H = s.hidden, rows = state_rows(s);
  const int64_t tiles = (coordinates + L - 1) / L;
  const Kept at(s);
#pragma omp parallel num_threads(threads)
  {
    Buffer<T> in(s.features * L), entered(H * L), raw(3 * L);
#pragma omp for schedule(dynamic, 4)
    for (int64_t tile = 0; tile < tiles; ++tile) {
      gather<T>(features, tile * L, coordinates, s.features, in.data);
      const T* x = in.data;
      if (s.pre) { pre_layer<T>(s, w, x, entered.data); x = entered.data; }
      for (int l = 0; l < s.layers; ++l) {
        if (s.kind == LSTM) {
          const T* h = state + (tile * rows + l * 2 * H) * L;
          T* out = next + (tile * rows + l * 2 * H) * L;
          lstm_layer<T, false>(H, x, fan_in(s, l), h, h + H * L, nullptr, w.input[l], w.hidden[l], w.bias[l], out,
                               out + H * L, nullptr, at);
          x = out;
        } else {
          T* out = next + (tile * rows + l * H) * L;
          rnn_layer<T>(H, x, fan_in(s, l), state + (tile * rows + l * H) * L, nullptr, w.input[l], w.hidden[l], out);
          x = out;
        }
      }
      head<T>(s, w, x, raw.data);
      output<T>(s, scale, raw.data, raw.data + L, raw.data + 2 * L);
      scatter<T>(raw.data + L, tile * L, coordinates, 1, update);
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
};

template <typename T> struct Tile {
  const Shape& s;
  const Weights<T>& w;
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
      T* kept = layer(e, l);
      const T* known = base ? base + (int64_t)l * gates_of(s) * H * L : nullptr;
      if (s.kind == LSTM)
        lstm_layer<T, true>(H, input_of(e, l), fan_in(s, l), e.before[l], e.cells[l], known, w.input[l], w.hidden[l],
                            w.bias[l], nullptr, nullptr, kept, at);
      else
        rnn_layer<T>(H, input_of(e, l), fan_in(s, l), e.before[l], known, w.input[l], w.hidden[l], kept + at.out * L);
    }
    T raw[L] __attribute__((aligned(64)));
    head<T>(s, w, layer(e, s.layers - 1) + at.out * L, raw);
    output<T>(s, scale, raw, update, e.output);
  }

  // From the slope of the update, du, [LANES], and those of the state after the step, dstate (state rows; null: none),
  // to those of the gates (kept in the entry) and of the state before, added up in dbefore. dx: H rows of scratch.
  // dfeatures: F rows, or null.
  void pull(const Entry<T>& e, const T* du, T* dh_all, T* dc_all, bool alone, T* dx, T* dfeatures) const {
    constexpr int L = Simd<T>::LANES, W = Simd<T>::WIDTH;
    const int H = s.hidden, G = gates_of(s);
    for (int v = 0; v < VECS; ++v) store<T>(e.output + v * W, load<T>(e.output + v * W) * load<T>(du + v * W));
    for (int l = s.layers - 1; l >= 0; --l) {
      T* kept = layer(e, l);
      T* dh = dh_all + l * H * L;
      for (int k = 0; k < H; ++k)
        for (int v = 0; v < VECS; ++v) {
          T* to = dh + k * L + v * W;
          Vec<T> above = l == s.layers - 1 ? w.head_weight[k] * load<T>(e.output + v * W) : load<T>(dx + k * L + v * W);
          store<T>(to, alone ? above : load<T>(to) + above);
        }
      if (s.kind == LSTM)
        lstm_slopes<T>(H, kept, at, e.cells[l], dh, dc_all + l * H * L, alone);
      else
        rnn_slopes<T>(H, kept, at, dh);
      const T* slopes = kept + at.gates * L;
      if (l || s.pre || dfeatures) pull_to_inputs<T>(w.input[l], fan_in(s, l), G * H, slopes, l || s.pre ? dx : dfeatures, false);
    }
    if (s.pre) {
      for (int i = 0; i < H * L; i += W) {
        Vec<T> y = load<T>(e.entered + i), d = load<T>(dx + i);
        store<T>(dx + i, y > T(0) ? d : d * (y + T(1)));
      }
      if (dfeatures) pull_to_inputs<T>(w.pre_weight, s.features, H, dx, dfeatures, false);
    }
  }

  // The slopes of h before the step, from those of the gates; added where the step is a side branch.
  void pull_to_state(const Entry<T>& e, T* dh_all, bool add) const {
    constexpr int L = Simd<T>::LANES;
    const int H = s.hidden;
    for (int l = 0; l < s.layers; ++l)
      pull_to_inputs<T>(w.hidden[l], H, gates_of(s) * H, layer(e, l) + at.gates * L, dh_all + l * H * L, add);
  }
};

// The segment's part of the gradient by the meta-parameters, and the slopes of the state at its start.
//
// du [steps][N]: slopes of the updates. dstate: slopes of the state after the segment in, before it out. branch [steps]
// [N][F] with branch_du: a second input to every step from the same state, whose state goes nowhere (null: none).
// groups: sums are made in this many fixed groups of tiles, so that the result does not depend on the threads.
template <typename T>
void backward(const Shape& s, T scale, const Weights<T>& w, int64_t coordinates, int steps, const T* features,
              const T* state, const T* du, T* dstate, const T* branch, const T* branch_du, int groups, T* gradients,
              const int64_t* offsets, int64_t gradient_size, int threads) {
  constexpr int L = Simd<T>::LANES, W = Simd<T>::WIDTH;
  const int H = s.hidden, G = gates_of(s), rows = state_rows(s), entries = branch ? 2 * steps : steps;
  const int64_t tiles = (coordinates + L - 1) / L;
  const Tile<T> tile{s, w, scale, Kept(s)};
  const int entry_size = tile.entry_rows() * L;
  const int pieces = s.kind == LSTM ? 2 : 1;
#pragma omp parallel for schedule(dynamic) num_threads(threads)
  for (int group = 0; group < groups; ++group) {
    T* mine = gradients + group * gradient_size;
    std::memset(mine, 0, gradient_size * sizeof(T));
    T* pointers[32];
    int count = (s.pre ? 2 : 0) + 3 * (int)s.layers + 2;
    for (int i = 0; i < count; ++i) pointers[i] = offsets[i] < 0 ? nullptr : mine + offsets[i];
    Weights<T> grad(s, pointers);
    Buffer<T> memory((size_t)entries * entry_size), slopes((4 * s.layers * H + 3 * H + 4) * L);
    T *dh = slopes.data, *dc = dh + s.layers * H * L, *side_dh = dc + s.layers * H * L, *side_dc = side_dh + s.layers * H * L;
    T *dx = side_dc + s.layers * H * L, *line = dx + H * L;
    Buffer<T> entering(s.pre ? (size_t)entries * H * L : 1);  // slopes of the layer before
    std::vector<Entry<T>> entry(entries);
    std::vector<const T*> left(entries), right(entries), ones(entries);
    for (int e = 0; e < entries; ++e) entry[e] = tile.place(memory.data + (int64_t)e * entry_size);
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
        gather<T>(features + (int64_t)t * coordinates * s.features, number * L, coordinates, s.features, entry[t].in);
        tile.run(entry[t], nullptr, line);
        if (branch) {
          Entry<T>& side = entry[steps + t];
          if (t) tile.after(side, entry[t - 1]); else tile.start(side, start);
          gather<T>(branch + (int64_t)t * coordinates * s.features, number * L, coordinates, s.features, side.in);
          tile.run(side, nullptr, line);
        }
      }
      for (int t = steps - 1; t >= 0; --t) {
        gather<T>(du + (int64_t)t * coordinates, number * L, coordinates, 1, line);
        tile.pull(entry[t], line, dh, dc, false, dx, nullptr);
        if (s.pre) std::memcpy(entering.data + (int64_t)t * H * L, dx, H * L * sizeof(T));
        tile.pull_to_state(entry[t], dh, false);
        if (branch) {
          const Entry<T>& side = entry[steps + t];
          gather<T>(branch_du + (int64_t)t * coordinates, number * L, coordinates, 1, line);
          tile.pull(side, line, side_dh, side_dc, true, dx, nullptr);
          if (s.pre) std::memcpy(entering.data + (int64_t)(steps + t) * H * L, dx, H * L * sizeof(T));
          tile.pull_to_state(side, dh, true);
          if (s.kind == LSTM)
            for (int i = 0; i < s.layers * H * L; i += W) store<T>(dc + i, load<T>(dc + i) + load<T>(side_dc + i));
        }
      }
      for (int l = 0; l < s.layers; ++l) {
        std::memcpy(carried + l * pieces * H * L, dh + l * H * L, H * L * sizeof(T));
        if (s.kind == LSTM) std::memcpy(carried + (l * 2 + 1) * H * L, dc + l * H * L, H * L * sizeof(T));
        for (int e = 0; e < entries; ++e) {
          left[e] = tile.layer(entry[e], l) + tile.at.gates * L;
          right[e] = tile.input_of(entry[e], l);
        }
        contract<T>(left.data(), G * H, right.data(), fan_in(s, l), entries, grad.input[l]);
        for (int e = 0; e < entries; ++e) right[e] = entry[e].before[l];
        contract<T>(left.data(), G * H, right.data(), H, entries, grad.hidden[l]);
        if (grad.bias[l]) sum_rows<T>(left.data(), G * H, entries, grad.bias[l]);
      }
      for (int e = 0; e < entries; ++e) {
        left[e] = entry[e].output;
        right[e] = tile.layer(entry[e], s.layers - 1) + tile.at.out * L;
      }
      contract<T>(left.data(), 1, right.data(), H, entries, grad.head_weight);
      if (grad.head_bias) sum_rows<T>(left.data(), 1, entries, grad.head_bias);
      if (s.pre) {
        for (int e = 0; e < entries; ++e) {
          left[e] = entering.data + (int64_t)e * H * L;
          right[e] = entry[e].in;
        }
        contract<T>(left.data(), H, right.data(), s.features, entries, grad.pre_weight);
        sum_rows<T>(left.data(), H, entries, grad.pre_bias);
      }
    }
  }
}

// Projected sign ascent of (u(s) - u(s'))^2 from `offset` [N][F] in the box of half-width epsilon, the state held
// fixed; the first `free` features move. Out: the offset found, and the update there.
template <typename T>
void ascent(const Shape& s, T scale, const Weights<T>& w, int64_t coordinates, const T* features, const T* state,
            const T* clean, T epsilon, T length, int iterations, int free, T* offset, T* update, int threads) {
  constexpr int L = Simd<T>::LANES, W = Simd<T>::WIDTH;
  const int H = s.hidden, G = gates_of(s), F = s.features, rows = state_rows(s);
  const int64_t tiles = (coordinates + L - 1) / L;
  const Tile<T> tile{s, w, scale, Kept(s)};
#pragma omp parallel num_threads(threads)
  {
    Buffer<T> memory(tile.entry_rows() * L), base(s.layers * G * H * L), slopes((2 * s.layers * H + H + 3 * F + 4) * L);
    T *dh = slopes.data, *dc = dh + s.layers * H * L, *dx = dc + s.layers * H * L, *center = dx + H * L;
    T *moved = center + F * L, *uphill = moved + F * L, *wanted = uphill + F * L, *found = wanted + L, *du = found + L;
    Entry<T> e = tile.place(memory.data);
#pragma omp for schedule(dynamic, 4)
    for (int64_t number = 0; number < tiles; ++number) {
      gather<T>(features, number * L, coordinates, F, center);
      gather<T>(offset, number * L, coordinates, F, moved);
      gather<T>(clean, number * L, coordinates, 1, wanted);
      tile.start(e, state + number * rows * L);
      for (int l = 0; l < s.layers; ++l)
        affine<T>(G * H, e.before[l], H, w.hidden[l], w.bias[l], base.data + (int64_t)l * G * H * L);
      for (int k = 0; k <= iterations; ++k) {
        for (int i = 0; i < F * L; i += W) store<T>(e.in + i, load<T>(center + i) + load<T>(moved + i));
        tile.run(e, base.data, found);
        if (k == iterations) break;
        for (int v = 0; v < VECS; ++v) store<T>(du + v * W, T(2) * (load<T>(found + v * W) - load<T>(wanted + v * W)));
        tile.pull(e, du, dh, dc, true, dx, uphill);
        for (int i = 0; i < (free < F ? free : F) * L; i += W) {
          Vec<T> up = load<T>(uphill + i), zero = {};
          Vec<T> step = up > T(0) ? zero + length : (up < T(0) ? zero - length : zero);
          Vec<T> at = load<T>(moved + i) + step;
          at = at > epsilon ? zero + epsilon : at;
          store<T>(moved + i, at < -epsilon ? zero - epsilon : at);
        }
      }
      scatter<T>(moved, number * L, coordinates, F, offset);
      scatter<T>(found, number * L, coordinates, 1, update);
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

}  // namespace

// ---- C interface ---------------------------------------------------------------------------------------------------

#define LREG_EXPORT(T, name)                                                                                           \
  extern "C" void lreg_forward_##name(const int64_t* shape, T scale, T* const* weights, int64_t coordinates,          \
                                      const T* features, const T* state, T* next, T* update, int threads) {            \
    const Shape s = *(const Shape*)shape;                                                                              \
    forward<T>(s, scale, Weights<T>(s, weights), coordinates, features, state, next, update, threads);                 \
  }                                                                                                                    \
  extern "C" void lreg_backward_##name(const int64_t* shape, T scale, T* const* weights, int64_t coordinates,         \
                                       int steps, const T* features, const T* state, const T* du, T* dstate,           \
                                       const T* branch, const T* branch_du, int groups, T* gradients,                  \
                                       const int64_t* offsets, int64_t size, int threads) {                            \
    const Shape s = *(const Shape*)shape;                                                                              \
    backward<T>(s, scale, Weights<T>(s, weights), coordinates, steps, features, state, du, dstate, branch, branch_du,  \
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

LREG_EXPORT_REPACK(float, float)
LREG_EXPORT_REPACK(double, double)
LREG_EXPORT(float, float)
LREG_EXPORT(double, double)

extern "C" int lreg_lanes(int bytes) { return bytes == 4 ? Simd<float>::LANES : Simd<double>::LANES; }
extern "C" int lreg_version() { return 1; }
