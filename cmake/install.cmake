# SPDX-License-Identifier: Apache-2.0
# Installs headers, the CMake package, a pkg-config file and the licence; all of it can be moved to another place.
include(GNUInstallDirs)
include(CMakePackageConfigHelpers)

# Nothing here depends on the machine: everything but the headers goes to share/.
set(tokenmix_package_folder "${CMAKE_INSTALL_DATADIR}/cmake/tokenmix")

install(
  TARGETS tokenmix
  EXPORT tokenmixTargets
  FILE_SET HEADERS COMPONENT tokenmix_Development
  FILE_SET interop COMPONENT tokenmix_Development)
install(
  EXPORT tokenmixTargets
  NAMESPACE tokenmix::
  DESTINATION "${tokenmix_package_folder}"
  COMPONENT tokenmix_Development)

configure_package_config_file(
  cmake/tokenmixConfig.cmake.in "${CMAKE_CURRENT_BINARY_DIR}/tokenmixConfig.cmake"
  INSTALL_DESTINATION "${tokenmix_package_folder}" NO_SET_AND_CHECK_MACRO)
write_basic_package_version_file(
  "${CMAKE_CURRENT_BINARY_DIR}/tokenmixConfigVersion.cmake" COMPATIBILITY SameMajorVersion ARCH_INDEPENDENT)
install(
  FILES "${CMAKE_CURRENT_BINARY_DIR}/tokenmixConfig.cmake" "${CMAKE_CURRENT_BINARY_DIR}/tokenmixConfigVersion.cmake"
  DESTINATION "${tokenmix_package_folder}"
  COMPONENT tokenmix_Development)

# The way from the pkg-config file to the prefix and the headers, so that the file holds for any prefix.
set(tokenmix_pc_folder "${CMAKE_INSTALL_DATADIR}/pkgconfig")
file(RELATIVE_PATH tokenmix_pc_prefix "${CMAKE_INSTALL_FULL_DATADIR}/pkgconfig" "${CMAKE_INSTALL_PREFIX}")
file(RELATIVE_PATH tokenmix_pc_include "${CMAKE_INSTALL_PREFIX}" "${CMAKE_INSTALL_FULL_INCLUDEDIR}")
configure_file(cmake/tokenmix.pc.in "${CMAKE_CURRENT_BINARY_DIR}/tokenmix.pc" @ONLY)
install(
  FILES "${CMAKE_CURRENT_BINARY_DIR}/tokenmix.pc"
  DESTINATION "${tokenmix_pc_folder}"
  COMPONENT tokenmix_Development)
install(
  FILES LICENSE
  DESTINATION "${CMAKE_INSTALL_DATADIR}/licenses/tokenmix"
  COMPONENT tokenmix_Development)
