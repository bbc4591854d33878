"""What every generated C file begins with: elementary functions, products in tiles, and rows that have an exponent."""

LANES = 16
"""Numbers that a segment of a row is padded to a multiple of: a vector register of AVX-512, or two of AVX2."""

PRELUDE = r"""
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

/* Loops over numbers of which none is read after another of them was written. */
#if defined(__clang__)
#define INDEPENDENT _Pragma("clang loop vectorize(assume_safety)")
#else
#define INDEPENDENT _Pragma("GCC ivdep")
#endif
#define INLINE static inline __attribute__((always_inline))

#if defined(__AVX512F__)
#define WIDE 16
#else
#define WIDE 8
#endif
typedef float vector __attribute__((vector_size(4 * WIDE), aligned(4)));

INLINE float of_bits(int32_t bits) { float x; memcpy(&x, &bits, 4); return x; }
INLINE int32_t bits_of(float x) { int32_t bits; memcpy(&bits, &x, 4); return bits; }

/* e^x by the polynomial of Cephes' expf, relative error 1e-7; denormal results are zero. */
INLINE float exponential(float x) {
  float inside = x > 88.72283f ? 88.72283f : x;
  inside = inside < -87.33654f ? -87.33654f : inside;
  float shifted = inside * 1.44269504f + 12582912.0f;
  float whole = shifted - 12582912.0f;
  float r = inside - whole * 0.693359375f;
  r = r + whole * 2.12194440e-4f;
  float p = 1.9875691500e-4f;
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 0.5f;
  p = p * r * r + r + 1.0f;
  /* In two factors: 2^128 is no float, and the result may be one. */
  int32_t n = bits_of(shifted) - 0x4b400000;
  int32_t half = n >> 1;
  p = p * of_bits((half + 127) << 23) * of_bits((n - half + 127) << 23);
  p = x > 88.72283f ? INFINITY : p;
  return x < -87.33654f ? 0.0f : p;
}

/* e^x - 1: a polynomial near 0. */
INLINE float exponential_less_one(float x) {
  float p = 1.98412698e-4f;
  p = p * x + 1.38888889e-3f;
  p = p * x + 8.33333333e-3f;
  p = p * x + 4.16666667e-2f;
  p = p * x + 1.66666667e-1f;
  p = p * x + 0.5f;
  p = p * x * x + x;
  float size = x < 0.0f ? -x : x;
  return size < 0.3f ? p : exponential(x) - 1.0f;
}

/* ln x by the polynomial of Cephes' logf; -infinity at 0 and NaN below. */
INLINE float logarithm(float x) {
  int32_t bits = bits_of(x);
  int32_t n = (bits >> 23) - 126;
  float m = of_bits((bits & 0x007fffff) | 0x3f000000);
  int32_t low = m < 0.70710678f;
  n -= low;
  m = low ? m + m - 1.0f : m - 1.0f;
  float whole = (float)n;
  float square = m * m;
  float p = 7.0376836292e-2f;
  p = p * m - 1.1514610310e-1f;
  p = p * m + 1.1676998740e-1f;
  p = p * m - 1.2420140846e-1f;
  p = p * m + 1.4249322787e-1f;
  p = p * m - 1.6668057665e-1f;
  p = p * m + 2.0000714765e-1f;
  p = p * m - 2.4999993993e-1f;
  p = p * m + 3.3333331174e-1f;
  p = p * m * square;
  p = p + whole * -2.12194440e-4f;
  p = p - 0.5f * square;
  float found = m + p + whole * 0.693359375f;
  found = x < 1.17549435e-38f ? -INFINITY : found;
  found = x < 0.0f ? NAN : found;
  found = x > 3.4028234e38f ? INFINITY : found;
  return x != x ? x : found;
}

/* ln(1 + x), exact where 1 + x is rounded. */
INLINE float logarithm_of_one_plus(float x) {
  float sum = 1.0f + x;
  float rounded = sum - 1.0f;
  /* Taken once: a second call in one branch of a choice keeps the compiler from vector code. */
  float plain = logarithm(sum);
  float found = plain * (x / (rounded == 0.0f ? 1.0f : rounded));
  found = rounded == 0.0f ? x : found;
  found = sum > 3.4028234e38f ? plain : found;
  return sum <= 0.0f ? plain : found;
}

INLINE float logistic(float x) { return 1.0f / (1.0f + exponential(-x)); }

/* tanh x: by Cephes' polynomial near 0, otherwise by the exponential. */
INLINE float hyperbolic_tangent(float x) {
  float square = x * x;
  float p = -5.70498872745e-3f;
  p = p * square + 2.06390887954e-2f;
  p = p * square - 5.37397155531e-2f;
  p = p * square + 1.33314422036e-1f;
  p = p * square - 3.33333332819e-1f;
  float near = p * square * x + x;
  float size = x < 0.0f ? -x : x;
  float far = 1.0f - 2.0f / (exponential(size + size) + 1.0f);
  far = x < 0.0f ? -far : far;
  return size < 0.625f ? near : far;
}

/* out[rows, columns] += a[rows, depth] w[depth, columns], the sums in registers. */
#define TILE(ROWS, VECTORS) \
  INLINE void tile_##ROWS##_##VECTORS(long depth, const float *a, long lda, const float *w, long ldw, float *out, \
                                      long ldo) { \
    vector sums[ROWS][VECTORS]; \
    for (int r = 0; r < ROWS; r++) \
      for (int v = 0; v < VECTORS; v++) sums[r][v] = *(const vector *)(out + r * ldo + v * WIDE); \
    for (long k = 0; k < depth; k++) { \
      vector line[VECTORS]; \
      for (int v = 0; v < VECTORS; v++) line[v] = *(const vector *)(w + k * ldw + v * WIDE); \
      for (int r = 0; r < ROWS; r++) \
        for (int v = 0; v < VECTORS; v++) sums[r][v] += a[r * lda + k] * line[v]; \
    } \
    for (int r = 0; r < ROWS; r++) \
      for (int v = 0; v < VECTORS; v++) *(vector *)(out + r * ldo + v * WIDE) = sums[r][v]; \
  }
#define DOWN(VECTORS) \
  TILE(4, VECTORS) TILE(2, VECTORS) TILE(1, VECTORS) \
  static void down_##VECTORS(long rows, long depth, const float *a, long lda, const float *w, long ldw, float *out, \
                             long ldo) { \
    long r = 0; \
    for (; r + 4 <= rows; r += 4) tile_4_##VECTORS(depth, a + r * lda, lda, w, ldw, out + r * ldo, ldo); \
    for (; r + 2 <= rows; r += 2) tile_2_##VECTORS(depth, a + r * lda, lda, w, ldw, out + r * ldo, ldo); \
    for (; r < rows; r++) tile_1_##VECTORS(depth, a + r * lda, lda, w, ldw, out + r * ldo, ldo); \
  }
DOWN(1)
DOWN(2)
#if WIDE == 16
DOWN(4)
#else
DOWN(3)
#endif

static void add_product(long rows, long depth, const float *a, long lda, const float *w, long columns, float *out,
                        long ldo) {
  long column = 0;
  while (column < columns) {
    long left = (columns - column) / WIDE;
#define DOWN_BY(VECTORS) \
    { down_##VECTORS(rows, depth, a, lda, w + column, columns, out + column, ldo); column += VECTORS * WIDE; }
#if WIDE == 16
    if (left >= 4) DOWN_BY(4)
#else
    /* Of four vectors, a tile of three would leave a single one, which takes as long as two. */
    if (left >= 3 && left != 4) DOWN_BY(3)
#endif
    else if (left >= 2) DOWN_BY(2)
    else DOWN_BY(1)
  }
}

/* out[left, columns] += the sum over steps and rows of a[left] g[columns], each row an outer product. */
#define OUTER_TILE(ROWS, VECTORS) \
  INLINE void outer_##ROWS##_##VECTORS(long steps, long rows, const float *a, long a_step, long lda, const float *g, \
                                       long g_step, long ldg, float *out, long ldo) { \
    vector sums[ROWS][VECTORS]; \
    for (int r = 0; r < ROWS; r++) \
      for (int v = 0; v < VECTORS; v++) sums[r][v] = *(const vector *)(out + r * ldo + v * WIDE); \
    for (long s = 0; s < steps; s++) \
      for (long b = 0; b < rows; b++) { \
        const float *factor = a + s * a_step + b * lda, *own = g + s * g_step + b * ldg; \
        vector line[VECTORS]; \
        for (int v = 0; v < VECTORS; v++) line[v] = *(const vector *)(own + v * WIDE); \
        for (int r = 0; r < ROWS; r++) \
          for (int v = 0; v < VECTORS; v++) sums[r][v] += factor[r] * line[v]; \
      } \
    for (int r = 0; r < ROWS; r++) \
      for (int v = 0; v < VECTORS; v++) *(vector *)(out + r * ldo + v * WIDE) = sums[r][v]; \
  }
#define OUTER_DOWN(VECTORS) \
  OUTER_TILE(4, VECTORS) OUTER_TILE(2, VECTORS) OUTER_TILE(1, VECTORS) \
  static void outer_down_##VECTORS(long steps, long rows, long left, const float *a, long a_step, long lda, \
                                   const float *g, long g_step, long ldg, float *out, long ldo) { \
    long r = 0; \
    for (; r + 4 <= left; r += 4) \
      outer_4_##VECTORS(steps, rows, a + r, a_step, lda, g, g_step, ldg, out + r * ldo, ldo); \
    for (; r + 2 <= left; r += 2) \
      outer_2_##VECTORS(steps, rows, a + r, a_step, lda, g, g_step, ldg, out + r * ldo, ldo); \
    for (; r < left; r++) outer_1_##VECTORS(steps, rows, a + r, a_step, lda, g, g_step, ldg, out + r * ldo, ldo); \
  }
OUTER_DOWN(1)
OUTER_DOWN(2)
#if WIDE == 16
OUTER_DOWN(4)
#else
OUTER_DOWN(3)
#endif

static void add_outer(long steps, long rows, long left, const float *a, long a_step, long lda, const float *g,
                      long g_step, long ldg, long columns, float *out) {
  long c = 0;
  while (c < columns) {
    long rest = (columns - c) / WIDE;
#define OUTER(VECTORS) \
    { \
      outer_down_##VECTORS(steps, rows, left, a, a_step, lda, g + c, g_step, ldg, out + c, columns); \
      c += VECTORS * WIDE; \
    }
#if WIDE == 16
    if (rest >= 4) OUTER(4)
#else
    if (rest >= 3 && rest != 4) OUTER(3)
#endif
    else if (rest >= 2) OUTER(2)
    else OUTER(1)
  }
}

/* out[columns] += the sum of g over steps and rows. */
static void add_sum(long steps, long rows, const float *g, long g_step, long ldg, long columns, float *out) {
  for (long s = 0; s < steps; s++)
    for (long b = 0; b < rows; b++) {
      const float *own = g + s * g_step + b * ldg;
      INDEPENDENT
      for (long i = 0; i < columns; i++) out[i] += own[i];
    }
}

/* Rows of numbers with an exponent each: row * 2^exponent. */
#define ZERO_EXPONENT (-(1 << 20))

INLINE float power_of_two(int32_t n) {
  if (n < -126) return 0.0f;
  return of_bits(((n > 128 ? 128 : n) + 127) << 23);
}

INLINE int32_t exponent_of(float x) { return ((bits_of(x) >> 23) & 255) - 127; }

/* row *= 2^n, in two factors, since 2^n itself may be out of range when the result is not. */
INLINE void scale(float *row, long size, int32_t n) {
  float first = power_of_two(n >> 1), second = power_of_two(n - (n >> 1));
  INDEPENDENT
  for (long i = 0; i < size; i++) row[i] = row[i] * first * second;
}

INLINE int in_range(float squares) { return (squares >= 0x1p-32f && squares <= 0x1p32f) || squares != squares; }

INLINE float sum_of_squares(const float *row, long size) {
  float parts[WIDE] = {0};
  long i = 0;
  for (; i + WIDE <= size; i += WIDE)
    for (int k = 0; k < WIDE; k++) parts[k] += row[i + k] * row[i + k];
  float total = 0;
  for (; i < size; i++) total += row[i] * row[i];
  for (int k = 0; k < WIDE; k++) total += parts[k];
  return total;
}

INLINE float largest(const float *row, long size) {
  float found = 0;
  for (long i = 0; i < size; i++) {
    float one = fabsf(row[i]);
    found = one > found ? one : found;
  }
  return found;
}

/* The sum of squares s and n with |row|^2 = s 4^n; n is 0 where s is near 1. */
INLINE float squares_and_exponent(const float *row, long size, int32_t *n) {
  float squares = sum_of_squares(row, size);
  *n = 0;
  if (in_range(squares)) return squares;
  float most = largest(row, size);
  if (most == 0 || most == INFINITY) return most;
  *n = exponent_of(most);
  float first = power_of_two((-*n) >> 1), second = power_of_two(-*n - ((-*n) >> 1)), total = 0;
  for (long i = 0; i < size; i++) {
    float value = row[i] * first * second;
    total += value * value;
  }
  return total;
}

/* row * 2^exponent += added in the segment that begins at `offset`; `size` numbers in the row, `count` added. */
static void add_to_row(float *row, long size, int32_t *exponent, long offset, const float *added, long count) {
  float most = 0;
  int not_finite = 0;
  for (long i = 0; i < count; i++) {
    float one = fabsf(added[i]);
    not_finite |= !(one < INFINITY);
    most = one > most ? one : most;
  }
  if (most == 0 && !not_finite) return;
  int32_t own = not_finite ? 0 : exponent_of(most);
  if (own > *exponent) {
    scale(row, size, *exponent - own);
    *exponent = own;
  }
  float first = power_of_two((-*exponent) >> 1), second = power_of_two(-*exponent - ((-*exponent) >> 1));
  for (long i = 0; i < count; i++) row[offset + i] += added[i] * first * second;
}
"""
