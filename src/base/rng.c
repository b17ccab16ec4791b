/* src/base/rng.c: Philox4x32-10 (Salmon, Moraes, Dror, Shaw: Parallel random numbers: as easy as 1, 2, 3, SC
 * 2011). */
#include "sq/rng.h"

#include <math.h>

#include "sq/status.h"

void sq_philox(const uint32_t key[2], const uint32_t ctr[4], uint32_t out[4])
{
  const uint32_t M0 = 0xD2511F53u, M1 = 0xCD9E8D57u; /* multipliers and Weyl steps of the paper */
  uint32_t k0 = key[0], k1 = key[1], c0 = ctr[0], c1 = ctr[1], c2 = ctr[2], c3 = ctr[3];
  for (int round = 0; round < 10; ++round) {
    const uint64_t p0 = (uint64_t)M0 * c0, p1 = (uint64_t)M1 * c2;
    c0 = (uint32_t)(p1 >> 32) ^ c1 ^ k0;
    c1 = (uint32_t)p1;
    c2 = (uint32_t)(p0 >> 32) ^ c3 ^ k1;
    c3 = (uint32_t)p0;
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  out[0] = c0;
  out[1] = c1;
  out[2] = c2;
  out[3] = c3;
}

void sq_rng_init(sq_rng *r, uint64_t seed, uint32_t stream, uint64_t index)
{
  *r = (sq_rng){.key = {(uint32_t)seed, (uint32_t)(seed >> 32)},
                .ctr = {0, (uint32_t)index, (uint32_t)(index >> 32), stream},
                .left = 0};
}

uint32_t sq_rng_u32(sq_rng *r)
{
  if (r->left == 0) {
    sq_philox(r->key, r->ctr, r->buf);
    ++r->ctr[0];
    SQ_ASSERT(r->ctr[0] != 0); /* 2^34 numbers from one stream and index */
    r->left = 4;
  }
  return r->buf[4 - r->left--];
}

uint32_t sq_rng_below(sq_rng *r, uint32_t n)
{
  /* Lemire 2019 (arXiv 1805.10941): the high word of n*u, rejecting the low words that would favour some. */
  SQ_ASSERT(n > 0);
  uint64_t product = (uint64_t)n * sq_rng_u32(r);
  if ((uint32_t)product < n) {
    const uint32_t threshold = (0u - n) % n;
    while ((uint32_t)product < threshold) product = (uint64_t)n * sq_rng_u32(r);
  }
  return (uint32_t)(product >> 32);
}

double sq_rng_uniform(sq_rng *r)
{
  const uint64_t high = sq_rng_u32(r), low = sq_rng_u32(r);
  return (double)(((high << 32) | low) >> 11) * 0x1p-53;
}

double sq_rng_normal(sq_rng *r)
{
  const double u = 1.0 - sq_rng_uniform(r), v = sq_rng_uniform(r); /* u in (0,1]: its log is finite */
  return sqrt(-2.0 * log(u)) * cos(6.283185307179586476925286766559 * v);
}
