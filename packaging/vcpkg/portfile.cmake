# SPDX-License-Identifier: Apache-2.0
# A draft of a vcpkg port: it installs from the checkout that it lies in. A published port replaces SOURCE_PATH by
# vcpkg_from_github with the release's hash.
set(VCPKG_BUILD_TYPE release) # header-only

get_filename_component(SOURCE_PATH "${CMAKE_CURRENT_LIST_DIR}/../.." ABSOLUTE)
vcpkg_cmake_configure(
  SOURCE_PATH "${SOURCE_PATH}"
  OPTIONS -DTOKENMIX_BUILD_TESTS=OFF -DTOKENMIX_BUILD_BENCH=OFF -DTOKENMIX_BUILD_EXAMPLES=OFF
          -DTOKENMIX_DEPENDENCY_SOURCES=installed)
vcpkg_cmake_install()
vcpkg_cmake_config_fixup(CONFIG_PATH share/cmake/tokenmix)
vcpkg_install_copyright(FILE_LIST "${SOURCE_PATH}/LICENSE")
file(REMOVE_RECURSE "${CURRENT_PACKAGES_DIR}/lib" "${CURRENT_PACKAGES_DIR}/share/licenses")
