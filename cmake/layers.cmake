# outrider_layer(NAME LINKS…): a static library of every .cc directly in this folder.
# A new file needs no edit here.
function(outrider_layer name)
  file(GLOB sources CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/*.cc)
  if(sources)
    add_library(${name} STATIC ${sources})
    target_link_libraries(${name} PUBLIC ${ARGN})
  else()
    add_library(${name} INTERFACE)
    target_link_libraries(${name} INTERFACE ${ARGN})
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
  set(labels)
  if(TEST_THREADS)
    set(labels LABELS threads)
    add_dependencies(threaded ${name})
  endif()
  gtest_discover_tests(${name} DISCOVERY_TIMEOUT 60 PROPERTIES TIMEOUT 120 ${labels})
endfunction()
