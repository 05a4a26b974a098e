// Squared Pearson correlation and its slope, as derived in attacker_metrics/pearson.py.

#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>

#include "basics.h"

namespace {

struct Correlation {
  double score, means[2];
  double of_product, of_own[2];  // d score / dx_i = of_product * (y_i - mean_y) - of_own_x * (x_i - mean_x); likewise in y
};

Correlation correlate(const float* x, const float* y, int64_t count, double eps) {
  const double x0 = x[0], y0 = y[0];  // moments about a pixel, in double, do not cancel
  const auto moments = sums<5>(count, [=](int64_t i) {
    const double a = x[i] - x0, b = y[i] - y0;
    return std::array<double, 5>{a, b, a * a, b * b, a * b};
  });
  const double a = moments[0] / count, b = moments[1] / count, covariance = moments[4] / count - a * b;
  const double variances[2] = {moments[2] / count - a * a, moments[3] / count - b * b};
  const double product = std::sqrt(std::max(variances[X], 1e-36)) * std::sqrt(std::max(variances[Y], 1e-36));
  const double floored = std::max(product, std::sqrt(eps)), r = covariance / floored, scale = 2 * r / count;
  const auto of_own = [=](int side) {
    return product < std::sqrt(eps) || variances[side] < 1e-36 ? 0.0 : scale * r / variances[side];
  };
  return {std::min(r * r, 1.0), {x0 + a, y0 + b}, scale / floored, {of_own(X), of_own(Y)}};
}

}  // namespace
