#!/usr/bin/env python3
"""Holds the layers of ARCHITECTURE.md: reads every C++ file of the repository and names each line that breaks a rule.

    layering.py [ROOT]      exit 0: clean; 1: violations, each as file:line: rule: what

Rules:
  layer   a file includes only what its layer may include (LAYERS below)
  uv      uv_* and <uv.h> stand only under base/uv
  clock   only base/uv reads a clock; everything else is handed the time
  sleep   no test sleeps
  allow   an exception in ALLOWED that nothing needs any more
"""

import os
import re
import sys
from typing import Dict, Iterator, List, NamedTuple, Sequence, Set, Tuple

BASE = ("base", "base/uv", "base/http")
ALL = ("*",)

# Layer -> the layers it may include besides itself. The longest prefix of a file's path decides, so that
# base/uv/loop.cc is of base/uv, and base/units.h of base (which is pure: it knows nothing below it).
LAYERS: Dict[str, Sequence[str]] = {
    "base": (),
    "base/uv": ("base",),
    "base/http": ("base", "base/uv"),
    "base/wal": ("base",),
    "config": ("base",),
    "control/raft": ("base",),
    "filters/policy": ("base",),
    "filters": (*BASE, "config", "filters/policy"),
    "idempotency": (*BASE, "base/wal", "config", "filters/policy"),
    "proxy": (*BASE, "config", "filters", "filters/policy", "idempotency"),
    "control/proto": (),
    "control/store": ("base",),
    "control/api": ("base", "control/proto", "control/store"),
    "control/agent": (*BASE, "control/proto", "control/store", "control/api"),
    "control/node": (*BASE, "base/wal", "config", "control/api", "control/proto", "control/raft", "control/store"),
    "cli": (*BASE, "base/wal", "config", "control/agent", "control/node", "control/proto", "filters", "filters/policy", "proxy",
            "demo"),
    # The demo's application and the bench's peers are programs of their own beside the proxy.
    "demo": BASE,
    "bench": BASE,
    "tests": ALL,
    "integration": ALL,
}
UV_FOLDER = "base/uv"
UV_TESTS = "tests/base_uv"  # drives a loop to test what stands on it
CLOCK_FOLDERS = ("base/uv", "tests", "integration", "bench")
SLEEPLESS_FOLDERS = ("tests",)

# (file, rule) -> why this one file may break this one rule.
ALLOWED: Dict[Tuple[str, str], str] = {}

EXTENSIONS = (".h", ".hh", ".hpp", ".c", ".cc", ".cpp")
SKIPPED = {"build", ".git", ".cache", "node_modules"}

INCLUDE = re.compile(r'^[ \t]*#[ \t]*include[ \t]*([<"])([^>"\n]+)[>"]', re.M)
UV = re.compile(r"\b(?:uv_[A-Za-z0-9_]+|UV_[A-Z0-9_]+)\b")
CLOCK = re.compile(
    r"\b\w+_clock\s*::\s*now\b"
    r"|\busing\s+\w+\s*=\s*(?:::)?(?:std\s*::\s*)?chrono\s*::\s*\w+_clock\b"  # a name to hide now() behind
    r"|\b(?:clock_gettime|gettimeofday|timespec_get)\s*\("
    r"|(?<![\w.>])time\s*\(\s*(?:nullptr|NULL|0|&\s*\w+)\s*\)")
SLEEP = re.compile(r"\b(?:sleep_for|sleep_until)\b|(?<![\w.>])(?:sleep|usleep|nanosleep|clock_nanosleep)\s*\(")

# Comments, literals, and (kept as it is) the ' between digits.
TOKEN = re.compile(
    r"""(?P<comment>//(?:\\\n|[^\n])*|/\*.*?\*/)"""
    r"""|(?P<raw>R"(?P<tag>[^()\\\s]{0,16})\(.*?\)(?P=tag)")"""
    r"""|(?P<separator>(?<=[0-9a-fA-F])'(?=[0-9a-fA-F]))"""
    r"""|(?P<literal>"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*')""", re.S)


class Violation(NamedTuple):
    file: str
    line: int
    rule: str
    what: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.rule}: {self.what}"


def blank(text: str, literals: bool) -> str:
    """The text with comments (and literals) as spaces; every line keeps its number."""

    def replace(match: "re.Match[str]") -> str:
        kind = match.lastgroup
        if kind == "separator" or (kind != "comment" and not literals):
            return match.group()
        return re.sub(r"[^\n]", " ", match.group())

    return TOKEN.sub(replace, text)


def under(path: str, folder: str) -> bool:
    return path.startswith(folder + "/")


def layer_of(path: str) -> str:
    """The layer whose folder holds this path, '' when the table has none."""
    folders = [folder for folder in LAYERS if under(path, folder)]
    return max(folders, key=len, default="")


def sources(root: str) -> Iterator[str]:
    for folder, folders, files in os.walk(root):
        top = folder == root
        folders[:] = sorted(f for f in folders if f not in SKIPPED and not (top and f.startswith("build-")))
        for file in sorted(files):
            if file.endswith(EXTENSIONS):
                yield os.path.relpath(os.path.join(folder, file), root).replace(os.sep, "/")


def included_path(root: str, file: str, name: str) -> str:
    """Where a quoted include leads, seen from the root: beside the file first, as the compiler does."""
    beside = os.path.normpath(os.path.join(os.path.dirname(file), name)).replace(os.sep, "/")
    if os.path.exists(os.path.join(root, beside)):
        return beside
    return os.path.normpath(name).replace(os.sep, "/")


def check_file(root: str, file: str) -> Iterator[Violation]:
    with open(os.path.join(root, file), encoding="utf-8", errors="replace") as stream:
        text = stream.read()

    def at(position: int) -> int:
        return text.count("\n", 0, position) + 1

    layer = layer_of(file)
    if not layer:
        yield Violation(file, 1, "layer", "this folder is no layer yet: give it a row in tests/layering/layering.py")
    may = {layer, *LAYERS.get(layer, ())}
    for match in INCLUDE.finditer(blank(text, literals=False)):
        quoted, name = match.group(1) == '"', match.group(2)
        if name == "uv.h" or (not quoted and name.startswith("uv/")):
            if not under(file, UV_FOLDER) and not under(file, UV_TESTS):
                yield Violation(file, at(match.start(1)), "uv", f"includes {name} outside {UV_FOLDER}")
            continue
        target = layer_of(included_path(root, file, name) if quoted else name)
        if layer and target and target not in may and "*" not in may:
            allowed = ", ".join(sorted(may - {layer})) or "nothing else"
            yield Violation(file, at(match.start(1)), "layer",
                            f"{layer} includes {name} of {target}; it may include {allowed}")

    code = blank(text, literals=True)
    if not under(file, UV_FOLDER) and not under(file, UV_TESTS):
        for match in UV.finditer(code):
            yield Violation(file, at(match.start()), "uv", f"names {match.group()} outside {UV_FOLDER}")
    if not any(under(file, folder) for folder in CLOCK_FOLDERS):
        for match in CLOCK.finditer(code):
            yield Violation(file, at(match.start()), "clock",
                            f"reads a clock ({' '.join(match.group().split())}); only {UV_FOLDER} does")
    if any(under(file, folder) for folder in SLEEPLESS_FOLDERS):
        for match in SLEEP.finditer(code):
            yield Violation(file, at(match.start()), "sleep", f"a test sleeps ({match.group().strip('( ')})")


def check(root: str, allowed: Dict[Tuple[str, str], str]) -> Tuple[int, List[Violation]]:
    """How many files were read, and what is wrong with them."""
    files = 0
    used: Set[Tuple[str, str]] = set()
    found: List[Violation] = []
    for file in sources(root):
        files += 1
        for violation in check_file(root, file):
            if (file, violation.rule) in allowed:
                used.add((file, violation.rule))
            else:
                found.append(violation)
    for file, rule in sorted(set(allowed) - used):
        found.append(Violation(file, 1, "allow", f"is allowed to break '{rule}' and does not: remove the exception"))
    return files, found


def main() -> int:
    default = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
    root = os.path.abspath(sys.argv[1] if len(sys.argv) > 1 else default)
    files, found = check(root, ALLOWED)
    for violation in found:
        print(violation)
    if files == 0:
        print(f"no C++ file below {root}")
        return 1
    print(f"layering: {files} files, {len(found)} violations")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
