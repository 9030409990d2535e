# The CPU back end with all that stands below it, and their tests, in one program: the same sources as ever but
# for oneDNN, whose products plain loops take over. fmt and nlohmann/json are used as headers and GoogleTest is built
# from its sources, so that no library of the other processor is needed. Emulated where the program cannot run here.
set(SALIENT_GOOGLETEST /usr/src/googletest CACHE PATH "GoogleTest's sources (Debian: googletest)")
set(SALIENT_EMULATOR qemu-aarch64 CACHE STRING "runs programs of aarch64 on another processor (Debian: qemu-user)")
set(SALIENT_EMULATED_ROOT /usr/aarch64-linux-gnu CACHE PATH "with the libraries of its C and C++ (Debian: g++-aarch64-linux-gnu)")

# Headers that are the same for every processor, apart from those of this one beside them.
foreach(header IN ITEMS fmt nlohmann)
  find_path(${header}_parent NAMES ${header} REQUIRED NO_CMAKE_FIND_ROOT_PATH)
  file(MAKE_DIRECTORY ${CMAKE_BINARY_DIR}/headers)
  file(CREATE_LINK ${${header}_parent}/${header} ${CMAKE_BINARY_DIR}/headers/${header} SYMBOLIC)
endforeach()

file(GLOB_RECURSE kernel_sources CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/src/base/*.cc ${CMAKE_SOURCE_DIR}/src/tensor/*.cc
     ${CMAKE_SOURCE_DIR}/src/quant/*.cc ${CMAKE_SOURCE_DIR}/src/backend/*.cc)
list(FILTER kernel_sources EXCLUDE REGEX "/(base/yaml|base/name_pattern|backend/cpu/gemm)\\.cc$")
list(FILTER kernel_sources EXCLUDE REGEX ${salient_other_processors})
file(GLOB kernel_tests CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/tests/backend/*.cc ${CMAKE_SOURCE_DIR}/tests/tensor/*.cc
     ${CMAKE_SOURCE_DIR}/tests/base/parallel_test.cc ${CMAKE_SOURCE_DIR}/tests/quant/group_quantize_test.cc
     ${CMAKE_SOURCE_DIR}/tests/quant/quantized_weight_test.cc)
list(FILTER kernel_tests EXCLUDE REGEX "/gemm_test\\.cc$") # of oneDNN's manners

set(INSTALL_GTEST OFF)
add_subdirectory(${SALIENT_GOOGLETEST} ${CMAKE_BINARY_DIR}/googletest EXCLUDE_FROM_ALL SYSTEM)
target_compile_options(gtest PRIVATE -w) # not ours to mend
target_compile_options(gmock PRIVATE -w)
set(SALIENT_CUDA OFF)
salient_kernel_images(salient_kernel_images)
add_library(salient_kernels STATIC ${kernel_sources} ${salient_kernel_images}) # whose files that need other libraries are not drawn on
target_include_directories(salient_kernels PUBLIC ${CMAKE_SOURCE_DIR}/include ${CMAKE_SOURCE_DIR}/src)
target_include_directories(salient_kernels SYSTEM PUBLIC ${CMAKE_BINARY_DIR}/headers)
target_compile_definitions(salient_kernels PUBLIC FMT_HEADER_ONLY)
target_link_libraries(salient_kernels PUBLIC Threads::Threads ${CMAKE_DL_LIBS} PRIVATE salient_options)
add_executable(salient_kernel_tests ${kernel_tests})
target_include_directories(salient_kernel_tests PRIVATE ${CMAKE_SOURCE_DIR}/tests)
target_compile_definitions(salient_kernel_tests PRIVATE SALIENT_SOURCE_DIR="${CMAKE_SOURCE_DIR}")
target_link_libraries(salient_kernel_tests PRIVATE salient_kernels salient_options gtest gmock gtest_main)

enable_testing()
if(NOT CMAKE_CROSSCOMPILING)
  add_test(NAME kernels COMMAND salient_kernel_tests --gtest_brief=1)
  return()
endif()
# All on a processor with every extension. On one without any what its tables choose, and no portable kernels: they are the
# same there. The emulator starts no programs for the one that it runs, which leaves tests in a process of their own out,
# and one test would take a minute each time: once is enough.
set(own_process "*TheEnvironmentForcesKernelsAndLibrary*")
set(slowest "*LinearTest.IntegersAgreeWithDoublePrecisionForEveryScheme")
function(add_emulated_test cpu left_out)
  add_test(NAME kernels.${cpu} COMMAND ${SALIENT_EMULATOR} -cpu ${cpu} -L ${SALIENT_EMULATED_ROOT}
           $<TARGET_FILE:salient_kernel_tests> --gtest_brief=1 --gtest_filter=-${left_out})
endfunction()
add_emulated_test(max ${own_process}:${slowest}/portable)
add_emulated_test(cortex-a53 ${own_process}:${slowest}/*:*/portable)
