// Attackers: each view, and its pull-back, which adds to `total`, the gradient in x, what the view's gradient gives.

#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

#include "basics.h"
#include "program.h"

namespace {

constexpr float LUMA_WEIGHTS[3] = {0.299f, 0.587f, 0.114f};
constexpr float SMALLEST_SPAN = 1e-8f, DARKEST = 1e-6f;

void luma(const float* x, float* view, int64_t size) {
  const float *red = x, *green = x + size, *blue = x + 2 * size;
  for (int64_t i = 0; i < size; ++i)
    view[i] = LUMA_WEIGHTS[0] * red[i] + LUMA_WEIGHTS[1] * green[i] + LUMA_WEIGHTS[2] * blue[i];
}

void pull_back_luma(const float* gradient, float* total, int64_t size) {
  for (int channel = 0; channel < 3; ++channel, total += size)
    for (int64_t i = 0; i < size; ++i) total[i] += LUMA_WEIGHTS[channel] * gradient[i];
}

void minmax(const float* x, float* view, int64_t count) {
  const auto [low, high] = range_of(x, count);
  const float span = std::max(high - low, SMALLEST_SPAN);
  for (int64_t i = 0; i < count; ++i) view[i] = (x[i] - low) / span;
}

void pull_back_minmax(const float* x, const float* view, const float* gradient, float* total, int64_t count) {
  const Range range = range_of(x, count);
  const float low = range.low, high = range.high, span = std::max(high - low, SMALLEST_SPAN);
  const auto [lows, highs, of_view, of_all] = sums<4>(count, [=](int64_t i) {
    return std::array<double, 4>{x[i] == low ? 1.0f : 0.0f, x[i] == high ? 1.0f : 0.0f, gradient[i] * view[i], gradient[i]};
  });
  const double of_span = high - low < SMALLEST_SPAN ? 0.0 : of_view;  // minus span * d view / d span
  const float at_low = static_cast<float>((of_span - of_all) / lows), at_high = static_cast<float>(-of_span / highs);
  for (int64_t i = 0; i < count; ++i)
    total[i] += (gradient[i] + (x[i] == low ? at_low : 0.0f) + (x[i] == high ? at_high : 0.0f)) / span;
}

inline float exponential(float x) {  // for |x| < 87; unlike std::exp, a loop over it becomes vector instructions
  const float shifted = x * 1.44269504f + 12582912.0f;  // 1.5 * 2^23: the lowest bits are the integer nearest to x / ln 2
  const float n = shifted - 12582912.0f, r = (x - n * 0.693359375f) + n * 2.12194440e-4f;  // x - n ln 2, ln 2 in two parts
  const float series = 1.0f / 6 + r * (1.0f / 24 + r * (1.0f / 120 + r * (1.0f / 720 + r * (1.0f / 5040))));
  std::uint32_t bits;
  std::memcpy(&bits, &shifted, sizeof bits);
  bits = (bits + 127) << 23;  // 2^n
  float power;
  std::memcpy(&power, &bits, sizeof power);
  return power * (1.0f + r * (1.0f + r * (0.5f + r * series)));
}

struct Standardize {
  float mean, scale;
  bool flat;  // the variance is below its floor

  Standardize(const float* x, int64_t count) {
    const double centre = sum(count, [=](int64_t i) { return x[i]; }) / count;
    const double variance = sum(count, [=](int64_t i) { return (x[i] - centre) * (x[i] - centre); }) / count;
    mean = static_cast<float>(centre);
    scale = static_cast<float>(1 / std::sqrt(std::max(variance, 1e-12)));
    flat = variance < 1e-12;
  }

  void view(const float* x, float* view, int64_t count) const {
    for (int64_t i = 0; i < count; ++i)
      view[i] = 1.0f / (1.0f + exponential(clamped((mean - x[i]) * scale, -80.0f, 80.0f)));
  }

  void pull_back(const float* x, const float* view, const float* gradient, float* total, int64_t count) const {
    const auto z = [=, *this](int64_t i) { return (x[i] - mean) * scale; };
    const auto slope = [=](int64_t i) { return view[i] * (1.0f - view[i]) * gradient[i]; };  // through the sigmoid
    const auto [of_all, of_z] = sums<2>(count, [=](int64_t i) { return std::array<double, 2>{slope(i), slope(i) * z(i)}; });
    const float of_mean = static_cast<float>(of_all / count), of_scale = flat ? 0.0f : static_cast<float>(of_z / count);
    for (int64_t i = 0; i < count; ++i) total[i] += (slope(i) - of_mean - z(i) * of_scale) * scale;
  }
};

std::vector<float> gaussian_taps(double sigma, int64_t radius) {
  std::vector<double> weights;
  double total = 0;
  for (int64_t i = -radius; i <= radius; ++i) total += weights.emplace_back(std::exp(-0.5 * (i / sigma) * (i / sigma)));
  for (double& weight : weights) weight /= total;
  return {weights.begin(), weights.end()};
}

inline int64_t mirrored(int64_t i, int64_t size) {
  i = i < 0 ? -i : i;
  return i < size ? i : 2 * (size - 1) - i;
}

inline int64_t repeated(int64_t i, int64_t size) { return std::min(std::max<int64_t>(i, 0), size - 1); }

void add(float weight, const float* from, float* total, int64_t count) {
  for (int64_t i = 0; i < count; ++i) total[i] += weight * from[i];
}

// out = the sum of taps[k] * rows[k], several vectors at a time, as each sum waits for its own last addition.
void weigh_rows(const std::vector<const float*>& rows, const std::vector<float>& taps, float* out, int64_t width) {
  constexpr int64_t AT_ONCE = 4, BLOCK = AT_ONCE * LANES;
  int64_t i = 0;
  for (; i < width && width >= BLOCK; i += BLOCK) {
    const int64_t start = std::min(i, width - BLOCK);  // the last block overlaps the one before
    Vector totals[AT_ONCE] = {};
    for (std::size_t k = 0; k < taps.size(); ++k)
      for (int v = 0; v < AT_ONCE; ++v) totals[v] += taps[k] * load(rows[k] + start + v * LANES);
    for (int v = 0; v < AT_ONCE; ++v) store(out + start + v * LANES, totals[v]);
  }
  for (; i < width; ++i) {
    out[i] = 0.0f;
    for (std::size_t k = 0; k < taps.size(); ++k) out[i] += taps[k] * rows[k][i];
  }
}

// A filter of 2 r + 1 taps down and across, beyond the border reading the pixel that border(i, size) names.
class Filter {
 public:
  Filter(std::vector<float> down, std::vector<float> across, int64_t (*border)(int64_t, int64_t), Shape shape)
      : down_(std::move(down)), across_(std::move(across)), border_(border), shape_(shape), radius_(down_.size() / 2),
        rows_(down_.size()), zero_padded_(shape.width + 4 * radius_), padded_(shape.width + 2 * radius_) {}

  void view(const float* x, float* view) {
    const int64_t width = shape_.width;
    float* row = padded_.data() + radius_;
    for (int64_t y = 0; y < shape_.height; ++y, view += width) {
      for (int64_t k = 0; k <= 2 * radius_; ++k) rows_[k] = x + source(y, k) * width;
      weigh_rows(rows_, down_, row, width);
      for (int64_t i = 1; i <= radius_; ++i) {
        row[-i] = row[border_(-i, width)];
        row[width - 1 + i] = row[border_(width - 1 + i, width)];
      }
      for (int64_t k = 0; k <= 2 * radius_; ++k) rows_[k] = padded_.data() + k;
      weigh_rows(rows_, across_, view, width);
    }
  }

  void pull_back(const float* gradient, float* total) {  // the transposed filter, what is beyond the border folded back
    const int64_t width = shape_.width;
    float* row = padded_.data() + radius_;
    for (int64_t y = 0; y < shape_.height; ++y) {
      std::copy_n(gradient + y * width, width, zero_padded_.data() + 2 * radius_);
      for (int64_t k = 0; k <= 2 * radius_; ++k) rows_[k] = zero_padded_.data() + 2 * radius_ - k;
      weigh_rows(rows_, across_, padded_.data(), width + 2 * radius_);
      for (int64_t i = 1; i <= radius_; ++i) {
        row[border_(-i, width)] += row[-i];
        row[border_(width - 1 + i, width)] += row[width - 1 + i];
      }
      for (int64_t k = 0; k <= 2 * radius_; ++k) add(down_[k], row, total + source(y, k) * width, width);
    }
  }

 private:
  int64_t source(int64_t y, int64_t k) const { return border_(y + k - radius_, shape_.height); }

  std::vector<float> down_, across_;
  int64_t (*border_)(int64_t, int64_t);
  Shape shape_;
  int64_t radius_;
  std::vector<const float*> rows_;
  std::vector<float> zero_padded_, padded_;
};

Filter blur(double sigma, Shape shape) {
  const std::vector<float> taps = gaussian_taps(sigma, static_cast<int64_t>(std::ceil(3 * sigma)));
  return Filter(taps, taps, mirrored, shape);
}

struct Sobel {  // 3 x 3 / 8, border pixels repeated
  Filter across, down;
  std::vector<float> gx, gy;

  Sobel(const float* x, Shape shape)
      : across({0.25f, 0.5f, 0.25f}, {-0.5f, 0.0f, 0.5f}, repeated, shape),
        down({-0.5f, 0.0f, 0.5f}, {0.25f, 0.5f, 0.25f}, repeated, shape), gx(shape.size()), gy(shape.size()) {
    across.view(x, gx.data());
    down.view(x, gy.data());
  }

  void view(float* view) const {
    for (std::size_t i = 0; i < gx.size(); ++i) view[i] = std::sqrt(gx[i] * gx[i] + gy[i] * gy[i] + 1e-6f);
  }

  void pull_back(const float* view, const float* gradient, float* total) {
    for (auto* edge : {&gx, &gy})
      for (std::size_t i = 0; i < gx.size(); ++i) (*edge)[i] *= gradient[i] / view[i];
    across.pull_back(gx.data(), total);
    down.pull_back(gy.data(), total);
  }
};

void gamma(const float* x, float* view, int64_t count, float exponent) {
  const auto inside = [=](int64_t i) { return clamped(x[i], DARKEST, 1.0f); };
  if (exponent == 0.5f)
    for (int64_t i = 0; i < count; ++i) view[i] = std::sqrt(inside(i));
  else if (exponent == 1.0f)
    for (int64_t i = 0; i < count; ++i) view[i] = inside(i);
  else if (exponent == 2.0f)
    for (int64_t i = 0; i < count; ++i) view[i] = inside(i) * inside(i);
  else
    for (int64_t i = 0; i < count; ++i) view[i] = std::pow(inside(i), exponent);
}

void pull_back_gamma(const float* x, const float* view, const float* gradient, float* total, int64_t count, float exponent) {
  for (int64_t i = 0; i < count; ++i)
    total[i] += x[i] >= DARKEST && x[i] <= 1.0f ? gradient[i] * exponent * view[i] / clamped(x[i], DARKEST, 1.0f) : 0.0f;
}

struct Haar {  // the orthonormal transform of a 2 x 2 block, which is its own inverse and its own transpose
  float average, across, down, diagonal;
};

inline Haar haar(float a, float b, float c, float d) {
  const float above = a + b, below = c + d, above_rise = a - b, below_rise = c - d;
  return {(above + below) / 2, (above_rise + below_rise) / 2, (above - below) / 2, (above_rise - below_rise) / 2};
}

struct RowPair {  // two rows of even width
  std::vector<float> above, below;

  explicit RowPair(int64_t width) : above(width + width % 2), below(above) {}

  void read(const float* x, int64_t y, Shape shape, bool repeat) {  // beyond the border, or else put zeros there
    std::copy_n(x + y * shape.width, shape.width, above.data());
    std::copy_n(x + std::min(y + 1, shape.height - 1) * shape.width, shape.width, below.data());
    if (!repeat && y + 1 == shape.height) std::fill(below.begin(), below.end(), 0.0f);
    if (shape.width % 2 == 0) return;
    for (auto* row : {&above, &below}) row->back() = repeat ? (*row)[shape.width - 1] : 0.0f;
  }
};

// The view of x, which is written to `out`; or, given the view's gradient, the pull-back, which is added to it.
template <bool PULL_BACK>
void wavelet(const float* x, const float* gradient, float* out, Shape shape, float threshold) {
  const int64_t width = shape.width;
  const auto detail = [=](float band, float of_band) {
    return PULL_BACK ? std::fabs(band) > threshold ? of_band : 0.0f : band - clamped(band, -threshold, threshold);
  };
  RowPair in(width), slope(width), result(width);
  for (int64_t y = 0; y < shape.height; y += 2) {
    in.read(x, y, shape, true);
    if (PULL_BACK) slope.read(gradient, y, shape, false);
    const float *a = in.above.data(), *c = in.below.data(), *e = slope.above.data(), *g = slope.below.data();
    float *__restrict above = result.above.data(), *__restrict below = result.below.data();
    for (int64_t i = 0; i < width; i += 2) {
      const Haar h = haar(a[i], a[i + 1], c[i], c[i + 1]), s = PULL_BACK ? haar(e[i], e[i + 1], g[i], g[i + 1]) : h;
      const Haar v = haar(s.average, detail(h.across, s.across), detail(h.down, s.down), detail(h.diagonal, s.diagonal));
      above[i] = v.average, above[i + 1] = v.across, below[i] = v.down, below[i + 1] = v.diagonal;
    }
    if (PULL_BACK && width % 2 != 0) above[width - 1] += above[width], below[width - 1] += below[width];
    float* to = out + y * width;
    for (int64_t i = 0; i < width; ++i) to[i] = PULL_BACK ? to[i] + above[i] : above[i];
    if (y + 1 < shape.height)
      to += width;
    else if (!PULL_BACK)
      break;  // the lower row is a copy, to be cropped; the pull-back adds it to the upper one
    for (int64_t i = 0; i < width; ++i) to[i] = PULL_BACK ? to[i] + below[i] : below[i];
  }
}

void make_view(const Node& node, const float* x, float* view, Shape shape) {
  const int64_t size = shape.size(), count = node.channels * size;
  const float number = node.op >= BLUR ? static_cast<float>(node.settings[0]) : 0.0f;
  if (node.op == LUMA) luma(x, view, size);
  if (node.op == MINMAX) minmax(x, view, count);
  if (node.op == STANDARDIZE) Standardize(x, count).view(x, view, count);
  if (node.op == GAMMA) gamma(x, view, count, number);
  if (node.op == CLAMP)
    for (int64_t i = 0; i < count; ++i) view[i] = clamped(x[i], 0.0f, 1.0f);
  for (int64_t c = 0; c < count; c += size) {  // channel by channel
    if (node.op == SOBEL) Sobel(x + c, shape).view(view + c);
    if (node.op == BLUR) blur(node.settings[0], shape).view(x + c, view + c);
    if (node.op == WAVELET) wavelet<false>(x + c, nullptr, view + c, shape, number);
  }
}

void pull_back(const Node& node, const float* x, const float* view, const float* gradient, float* total, Shape shape) {
  const int64_t size = shape.size(), count = node.channels * size;
  const float number = node.op >= BLUR ? static_cast<float>(node.settings[0]) : 0.0f;
  if (node.op == LUMA) pull_back_luma(gradient, total, size);
  if (node.op == MINMAX) pull_back_minmax(x, view, gradient, total, count);
  if (node.op == STANDARDIZE) Standardize(x, count).pull_back(x, view, gradient, total, count);
  if (node.op == GAMMA) pull_back_gamma(x, view, gradient, total, count, number);
  if (node.op == CLAMP)
    for (int64_t i = 0; i < count; ++i) total[i] += x[i] >= 0.0f && x[i] <= 1.0f ? gradient[i] : 0.0f;
  for (int64_t c = 0; c < count; c += size) {
    if (node.op == SOBEL) Sobel(x + c, shape).pull_back(view + c, gradient + c, total + c);
    if (node.op == BLUR) blur(node.settings[0], shape).pull_back(gradient + c, total + c);
    if (node.op == WAVELET) wavelet<true>(x + c, gradient + c, total + c, shape, number);
  }
}

}  // namespace
