# SPDX-License-Identifier: Apache-2.0
"""A draft of a Conan 2 recipe: `conan create packaging/conan`."""
import os

from conan import ConanFile
from conan.tools.cmake import CMake, CMakeDeps, CMakeToolchain
from conan.tools.files import copy, rmdir


class Tokenmix(ConanFile):
    name = "tokenmix"
    version = "0.1.0"
    description = "Token-mixing kernels for CPUs: attention and its relatives over SIMD tensors, header-only"
    license = "Apache-2.0"
    package_type = "header-library"
    settings = "os", "arch", "compiler", "build_type"
    options = {"with_eigen": [True, False]}
    default_options = {"with_eigen": False}
    no_copy_source = True

    def export_sources(self):
        root = os.path.join(self.recipe_folder, os.pardir, os.pardir)
        for pattern in ("CMakeLists.txt", "LICENSE", "cmake/*", "include/*"):
            copy(self, pattern, root, self.export_sources_folder)

    def requirements(self):
        self.requires("xsimd/13.0.0")
        if self.options.with_eigen:
            self.requires("eigen/3.4.0")

    def package_id(self):
        self.info.clear()

    def generate(self):
        CMakeDeps(self).generate()
        toolchain = CMakeToolchain(self)
        for part in ("TESTS", "BENCH", "EXAMPLES"):
            toolchain.cache_variables[f"TOKENMIX_BUILD_{part}"] = False
        toolchain.cache_variables["TOKENMIX_DEPENDENCY_SOURCES"] = "installed"
        toolchain.generate()

    def build(self):
        CMake(self).configure()

    def package(self):
        CMake(self).install()
        rmdir(self, os.path.join(self.package_folder, "share", "cmake"))
        rmdir(self, os.path.join(self.package_folder, "share", "pkgconfig"))

    def package_info(self):
        self.cpp_info.bindirs = []
        self.cpp_info.libdirs = []
        core = self.cpp_info.components["tokenmix"]
        core.set_property("cmake_target_name", "tokenmix::tokenmix")
        core.requires = ["xsimd::xsimd"]
        core.libdirs = []
        if self.options.with_eigen:
            eigen = self.cpp_info.components["eigen"]
            eigen.set_property("cmake_target_name", "tokenmix::eigen")
            eigen.requires = ["tokenmix", "eigen::eigen"]
            eigen.libdirs = []
