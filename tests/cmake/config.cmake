sq_test(test_config_errors MODULES config)
sq_test(test_config_grid MODULES config)
sq_test(test_config_files MODULES config train task model spectra LIBRARIES sq::cjson)
sq_script_test(cli_configs ${CMAKE_CURRENT_SOURCE_DIR}/cli/configs.sh TIMEOUT 120)
