# Timings: built with the tests, run by hand (tests/bench/compare.sh), never by ctest.
add_executable(bench-step ${CMAKE_CURRENT_SOURCE_DIR}/bench/bench_step.c)
target_link_libraries(bench-step PRIVATE sq_train sq_spectra)
add_executable(bench-tokenize ${CMAKE_CURRENT_SOURCE_DIR}/bench/bench_tokenize.c)
target_link_libraries(bench-tokenize PRIVATE sq_task)
