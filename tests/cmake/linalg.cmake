sq_test(test_linalg_eigen MODULES linalg)
sq_test(test_linalg_fft MODULES linalg F32 F64)
