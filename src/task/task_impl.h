/* src/task/task_impl.h: what the tasks share among themselves. */
#pragma once

#include "sq/task.h"

/* First member of every task's own struct; open() sets it. */
struct sq_task {
  const sq_task_ops *ops;
};

/* Prints how many examples have the input of another one. */
sq_status sq_task_check_repeats(const sq_task *t, FILE *out);
