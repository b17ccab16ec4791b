sq_test(test_spectra_pieces MODULES spectra)
sq_test(test_spectra_models MODULES spectra train)
sq_test(test_spectra_lti MODULES spectra train F32 F64)
# The command itself, with functions that the test can break.
sq_test(test_spectra_verify F32 F64 MODULES spectra train LIBRARIES sq::cjson sq::mpi
        SOURCES test_spectra_verify.c ${CMAKE_SOURCE_DIR}/src/app/verify.c ${CMAKE_SOURCE_DIR}/src/app/verify_checks.c ${CMAKE_SOURCE_DIR}/src/app/verify_lti.c ${CMAKE_SOURCE_DIR}/src/app/args.c ${CMAKE_SOURCE_DIR}/src/app/bytes.c
                ${CMAKE_SOURCE_DIR}/src/app/schema.c)
foreach(program test_spectra_verify test_spectra_verify_f64)
  target_link_options(${program} PRIVATE
    LINKER:--wrap=sq_factors_run,--wrap=sq_factors_energy,--wrap=sq_model_gradient,--wrap=sq_lti_run,--wrap=sq_lti_energy,--wrap=sq_lti_hankel,--wrap=sq_eigenvalues)
endforeach()
