// MS-SSIM of one pair of planes and its slopes, as derived in attacker_metrics/ms_ssim.py.

#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <limits>
#include <utility>
#include <vector>

#include "attackers.h"
#include "basics.h"
#include "program.h"

namespace {

constexpr float C1 = 0.01f * 0.01f, C2 = 0.03f * 0.03f;
constexpr double BENT_BELOW = 0.01;  // terms, when folded

constexpr int TAPS = 11, HALO = TAPS - 1, MIDDLE = TAPS / 2;
constexpr int ROWS = 5;             // that are filtered together, so that a loaded row serves several sums
constexpr int DEPTH = ROWS + HALO;  // rows that this takes
constexpr int MARGIN = 16;          // columns of zeros beside a row that the transposed filter reads

enum Moment { SQUARES = Y + 1, PRODUCT, MOMENTS };              // the maps that are filtered besides x and y
enum Slope { WEIGHT, WEIGHT_C, BRACKET_X, BRACKET_Y, SLOPES };  // the maps that the transposed filter takes

struct Ring {  // the last DEPTH rows of some maps
  float* data;
  int64_t stride;
  float* row(int map, int64_t y) const { return data + (map * DEPTH + y % DEPTH) * stride; }
};

// load(from + K), where that is between two vectors. Every other one comes from a shuffle instead of a load: by loads alone
// or by shuffles alone, one unit of the processor would wait for the other.
template <int K, int... LANE>
inline Vector shifted([[maybe_unused]] Vector first, [[maybe_unused]] Vector second, const float* from,
                      std::integer_sequence<int, LANE...>) {
#if defined(__AVX512F__) && defined(__has_builtin)
#if __has_builtin(__builtin_shufflevector)
  if constexpr (K % 2 == 1) return __builtin_shufflevector(first, second, (LANE + K)...);
#endif
#endif
  return load(from + K);
}

template <int... K>
inline void load_window(Vector* v, const float* from, std::integer_sequence<int, K...>) {
  const Vector first = load(from), second = load(from + LANES);
  ((v[K] = shifted<K>(first, second, from, std::make_integer_sequence<int, LANES>())), ...);
}

inline Vector weigh(const Vector* v, const float* taps) {  // the window is symmetric: two values share a multiplication
  Vector total = taps[MIDDLE] * v[MIDDLE];
  for (int k = 0; k < MIDDLE; ++k) total += taps[k] * (v[k] + v[HALO - k]);
  return total;
}

// Smooth ROWS rows of one map: down from its rows y to y + DEPTH - 1, then across. The windows lie inside the map
// (lead = 0), or begin `lead` columns to the left of it, where zeros stand.
void smooth(const Ring& ring, int map, int64_t y, int lead, float* temp, float* out, int64_t outputs) {
  const int64_t columns = ring.stride, stride = columns + 3 * MARGIN;
  static const std::vector<float> window = gaussian_taps(1.5, MIDDLE);
  float taps[TAPS];
  std::copy(window.begin(), window.end(), taps);
  const float* rows[DEPTH];
  for (int k = 0; k < DEPTH; ++k) rows[k] = ring.row(map, y + k);
  for (int64_t i = 0; i < columns; i += LANES) {
    Vector v[DEPTH];
    for (int k = 0; k < DEPTH; ++k) v[k] = load(rows[k] + i);
    for (int k = 0; k < ROWS; ++k) store(temp + k * stride + MARGIN + i, weigh(v + k, taps));
  }
  for (int k = 0; k < ROWS; ++k) {
    const float* from = temp + k * stride + MARGIN - lead;
    for (int64_t i = 0; i < outputs; i += LANES) {
      Vector v[TAPS];
      load_window(v, from + i, std::make_integer_sequence<int, TAPS>());
      store(out + k * outputs + i, weigh(v, taps));
    }
  }
}

void moments_row(int64_t width, const float* x, float offset_x, const float* y, float offset_y, float* __restrict to_x,
                 float* __restrict to_y, float* __restrict squares, float* __restrict product) {
  for (int64_t i = 0; i < width; ++i) {
    const float a = x[i] - offset_x, b = y[i] - offset_y;
    to_x[i] = a, to_y[i] = b, squares[i] = a * a + b * b, product[i] = a * b;
  }
}

// c of one row of windows, or, with the luminance l, SSIM; where wanted, what the transposed filter takes.
template <bool LUMINANCE, bool WANTED>
void windows_row(int64_t width, const float* mu_x, const float* mu_y, const float* squares, const float* product,
                 const float* offsets, float* __restrict value, float* __restrict weight, float* __restrict weight_c,
                 float* __restrict bracket_x, float* __restrict bracket_y) {
  const float offset_x = LUMINANCE ? offsets[X] : 0.0f, offset_y = LUMINANCE ? offsets[Y] : 0.0f;
  for (int64_t i = 0; i < width; ++i) {
    const float x = mu_x[i], y = mu_y[i], s = squares[i] - x * x - y * y + C2;
    const float inverse = 1.0f / (s < C2 ? C2 : s);  // rounding may have made the variances negative
    const float c = (2.0f * (product[i] - x * y) + C2) * inverse;
    const float full_x = x + offset_x, full_y = y + offset_y, m = full_x * full_x + full_y * full_y + C1;
    const float l = LUMINANCE ? (2.0f * full_x * full_y + C1) / m : 1.0f, c_by_m = LUMINANCE ? c / m : 0.0f;
    value[i] = l * c;
    if (WANTED) {
      weight[i] = l * inverse;
      weight_c[i] = l * inverse * c;
      bracket_x[i] = l * inverse * (y - c * x) - c_by_m * (full_y - l * full_x);
      bracket_y[i] = l * inverse * (x - c * y) - c_by_m * (full_x - l * full_y);
    }
  }
}

void slope_row(int64_t width, const float* own, float own_offset, const float* other, float other_offset,
               const float* weight, const float* weight_c, const float* bracket, float* __restrict slope) {
  for (int64_t i = 0; i < width; ++i)
    slope[i] = (other[i] - other_offset) * weight[i] - (own[i] - own_offset) * weight_c[i] - bracket[i];
}

struct Scratch {  // of one thread
  Buffer moments, slopes, temp, slopes_temp, filtered, value, pyramid, padded;
};

struct Map {
  const float* data;
  Shape shape;
  float offset;  // to be subtracted, so that moments do not cancel
  const float* row(int64_t y) const { return data + y * shape.width; }
};

// One scale of a pair of planes, from the top down: all windows inside the maps.
class Windows {
 public:
  // offsets: those of the planes for SSIM, null for the contrast. slopes: where to put n / 2 times those of the mean.
  Windows(const Map* maps, const float* offsets, float* const* slopes, Scratch& scratch)
      : maps_(maps), offsets_(offsets), wanted_(slopes), any_wanted_(slopes[X] || slopes[Y]), shape_(maps[X].shape),
        inner_{shape_.height - HALO, shape_.width - HALO}, columns_(round_up(shape_.width)),
        inner_columns_(round_up(inner_.width)), filtered_(scratch.filtered.get(SLOPES * ROWS * columns_)),
        value_(scratch.value.get(columns_)), moments_{scratch.moments.zeros(MOMENTS * DEPTH * columns_), columns_},
        temp_(scratch.temp.zeros(ROWS * (columns_ + 3 * MARGIN))) {
    if (!any_wanted_) return;
    slopes_ = {scratch.slopes.zeros(SLOPES * DEPTH * inner_columns_), inner_columns_};
    slopes_temp_ = scratch.slopes_temp.zeros(ROWS * (inner_columns_ + 3 * MARGIN));
  }

  double sum_values() {
    int64_t read = 0;
    for (int64_t top = 0; top < shape_.height; top += ROWS) {
      for (; read < std::min(top + DEPTH, shape_.height); ++read)
        moments_row(shape_.width, maps_[X].row(read), maps_[X].offset, maps_[Y].row(read), maps_[Y].offset,
                    moments_.row(X, read), moments_.row(Y, read), moments_.row(SQUARES, read), moments_.row(PRODUCT, read));
      compare_rows(top);
      for (int side : {X, Y})
        if (wanted_[side]) write_slopes(side, top);
    }
    return total_;
  }

 private:
  void compare_rows(int64_t top) {
    const auto row_of = offsets_ ? any_wanted_ ? windows_row<true, true> : windows_row<true, false>
                                 : any_wanted_ ? windows_row<false, true> : windows_row<false, false>;
    if (top < inner_.height)
      for (int map = 0; map < MOMENTS; ++map)
        smooth(moments_, map, top, 0, temp_, filtered_ + map * ROWS * inner_columns_, inner_columns_);
    for (int row = 0; row < ROWS; ++row) {
      float* slopes[SLOPES] = {};
      for (int map = 0; any_wanted_ && map < SLOPES; ++map) slopes[map] = slopes_.row(map, top + row);
      if (top + row < inner_.height) {
        const auto filtered = [=](int map) { return filtered_ + (map * ROWS + row) * inner_columns_; };
        row_of(inner_.width, filtered(X), filtered(Y), filtered(SQUARES), filtered(PRODUCT), offsets_, value_,
               slopes[WEIGHT], slopes[WEIGHT_C], slopes[BRACKET_X], slopes[BRACKET_Y]);
        total_ += sum(inner_.width, [value = value_](int64_t i) { return value[i]; });
      } else if (any_wanted_) {  // below the last window the transposed filter meets zeros
        for (float* to : slopes) std::fill_n(to, inner_.width, 0.0f);
      }
    }
  }

  void write_slopes(int side, int64_t top) {
    const int bracket = BRACKET_X + side;
    const auto filtered = [=](int map) { return filtered_ + map * ROWS * columns_; };
    for (int map : {int{WEIGHT}, int{WEIGHT_C}, bracket})
      if (map == bracket || side == X || !wanted_[X])  // the weights may be there from the other side
        smooth(slopes_, map, top - HALO + DEPTH, HALO, slopes_temp_, filtered(map), columns_);  // rows from top - HALO on
    const Map &own = maps_[side], &other = maps_[1 - side];
    for (int64_t y = top; y < std::min(top + ROWS, shape_.height); ++y) {
      const int64_t start = (y - top) * columns_;
      slope_row(shape_.width, own.row(y), own.offset, other.row(y), other.offset, filtered(WEIGHT) + start,
                filtered(WEIGHT_C) + start, filtered(bracket) + start, wanted_[side] + y * shape_.width);
    }
  }

  const Map* maps_;
  const float* offsets_;
  float* const* wanted_;
  const bool any_wanted_;
  const Shape shape_, inner_;              // of the maps, of their windows
  const int64_t columns_, inner_columns_;  // the widths in whole vectors
  float *filtered_, *value_;
  Ring moments_, slopes_{};
  float *temp_, *slopes_temp_ = nullptr;
  double total_ = 0;
};

// The coarsest scale: SSIM of every pixel, borders mirrored.
double sum_of_ssim(const Map* maps, const float* offsets, float* const* wanted, Scratch& scratch) {
  const Shape shape = maps[X].shape, wide{shape.height + HALO, shape.width + HALO};
  const auto source = [=](int64_t y, int64_t x) {
    return mirrored(y - MIDDLE, shape.height) * shape.width + mirrored(x - MIDDLE, shape.width);
  };
  Map padded[2];
  float* slopes[2] = {};
  for (int side : {X, Y}) {
    float* to = scratch.padded.get(4 * wide.size()) + side * wide.size();
    padded[side] = {to, wide, 0.0f};
    if (wanted[side]) slopes[side] = to + 2 * wide.size();
    for (int64_t y = 0; y < wide.height; ++y)
      for (int64_t x = 0; x < wide.width; ++x) *to++ = maps[side].data[source(y, x)] - maps[side].offset;
  }
  const double total = Windows(padded, offsets, slopes, scratch).sum_values();
  for (int side : {X, Y}) {
    if (!wanted[side]) continue;
    std::fill_n(wanted[side], shape.size(), 0.0f);
    const float* from = slopes[side];
    for (int64_t y = 0; y < wide.height; ++y)
      for (int64_t x = 0; x < wide.width; ++x) wanted[side][source(y, x)] += *from++;
  }
  return total;
}

void halve(const Map& from, float* __restrict to) {
  const Shape half = from.shape.halved(1);
  const float offset = from.offset;
  for (int64_t y = 0; y < half.height; ++y, to += half.width) {
    const float *a = from.row(2 * y), *b = from.row(2 * y + 1);
    for (int64_t i = 0; i < half.width; ++i)
      to[i] = 0.25f * ((a[2 * i] - offset) + (a[2 * i + 1] - offset) + (b[2 * i] - offset) + (b[2 * i + 1] - offset));
  }
}

// All scales but the finest lie one after the other; the given one begins here.
int64_t coarse_start(Shape shape, int scale) {
  int64_t start = 0;
  for (int finer = 1; finer < scale; ++finer) start += shape.halved(finer).size();
  return start;
}

struct Slopes {  // of one plane: n / 2 times those of the scales' terms; all null if not wanted
  float *fine = nullptr, *coarse = nullptr;
  float* at(Shape shape, int scale) const { return fine && scale > 0 ? coarse + coarse_start(shape, scale) : fine; }
};

// Every scale's term and slopes.
void compare_planes(const float* const* planes, Shape shape, int scales, Scratch& scratch, double* terms,
                    const Slopes* slopes) {
  const int64_t size = shape.size(), coarse_size = coarse_start(shape, scales);
  float offsets[2];
  Map maps[2];
  for (int side : {X, Y}) {
    const float* plane = planes[side];
    offsets[side] = static_cast<float>(sum(size, [=](int64_t i) { return plane[i]; }) / size);
    maps[side] = {plane, shape, offsets[side]};
  }
  for (int scale = 0; scale < scales; ++scale) {
    const Shape here = shape.halved(scale);
    float* const wanted[2] = {slopes[X].at(shape, scale), slopes[Y].at(shape, scale)};
    for (int side = 0; scale > 0 && side < 2; ++side) {
      float* half = scratch.pyramid.get(2 * coarse_size) + side * coarse_size + coarse_start(shape, scale);
      halve(maps[side], half);
      maps[side] = {half, here, 0.0f};
    }
    if (scale + 1 < scales)
      terms[scale] = Windows(maps, nullptr, wanted, scratch).sum_values() / ((here.height - HALO) * (here.width - HALO));
    else
      terms[scale] = sum_of_ssim(maps, offsets, wanted, scratch) / here.size();
  }
}

// Sum the scales' slopes, each weighted, through the transposes of the 2 x 2 averages.
void to_full_size(const Slopes& slopes, Shape shape, const std::vector<float>& weights) {
  for (int scale = static_cast<int>(weights.size()) - 1; scale >= 0; --scale) {
    const Shape here = shape.halved(scale), half = shape.halved(scale + 1);
    float* to = slopes.at(shape, scale);
    for (int64_t i = 0; i < here.size(); ++i) to[i] *= weights[scale];
    if (scale + 1 == static_cast<int>(weights.size())) continue;
    const float* from = slopes.at(shape, scale + 1);
    for (int64_t y = 0; y < 2 * half.height; ++y, to += here.width) {
      const float* row = from + y / 2 * half.width;
      for (int64_t i = 0; i < half.width; ++i) to[2 * i] += 0.25f * row[i], to[2 * i + 1] += 0.25f * row[i];
    }
  }
}

struct Normalized {  // what stands for a term in the product, and its slope in the term
  double v, slope;
};

Normalized normalized(double term, Normalize normalize) {
  if (normalize == SIMPLE) return {(term + 1) / 2, 0.5};
  if (normalize != FOLD) return {term, 1.0};
  const double bent = std::clamp(term / BENT_BELOW, -1.0, 1.0);
  return {std::fabs(bent) < 1 ? (bent * bent + 1) * BENT_BELOW / 2 : std::fabs(term), bent};
}

// prod_j v_j ** beta_j, and its slope in every term, which is taken at max(v, 1e-6) and is 0 for v <= 0.
double product_of_powers(const std::vector<double>& terms, const Branch& branch, std::vector<double>& slopes) {
  double product = 1.0;
  bool negative = false;
  std::fill(slopes.begin(), slopes.end(), 1.0);
  for (std::size_t j = 0; j < terms.size(); ++j) {
    const Normalized given = normalized(terms[j], branch.normalize);
    const double v = given.v, beta = branch.betas[j];
    const double power = std::pow(std::max(v, 0.0), beta);
    const double slope = v > 0 ? beta * std::pow(std::max(v, 1e-6), beta - 1) * given.slope : 0.0;
    negative = negative || v < 0;
    product *= power;
    for (std::size_t other = 0; other < terms.size(); ++other)
      slopes[other] *= other != j ? power : slope;
  }
  if (branch.normalize == NONE) return negative ? std::numeric_limits<double>::quiet_NaN() : product;
  return std::min(product, 1.0);  // rounding
}

}  // namespace
