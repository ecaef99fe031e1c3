"""Write tests/cupy_names.txt, the public names of CuPy, so that `xp.name` can be checked where CuPy is not installed.

pip install cupy-cuda12x        in any environment: CuPy imports without a GPU
python tests/make_cupy_names.py
"""

import pathlib
import types
import warnings

FOLDERS = ("", "linalg", "fft", "lib.stride_tricks", "ndarray", "ufunc")


def main() -> None:
    warnings.simplefilter("ignore")
    import cupy

    lines = [f"# CuPy {cupy.__version__}: the public names of cupy, cupy.linalg, cupy.fft, cupy.lib.stride_tricks,"]
    lines += ["# cupy.ndarray and cupy.ufunc. Made by make_cupy_names.py."]
    for folder in FOLDERS:
        place = cupy
        for part in filter(None, folder.split(".")):
            place = getattr(place, part)
        names = sorted(name for name in dir(place) if not name.startswith("_") and not is_import(getattr(place, name)))
        lines += [f"{folder}.{name}" if folder else name for name in names]
    pathlib.Path(__file__).with_name("cupy_names.txt").write_text("\n".join(lines) + "\n", encoding="ascii")


def is_import(value: object) -> bool:
    """A name that is there only because the module imports it for itself."""
    return isinstance(value, types.ModuleType) and value.__name__.split(".")[0] != "cupy"


if __name__ == "__main__":
    main()
