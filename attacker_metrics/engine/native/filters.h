// The attackers that suites add, as in attacker_metrics/filters.py: views only, no pull-back.

#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "attackers.h"
#include "basics.h"
#include "program.h"

namespace {

// Every value becomes the share of the image's values below it, interpolated between the centres of the bins.
void equalize(const float* x, float* view, int64_t count, int bins) {
  const Range range = range_of(x, count);
  const float low = range.low, scale = bins / std::max(range.high - low, SMALLEST_SPAN);
  constexpr int AT_ONCE = 4;  // an addition to one bin need not wait for the last one, to the same bin
  std::vector<int> counts(AT_ONCE * bins);
  for (int64_t i = 0; i < count; ++i)
    ++counts[i % AT_ONCE * bins + std::min(static_cast<int>((x[i] - low) * scale), bins - 1)];
  std::vector<float> shares(bins), steps(bins);
  int64_t total = 0;
  for (int bin = 0; bin < bins; ++bin) {
    for (int part = 0; part < AT_ONCE; ++part) total += counts[part * bins + bin];
    shares[bin] = static_cast<float>(static_cast<double>(total) / count);
    if (bin > 0) steps[bin - 1] = shares[bin] - shares[bin - 1];
  }
  const float *share = shares.data(), *step = steps.data();
  const float last = static_cast<float>(bins - 2);
  for (int64_t i = 0; i < count; ++i) {
    const float position = (x[i] - low) * scale - 0.5f, below = clamped(std::floor(position), 0.0f, last);
    const int bin = static_cast<int>(below);
    view[i] = share[bin] + clamped(position - below, 0.0f, 1.0f) * step[bin];
  }
}

inline float lesser(float a, float b) { return b < a ? b : a; }
inline float greater(float a, float b) { return a < b ? b : a; }
inline float middle(float a, float b, float c) { return greater(lesser(a, b), lesser(greater(a, b), c)); }

// Of 3 x 3 pixels, border pixels repeated: columns are sorted once, for all three windows that share them.
void median(const float* x, float* view, Shape shape) {
  const int64_t width = shape.width, padded = width + 2;
  std::vector<float> rows(3 * padded);
  float *__restrict low = rows.data() + 1, *__restrict mid = low + padded, *__restrict high = mid + padded;
  for (int64_t y = 0; y < shape.height; ++y, view += width) {
    const float *a = x + repeated(y - 1, shape.height) * width, *b = x + y * width;
    const float* c = x + repeated(y + 1, shape.height) * width;
    for (int64_t i = 0; i < width; ++i) {
      const float least = lesser(a[i], b[i]), most = greater(a[i], b[i]);
      low[i] = lesser(least, c[i]), mid[i] = greater(least, lesser(most, c[i])), high[i] = greater(most, c[i]);
    }
    for (float* row : {low, mid, high}) row[-1] = row[0], row[width] = row[width - 1];
    for (int64_t i = 0; i < width; ++i)
      view[i] = middle(greater(greater(low[i - 1], low[i]), low[i + 1]), middle(mid[i - 1], mid[i], mid[i + 1]),
                       lesser(lesser(high[i - 1], high[i]), high[i + 1]));
  }
}

void unsharp(const float* x, float* view, Shape shape, double sigma, float amount) {
  blur(sigma, shape).view(x, view);
  for (int64_t i = 0; i < shape.size(); ++i) view[i] = clamped(x[i] + amount * (x[i] - view[i]), 0.0f, 1.0f);
}

// One channel, brought as close to the clean one as a x + b comes.
void fit(const float* x, const float* clean, float* view, int64_t count) {
  const double x0 = x[0], y0 = clean[0];  // moments about a pixel, in double, do not cancel
  const auto moments = sums<4>(count, [=](int64_t i) {
    const double a = x[i] - x0, b = clean[i] - y0;
    return std::array<double, 4>{a, b, a * a, a * b};
  });
  const double a = moments[0] / count, b = moments[1] / count;
  const double slope = (moments[3] / count - a * b) / std::max(moments[2] / count - a * a, 1e-30);
  for (int64_t i = 0; i < count; ++i)
    view[i] = clamped(static_cast<float>(((x[i] - x0) - a) * slope + (y0 + b)), 0.0f, 1.0f);
}

constexpr int LUMINANCE_STEPS[8][8] = {
    {16, 11, 10, 16, 24, 40, 51, 61},     {12, 12, 14, 19, 26, 58, 60, 55},   {14, 13, 16, 24, 40, 57, 69, 56},
    {14, 17, 22, 29, 51, 87, 80, 62},     {18, 22, 37, 56, 68, 109, 103, 77}, {24, 35, 55, 64, 81, 104, 113, 92},
    {49, 64, 78, 87, 103, 121, 120, 101}, {72, 92, 95, 98, 112, 100, 103, 99},
};

// 8-bit values, 8 x 8 cosine transforms, the quantised coefficients. Blocks lie side by side, a vector holds the same pixel
// of several.
class Jpeg {
 public:
  Jpeg(int quality, Shape shape)
      : shape_(shape), blocks_((shape.width + 7) / 8), stride_(round_up(blocks_)), line_(8 * blocks_),
        values_(64 * stride_) {
    const int scale = quality < 50 ? 5000 / quality : 200 - 2 * quality;
    for (int k = 0; k < 8; ++k)
      for (int i = 0; i < 8; ++i) {
        steps_[k][i] = static_cast<float>(std::clamp((LUMINANCE_STEPS[k][i] * scale + 50) / 100, 1, 255));
        cosines_[k][i] = static_cast<float>(std::sqrt((k ? 2 : 1) / 8.0) * std::cos(PI * k * (2 * i + 1) / 16));
        transposed_[i][k] = cosines_[k][i];
      }
  }

  void view(const float* x, float* view) {
    for (int64_t top = 0; top < shape_.height; top += 8) {
      for (int row = 0; row < 8; ++row) read(x + repeated(top + row, shape_.height) * shape_.width, row);
      transform(cosines_);
      quantise();
      transform(transposed_);
      for (int row = 0; row < std::min<int64_t>(8, shape_.height - top); ++row) write(row, view + (top + row) * shape_.width);
    }
  }

 private:
  static constexpr double PI = 3.14159265358979323846;
  static constexpr float UPWARD = 1e-4f;  // steps, as in filters.py

  float* at(int row, int column) { return values_.data() + (8 * row + column) * stride_; }

  void read(const float* x, int row) {
    float* line = line_.data();
    for (int64_t i = 0; i < shape_.width; ++i) line[i] = std::nearbyint(clamped(x[i], 0.0f, 1.0f) * 255.0f + UPWARD) - 128.0f;
    std::fill(line_.begin() + shape_.width, line_.end(), line[shape_.width - 1]);
    for (int column = 0; column < 8; ++column) {
      float* to = at(row, column);
      for (int64_t block = 0; block < blocks_; ++block) to[block] = line[8 * block + column];
    }
  }

  void write(int row, float* view) {
    float* line = line_.data();
    for (int column = 0; column < 8; ++column) {
      const float* from = at(row, column);
      for (int64_t block = 0; block < blocks_; ++block) line[8 * block + column] = from[block];
    }
    for (int64_t i = 0; i < shape_.width; ++i)
      view[i] = clamped(std::nearbyint(line[i] + 128.0f + UPWARD), 0.0f, 255.0f) / 255.0f;
  }

  void transform(const float (&matrix)[8][8]) {
    multiply(matrix, at(0, 0), 8 * stride_, 8 * stride_);
    for (int row = 0; row < 8; ++row) multiply(matrix, at(row, 0), stride_, stride_);
  }

  // The matrix times eight rows of values, in their place.
  static void multiply(const float (&matrix)[8][8], float* rows, int64_t stride, int64_t count) {
    for (int64_t i = 0; i < count; i += LANES) {
      Vector v[8];
      for (int k = 0; k < 8; ++k) v[k] = load(rows + k * stride + i);
      for (int k = 0; k < 8; ++k) {
        Vector total = matrix[k][0] * v[0];
        for (int j = 1; j < 8; ++j) total += matrix[k][j] * v[j];
        store(rows + k * stride + i, total);
      }
    }
  }

  void quantise() {
    for (int row = 0; row < 8; ++row)
      for (int column = 0; column < 8; ++column) {
        const float step = steps_[row][column];
        float* values = at(row, column);
        for (int64_t i = 0; i < stride_; ++i) values[i] = std::nearbyint(values[i] / step + UPWARD) * step;
      }
  }

  const Shape shape_;
  const int64_t blocks_, stride_;  // the blocks of a row of them, and those in whole vectors
  std::vector<float> line_, values_;
  float steps_[8][8], cosines_[8][8], transposed_[8][8];
};

void make_filtered_view(const Node& node, const float* x, const float* clean, float* view, Shape shape) {
  const int64_t size = shape.size(), count = node.channels * size;
  if (node.op == EQUALIZE) equalize(x, view, count, static_cast<int>(node.settings[0]));
  if (node.op == INVERT)
    for (int64_t i = 0; i < count; ++i) view[i] = 1.0f - x[i];
  for (int64_t c = 0; c < count; c += size) {
    if (node.op == MEDIAN) median(x + c, view + c, shape);
    if (node.op == UNSHARP) unsharp(x + c, view + c, shape, node.settings[0], static_cast<float>(node.settings[1]));
    if (node.op == JPEG) Jpeg(static_cast<int>(node.settings[0]), shape).view(x + c, view + c);
    if (node.op == FIT) fit(x + c, clean + c, view + c, size);
  }
}

}  // namespace
