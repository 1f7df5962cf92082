# caravan_mpi_test(<name> <ranks> <target> [args...] [EXIT_CODE n])
# A ctest that runs a program under mpirun, with the label "mpi": leave it out with -LE mpi where
# mpirun does not work, as under sanitizers. It passes when mpirun ends with EXIT_CODE (0).
function(caravan_mpi_test name ranks target)
  cmake_parse_arguments(ARG "" "EXIT_CODE" "" ${ARGN})
  if(NOT DEFINED ARG_EXIT_CODE)
    set(ARG_EXIT_CODE 0)
  endif()
  list(JOIN ARG_UNPARSED_ARGUMENTS " " arguments)
  add_test(NAME ${name}
    COMMAND sh -c "${MPIEXEC_EXECUTABLE} -n ${ranks} $<TARGET_FILE:${target}> ${arguments}; \
code=$?; echo \"mpirun ended with $code\"; test $code -eq ${ARG_EXIT_CODE}")
  # Tests run as root in containers, with more ranks than cores, and where one process may not read
  # the memory of another (process_vm_readv).
  set_tests_properties(${name} PROPERTIES
    LABELS mpi PROCESSORS ${ranks} TIMEOUT 300
    ENVIRONMENT "OMPI_ALLOW_RUN_AS_ROOT=1;OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1;\
OMPI_MCA_rmaps_base_oversubscribe=1;OMPI_MCA_mpi_yield_when_idle=1;\
OMPI_MCA_hwloc_base_binding_policy=none;OMPI_MCA_btl_vader_single_copy_mechanism=none")
endfunction()
