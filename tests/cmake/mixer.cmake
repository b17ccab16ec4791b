sq_test(test_mixer_attention MODULES mixer F32 F64)
sq_test(test_mixer_factors MODULES mixer F32 F64)
