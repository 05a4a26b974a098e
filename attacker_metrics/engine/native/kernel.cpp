// CPU kernel of attacker_metrics in float32: every view and score of a batch of pairs of images, and the gradient.
//
// The data flow and the formulas are those of backends/eager.py. What differs is the order of the work: one pair of planes
// after the other, a few rows at a time, so that filtered maps stay in the nearest cache. recipe.py compiles this file once
// per variant, and Python calls the two functions at its end. Nothing here may run before they are called, as constants that
// have to be computed would: the processor may be too old for this variant.
//
// Every number depends on its own pair of images only, and is summed in the same order whatever the number of threads.

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <memory>
#include <vector>

#include "attackers.h"
#include "basics.h"
#include "filters.h"
#include "ms_ssim.h"
#include "pearson.h"
#include "program.h"

namespace {

constexpr float LARGEST = 1e15f;  // pixels are cut to it: its square fits into float many times over

struct Call {  // the arguments; [0] is of the noisy image or views, [1] of the clean ones
  const float* images[2];
  const std::uint8_t* finite;
  int64_t batch, channels;
  Shape shape;
  float *scores, *slopes[2];         // of the forward
  const float* const* given;         // per node: the views that are made elsewhere
  const float *gradient, *saved[2];  // of the backward: of the scores, and the forward's slopes
  float* gradients[2];
};

class Images {  // the memory in which one thread, or several together, work on one pair of images after the other
 public:
  Images(const Program& program, const Call& call, int threads)
      : program_(program), call_(call), shape_(call.shape), threads_(threads), scratch_(threads),
        views_(program.nodes.size()), memory_(program.nodes.size()), gradients_(program.nodes.size()),
        gradient_memory_(program.nodes.size()) {}

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
    std::vector<bool> wanted;
    for (std::size_t i = 0; i < program_.nodes.size(); ++i) {
      const Node& node = program_.nodes[i];
      wanted.push_back(i < 2 ? call_.gradients[i] != nullptr : wanted[node.parent]);
      if (!wanted[i]) continue;
      gradients_[i] = i < 2 ? call_.gradients[i] + image * count : gradient_memory_[i].get(node.channels * shape_.size());
      std::fill_n(gradients_[i], node.channels * shape_.size(), 0.0f);
    }
    if (!call_.finite[image]) return;
    make_views(image, with_pearson_and_ancestors(wanted));
    correlate_all();
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
        const int64_t count = node.channels * shape_.size();
        if (node.op == WIENER) {
          views_[i] = call_.given[i] + image * count;
          return;
        }
        float* view = memory_[i].get(count);
        if (node.op < INVERT)
          make_view(node, views_[node.parent], view, shape_);
        else
          make_filtered_view(node, views_[node.parent], node.op == FIT ? views_[node.other()] : nullptr, view, shape_);
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
  std::vector<float> score(const Branch& branch, const double* terms, std::size_t stride, std::vector<double>& scores) {
    const std::size_t scales = branch.betas.size();
    const int64_t channels = program_.nodes[branch.views[X]].channels;
    std::vector<double> means(scales), slopes(scales);
    for (int64_t channel = 0; channel < channels; ++channel, terms += stride)
      for (std::size_t scale = 0; scale < scales; ++scale) means[scale] += terms[scale] / channels;
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

  // The gradient in a view: from the branches that compare it, and from its children, whose gradients are complete.
  void gather_gradient(int node, int64_t image) const {
    const int64_t size = shape_.size(), count = program_.nodes[node].channels * size;
    float* total = gradients_[node];
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
  std::vector<Buffer> gradient_memory_;
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

// Images: float32 (batch, channels, height, width). finite: (batch,), 0 where a pair counts as all zeros and has no
// gradient. Scores and their gradient: (batch, components). Slopes: (batch, planes of all MS-SSIM branches, height, width),
// each that of its branch's score in this plane of the view. Slopes and gradients of a side may be null where not wanted.
// Given: per node, the views (batch, channels, height, width) of attackers that are not compiled (WIENER), else null.
// The result is 0, or 1 if there was not enough memory.

#define JOINED(function, variant) function##_##variant
#define OF_VARIANT(function, variant) JOINED(function, variant)
#define FORWARD OF_VARIANT(attacker_metrics_forward, ATTACKER_METRICS_VARIANT)
#define BACKWARD OF_VARIANT(attacker_metrics_backward, ATTACKER_METRICS_VARIANT)

extern "C" int FORWARD(const int64_t* program, const double* numbers, const float* noisy, const float* clean,
                       const std::uint8_t* finite, int64_t batch, int64_t channels, int64_t height, int64_t width,
                       int threads, const float* const* given, float* scores, float* slopes_noisy, float* slopes_clean) {
  const Call call{{noisy, clean}, finite, batch, channels, {height, width}, scores, {slopes_noisy, slopes_clean}, given,
                  nullptr, {}, {}};
  return for_every_image(program, numbers, call, threads, &Images::forward);
}

extern "C" int BACKWARD(const int64_t* program, const double* numbers, const float* noisy, const float* clean,
                        const std::uint8_t* finite, int64_t batch, int64_t channels, int64_t height, int64_t width,
                        int threads, const float* gradient, const float* slopes_noisy, const float* slopes_clean,
                        float* gradient_noisy, float* gradient_clean) {
  const Call call{{noisy, clean}, finite, batch, channels, {height, width}, nullptr, {}, nullptr,
                  gradient, {slopes_noisy, slopes_clean}, {gradient_noisy, gradient_clean}};
  return for_every_image(program, numbers, call, threads, &Images::backward);
}
