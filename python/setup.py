# SPDX-License-Identifier: MIT
"""Builds the extension from the C sources beside this folder, or, in an sdist, from those the sdist took along."""
import os
import platform
import re
import shlex
import shutil
import subprocess
import sysconfig
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.command.sdist import sdist

HERE = Path(__file__).resolve().parent
TAKEN_ALONG = HERE / "steady"
TREE = TAKEN_ALONG if TAKEN_ALONG.is_dir() else HERE.parent
SCRIPTS = [f"lua/{name}.lua" for name in ("consume", "peek", "reset", "consume_all", "peek_all", "settle", "reset_all")]


def pkg_config(*words):
    """The words that pkg-config prints; None if it fails or is not installed."""
    if shutil.which("pkg-config") is None:
        return None
    run = subprocess.run(["pkg-config", *words], capture_output=True, text=True, check=False)
    return run.stdout.split() if run.returncode == 0 else None


# As in the Makefile: TLS is built if OpenSSL 3 is installed. TLS=no in the environment leaves it out.
TLS = os.environ.get("TLS") != "no" and pkg_config("--exists", "libssl >= 3") is not None
TLS_CFLAGS = pkg_config("--cflags", "libssl", "libcrypto") if TLS else []
TLS_LIBS = pkg_config("--libs", "libssl", "libcrypto") if TLS else []
# TLS=static, for wheels, puts OpenSSL inside. Its symbols are hidden: it calls no other OpenSSL of the process, and the
# process does not call it.
if os.environ.get("TLS") == "static":
    if not TLS:
        raise SystemExit("TLS=static: OpenSSL 3 was not found. It takes pkg-config, the headers and libssl.a.")
    FOLDER = pkg_config("--variable=libdir", "libssl")[0]
    ARCHIVES = {"-lssl": f"{FOLDER}/libssl.a", "-lcrypto": f"{FOLDER}/libcrypto.a"}
    TLS_LIBS = [ARCHIVES.get(word, word) for word in pkg_config("--static", "--libs", "libssl", "libcrypto")]
    OTHERS = [word for word in TLS_LIBS if word.startswith("-l") and word not in ("-ldl", "-lpthread", *ARCHIVES.values())]
    if OTHERS:
        raise SystemExit(f"TLS=static: this libssl.a needs {' '.join(OTHERS)}, too. Make another with scripts/build-openssl, "
                         "and set PKG_CONFIG_PATH.")
    TLS_LIBS.append("-Wl,--exclude-libs,libssl.a:libcrypto.a")
    TLS_CFLAGS.append("-DSTEADY_OPENSSL_INSIDE")


def target():
    """The processor that the compiler builds for."""
    compiler = shlex.split(os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc")
    try:
        run = subprocess.run([*compiler, "-dumpmachine"], capture_output=True, text=True, check=False)
    except OSError:
        return platform.machine()
    return run.stdout.split("-")[0] if run.returncode == 0 else platform.machine()


IS_X86 = target() == "x86_64"


def has_embedded_store():
    """As in the Makefile: the embedded store needs a 16-byte compare-and-swap."""
    compiler = shlex.split(os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc")
    flags = shlex.split(os.environ.get("CFLAGS", "")) + (["-mcx16"] if IS_X86 else [])
    try:
        run = subprocess.run([*compiler, *flags, "-dM", "-E", "-x", "c", os.devnull], capture_output=True, text=True, check=False)
    except OSError:
        return True
    return target() == "aarch64" or "HAVE_SYNC_COMPARE_AND_SWAP_16" in run.stdout


# No Python program has a client of its own under a store. So neither hiredis nor the interface for it is needed.
NOT_NEEDED = {"client_store.c", "tls_none.c" if TLS else "tls.c",
              *(["local_none.c"] if has_embedded_store() else ["local_store.c", "local_group.c", "table.c", "region.c"])}
CFLAGS = ["-std=c11", "-fvisibility=hidden", "-pthread", "-fstack-protector-strong", "-fstack-clash-protection",
          "-fno-delete-null-pointer-checks", "-Werror=implicit", "-Werror=incompatible-pointer-types",
          "-Werror=int-conversion", *(["-mcx16", "-fcf-protection=full"] if IS_X86 else []), *TLS_CFLAGS]
# -Bsymbolic: never call another copy of the library in the same process. nodelete: a thread that looks a name up may
# outlive the last store.
LDFLAGS = ["-pthread", "-Wl,-Bsymbolic", "-Wl,-z,relro,-z,now,-z,noexecstack,-z,nodelete", *TLS_LIBS]
SETTINGS = repr([TLS, CFLAGS, LDFLAGS, *(os.environ.get(name) for name in ("CC", "CFLAGS", "CPPFLAGS", "LDFLAGS", "LDSHARED"))])


def version():
    """The package, the library, the command and the module have one version."""
    return re.search(r'STEADY_VERSION "(.+)"', (TREE / "include" / "steady.h").read_text())[1]


def description():
    """README.md, with links that also work elsewhere."""
    tree = re.search(r'^Documentation = "(.*)docs/README.md"$', (HERE / "pyproject.toml").read_text(), re.M)[1]
    return re.sub(r"\]\(\.\./", f"]({tree}", (HERE / "README.md").read_text(encoding="utf-8"))


def relative(path):
    return os.path.relpath(path, HERE)


def sources():
    """The sources of the library and of the extension."""
    return [*sorted(path for path in (TREE / "src").rglob("*.c")
               if path.name not in NOT_NEEDED and path.parent.name != "hiredis"),
            *sorted((HERE / "core").glob("*.c"))]


class BuildExt(build_ext):
    """Makes scripts.h first. Puts all objects below build/, also of sources outside this folder. Builds all again after a
    change of settings, because build/ stays after `pip install`."""

    def run(self):
        built_with = Path(self.build_temp).resolve() / "settings"
        self.force = self.force or not built_with.exists() or built_with.read_text() != SETTINGS
        super().run()
        built_with.parent.mkdir(parents=True, exist_ok=True)
        built_with.write_text(SETTINGS)

    def build_extension(self, ext):
        made = Path(self.build_temp).resolve() / "include"
        made.mkdir(parents=True, exist_ok=True)
        header = subprocess.run(["sh", "scripts/embed-lua", *SCRIPTS], cwd=TREE, check=True, capture_output=True).stdout
        (made / "scripts.h").write_bytes(header)
        ext.include_dirs = [str(made), *ext.include_dirs]
        temp = self.build_temp
        self.build_temp = str(Path(temp) / "here" / "python")
        super().build_extension(ext)
        self.build_temp = temp


class Sdist(sdist):
    """Includes the sources of the library."""

    def make_release_tree(self, base_dir, files):
        super().make_release_tree(base_dir, [name for name in files if not name.startswith("..")])
        to = Path(base_dir) / "steady"
        for pattern in ("src/**/*.[ch]", "include/steady.h", "include/steady/http.h", "lua/*.lua", "scripts/embed-lua"):
            for path in sorted(TREE.glob(pattern)):
                (to / path.relative_to(TREE)).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(path, to / path.relative_to(TREE))
        licence = Path(base_dir) / "LICENSE"
        licence.unlink(missing_ok=True)
        shutil.copyfile(HERE / "LICENSE", licence)


setup(
    version=version(),
    long_description=description(),
    long_description_content_type="text/markdown",
    cmdclass={"build_ext": BuildExt, "sdist": Sdist},
    ext_modules=[
        Extension(
            "aiosteady._core",
            [relative(path) for path in sources()],
            depends=[relative(path) for path in [*(TREE / "src").rglob("*.h"), *(HERE / "core").glob("*.h"),
                                                 *(TREE / "lua").glob("*.lua"), TREE / "include" / "steady.h",
                                                 TREE / "include" / "steady" / "http.h"]],
            include_dirs=[relative(TREE / "include"), relative(TREE / "src"), relative(TREE)],
            define_macros=[("_GNU_SOURCE", None)],
            extra_compile_args=CFLAGS,
            extra_link_args=LDFLAGS,
        )
    ],
)
