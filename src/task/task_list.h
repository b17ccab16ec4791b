/* The tasks: names for dataset._name_.  src/task/<name>.c defines sq_task_<name>. */
SQ_TASK(listops)
SQ_TASK(mqar)
SQ_TASK(wikitext)
SQ_TASK(cifar)
SQ_TASK(imdb)
