# Machines that misbehave: a preloaded library that fills disks and sets clocks, and runs that are hit at random moments.
add_library(sq_preload MODULE preload.c)
target_compile_definitions(sq_preload PRIVATE _GNU_SOURCE)
target_link_libraries(sq_preload PRIVATE ${CMAKE_DL_LIBS})
sq_script_test(chaos ${CMAKE_CURRENT_SOURCE_DIR}/chaos.py TIMEOUT 1800 ARGS --rounds 20)
set_tests_properties(chaos PROPERTIES PROCESSORS 2)
sq_script_test(chaos_teams ${CMAKE_CURRENT_SOURCE_DIR}/chaos.py TIMEOUT 1800 ARGS --teams --rounds 6)
set_tests_properties(chaos_teams PROPERTIES PROCESSORS 4)
sq_script_test(cli_recover ${CMAKE_CURRENT_SOURCE_DIR}/cli/recover.sh)
set_tests_properties(cli_recover PROPERTIES PROCESSORS 2)
# What else may lie under the names of a results file, its lock and its checkpoints.
sq_script_test(cli_names ${CMAKE_CURRENT_SOURCE_DIR}/cli/names.sh)
