sq_script_test(slurm ${CMAKE_CURRENT_SOURCE_DIR}/slurm/run.sh TIMEOUT 1800)
# Most of its time is Slurm's own waiting: first, and beside others.
set_tests_properties(slurm PROPERTIES COST 1000)
sq_script_test(job_scripts ${CMAKE_CURRENT_SOURCE_DIR}/job_scripts.py)
# The same script with stand-ins for the batch system's commands.
sq_script_test(slurm_run ${CMAKE_CURRENT_SOURCE_DIR}/cli/slurm-run.sh TIMEOUT 600)
