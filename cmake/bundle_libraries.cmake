# Run by `cmake --install` (bundle.cmake): copies the libraries that `programs` need, and Open MPI:
# its mpirun and its components, where it looks for them when OPAL_PREFIX is the bundle.
set(root "$ENV{DESTDIR}${CMAKE_INSTALL_PREFIX}")

# The system's own: they belong to its kernel, its loader and its driver. NVIDIA's: as large as
# all else a dozen times over, and on every machine that has a GPU.
set(glibc "^(ld-linux|lib(c|m|mvec|dl|rt|pthread|util|resolv|anl|nsl|nss_[a-z]+|thread_db)\\.so)")
set(nvidia
  "^lib(cuda|cudart|cublas|cublasLt|cudnn[a-z_]*|nccl|nvrtc[a-z-]*|nvJitLink|nvidia-ml)\\.so")

# Of no use between processes of a run: one-sided communication (OpenSHMEM, UCX's), files, tracing.
# Of fast networks: they need drivers that fit the cluster; there, build with the cluster's MPI.
set(unused_frameworks "mca_(atomic|memheap|scoll|spml|sshmem|fbtl|fcoll|fs|io|sharedfp)_")
set(unused_components "_(monitoring|ucx|ofi|openib|psm|psm2)\\.so$")

# VARIABLE = where Open MPI has its WHAT (prefix, pkglibdir, ...).
function(open_mpi_folder variable what)
  execute_process(COMMAND ompi_info --parsable --path ${what}
    OUTPUT_VARIABLE line OUTPUT_STRIP_TRAILING_WHITESPACE RESULT_VARIABLE status)
  if(NOT status EQUAL 0)
    message(FATAL_ERROR "ompi_info, of Open MPI's packages, does not run: ${status}")
  endif()
  string(REGEX REPLACE "^path:[a-z]+:" "" folder "${line}")
  set(${variable} "${folder}" PARENT_SCOPE)
endfunction()

# Components lie where they lay below Open MPI's prefix: it looks nowhere else.
function(install_open_mpi components_variable)
  open_mpi_folder(prefix prefix)
  open_mpi_folder(libraries pkglibdir)
  open_mpi_folder(data pkgdatadir)
  file(GLOB components ${libraries}/mca_*.so)
  list(FILTER components EXCLUDE REGEX "${unused_frameworks}|${unused_components}")
  file(RELATIVE_PATH destination ${prefix} ${libraries})
  file(INSTALL ${components} DESTINATION "${CMAKE_INSTALL_PREFIX}/${destination}")
  file(RELATIVE_PATH destination ${prefix} ${data})
  file(INSTALL ${data}/ DESTINATION "${CMAKE_INSTALL_PREFIX}/${destination}")
  set(${components_variable} "${components}" PARENT_SCOPE)
endfunction()

# A library's own RPATH names folders of this machine, and would hide the RPATH of the programs.
function(install_library source folder name)
  file(MAKE_DIRECTORY ${root}/${folder})
  file(REAL_PATH ${source} source)
  file(COPY_FILE ${source} ${root}/${folder}/${name})
  file(RPATH_REMOVE FILE ${root}/${folder}/${name})
  message(STATUS "Library: ${root}/${folder}/${name}")
endfunction()

list(FILTER programs INCLUDE REGEX ".")
set(built)
foreach(program IN LISTS programs)
  if(EXISTS ${program})
    list(APPEND built ${program})
  endif()
endforeach()

install_open_mpi(components)
find_program(orterun orterun REQUIRED)
find_program(orted orted REQUIRED)
install_library(${orterun} libexec mpirun)
install_library(${orted} bin orted)

file(GET_RUNTIME_DEPENDENCIES
  EXECUTABLES ${built} ${orterun} ${orted}
  MODULES ${components}
  PRE_EXCLUDE_REGEXES ${glibc} ${nvidia}
  RESOLVED_DEPENDENCIES_VAR libraries
  UNRESOLVED_DEPENDENCIES_VAR missing
  CONFLICTING_DEPENDENCIES_PREFIX conflicts)
if(missing)
  message(FATAL_ERROR "libraries that the programs need are not found: ${missing}")
endif()
foreach(library IN LISTS libraries)
  get_filename_component(name ${library} NAME)
  install_library(${library} lib ${name})
endforeach()
foreach(name IN LISTS conflicts_FILENAMES)  # one library by two paths: any of them
  list(GET conflicts_${name} 0 library)
  install_library(${library} lib ${name})
endforeach()
