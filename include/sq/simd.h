/* include/sq/simd.h: one binary, fast everywhere.
 *
 * SQ_CLONES before a function that is one elementwise loop makes the compiler emit it for AVX-512, AVX2+FMA
 * and the baseline, and choose when the program starts.  -DSQ_PORTABLE leaves the baseline only; sanitizers
 * do too, because they cannot run inside the resolver.  The variants differ by rounding (fused
 * multiply-add), so results are bitwise equal on the same kind of CPU, not across kinds. */
#pragma once

#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define SQ_SANITIZED 1
#endif
#endif
#if defined(__SANITIZE_ADDRESS__)
#define SQ_SANITIZED 1
#endif

#if defined(SQ_PORTABLE) || defined(SQ_SANITIZED) || !defined(__x86_64__) || !defined(__ELF__)
#define SQ_CLONES
#elif defined(__clang__)
/* clang 14 names the resolver <function>.ifunc and leaves <function> undefined for other files: no clones
 * there. */
#define SQ_CLONES
#else
#define SQ_CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#endif
