sq_script_test(cli_tools ${CMAKE_CURRENT_SOURCE_DIR}/cli/tools.sh)
set_tests_properties(cli_tools PROPERTIES PROCESSORS 2)
sq_script_test(cli_figures ${CMAKE_CURRENT_SOURCE_DIR}/cli/figures.sh)
set_tests_properties(cli_figures PROPERTIES PROCESSORS 2)
