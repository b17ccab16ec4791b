sq_test(test_base MODULES linalg)
sq_script_test(include_map ${CMAKE_SOURCE_DIR}/tests/include_map.sh)
sq_test(test_parallel MODULES base F64)
