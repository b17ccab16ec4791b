/* src/task/task_impl.h: what the tasks share among themselves. */
#pragma once

#include "sq/task.h"

/* First member of every task's own struct; open() sets it. */
struct sq_task {
  const sq_task_ops *ops;
};
