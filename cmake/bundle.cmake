# `cmake --install build --prefix DIR` makes a folder that runs wherever it is copied to:
#   bin/        caravan, mpirun and programs that measure
#   tests/      test programs and what they compare with; gpu.sh runs those that a GPU needs
#   lib/        the libraries that these need, but for glibc's and NVIDIA's
#   bench/gpu/  models and scripts of measurements      configs/, README.md
# It holds what was built: the target `bundle` builds all of it first, and installs to build/bundle.
# Included last, when all targets are there.
set(caravan_programs caravan steady_state_program)
set(caravan_test_programs
  runtime_cuda_test runtime_cpu_test golden_losses_test e2e_test)
set(caravan_bench_programs  # none is built unless it is asked for: a component of their own
  bench_step bench_ceilings bench_cuda_kernels bench_cuda_matmul
  bench_gpu_ceilings)
set(CMAKE_INSTALL_DEFAULT_COMPONENT_NAME caravan)

# Never /usr/local: the bundle has libraries of its own.
if(CMAKE_INSTALL_PREFIX_INITIALIZED_TO_DEFAULT)
  set(CMAKE_INSTALL_PREFIX ${CMAKE_BINARY_DIR}/bundle CACHE PATH "Where the bundle goes" FORCE)
endif()

# The old tag, DT_RPATH, also holds for what libraries need; the new one, DT_RUNPATH, does not.
# NVIDIA's libraries are not in lib/: those of the machine are used.
set(caravan_bundle_rpath
  $ORIGIN/../lib /usr/local/cuda/lib64 /usr/local/cuda/targets/x86_64-linux/lib)
function(caravan_install_programs component destination)
  foreach(program ${ARGN})
    if(TARGET ${program})
      target_link_options(${program} PRIVATE -Wl,--disable-new-dtags)
      set_target_properties(${program} PROPERTIES INSTALL_RPATH "${caravan_bundle_rpath}")
      install(TARGETS ${program} DESTINATION ${destination} COMPONENT ${component} OPTIONAL)
      list(APPEND built ${program})
      list(APPEND files $<TARGET_FILE:${program}>)
    endif()
  endforeach()
  set(bundle_targets ${bundle_targets} ${built} PARENT_SCOPE)
  set(bundle_files ${bundle_files} ${files} PARENT_SCOPE)
endfunction()

install(CODE [[
  if(CMAKE_INSTALL_PREFIX MATCHES "^/usr(/local)?/?$")
    message(FATAL_ERROR "a bundle has libraries of its own, which must not lie in "
      "${CMAKE_INSTALL_PREFIX}: name another folder, cmake --install build --prefix DIR")
  endif()]] ALL_COMPONENTS)

caravan_install_programs(caravan bin ${caravan_programs})
caravan_install_programs(caravan tests ${caravan_test_programs})
caravan_install_programs(bench bin ${caravan_bench_programs})
install(CODE "set(programs \"${bundle_files}\")")
install(SCRIPT cmake/bundle_libraries.cmake)

install(PROGRAMS cmake/bundle/mpirun DESTINATION bin)
install(FILES cmake/bundle/README.md DESTINATION .)
install(DIRECTORY configs DESTINATION .)
install(DIRECTORY tests/golden DESTINATION tests FILES_MATCHING
  PATTERN *.json PATTERN *.txt PATTERN *.safetensors PATTERN *.npz)
install(PROGRAMS tests/gpu.sh DESTINATION tests)
install(FILES tests/gpu.py DESTINATION tests)
install(DIRECTORY bench/gpu DESTINATION bench FILES_MATCHING PATTERN *.yaml PATTERN *.py)
install(FILES bench/llama_pytorch.py DESTINATION bench)

add_custom_target(bundle
  COMMAND ${CMAKE_COMMAND} --install ${CMAKE_BINARY_DIR} --prefix ${CMAKE_BINARY_DIR}/bundle
  DEPENDS ${bundle_targets}
  USES_TERMINAL)
