"""Do the tests see a wrong formula? Puts each mutation of ``mutations.toml`` into a copy, whose test must then fail.

``make mutants`` runs all; ``python tests/mutations/run.py --only PoT`` those whose names contain a word. One that
its test does not see, or whose text is not found exactly once, fails the run.
"""

import argparse
import concurrent.futures
import os
import pathlib
import queue
import re
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib

ROOT = pathlib.Path(__file__).resolve().parents[2]
DATA = pathlib.Path(__file__).with_name("mutations.toml")
TIME_LIMIT = 600.0  # seconds for one test; a mutation that hangs is seen as well


def mutations(word=""):
    """All mutations, or those with a word in their names."""
    found = tomllib.loads(DATA.read_text())["mutation"]
    return [mutation for mutation in found if word.lower() in mutation["name"].lower()]


def apply(mutation, root):
    """Put a mutation into a tree, and return the file with its text before."""
    path = root / mutation["file"]
    text = path.read_text()
    if text.count(mutation["find"]) != 1:
        raise ValueError(
            f"{mutation['file']}: expected exactly one {mutation['find']!r}, got {text.count(mutation['find'])}"
        )
    path.write_text(text.replace(mutation["find"], mutation["replace"]))
    return path, text


def copy_tree(target):
    """A copy of all files that git tracks or would track."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"], cwd=ROOT, capture_output=True, check=True
    )
    for name in listed.stdout.decode().splitlines():
        if (ROOT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, target / name)


def run_test(mutation, root):
    """Whether the test passes, and the last line that pytest prints."""
    select = ["-k", mutation["select"]] if "select" in mutation else []
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *mutation["test"], *select]
    environment = {**os.environ, "PYTHONPATH": str(root), "PYTHONDONTWRITEBYTECODE": "1"}
    try:
        done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, timeout=TIME_LIMIT)
    except subprocess.TimeoutExpired:
        return 1, "timed out"
    lines = done.stdout.strip().splitlines()
    return done.returncode, lines[-1] if lines else done.stderr.strip()[-200:]


def attempt(mutation, trees):
    """Try one mutation in a tree that is free: what is wrong, if anything, and a line about it."""
    root = trees.get()
    start = time.perf_counter()
    try:
        path, text = apply(mutation, root)
        try:
            code, last = run_test(mutation, root)
        finally:
            path.write_text(text)
    except ValueError as error:
        return True, f"NOT FOUND {mutation['name']}: {error}"
    finally:
        trees.put(root)
    seconds = time.perf_counter() - start
    caught = code == 1  # pytest: tests ran, and some failed; not an error of collection, nor no test at all
    verdict = "caught" if caught else "SURVIVED" if code == 0 else f"NO TEST (pytest says {code})"
    return not caught, f"{verdict:9s}{seconds:6.0f} s  {mutation['name']}" + ("" if caught else f": {last}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", help="mutations whose names contain this")
    parser.add_argument("--jobs", type=int, default=2, help="how many at a time")
    options = parser.parse_args()
    chosen, start = mutations(options.only), time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        trees = queue.Queue()
        for job in range(options.jobs):
            root = pathlib.Path(folder) / str(job)
            root.mkdir()
            copy_tree(root)
            trees.put(root)
        with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
            failed = 0
            for is_wrong, line in pool.map(lambda mutation: attempt(mutation, trees), chosen):
                failed += is_wrong
                print(line, flush=True)
    minutes = (time.perf_counter() - start) / 60
    print(f"{len(chosen) - failed} of {len(chosen)} mutations caught, in {minutes:.1f} minutes")
    return 1 if failed or not chosen else 0


def occurrences():
    """How often each mutation's text stands in its file."""
    return {m["name"]: len(re.findall(re.escape(m["find"]), (ROOT / m["file"]).read_text())) for m in mutations()}


if __name__ == "__main__":
    sys.exit(main())
