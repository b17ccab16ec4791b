/* src/task/mqar_impl.h: the task without a configuration, for its tests. */
#pragma once

#include "task_impl.h"

enum { MQAR_MAX_T = 32768 }; /* bounds what an example keeps on the stack: 0.4 MB */

typedef struct {
  uint64_t seed;
  int V, T, K;
  double a;
  size_t size[SQ_NSPLIT];
  int unused_filler;  /* filler: "unused" */
  int published_keys; /* recipe "published": test example i has the keys of training example i */
} mqar_params;

/* Parameters as the configuration's checks let them pass. */
sq_status sq_mqar_create(const mqar_params *p, sq_task **t);
