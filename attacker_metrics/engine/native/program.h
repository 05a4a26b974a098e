// What to compute, read from the two lists that attacker_metrics/program.py describes.

#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

namespace {

enum Op : int64_t {
  LUMA, CLAMP, MINMAX, SOBEL, STANDARDIZE, BLUR, GAMMA, WAVELET,
  INVERT, EQUALIZE, MEDIAN, UNSHARP, WIENER, JPEG, FIT  // without pull-back
};
enum Normalize : int64_t { NONE, RELU, SIMPLE, FOLD };

struct Node {
  Op op;
  int64_t parent;
  const double* settings;
  int64_t channels;
  int depth;  // attackers between the image and this view
  std::vector<int> children;
  int64_t other() const { return static_cast<int64_t>(settings[0]); }  // of FIT: the clean view
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
    for (int root = 0; root < 2; ++root) nodes.push_back({CLAMP, -1, nullptr, channels, 0, {}});
    for (int64_t left = *code++; left > 0; --left, code += 3) {
      Node& parent = nodes[code[1]];
      const Op op = static_cast<Op>(code[0]);
      const int64_t its_channels = op == LUMA ? 1 : parent.channels;
      const double* settings = numbers + code[2];
      Node node{op, code[1], settings, its_channels, parent.depth + 1, {}};
      if (op == FIT) node.depth = std::max(node.depth, nodes[node.other()].depth + 1);
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

}  // namespace
