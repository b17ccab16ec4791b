sq_test(test_store_rows SOURCES test_store_rows.c store_fixture.c MODULES store F32 F64 RANKS 1 2 4 TIMEOUT 120)
sq_test(test_store_untrusted MODULES store F64 TIMEOUT 60)

# Driven by test_store_readers.py.
add_executable(store_writer_f64 store_writer.c store_fixture.c)
target_link_libraries(store_writer_f64 PRIVATE sq_store_f64)
sq_script_test(test_store_readers ${CMAKE_CURRENT_SOURCE_DIR}/test_store_readers.py TIMEOUT 300)
