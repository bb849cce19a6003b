// Constants and plain types shared by every layer. No function bodies: the ISA folders include this header, and an
// inline function compiled in two of them would be one symbol with two instruction sets (D3, D4).
#pragma once

#include <cstdint>

namespace quintil {

constexpr int64_t kTile = 32;           // default run of products that share one accumulator [HDQT H3]
constexpr int64_t kPanel = 32;          // columns of one packed panel of B
constexpr int64_t kWidePanel = 64;      // columns of one panel of B where every lane is a column
constexpr int64_t kDepth = 4;           // products that one dot-product instruction adds into an int32 lane
constexpr float kStepEpsilon = 1e-32f;  // added to every step before the division: a zero tensor gives codes 0
constexpr float kStochasticCap = 1e8f;  // stochastic ranges stop here [HDQT H8]
constexpr int64_t kSumChunk = 4096;     // elements that one sum in double runs over (N8)
constexpr int64_t kSumLanes = 8;        // interleaved partial sums of a chunk

// Which operand a random draw belongs to: the last word of the Philox counter (N6).
enum class Site : uint32_t {
  kSingle = 0,           // the op `quantize` on its own
  kForwardWeight = 1,    // fw
  kForwardInput = 2,     // fa
  kInputGradWeight = 3,  // b1w
  kInputGradGrad = 4,    // b1g
  kWeightGradInput = 5,  // b2a
  kWeightGradGrad = 6,   // b2g
  kWeightGradDc = 7,     // b2g, the first rows of blocks where they stand apart [HDQT H23]
  kLuqSample = 16,       // draw j of LUQ has the site 16 + j
};

// What an accumulator of A bits does with a tile sum that does not fit.
enum class Overflow : int32_t { kNone = 0, kSaturate = 1, kWrap = 2 };

// max|x| as the bit pattern of the float without its sign (an integer maximum: order-free, and NaN > Inf > finite),
// and whether any x < 0 (-0.0 is not).
struct AbsMax {
  uint32_t bits;
  uint32_t negative;
};

// code = clamp(round(x / divisor), lo, hi), stored as the byte code + zero (zero = 0 stores it in two's complement).
struct CodeGrid {
  float divisor;  // step + kStepEpsilon
  int32_t lo;
  int32_t hi;
  int32_t zero;
};

// How a number becomes an integer where ties are the point [DR D5].
enum class Rounding : int32_t { kHalfEven = 0, kHalfUp = 1, kFloor = 2 };

// A quantiser whose step is given and learned [DR D1-D8, D10-D13]: with z = (x - offset) / divisor,
//   y = clamp(round(shrink z), lo, top) * step + offset
// where z is rounded to an integer before, if that integer is what a model stores. lo..hi is the range of the gradient.
struct StepGrid {
  float divisor;  // stored step + kStepEpsilon
  float offset;
  float shrink;  // 2^-D, D = stored bits - bits of y
  float step;    // stored step * 2^D
  float lo;
  float hi;
  float top;             // hi, or less: what the largest stored integer rounds to
  Rounding rounding;     // of shrink z
  bool stored;           // z is rounded, half to even, before
  bool mask_on_rounded;  // the gradient asks the rounded number, not shrink z, whether it lies in lo..hi
  bool single_residual;  // the gradient of the step compares with round(shrink z) although `stored`
};

// To the codes of a lower width: clamp(round(q / 2^shift), lo, hi) [DR D2].
struct Narrowing {
  int32_t shift;
  int32_t lo;
  int32_t hi;
  Rounding rounding;
};

// Sums of a gradient over a chunk, without the factor of the step.
struct StepSums {
  double step;
  double offset;
};

// Half-integer levels v = clamp(rint(x / divisor - 1/2), lo, hi) + 1/2, whose codes are v - 1/2 [VECQ V3, V9].
struct LevelGrid {
  float divisor;  // step + kStepEpsilon
  float lo;
  float hi;
};

// What a number on level v becomes: alpha v [VECQ V6], or with a ratio other than 0
// alpha v + ratio (clamp(x, floor, ceiling) - alpha v) [VECQ V8].
struct LevelValue {
  float alpha;
  float ratio;
  float floor;
  float ceiling;
};

// Sums over a chunk of x - pivot and its square.
struct Moments {
  double sum;
  double squares;
};

// Sums over a chunk of v x, v v and x x, and the extreme codes; of nothing least > most.
struct LevelSums {
  double vx;
  double vv;
  double xx;
  int32_t least;
  int32_t most;
};

// Sums over a chunk of x y, y y, x x and (x - y)^2.
struct PairSums {
  double xy;
  double yy;
  double xx;
  double error;
};

// Floats with a list of significands. A magnitude of binade d, whose exponent field is first_exponent - d, is rounded to a
// multiple of steps[d]; below the last binade to one of the last step; above the first it becomes `top`, where all stop
// [HDQT H18, H19]. Steps and their inverses are powers of two and normal numbers.
struct MinifloatGrid {
  const float* steps;
  const float* inverses;
  int32_t binades;  // at least 1
  int32_t first_exponent;
  float top;
};

// The stream of random numbers of one operand. `bits` is 16, or 8 for the site b2a (N5).
struct Draw {
  uint32_t key_low;
  uint32_t key_high;
  uint32_t site;
  int32_t bits;
};

// One product C = A B with the accumulator law applied tile by tile.
//   a(m, k) = a[m * a_row + k], bytes holding code + zero
//   b       = panels of 32 columns, [n / 32][k4][32][4] signed bytes
//   start   = [n / 32][tiles][32], -zero * (sum of B over the tile): what each accumulator starts from
// k counts padded: every tile is lengthened to a multiple of 4 with b = 0, where the byte of A does not matter.
struct Gemm {
  const uint8_t* a;
  int64_t a_row;
  const int8_t* b;
  const int32_t* start;
  int64_t m;
  int64_t n;
  int64_t k4;       // groups of 4 products in all
  int64_t tile_k4;  // groups of 4 products in a tile; the last tile may be shorter
  Overflow overflow;
  int32_t limit;  // L = 2^(A-1)-1 with kSaturate
  int32_t shift;  // 32 - A with kWrap
  int32_t max_a;  // largest byte of A
  int32_t max_b;  // largest |b|
};

// One product C = A B whose accumulator is limited to +-limit after every multiply-add, k ascending in a tile; tiles add up
// without limit.
//   a(m, k) as in Gemm
//   b       = panels of 64 columns, [n / 64][k][64] bytes; k padded as in Gemm
struct EveryMacGemm {
  const uint8_t* a;
  int64_t a_row;
  const int8_t* b;
  int64_t m;
  int64_t n;
  int64_t k4;
  int64_t tile_k4;
  int32_t zero;
  int32_t limit;
};

// float(total) * scale[0] * scale[1] * scale[2] * inverse, each its own rounding (N9), then + bias[n] if there is one.
struct Epilogue {
  float scale[3];
  float inverse;      // 1 / p of the undone transform; a power of two or 1
  const float* bias;  // nullable
};

// float(total) * column_scale[n] * scale * inverse, each its own rounding (N9), then + bias[n] and + residual(m, n) if
// there are any; with relu, 0 for what is < 0.
struct ColumnEpilogue {
  const float* column_scale;
  float scale;
  float inverse;          // a power of two
  const float* bias;      // nullable
  const float* residual;  // nullable
  int64_t residual_ld;
  bool relu;
};

// The reference product over int32 operands, a(m, k) = a[m * a_row + k * a_col], b(k, n) = b[k * b_row + n]: every accumulate
// mode, any code width.
struct WideGemm {
  const int32_t* a;
  int64_t a_row, a_col;
  const int32_t* b;
  int64_t b_row;
  int64_t m, n, k;
  int64_t tile;    // 0: one tile
  bool every_mac;  // the limit acts after each product, k ascending
  Overflow overflow;
  int32_t limit;
  int32_t shift;
};

// Batch normalisation of integer sums x [rows, cols], one channel per column. The bit c % 8 of byte c / 8 of a row of `positive`
// [rows, (cols + 7) / 8] says that the gradient passes the ReLU there.
struct NormForward {
  const float* scale;  // y = x * scale + shift, then + residual
  const float* shift;
  const float* residual;  // [rows, cols], nullable
  bool relu;              // then y = 0 > y ? 0 : y
};
struct NormBackward {
  const float* scale;  // normalised = x * scale + shift
  const float* shift;
  const float* mean_grad;     // mean over the rows of grad,
  const float* mean_product;  // and of grad * normalised
  const float* gain;          // dx = ((grad - mean_grad) - normalised * mean_product) * gain
};

// A 2-d convolution of one channels-last image [height][width][channels].
struct ConvShape {
  int64_t height, width, channels;
  int64_t kernel_h, kernel_w;
  int64_t stride_h, stride_w;
  int64_t pad_h, pad_w;
  int64_t dilation_h, dilation_w;
  int64_t out_h, out_w;
  bool channels_last_taps;  // k runs over (kh, kw, c) [khwc], else over (c, kh, kw) [chw]
};

}  // namespace quintil
