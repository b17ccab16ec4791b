from spack.package import *

try:
    from spack_repo.builtin.build_systems.cmake import CMakePackage
except ImportError:
    pass  # before Spack 1.0 spack.package has it


class Seqspectra(CMakePackage):
    """Trains sequence models on a grid of seed x model x task over MPI and writes each trained layer as a linear dynamical
    system, with its eigenvalues, to one HDF5 file."""

    homepage = "https://arxiv.org/abs/2510.09379"

    # There is no archive to fetch: spack dev-build -d DIR seqspectra@main builds the sources around this recipe.
    version("main")

    license("BSD-3-Clause")

    variant("scalapack", default=True, description="Distributed eigenproblems for `operator transition`")
    variant("pathfinder", default=True, description="The task `pathfinder`, whose images are PNG files")
    variant("tests", default=False, description="Build the tests")
    variant("python", default=True, description="Figures")

    depends_on("c", type="build")
    depends_on("cmake@3.25:", type="build")
    depends_on("pkgconfig", type="build")
    depends_on("mpi")
    depends_on("hdf5@1.10:+mpi")
    depends_on("blas")
    depends_on("lapack")
    depends_on("scalapack", when="+scalapack")
    depends_on("fftw@3: precision=float,double")
    depends_on("cjson")
    depends_on("libpng", when="+pathfinder")
    depends_on("cmocka", when="+tests")
    depends_on("py-h5py", type="run", when="+python")
    depends_on("py-matplotlib", type="run", when="+python")

    requires(
        "^[virtuals=blas,lapack] openblas",
        "^[virtuals=blas,lapack] intel-oneapi-mkl",
        "^[virtuals=blas,lapack] cray-libsci",
        policy="one_of",
    )

    def cmake_args(self):
        blas = {"intel-oneapi-mkl": "mkl", "cray-libsci": "libsci"}.get(self.spec["blas"].name, "openblas")
        return [
            self.define("SQ_BLAS", blas),
            self.define("SQ_SCALAPACK", "ON" if self.spec.satisfies("+scalapack") else "OFF"),
            self.define_from_variant("SQ_TESTS", "tests"),
            self.define("MPI_C_COMPILER", self.spec["mpi"].mpicc),
        ]

    @run_after("install")
    @on_package_attributes(run_tests=True)
    def check_install(self):
        Executable(self.prefix.bin.seqspectra)("version")
