# Fuzz targets: tests/fuzz/fuzz_<name>.c.  With SQ_FUZZ they are libFuzzer's (tests/fuzz/run.sh); else a plain driver runs the
# corpus that tests/fuzz/make_corpus.py makes, as a test.
function(sq_fuzz name)
  cmake_parse_arguments(A "" "" "SOURCES;MODULES" ${ARGN})
  set(sources ${CMAKE_CURRENT_SOURCE_DIR}/fuzz/${name}.c ${A_SOURCES})
  if(SQ_FUZZ)
    add_executable(${name} ${sources})
    target_link_options(${name} PRIVATE -fsanitize=fuzzer)
  else()
    add_executable(${name} ${sources} ${CMAKE_CURRENT_SOURCE_DIR}/fuzz/driver.c)
  endif()
  target_include_directories(${name} PRIVATE ${CMAKE_SOURCE_DIR}/src)
  foreach(m ${A_MODULES})
    target_link_libraries(${name} PRIVATE sq_${m})
  endforeach()
endfunction()

sq_fuzz(fuzz_listops MODULES task)
sq_fuzz(fuzz_imdb MODULES task)
sq_fuzz(fuzz_cifar MODULES task)
sq_fuzz(fuzz_mnist MODULES task)
sq_fuzz(fuzz_wikitext MODULES task)
sq_fuzz(fuzz_tokens MODULES task)
sq_fuzz(fuzz_aan MODULES task)
sq_fuzz(fuzz_pathfinder MODULES task)
sq_fuzz(fuzz_checkpoint MODULES task SOURCES ${CMAKE_SOURCE_DIR}/src/train/checkpoint.c)
sq_fuzz(fuzz_config MODULES model task SOURCES ${CMAKE_SOURCE_DIR}/src/train/keys.c)
sq_fuzz(fuzz_results MODULES store
        SOURCES ${CMAKE_SOURCE_DIR}/src/app/weights.c ${CMAKE_SOURCE_DIR}/src/app/report.c ${CMAKE_SOURCE_DIR}/src/app/status.c ${CMAKE_SOURCE_DIR}/src/app/table.c
                ${CMAKE_SOURCE_DIR}/src/app/swept.c ${CMAKE_SOURCE_DIR}/src/app/args.c ${CMAKE_SOURCE_DIR}/src/app/schema.c)

if(NOT SQ_FUZZ)
  sq_script_test(fuzz_corpus ${CMAKE_CURRENT_SOURCE_DIR}/fuzz/corpus.sh TIMEOUT 120)
endif()
