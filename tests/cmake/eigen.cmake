sq_test(test_eigen_secular MODULES eigen F64 RANKS 1 2 4 6 TIMEOUT 300)
if(SQ_SCALAPACK_FOUND)
  sq_test(test_eigen_values SOURCES test_eigen_values.c zgemv_guard.c MODULES eigen F64 RANKS 1 2 4 6 TIMEOUT 300)
  # ScaLAPACK's traps: the test stands between the module and the library.
  sq_test(test_eigen_traps SOURCES test_eigen_traps.c zgemv_guard.c MODULES eigen F64 RANKS 1 2 4 6 TIMEOUT 300)
  target_link_options(test_eigen_traps_f64 PRIVATE LINKER:--wrap=pdhseqr_,--wrap=pzlahqr_)
endif()
sq_script_test(cli_operator ${CMAKE_CURRENT_SOURCE_DIR}/cli/operator.sh)
set_tests_properties(cli_operator PROPERTIES PROCESSORS 2)
