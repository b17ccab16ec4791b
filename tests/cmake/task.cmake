# Tasks of tokens hold no sq_real, so one precision tells all of them; batches and tasks of real values do.
sq_test(test_task_mqar MODULES task F32)
sq_test(test_task_listops MODULES task F32)
sq_test(test_task_files MODULES task F32)
sq_test(test_task_batch MODULES task F32 F64)
sq_test(test_task_data SOURCES test_task_data.c ${CMAKE_SOURCE_DIR}/src/app/data.c ${CMAKE_SOURCE_DIR}/src/app/args.c
        MODULES task LIBRARIES sq::mpi F32)
sq_test(test_task_bpe MODULES task F32 TIMEOUT 60)
sq_script_test(test_task_unicode ${CMAKE_CURRENT_SOURCE_DIR}/test_task_unicode.sh)
sq_test(test_task_wikitext MODULES task F32 TIMEOUT 120)
sq_test(test_task_cifar MODULES task F32 F64 TIMEOUT 60)
sq_test(test_task_imdb MODULES task F32 TIMEOUT 60)
sq_test(test_task_made MODULES task F32 TIMEOUT 60)
sq_test(test_task_mnist MODULES task F32 F64 TIMEOUT 60)
