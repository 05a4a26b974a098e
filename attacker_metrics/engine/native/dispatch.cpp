// Which variants of kernel.cpp this processor, and the system on it, can run. recipe.py compiles them for just these features.

// Names, separated by spaces, the best first.
extern "C" const char* attacker_metrics_isas() {
#if defined(__x86_64__)
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  const bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
                      __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq");
  return avx2 && avx512 ? "avx512 avx2 baseline" : avx2 ? "avx2 baseline" : "baseline";
#elif defined(__aarch64__)
  return "neon";
#else
  return "baseline";
#endif
}
