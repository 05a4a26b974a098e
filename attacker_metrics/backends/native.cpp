// CPU kernel of attacker_metrics in float32: every view and score of a batch of pairs of images, and the gradient.
//
// It computes what engine.py, attackers.py and similarity.py do; the formulas and their slopes are derived in engine.py.
// Python compiles this file where it finds a compiler, and calls the two functions at the end. What differs is the order
// of the work: one pair of planes after the other, a few rows at a time, so that filtered maps stay in the nearest cache.
//
// What to compute is a `program` of int64, which refers to an array of `numbers` (double) by index:
//
//     n_nodes,   then for each node     op, parent, number
//     n_ms_ssim, then for each branch   component, branches of that component, noisy node, clean node,
//                                       first beta (index), betas (count), normalize
//     n_pearson, then for each branch   component, branches of that component, noisy node, clean node, eps (index)
//     components
//
// Node 0 is the noisy image, 1 the clean one, 2 + i the i-th of the list; a parent comes before its children. Ops and
// normalize are the enumerations below. A component's score is the mean over its branches.
//
// Every number depends on its own pair of images only, and is summed in the same order whatever the number of threads.

#include <algorithm>
#include <array>
#include <atomic>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <memory>
#include <new>
#include <thread>
#include <utility>
#include <vector>

namespace {

using std::int64_t;

enum Op : int64_t { LUMA, CLAMP, MINMAX, SOBEL, STANDARDIZE, BLUR, GAMMA, WAVELET, SCALE };
enum Normalize : int64_t { NONE, RELU, SIMPLE };

constexpr float LARGEST = 1e15f;  // pixels are cut to it: its square fits into float many times over
constexpr float C1 = 0.01f * 0.01f, C2 = 0.03f * 0.03f;

// ---- Vectors, sums, memory, threads

#if defined(__AVX512F__)
constexpr int LANES = 16;
#elif defined(__AVX__)
constexpr int LANES = 8;
#else
constexpr int LANES = 4;
#endif
typedef float Vector __attribute__((vector_size(4 * LANES)));

inline Vector load(const float* from) {
  Vector v;
  std::memcpy(&v, from, sizeof v);  // the address need not be aligned
  return v;
}

inline void store(float* to, Vector v) { std::memcpy(to, &v, sizeof v); }

constexpr int64_t round_up(int64_t count) { return (count + LANES - 1) / LANES * LANES; }

// Sums over i < count of the N terms(i), as sixteen sums side by side, whatever the machine: loops that become vectors.
template <std::size_t N, class Terms>
std::array<double, N> sums(int64_t count, Terms terms) {
  double lanes[N][16] = {};
  const auto add = [&](int64_t i, int64_t lane) {
    const std::array<double, N> term = terms(i);
    for (std::size_t n = 0; n < N; ++n) lanes[n][lane] += term[n];
  };
  int64_t i = 0;
  for (; i + 16 <= count; i += 16)
    for (int lane = 0; lane < 16; ++lane) add(i + lane, lane);
  for (; i < count; ++i) add(i, i % 16);
  std::array<double, N> totals{};
  for (std::size_t n = 0; n < N; ++n)
    for (double lane : lanes[n]) totals[n] += lane;
  return totals;
}

template <class Term>
double sum(int64_t count, Term term) {
  return sums<1>(count, [=](int64_t i) { return std::array<double, 1>{term(i)}; })[0];
}

struct Range {
  float low, high;
};

Range range_of(const float* x, int64_t count) {
  Vector lows = Vector{} + x[0], highs = lows;
  float low = x[0], high = x[0];
  int64_t i = 0;
  for (; i + LANES <= count; i += LANES) {
    const Vector v = load(x + i);
    lows = v < lows ? v : lows;
    highs = v > highs ? v : highs;
  }
  for (; i < count; ++i) low = std::min(low, x[i]), high = std::max(high, x[i]);
  for (int lane = 0; lane < LANES; ++lane) low = std::min(low, lows[lane]), high = std::max(high, highs[lane]);
  return {low, high};
}

inline float clamped(float x, float low, float high) {
  x = x < low ? low : x;
  return x > high ? high : x;
}

// Floats from the start of a cache line on, uninitialised; asking for more than before drops what was there.
class Buffer {
 public:
  float* get(int64_t size) {
    if (size > size_) {
      size_ = 0;
      data_.reset();
      data_.reset(static_cast<float*>(::operator new(size * sizeof(float), ALIGNMENT)));
      size_ = size;
    }
    return data_.get();
  }

  float* zeros(int64_t size) {
    std::fill_n(get(size), size, 0.0f);
    return get(size);
  }

 private:
  static constexpr std::align_val_t ALIGNMENT{64};
  struct Free {
    void operator()(float* data) const { ::operator delete(data, ALIGNMENT); }
  };
  std::unique_ptr<float, Free> data_;
  int64_t size_ = 0;
};

// body(task, worker) for every task below count.
template <class Body>
void parallel_for(int64_t count, int threads, Body body) {
  std::atomic<int64_t> next{0};
  std::atomic<bool> failed{false};
  const auto work = [&](int worker) {
    try {
      for (int64_t task; !failed && (task = next++) < count;) body(task, worker);
    } catch (...) {
      failed = true;
    }
  };
  std::vector<std::thread> helpers;
  try {
    for (int worker = 1; worker < std::min<int64_t>(threads, count); ++worker) helpers.emplace_back(work, worker);
  } catch (...) {  // the system gives no more threads: those there are will do
  }
  work(0);
  for (std::thread& helper : helpers) helper.join();
  if (failed) throw std::bad_alloc();
}

// ---- Program

struct Node {
  Op op;
  int64_t parent;
  double number;
  int64_t channels;
  int depth;  // attackers between the image and this view
  std::vector<int> children;
};

struct Branch {  // two views that are compared
  int64_t component, branches, views[2];
  double eps;  // of Pearson; the rest is of MS-SSIM
  std::vector<double> betas;
  Normalize normalize;
  int64_t first_plane;  // among those of all branches
};

struct Plane {  // one channel of a MS-SSIM branch
  int64_t branch, channel;
};

struct Program {
  std::vector<Node> nodes;
  std::vector<Branch> ms_ssim, pearson;
  std::vector<Plane> planes;
  int64_t components;
  int depth = 0;

  Program(const int64_t* code, const double* numbers, int64_t channels) {
    for (int root = 0; root < 2; ++root) nodes.push_back({CLAMP, -1, 0.0, channels, 0, {}});
    for (int64_t left = *code++; left > 0; --left, code += 3) {
      Node& parent = nodes[code[1]];
      const Op op = static_cast<Op>(code[0]);
      const Node node{op, code[1], op >= BLUR ? numbers[code[2]] : 0.0, op == LUMA ? 1 : parent.channels, parent.depth + 1, {}};
      parent.children.push_back(static_cast<int>(nodes.size()));
      depth = std::max(depth, node.depth);
      nodes.push_back(node);
    }
    for (int64_t left = *code++; left > 0; --left, code += 7) {
      const double* betas = numbers + code[4];
      ms_ssim.push_back({code[0], code[1], {code[2], code[3]}, 0.0, {betas, betas + code[5]},
                         static_cast<Normalize>(code[6]), static_cast<int64_t>(planes.size())});
      for (int64_t channel = 0; channel < nodes[code[2]].channels; ++channel)
        planes.push_back({static_cast<int64_t>(ms_ssim.size()) - 1, channel});
    }
    for (int64_t left = *code++; left > 0; --left, code += 5)
      pearson.push_back({code[0], code[1], {code[2], code[3]}, numbers[code[4]], {}, NONE, 0});
    components = *code;
  }
};

struct Shape {
  int64_t height, width;
  int64_t size() const { return height * width; }
  Shape halved(int times) const { return {height >> times, width >> times}; }
};

// ---- Attackers: each view, and its pull-back, which adds to `total`, the gradient in x, what `gradient` in the view gives

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
  const float number = static_cast<float>(node.number);
  if (node.op == LUMA) luma(x, view, size);
  if (node.op == MINMAX) minmax(x, view, count);
  if (node.op == STANDARDIZE) Standardize(x, count).view(x, view, count);
  if (node.op == GAMMA) gamma(x, view, count, number);
  if (node.op == CLAMP)
    for (int64_t i = 0; i < count; ++i) view[i] = clamped(x[i], 0.0f, 1.0f);
  if (node.op == SCALE)
    for (int64_t i = 0; i < count; ++i) view[i] = x[i] * number;
  for (int64_t c = 0; c < count; c += size) {  // channel by channel
    if (node.op == SOBEL) Sobel(x + c, shape).view(view + c);
    if (node.op == BLUR) blur(node.number, shape).view(x + c, view + c);
    if (node.op == WAVELET) wavelet<false>(x + c, nullptr, view + c, shape, number);
  }
}

void pull_back(const Node& node, const float* x, const float* view, const float* gradient, float* total, Shape shape) {
  const int64_t size = shape.size(), count = node.channels * size;
  const float number = static_cast<float>(node.number);
  if (node.op == LUMA) pull_back_luma(gradient, total, size);
  if (node.op == MINMAX) pull_back_minmax(x, view, gradient, total, count);
  if (node.op == STANDARDIZE) Standardize(x, count).pull_back(x, view, gradient, total, count);
  if (node.op == GAMMA) pull_back_gamma(x, view, gradient, total, count, number);
  if (node.op == CLAMP)
    for (int64_t i = 0; i < count; ++i) total[i] += x[i] >= 0.0f && x[i] <= 1.0f ? gradient[i] : 0.0f;
  if (node.op == SCALE)
    for (int64_t i = 0; i < count; ++i) total[i] += gradient[i] * number;
  for (int64_t c = 0; c < count; c += size) {
    if (node.op == SOBEL) Sobel(x + c, shape).pull_back(view + c, gradient + c, total + c);
    if (node.op == BLUR) blur(node.number, shape).pull_back(gradient + c, total + c);
    if (node.op == WAVELET) wavelet<true>(x + c, gradient + c, total + c, shape, number);
  }
}

// ---- MS-SSIM of one pair of planes

constexpr int TAPS = 11, HALO = TAPS - 1, MIDDLE = TAPS / 2;
constexpr int ROWS = 6;             // that are filtered together, so that a loaded row serves several sums
constexpr int DEPTH = ROWS + HALO;  // rows that this takes
constexpr int MARGIN = 16;          // columns of zeros beside a row that the transposed filter reads

const std::vector<float> WINDOW = gaussian_taps(1.5, MIDDLE);

enum Moment { X, Y, SQUARES, PRODUCT, MOMENTS };             // the maps that are filtered
enum Slope { WEIGHT, WEIGHT_C, BRACKET_X, BRACKET_Y, SLOPES };  // the maps that the transposed filter takes

struct Ring {  // the last DEPTH rows of some maps
  float* data;
  int64_t stride;
  float* row(int map, int64_t y) const { return data + (map * DEPTH + y % DEPTH) * stride; }
};

// load(from + K), where that is between two vectors. Every other one comes from a shuffle instead of a load: by loads alone or
// by shuffles alone, one unit of the processor would wait for the other.
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

// Smooth ROWS rows of one map: down from its rows y to y + DEPTH - 1, then across. The window lies inside the map (lead = 0),
// or begins `lead` columns to the left of it, where zeros stand.
void smooth(const Ring& ring, int map, int64_t y, int lead, float* temp, float* out, int64_t outputs) {
  const int64_t columns = ring.stride, stride = columns + 3 * MARGIN;
  float taps[TAPS];
  std::copy(WINDOW.begin(), WINDOW.end(), taps);
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
  // offsets: null for the contrast, those of the planes for SSIM. slopes: where to put n / 2 times the mean's slopes, or null.
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
        smooth(slopes_, map, top + DEPTH - HALO, HALO, slopes_temp_, filtered(map), columns_);
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
  const Shape shape_, inner_;               // of the maps, of their windows
  const int64_t columns_, inner_columns_;   // the widths in whole vectors
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
void compare_planes(const float* const* planes, Shape shape, int scales, Scratch& scratch, double* terms, const Slopes* slopes) {
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

// prod_j v_j ** beta_j, and its slope in every term, which is taken at max(v, 1e-6) and is 0 for v <= 0.
double product_of_powers(const std::vector<double>& terms, const Branch& branch, std::vector<double>& slopes) {
  double product = 1.0;
  bool negative = false;
  std::fill(slopes.begin(), slopes.end(), 1.0);
  for (std::size_t j = 0; j < terms.size(); ++j) {
    const double v = branch.normalize == SIMPLE ? (terms[j] + 1) / 2 : terms[j], beta = branch.betas[j];
    const double power = std::pow(std::max(v, 0.0), beta), slope = v > 0 ? beta * std::pow(std::max(v, 1e-6), beta - 1) : 0.0;
    negative = negative || v < 0;
    product *= power;
    for (std::size_t other = 0; other < terms.size(); ++other)
      slopes[other] *= other != j ? power : branch.normalize == SIMPLE ? slope / 2 : slope;
  }
  if (branch.normalize == NONE) return negative ? std::numeric_limits<double>::quiet_NaN() : product;
  return std::min(product, 1.0);  // rounding
}

// ---- Squared Pearson

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
  double of_own[2];
  for (int side : {X, Y}) of_own[side] = product < std::sqrt(eps) || variances[side] < 1e-36 ? 0.0 : scale * r / variances[side];
  return {std::min(r * r, 1.0), {x0 + a, y0 + b}, scale / floored, {of_own[X], of_own[Y]}};
}

// ---- One pair of images after the other

struct Call {  // the arguments; [0] is of the noisy image or views, [1] of the clean ones
  const float* images[2];
  const std::uint8_t* finite;
  int64_t batch, channels;
  Shape shape;
  float *scores, *slopes[2];      // of the forward
  const float *gradient, *saved[2];  // of the backward
  float* gradients[2];
};

class Images {  // the memory in which one thread, or several together, work on one pair of images
 public:
  Images(const Program& program, const Call& call, int threads)
      : program_(program), call_(call), shape_(call.shape), threads_(threads), scratch_(threads),
        views_(program.nodes.size()), memory_(program.nodes.size()) {}

  void forward(int64_t image) {
    make_views(image, std::vector<bool>(program_.nodes.size(), true));
    std::vector<double> scores(program_.components);
    compare(image, scores);
    correlate_all();
    for (std::size_t b = 0; b < program_.pearson.size(); ++b)
      scores[program_.pearson[b].component] += correlations_[b].score / program_.pearson[b].branches;
    std::transform(scores.begin(), scores.end(), call_.scores + image * program_.components,
                   [](double score) { return static_cast<float>(score); });
  }

  void backward(int64_t image) {
    const int64_t count = call_.channels * shape_.size();
    gradients_.assign(program_.nodes.size(), nullptr);
    for (int root : {0, 1})
      if (call_.gradients[root]) gradients_[root] = call_.gradients[root] + image * count;
    if (!call_.finite[image]) {
      for (float* gradient : {gradients_[0], gradients_[1]})
        if (gradient) std::fill_n(gradient, count, 0.0f);
      return;
    }
    std::vector<bool> wanted = {gradients_[0] != nullptr, gradients_[1] != nullptr};
    for (std::size_t node = 2; node < program_.nodes.size(); ++node) wanted.push_back(wanted[program_.nodes[node].parent]);
    make_views(image, with_pearson_and_ancestors(wanted));
    correlate_all();
    place_gradients(wanted);
    for (int depth = program_.depth; depth >= 0; --depth)
      for_nodes_of(depth, wanted, [&](int node) { gather_gradient(node, image); });
    for (int root : {0, 1}) {
      const float* x = given(root, image);
      for (int64_t i = 0; wanted[root] && views_[root] != x && i < count; ++i)
        if (std::fabs(x[i]) > LARGEST) gradients_[root][i] = 0.0f;
    }
  }

 private:
  const float* given(int root, int64_t image) const { return call_.images[root] + image * call_.channels * shape_.size(); }

  // The images as given, unless a pixel is too large or not finite.
  void read_images(int64_t image) {
    const int64_t count = call_.channels * shape_.size();
    for (int root : {0, 1}) {
      const float* x = views_[root] = given(root, image);
      const Range range = range_of(x, count);
      if (call_.finite[image] && range.low >= -LARGEST && range.high <= LARGEST) continue;
      float* copy = memory_[root].zeros(count);
      for (int64_t i = 0; call_.finite[image] && i < count; ++i) copy[i] = clamped(x[i], -LARGEST, LARGEST);
      views_[root] = copy;
    }
  }

  void make_views(int64_t image, const std::vector<bool>& chosen) {
    read_images(image);
    for (int depth = 1; depth <= program_.depth; ++depth)
      for_nodes_of(depth, chosen, [&](int i) {
        const Node& node = program_.nodes[i];
        float* view = memory_[i].get(node.channels * shape_.size());
        make_view(node, views_[node.parent], view, shape_);
        views_[i] = view;
      });
  }

  template <class Body>
  void for_nodes_of(int depth, const std::vector<bool>& chosen, Body body) const {
    std::vector<int> nodes;
    for (std::size_t node = 0; node < chosen.size(); ++node)
      if (chosen[node] && program_.nodes[node].depth == depth) nodes.push_back(static_cast<int>(node));
    parallel_for(nodes.size(), threads_, [&](int64_t task, int) { body(nodes[task]); });
  }

  // MS-SSIM: add the branches' scores; where wanted, write their slopes.
  void compare(int64_t image, std::vector<double>& scores) {
    const int64_t planes = program_.planes.size(), size = shape_.size();
    std::size_t scales = 1;
    for (const Branch& branch : program_.ms_ssim) scales = std::max(scales, branch.betas.size());
    const int64_t coarse_size = coarse_start(shape_, static_cast<int>(scales));
    std::vector<double> terms(planes * scales);
    std::vector<std::array<Slopes, 2>> slopes(planes);
    for (int side : {X, Y})
      for (int64_t p = 0; call_.slopes[side] && p < planes; ++p)
        slopes[p][side] = {call_.slopes[side] + (image * planes + p) * size,
                           coarse_[side].get(planes * coarse_size) + p * coarse_size};
    parallel_for(planes, threads_, [&](int64_t p, int worker) {
      const Branch& branch = program_.ms_ssim[program_.planes[p].branch];
      const int64_t start = program_.planes[p].channel * size;
      const float* const pair[2] = {views_[branch.views[X]] + start, views_[branch.views[Y]] + start};
      const int count = static_cast<int>(branch.betas.size());
      compare_planes(pair, shape_, count, scratch_[worker], &terms[p * scales], slopes[p].data());
    });
    std::vector<std::vector<float>> weights;
    for (const Branch& branch : program_.ms_ssim)
      weights.push_back(score(branch, &terms[branch.first_plane * scales], scales, scores));
    parallel_for(planes, threads_, [&](int64_t p, int) {
      for (const Slopes& side : slopes[p])
        if (side.fine) to_full_size(side, shape_, weights[program_.planes[p].branch]);
    });
  }

  // Add a branch's score; the result is the weights of its planes' slopes, per scale.
  std::vector<float> score(const Branch& branch, const double* terms, std::size_t stride, std::vector<double>& scores) const {
    const std::size_t scales = branch.betas.size();
    const int64_t channels = program_.nodes[branch.views[X]].channels;
    std::vector<double> means(scales), slopes(scales);
    for (std::size_t i = 0; i < channels * scales; ++i) means[i % scales] += terms[i / scales * stride + i % scales] / channels;
    scores[branch.component] += product_of_powers(means, branch, slopes) / branch.branches;
    std::vector<float> weights;
    for (std::size_t scale = 0; scale < scales; ++scale) {
      const int halo = scale + 1 < scales ? HALO : 0;
      const Shape shape = shape_.halved(static_cast<int>(scale));
      const int64_t windows = (shape.height - halo) * (shape.width - halo);
      weights.push_back(static_cast<float>(slopes[scale] / channels * 2 / windows));
    }
    return weights;
  }

  void correlate_all() {
    correlations_.resize(program_.pearson.size());
    parallel_for(correlations_.size(), threads_, [&](int64_t b, int) {
      const Branch& branch = program_.pearson[b];
      const int64_t count = program_.nodes[branch.views[X]].channels * shape_.size();
      correlations_[b] = correlate(views_[branch.views[X]], views_[branch.views[Y]], count, branch.eps);
    });
  }

  std::vector<bool> with_pearson_and_ancestors(std::vector<bool> nodes) const {
    for (const Branch& branch : program_.pearson) nodes[branch.views[X]] = nodes[branch.views[Y]] = true;
    for (std::size_t node = nodes.size() - 1; node >= 2; --node)
      if (nodes[node]) nodes[program_.nodes[node].parent] = true;
    return nodes;
  }

  // A gradient is used by the node one level above only: two pieces of memory serve all levels in turn.
  void place_gradients(const std::vector<bool>& wanted) {
    std::vector<int64_t> sizes(program_.depth + 1), most(2);
    for (const bool place : {false, true})
      for (std::size_t i = 2; i < wanted.size(); ++i) {
        const Node& node = program_.nodes[i];
        if (!wanted[i]) continue;
        sizes[node.depth] += (place ? -1 : 1) * node.channels * shape_.size();
        most[node.depth % 2] = std::max(most[node.depth % 2], sizes[node.depth]);
        if (place) gradients_[i] = level_gradients_[node.depth % 2].get(most[node.depth % 2]) + sizes[node.depth];
      }
  }

  // The gradient in a view: from the branches that compare it, and from its children, whose gradients are complete.
  void gather_gradient(int node, int64_t image) const {
    const int64_t size = shape_.size(), count = program_.nodes[node].channels * size;
    float* total = gradients_[node];
    std::fill_n(total, count, 0.0f);
    for (int side : {X, Y}) {
      for (const Branch& branch : program_.ms_ssim)
        if (branch.views[side] == node && call_.saved[side]) {
          const int64_t planes = program_.planes.size();
          add(static_cast<float>(weight_of(branch, image)),
              call_.saved[side] + (image * planes + branch.first_plane) * size, total, count);
        }
      for (std::size_t b = 0; b < program_.pearson.size(); ++b)
        if (program_.pearson[b].views[side] == node) add_correlation(b, side, image, total, count);
    }
    for (int child : program_.nodes[node].children)
      if (gradients_[child])
        pull_back(program_.nodes[child], views_[node], views_[child], gradients_[child], total, shape_);
  }

  double weight_of(const Branch& branch, int64_t image) const {
    return static_cast<double>(call_.gradient[image * program_.components + branch.component]) / branch.branches;
  }

  void add_correlation(std::size_t b, int side, int64_t image, float* total, int64_t count) const {
    const Correlation& c = correlations_[b];
    const Branch& branch = program_.pearson[b];
    const float *own = views_[branch.views[side]], *other = views_[branch.views[1 - side]];
    const float own_mean = static_cast<float>(c.means[side]), other_mean = static_cast<float>(c.means[1 - side]);
    const float of_other = static_cast<float>(weight_of(branch, image) * c.of_product);
    const float of_own = static_cast<float>(weight_of(branch, image) * c.of_own[side]);
    for (int64_t i = 0; i < count; ++i) total[i] += of_other * (other[i] - other_mean) - of_own * (own[i] - own_mean);
  }

  const Program& program_;
  const Call& call_;
  const Shape shape_;
  const int threads_;
  std::vector<Scratch> scratch_;     // per thread
  std::vector<const float*> views_;  // per node
  std::vector<Buffer> memory_;       // of those
  std::vector<Correlation> correlations_;
  Buffer coarse_[2];                 // MS-SSIM's slopes at all scales but the finest
  std::vector<float*> gradients_;    // per node
  Buffer level_gradients_[2];
};

// One thread per pair of images while there are enough; the threads share the pairs that remain.
int for_every_image(const int64_t* code, const double* numbers, const Call& call, int threads,
                    void (Images::*work)(int64_t)) {
  try {
    const Program program(code, numbers, call.channels);
    const auto run = [&](int64_t first, int64_t count, int outer) {
      std::vector<std::unique_ptr<Images>> images(outer);
      parallel_for(count, outer, [&](int64_t task, int worker) {
        if (!images[worker]) images[worker] = std::make_unique<Images>(program, call, threads / outer);
        (*images[worker].*work)(first + task);
      });
    };
    threads = std::max(threads, 1);
    const int64_t remaining = call.batch % threads, full = call.batch - remaining;
    if (full > 0) run(0, full, threads);
    if (remaining > 0) run(full, remaining, static_cast<int>(remaining));
    return 0;
  } catch (...) {
    return 1;
  }
}

}  // namespace

// Images: float32 (batch, channels, height, width). finite: (batch,), 0 where a pair counts as all zeros and has no gradient.
// Scores and their gradient: (batch, components). Slopes: (batch, planes of all MS-SSIM branches, height, width), each that
// of its branch's score in this plane of the view. Slopes and gradients of a side may be null where not wanted. The result
// is 0, or 1 if there was not enough memory.

extern "C" int attacker_metrics_forward(const int64_t* program, const double* numbers, const float* noisy, const float* clean,
                                        const std::uint8_t* finite, int64_t batch, int64_t channels, int64_t height,
                                        int64_t width, int threads, float* scores, float* slopes_noisy,
                                        float* slopes_clean) {
  const Call call{{noisy, clean}, finite, batch, channels, {height, width}, scores, {slopes_noisy, slopes_clean},
                  nullptr, {}, {}};
  return for_every_image(program, numbers, call, threads, &Images::forward);
}

extern "C" int attacker_metrics_backward(const int64_t* program, const double* numbers, const float* noisy,
                                         const float* clean, const std::uint8_t* finite, int64_t batch, int64_t channels,
                                         int64_t height, int64_t width, int threads, const float* gradient,
                                         const float* slopes_noisy, const float* slopes_clean, float* gradient_noisy,
                                         float* gradient_clean) {
  const Call call{{noisy, clean}, finite, batch, channels, {height, width}, nullptr, {},
                  gradient, {slopes_noisy, slopes_clean}, {gradient_noisy, gradient_clean}};
  return for_every_image(program, numbers, call, threads, &Images::backward);
}
