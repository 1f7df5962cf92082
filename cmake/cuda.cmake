# Decides whether the CUDA backend is built: CARAVAN_HAS_CUDA. AUTO builds it where the toolkit is.
set(CARAVAN_CUDA AUTO CACHE STRING "The CUDA backend: AUTO, ON or OFF")
set_property(CACHE CARAVAN_CUDA PROPERTY STRINGS AUTO ON OFF)
set(CARAVAN_CUDA_ARCHITECTURES 90 CACHE STRING "Of 80 (A100), 90 (H100, H200), 100 (B200): a list")

set(CARAVAN_HAS_CUDA FALSE)
set(CARAVAN_HAS_NCCL FALSE)
string(TOUPPER "${CARAVAN_CUDA}" CARAVAN_CUDA)
if(NOT CARAVAN_CUDA MATCHES "^(AUTO|ON|OFF)$")
  message(FATAL_ERROR "CARAVAN_CUDA is '${CARAVAN_CUDA}': it must be AUTO, ON or OFF")
endif()
foreach(architecture ${CARAVAN_CUDA_ARCHITECTURES})
  if(NOT architecture MATCHES "^(8[0-9]|9[0-9]|1[0-9][0-9])$")
    message(FATAL_ERROR "CARAVAN_CUDA_ARCHITECTURES has '${architecture}': kernels need 80 (A100) or "
      "newer, as numbers such as \"80;90\"")
  endif()
endforeach()
list(SORT CARAVAN_CUDA_ARCHITECTURES COMPARE NATURAL)
list(GET CARAVAN_CUDA_ARCHITECTURES 0 CARAVAN_LEAST_CAPABILITY)
if(CARAVAN_CUDA STREQUAL OFF)
  message(STATUS "CUDA: off")
  return()
endif()

# Many installations have nvcc in a place that is not in PATH.
if(NOT CMAKE_CUDA_COMPILER AND NOT DEFINED ENV{CUDACXX} AND EXISTS /usr/local/cuda/bin/nvcc)
  find_program(CMAKE_CUDA_COMPILER nvcc PATHS /usr/local/cuda/bin)
endif()
include(CheckLanguage)
check_language(CUDA)
if(CMAKE_CUDA_COMPILER)
  set(CMAKE_CUDA_ARCHITECTURES ${CARAVAN_CUDA_ARCHITECTURES})
  enable_language(CUDA)
  find_package(CUDAToolkit 13)
endif()
if(NOT CMAKE_CUDA_COMPILER OR NOT CUDAToolkit_FOUND)
  if(CARAVAN_CUDA STREQUAL ON)
    message(FATAL_ERROR "CARAVAN_CUDA=ON, but there is no CUDA Toolkit 13: install it, put its nvcc "
      "into PATH, or use -DCARAVAN_CUDA=OFF")
  endif()
  message(STATUS "CUDA: no toolkit found, built without (-DCARAVAN_CUDA=ON demands it)")
  return()
endif()
set(CARAVAN_HAS_CUDA TRUE)
if(NOT CMAKE_CUDA20_STANDARD_COMPILE_OPTION)  # CMake 3.25 does not know that nvcc has it
  set(CMAKE_CUDA20_STANDARD_COMPILE_OPTION "-std=c++20")
endif()
set(CMAKE_CUDA_STANDARD 20)
set(CMAKE_CUDA_FLAGS_RELEASE "-O3 -DNDEBUG")
message(STATUS "CUDA: toolkit ${CUDAToolkit_VERSION}, architectures ${CMAKE_CUDA_ARCHITECTURES}")

# Without NCCL ranks of several devices exchange bytes by way of the host.
find_path(NCCL_INCLUDE_DIR nccl.h HINTS ${CUDAToolkit_INCLUDE_DIRS} ENV NCCL_HOME
  PATH_SUFFIXES include)
find_library(NCCL_LIBRARY nccl HINTS ${CUDAToolkit_LIBRARY_DIR} ENV NCCL_HOME
  PATH_SUFFIXES lib lib64)
if(NCCL_INCLUDE_DIR AND NCCL_LIBRARY)
  set(CARAVAN_HAS_NCCL TRUE)
  add_library(caravan_nccl_headers INTERFACE)
  target_include_directories(caravan_nccl_headers SYSTEM INTERFACE ${NCCL_INCLUDE_DIR})
  message(STATUS "NCCL: ${NCCL_LIBRARY}")
else()
  message(STATUS "NCCL: not found, ranks communicate through the host (libnccl-dev, or NCCL_HOME)")
endif()

# cuDNN for attention: its library, and the headers of cudnn-frontend, which are not part of it.
set(CARAVAN_CUDNN_FRONTEND "$ENV{HOME}/.cache/caravan/cudnn-frontend-1.32.0" CACHE PATH
  "Where the headers of cudnn-frontend are; launch/setup.sh puts them there")
find_path(CARAVAN_CUDNN_INCLUDE cudnn.h HINTS ${CUDAToolkit_INCLUDE_DIRS})
find_library(CARAVAN_CUDNN_LIBRARY cudnn HINTS ${CUDAToolkit_LIBRARY_DIR})
find_path(CARAVAN_CUDNN_FRONTEND_INCLUDE cudnn_frontend.h
  PATHS ${CARAVAN_CUDNN_FRONTEND} PATH_SUFFIXES include NO_DEFAULT_PATH)
set(CARAVAN_HAS_CUDNN FALSE)
if(NOT CARAVAN_CUDNN_INCLUDE OR NOT CARAVAN_CUDNN_LIBRARY)
  message(STATUS "cuDNN: not found, attention runs on our own kernels")
elseif(NOT CARAVAN_CUDNN_FRONTEND_INCLUDE)
  message(STATUS "cuDNN: no cudnn_frontend.h in ${CARAVAN_CUDNN_FRONTEND}, attention runs on our own "
    "kernels (launch/setup.sh fetches it)")
else()
  set(CARAVAN_HAS_CUDNN TRUE)
  message(STATUS "cuDNN: ${CARAVAN_CUDNN_LIBRARY}, headers ${CARAVAN_CUDNN_FRONTEND_INCLUDE}")
  add_library(caravan_cudnn INTERFACE)
  target_include_directories(caravan_cudnn SYSTEM INTERFACE
    ${CARAVAN_CUDNN_FRONTEND_INCLUDE} ${CARAVAN_CUDNN_INCLUDE})
endif()

# Programs open these libraries when they want them (runtime/cuda/on_demand.h): here they are.
set(CMAKE_BUILD_RPATH ${CUDAToolkit_LIBRARY_DIR})
foreach(library ${NCCL_LIBRARY} ${CARAVAN_CUDNN_LIBRARY})
  get_filename_component(folder ${library} DIRECTORY)
  list(APPEND CMAKE_BUILD_RPATH ${folder})
endforeach()
list(REMOVE_DUPLICATES CMAKE_BUILD_RPATH)
