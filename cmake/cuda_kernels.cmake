# The kernels of the CUDA back end. nvcc makes a container of machine code of each src/backend/cuda/*.cu, and one source
# holds them all as data; the rest of the program is C++ that any compiler takes and that loads the driver when it runs, so
# that it is built and tested without CUDA. What ptxas says of each kernel is kept for scripts/check_cuda_kernels.py.
set(SALIENT_CUDA AUTO CACHE STRING "build the CUDA kernels: ON, OFF, or AUTO where nvcc is found")
set_property(CACHE SALIENT_CUDA PROPERTY STRINGS AUTO ON OFF)
set(salient_oldest_nvcc 12.8)
# Chips with cp.async and mma of bf16; the PTX is for those to come.
set(salient_cuda_code
    -gencode=arch=compute_80,code=sm_80 -gencode=arch=compute_86,code=sm_86 -gencode=arch=compute_89,code=sm_89
    -gencode=arch=compute_90,code=sm_90 -gencode=arch=compute_90,code=compute_90)

function(salient_nvcc_version nvcc output)
  execute_process(COMMAND ${nvcc} --version OUTPUT_VARIABLE text ERROR_QUIET)
  string(REGEX MATCH "release ([0-9]+\\.[0-9]+)" match "${text}")
  set(${output} "${CMAKE_MATCH_1}" PARENT_SCOPE)
endfunction()

function(salient_is_new_enough result nvcc)
  salient_nvcc_version(${nvcc} version)
  if(NOT version VERSION_GREATER_EQUAL salient_oldest_nvcc)
    set(${result} FALSE PARENT_SCOPE)
  endif()
endfunction()

# SALIENT_NVCC where the kernels are to be built. Sanitizers see nothing of them.
function(salient_find_nvcc)
  if(NOT SALIENT_CUDA OR (SALIENT_CUDA STREQUAL AUTO AND SALIENT_SANITIZER))
    unset(SALIENT_NVCC CACHE)
    return()
  endif()
  # "./dev test" puts it there from PyPI.
  file(GLOB own ${CMAKE_SOURCE_DIR}/build/cuda/venv/lib/python3*/site-packages/nvidia/cu*/bin)
  find_program(SALIENT_NVCC nvcc HINTS $ENV{CUDA_HOME}/bin PATHS /usr/local/cuda/bin ${own} VALIDATOR salient_is_new_enough)
  if(NOT SALIENT_NVCC AND NOT SALIENT_CUDA STREQUAL AUTO)
    message(FATAL_ERROR "SALIENT_CUDA is ${SALIENT_CUDA}, but there is no nvcc of CUDA ${salient_oldest_nvcc} or newer")
  endif()
endfunction()

# NAME.fatbin and NAME.ptxas.txt of a .cu file.
function(salient_compile_kernels source name)
  set(output ${CMAKE_BINARY_DIR}/cuda/${name})
  add_custom_command(
    OUTPUT ${output}.fatbin ${output}.ptxas.txt
    COMMAND
      sh -c "\"$@\" 2> ${name}.ptxas.txt || { cat ${name}.ptxas.txt >&2; exit 1; }" nvcc # which says there what it warns of
      ${SALIENT_NVCC} --fatbin -std=c++20 -O3 -I${CMAKE_SOURCE_DIR}/src -Werror all-warnings -Xptxas -v --threads 0
      ${salient_cuda_code} -MD -MF ${name}.d -MT ${output}.fatbin -o ${name}.fatbin ${source}
    DEPENDS ${source} ${SALIENT_NVCC}
    DEPFILE ${output}.d
    WORKING_DIRECTORY ${CMAKE_BINARY_DIR}/cuda
    COMMENT "CUDA kernels: ${name}"
    VERBATIM)
endfunction()

# Sets `output` to the source that holds the kernels, or none.
function(salient_kernel_images output)
  salient_find_nvcc()
  set(toolkit 0)
  set(data "")
  set(table "")
  set(images "")
  if(SALIENT_NVCC)
    salient_nvcc_version(${SALIENT_NVCC} version)
    string(REPLACE "." ";" parts ${version})
    list(GET parts 0 major)
    list(GET parts 1 minor)
    math(EXPR toolkit "${major} * 1000 + ${minor} * 10")
    message(STATUS "CUDA kernels: ${SALIENT_NVCC} (${version})")
    file(MAKE_DIRECTORY ${CMAKE_BINARY_DIR}/cuda)
    file(GLOB sources CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/src/backend/cuda/*.cu)
    foreach(source IN LISTS sources)
      get_filename_component(name ${source} NAME_WE)
      salient_compile_kernels(${source} ${name})
      list(APPEND images ${CMAKE_BINARY_DIR}/cuda/${name}.fatbin)
      string(APPEND data "SALIENT_IMAGE(${name}, \"${CMAKE_BINARY_DIR}/cuda/${name}.fatbin\")\n")
      string(APPEND table "    SALIENT_ROW(${name}),\n")
    endforeach()
  else()
    message(STATUS "CUDA kernels: none, there is no nvcc of CUDA ${salient_oldest_nvcc} or newer, or it is not asked for")
  endif()
  set(file ${CMAKE_BINARY_DIR}/cuda/kernel_images.cc)
  configure_file(${CMAKE_SOURCE_DIR}/cmake/kernel_images.cc.in ${file} @ONLY)
  set_source_files_properties(${file} PROPERTIES OBJECT_DEPENDS "${images}")
  set(${output} ${file} PARENT_SCOPE)
endfunction()
