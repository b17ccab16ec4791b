sq_script_test(slurm ${CMAKE_CURRENT_SOURCE_DIR}/slurm/run.sh)
set_tests_properties(slurm PROPERTIES PROCESSORS 2)
sq_script_test(job_scripts ${CMAKE_CURRENT_SOURCE_DIR}/job_scripts.py)
