"""`python -m dedupcore`: what is in use, and how to build against it."""

import argparse

import dedupcore


def main() -> None:
    """Print it."""
    description = "What is in use, and how to build against it."
    parser = argparse.ArgumentParser(prog="python -m dedupcore", description=description)
    parser.add_argument("--cflags", action="store_true", help="print the compiler flags only")
    parser.add_argument("--libs", action="store_true", help="print the linker flags only")
    chosen = parser.parse_args()
    cflags, libs = f"-I{dedupcore.get_include()}", f"-L{dedupcore.get_library()} -ldedupcore -pthread"
    if chosen.cflags or chosen.libs:
        print(*[cflags] * chosen.cflags, *[libs] * chosen.libs)
        return
    detected, used = dedupcore.cpu_detected(), dedupcore.cpu_used()
    print(f"dedupcore  {dedupcore.version}, ABI {dedupcore.abi_version}")
    print(f"cpu        {', '.join(used) or 'baseline'} in use; detected: {', '.join(detected) or 'baseline only'}"
          "  (DEDUPCORE_DISABLE_CPU=NAME,... turns them off)")
    print(f"threads    {dedupcore.available_threads()}")
    print(f"include    {dedupcore.get_include()}")
    print(f"cflags     {cflags}")
    print(f"libs       {libs}")


if __name__ == "__main__":
    main()
