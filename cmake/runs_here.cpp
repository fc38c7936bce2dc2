// SPDX-License-Identifier: Apache-2.0
// Returns 0 if this processor has what this file was compiled for.
int main() {
  bool yes = true;
#if defined(__x86_64__)
  __builtin_cpu_init();
#if defined(__SSE4_2__)
  yes = yes && __builtin_cpu_supports("sse4.2");
#endif
#if defined(__AVX2__)
  yes = yes && __builtin_cpu_supports("avx2");
#endif
#if defined(__FMA__)
  yes = yes && __builtin_cpu_supports("fma");
#endif
#if defined(__AVX512F__)
  yes = yes && __builtin_cpu_supports("avx512f");
#endif
#if defined(__AVX512BW__)
  yes = yes && __builtin_cpu_supports("avx512bw");
#endif
#if defined(__AVX512VBMI2__)
  yes = yes && __builtin_cpu_supports("avx512vbmi2");
#endif
#if defined(__AVX512BF16__)
  yes = yes && __builtin_cpu_supports("avx512bf16");
#endif
#endif
  return yes ? 0 : 1;
}
