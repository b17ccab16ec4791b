sq_test(test_train_optim MODULES train F32 F64)
sq_test(test_train_schedules MODULES store)
foreach(test test_train_run test_train_limits test_train_checkpoint)
  sq_test(${test} SOURCES ${test}.c train_fixture.c MODULES train F32 F64)
  foreach(suffix "" "_f64") # counts the allocations of the program's own code
    target_link_options(${test}${suffix} PRIVATE LINKER:--wrap=malloc,--wrap=calloc,--wrap=realloc,--wrap=mmap)
  endforeach()
endforeach()
