// Vectors, sums, memory, threads.

#pragma once

#include <algorithm>
#include <array>
#include <atomic>
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

enum Side { X, Y };  // the noisy and the clean one of a pair of images, views or planes

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

}  // namespace
