# What `cmake --install` puts where: the tools, and the client library as the CMake package turbokv.
include(CMakePackageConfigHelpers)

set(TURBOKV_PACKAGE_DIR ${CMAKE_INSTALL_LIBDIR}/cmake/turbokv)

install(TARGETS turbokv)

# The whole client under one name, turbokv::client; its parts are turbokv::PART.
turbokv_library(turbokv_client_package
  DEPS turbokv_client turbokv_cpu turbokv_files turbokv_sequence)
set_target_properties(turbokv_client_package PROPERTIES EXPORT_NAME client)
set(installed_parts base turbokv_cache_spec turbokv_client turbokv_cpu turbokv_device_pages
    turbokv_files turbokv_attention turbokv_format turbokv_identity
                    turbokv_proto turbokv_sequence turbokv_share turbokv_wire)
set_target_properties(turbokv_client PROPERTIES EXPORT_NAME transport)
foreach(part ${installed_parts})
  get_target_property(name ${part} EXPORT_NAME)
  if(NOT name)
    string(REPLACE turbokv_ "" name ${part})
    set_target_properties(${part} PROPERTIES EXPORT_NAME ${name})
  endif()
endforeach()
set_target_properties(base PROPERTIES OUTPUT_NAME turbokv_base)
add_custom_target(client_package DEPENDS ${installed_parts})

install(TARGETS turbokv_client_package ${installed_parts} EXPORT turbokv
        ARCHIVE COMPONENT client)
install(EXPORT turbokv NAMESPACE turbokv:: FILE turbokv-targets.cmake
        DESTINATION ${TURBOKV_PACKAGE_DIR} COMPONENT client)

# Headers are included as in the source tree: "client/prefill_writer.h".
set(public_headers base/*.h client/*.h kernels/*.h kernels/format/*.h client/share/*.h
                   kernels/cpu/attention.h kernels/cpu/codec.h)
foreach(pattern ${public_headers})
  get_filename_component(directory ${pattern} DIRECTORY)
  file(GLOB headers CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/${pattern})
  install(FILES ${headers} DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/turbokv/${directory}
          COMPONENT client)
endforeach()

configure_package_config_file(cmake/turbokv-config.cmake.in
  ${PROJECT_BINARY_DIR}/turbokv-config.cmake INSTALL_DESTINATION ${TURBOKV_PACKAGE_DIR})
write_basic_package_version_file(${PROJECT_BINARY_DIR}/turbokv-config-version.cmake
  COMPATIBILITY SameMinorVersion)
install(FILES ${PROJECT_BINARY_DIR}/turbokv-config.cmake
              ${PROJECT_BINARY_DIR}/turbokv-config-version.cmake
        DESTINATION ${TURBOKV_PACKAGE_DIR} COMPONENT client)
