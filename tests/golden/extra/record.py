"""Record the extra scripts and guests under real 5.10 kernels, each alone in a boot: ids and sysctls outlive a process.

    python tests/golden/extra/record.py ORACLE.py [--kernel K]... [NAME...]     writes KERNEL/NAME

A recording is one line `status N`, N as a shell counts it, and then the output.
"""

import argparse
import importlib.util
import pathlib
import sys

HERE = pathlib.Path(__file__).resolve().parent


def main() -> None:
    """Record what is named, or everything."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("oracle")
    parser.add_argument("--kernel", action="append")
    parser.add_argument("names", nargs="*")
    given = parser.parse_intermixed_args()
    spec = importlib.util.spec_from_file_location("oracle", given.oracle)
    if spec is None or spec.loader is None:
        sys.exit(f"record.py: {given.oracle} is not a Python file")
    oracle = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(oracle)
    scripts = {path.name: path for path in (HERE / "scripts").iterdir()}
    for kernel in given.kernel or oracle.KERNELS:
        arch = kernel.split("-")[0]
        (HERE / kernel).mkdir(exist_ok=True)
        guests = {path.name: path for path in (HERE / arch).iterdir()}
        for name in given.names or sorted([*scripts, *guests]):
            if name in scripts:
                vmops = HERE.parent / "bin" / f"vmops.{arch}"
                files = {"vmops": (0o100755, vmops.read_bytes()), f"s/{name}": (0o100644, scripts[name].read_bytes())}
                argv = ["/vmops", f"/s/{name}"]
            else:
                files, argv = {name: (0o100755, guests[name].read_bytes())}, [f"/{name}"]
            output, status = oracle.boot(kernel, [("t", argv)], files)["t"]
            shell = 128 + (status & 127) if status & 127 else status >> 8 & 255
            (HERE / kernel / name).write_bytes(b"status %d\n" % shell + output)
            print(kernel, name, shell, flush=True)


if __name__ == "__main__":
    main()
