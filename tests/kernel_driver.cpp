// The compiled kernel without Python: for processors of which an emulator is there, but no Python.
//
// Reads int64 counts and arrays from the standard input, runs the best variant of the kernel, or that named by the first
// argument, forward and backward, and writes a line that names the variants, the scores, and both gradients.

#include <cstdint>
#include <cstdio>
#include <cstring>
#include <vector>

using std::int64_t;

using Forward = int(const int64_t*, const double*, const float*, const float*, const std::uint8_t*, int64_t, int64_t, int64_t,
                    int64_t, int, const float* const*, float*, float*, float*);
using Backward = int(const int64_t*, const double*, const float*, const float*, const std::uint8_t*, int64_t, int64_t, int64_t,
                     int64_t, int, const float*, const float*, const float*, float*, float*);

extern "C" {
const char* attacker_metrics_isas();
#if defined(__x86_64__)
Forward attacker_metrics_forward_baseline, attacker_metrics_forward_avx2, attacker_metrics_forward_avx512;
Backward attacker_metrics_backward_baseline, attacker_metrics_backward_avx2, attacker_metrics_backward_avx512;
#else
Forward attacker_metrics_forward_neon;
Backward attacker_metrics_backward_neon;
#endif
}

struct Variant {
  const char* name;
  Forward* forward;
  Backward* backward;
};

const Variant VARIANTS[] = {
#if defined(__x86_64__)
    {"baseline", attacker_metrics_forward_baseline, attacker_metrics_backward_baseline},
    {"avx2", attacker_metrics_forward_avx2, attacker_metrics_backward_avx2},
    {"avx512", attacker_metrics_forward_avx512, attacker_metrics_backward_avx512},
#else
    {"neon", attacker_metrics_forward_neon, attacker_metrics_backward_neon},
#endif
};

template <class T>
std::vector<T> read(int64_t count) {
  std::vector<T> values(count);
  if (std::fread(values.data(), sizeof(T), count, stdin) != static_cast<std::size_t>(count)) std::fputs("too little", stderr);
  return values;
}

void write(const std::vector<float>& values) { std::fwrite(values.data(), sizeof(float), values.size(), stdout); }

int main(int, char** arguments) {
  const char* const able = attacker_metrics_isas();
  std::puts(able);
  const char* const wanted = arguments[1];
  const std::size_t length = wanted ? std::strlen(wanted) : std::strcspn(able, " ");
  for (const Variant& variant : VARIANTS) {
    if (std::strlen(variant.name) != length || std::strncmp(variant.name, wanted ? wanted : able, length)) continue;
    const std::vector<int64_t> sizes = read<int64_t>(8);
    const int64_t batch = sizes[2], channels = sizes[3], height = sizes[4], width = sizes[5];
    const int64_t components = sizes[6], planes = sizes[7], area = height * width, count = batch * channels * area;
    const auto program = read<int64_t>(sizes[0]);
    const auto numbers = read<double>(sizes[1]);
    const auto noisy = read<float>(count), clean = read<float>(count);
    const std::vector<std::uint8_t> finite(batch, 1);
    const std::vector<const float*> given(program.size());
    std::vector<float> scores(batch * components), of_noisy(batch * planes * area), of_clean(of_noisy);
    const std::vector<float> ones(scores.size(), 1.0f);
    std::vector<float> to_noisy(count), to_clean(count);
    if (variant.forward(program.data(), numbers.data(), noisy.data(), clean.data(), finite.data(), batch, channels, height,
                        width, 2, given.data(), scores.data(), of_noisy.data(), of_clean.data()) ||
        variant.backward(program.data(), numbers.data(), noisy.data(), clean.data(), finite.data(), batch, channels, height,
                         width, 2, ones.data(), of_noisy.data(), of_clean.data(), to_noisy.data(), to_clean.data()))
      return 1;
    write(scores), write(to_noisy), write(to_clean);
    return 0;
  }
  return 2;
}
