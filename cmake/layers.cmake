# What most files include, compiled once a target (OUTRIDER_PCH).
set(OUTRIDER_PCH_HEADERS <algorithm> <chrono> <cstdint> <deque> <functional> <map> <memory> <optional> <random>
    <span> <sstream> <string> <string_view> <unordered_map> <utility> <variant> <vector> <spdlog/spdlog.h>)
# What protoc's headers include.
set(OUTRIDER_PCH_PROTOBUF <google/protobuf/extension_set.h> <google/protobuf/generated_message_reflection.h>
    <google/protobuf/message.h> <google/protobuf/repeated_field.h> <google/protobuf/unknown_field_set.h>)

# outrider_precompile(NAME MORE…): where the option says so. The release build goes without, so that no header is missing.
function(outrider_precompile name)
  if(OUTRIDER_PCH)
    target_precompile_headers(${name} PRIVATE ${OUTRIDER_PCH_HEADERS} ${ARGN})
  endif()
endfunction()

# outrider_optimised(NAME): code that loops over bytes or simulates is optimised in a sanitizer's build too.
function(outrider_optimised name)
  target_compile_options(${name} PRIVATE $<IF:$<CONFIG:Debug>,-O1,-O2>)
endfunction()

# outrider_layer(NAME LINKS… [PRECOMPILE HEADERS…]): a static library of every .cc directly in this folder.
# A new file needs no edit here. PRECOMPILE: what most of its files include, and takes long.
function(outrider_layer name)
  cmake_parse_arguments(PARSE_ARGV 1 LAYER "" "" "PRECOMPILE")
  file(GLOB sources CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/*.cc)
  if(sources)
    add_library(${name} STATIC ${sources})
    target_link_libraries(${name} PUBLIC ${LAYER_UNPARSED_ARGUMENTS})
    outrider_precompile(${name} ${LAYER_PRECOMPILE})
  else()
    add_library(${name} INTERFACE)
    target_link_libraries(${name} INTERFACE ${LAYER_UNPARSED_ARGUMENTS})
  endif()
endfunction()

# outrider_test(NAME [THREADS] LINKS…): one GoogleTest program of every *_test.cc directly in this folder, each test
# a ctest of its own. THREADS: its code runs on more than one thread, so CI runs it under ThreadSanitizer too
# (target `threaded`, ctest label `threads`).
function(outrider_test name)
  cmake_parse_arguments(PARSE_ARGV 1 TEST "THREADS" "" "")
  file(GLOB sources CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/*_test.cc)
  add_executable(${name} ${sources})
  # What is tested is optimised, the tests are not: that nearly halves the time in which they compile.
  target_compile_options(${name} PRIVATE -O0)
  target_link_libraries(${name} PRIVATE ${TEST_UNPARSED_ARGUMENTS} GTest::gtest GTest::gtest_main GTest::gmock)
  outrider_precompile(${name} <gmock/gmock.h> <gtest/gtest.h>)
  set(labels)
  if(TEST_THREADS)
    set(labels LABELS threads)
    add_dependencies(threaded ${name})
  endif()
  gtest_discover_tests(${name} DISCOVERY_TIMEOUT 60 PROPERTIES TIMEOUT 120 ${labels})
endfunction()
