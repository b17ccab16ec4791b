sq_test(test_config_errors MODULES config)
sq_test(test_config_grid MODULES config)
sq_test(test_config_files MODULES config train task model spectra LIBRARIES sq::cjson)
