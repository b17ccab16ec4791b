sq_script_test(slurm ${CMAKE_CURRENT_SOURCE_DIR}/slurm/run.sh)
# Most of its time is Slurm's own waiting: first, and beside others.
set_tests_properties(slurm PROPERTIES COST 1000)
sq_script_test(job_scripts ${CMAKE_CURRENT_SOURCE_DIR}/job_scripts.py)
