#!/usr/bin/env python3
"""Keeps the documentation true: names each statement that the tree or the binary does not bear out.

    docs.py ROOT OUTRIDER      exit 0: true; 1: each false statement as file:line: rule: what

Rules:
  link        a relative link leads to a file, its #anchor to a heading
  file        a file or folder named in code in README.md or ARCHITECTURE.md exists
  name        a `Class::member` of ARCHITECTURE.md exists in the sources
  toml        a TOML block is a whole configuration that `outrider validate` takes; so is the one in the manifests
  admin       the admin paths of docs/operations.md are those of proxy/admin.cc, with their methods
  subcommand  `outrider NAME --option` is in the binary's --help
  error       a Proxy-Status error is one of proxy/problem.cc
"""

import os
import re
import subprocess
import sys
import tempfile
import textwrap
from typing import Dict, Iterator, List, NamedTuple, Set, Tuple

NAMED_FILES = ("README.md", "ARCHITECTURE.md")
ADMIN_REFERENCE = "docs/operations.md"
# Its blocks are fragments and deliberate mistakes; tests/config/docs_test.cc runs them.
NOT_WHOLE = {"docs/configuration.md"}
SOURCE_FOLDERS = ("base", "config", "filters", "idempotency", "proxy", "control", "cli", "demo")
FILE_ENDINGS = (".cc", ".h", ".py", ".md", ".toml", ".yaml", ".service", ".cmake", ".txt", ".conf")
SKIPPED = {"build", ".git", ".cache", "node_modules", "__pycache__"}

LINK = re.compile(r"\[[^\]\n]*\]\(([^)\s]+)\)")
CODE = re.compile(r"`([^`\n]+)`")
MEMBER = re.compile(r"(?<![\w:])((?:\w+::)+)(\w+)")
TOOL_PATH = re.compile(r"(?<![\w./-])((?:scripts|bench|\.ci)/[\w.-]+)")


class Violation(NamedTuple):
    file: str
    line: int
    rule: str
    what: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.rule}: {self.what}"


class Block(NamedTuple):
    line: int  # of its first line
    language: str
    text: str


def read(root: str, path: str) -> str:
    with open(os.path.join(root, path), encoding="utf-8") as stream:
        return stream.read()


def tree(root: str) -> Iterator[str]:
    for folder, folders, files in os.walk(root):
        folders[:] = sorted(f for f in folders if f not in SKIPPED and not f.startswith("build-"))
        for file in sorted(files):
            yield os.path.relpath(os.path.join(folder, file), root).replace(os.sep, "/")


def documents(root: str) -> List[str]:
    return [path for path in tree(root) if path.endswith(".md") and (path in NAMED_FILES or path.startswith("docs/"))]


def split(text: str) -> Tuple[str, List[Block]]:
    """The text with its fenced blocks blanked (lines keep their numbers), and the blocks."""
    blocks: List[Block] = []

    def replace(match: "re.Match[str]") -> str:
        line = text.count("\n", 0, match.start()) + 2
        blocks.append(Block(line, match.group(1).strip(), match.group(2)))
        return "\n" * match.group().count("\n")

    return re.sub(r"^```([^\n]*)\n(.*?)^```[ \t]*$", replace, text, flags=re.M | re.S), blocks


def at(text: str, position: int) -> int:
    return text.count("\n", 0, position) + 1


def anchors(text: str) -> Set[str]:
    """As GitHub makes them of headings."""
    prose, _ = split(text)
    found = set()
    for heading in re.findall(r"^#+ +(.*)$", prose, re.M):
        kept = re.sub(r"[^\w\- ]", "", heading.lower())
        found.add(kept.strip().replace(" ", "-"))
    return found


def check_links(root: str, path: str) -> Iterator[Violation]:
    prose, _ = split(read(root, path))
    for match in LINK.finditer(prose):
        target, _, anchor = match.group(1).partition("#")
        if re.match(r"[a-z]+:", target):
            continue
        file = os.path.normpath(os.path.join(os.path.dirname(path), target)) if target else path
        line = at(prose, match.start())
        if not os.path.exists(os.path.join(root, file)):
            yield Violation(path, line, "link", f"{match.group(1)} leads nowhere")
        elif anchor and anchor not in anchors(read(root, file)):
            yield Violation(path, line, "link", f"{file} has no heading #{anchor}")


def check_files(root: str, path: str) -> Iterator[Violation]:
    text = read(root, path)
    prose, blocks = split(text)
    bare = {os.path.basename(file) for file in tree(root)}
    for match in CODE.finditer(prose):
        token = match.group(1)
        if re.search(r"[^\w./-]", token) or "NAME" in token or token.startswith(("/", "build/")):
            continue
        if "/" not in token and not (token.endswith(FILE_ENDINGS) and "." in token[1:]):
            continue
        known = token in bare if "/" not in token else os.path.exists(os.path.join(root, token))
        if not known:
            yield Violation(path, at(prose, match.start()), "file", f"{token} does not exist")
    for block in blocks:
        for match in TOOL_PATH.finditer(block.text):
            if not os.path.exists(os.path.join(root, match.group(1))):
                yield Violation(path, block.line + block.text.count("\n", 0, match.start()), "file",
                                f"{match.group(1)} does not exist")


def sources(root: str) -> List[str]:
    return [read(root, path) for path in tree(root)
            if path.endswith((".cc", ".h")) and path.split("/")[0] in SOURCE_FOLDERS]


def check_names(root: str, path: str) -> Iterator[Violation]:
    texts = sources(root)
    prose, _ = split(read(root, path))
    for match in CODE.finditer(prose):
        for member in MEMBER.finditer(match.group(1)):
            names = [n for n in member.group(1).split("::") if n] + [member.group(2)]
            wanted = [re.compile(rf"\b{name}\b") for name in names[-2:]]
            if not any(all(w.search(text) for w in wanted) for text in texts):
                yield Violation(path, at(prose, match.start()), "name", f"{member.group()} is not in the sources")


def configurations(root: str) -> Iterator[Tuple[str, int, str]]:
    for path in documents(root):
        if path not in NOT_WHOLE:
            for block in split(read(root, path))[1]:
                if block.language == "toml":
                    yield path, block.line, block.text
    for path in tree(root):
        if path.startswith("deploy/") and path.endswith(".yaml"):
            text = read(root, path)
            # A block scalar: every following line that is empty or further in.
            for match in re.finditer(r"^( *)[\w.-]+\.toml: \|\n((?:\1 +[^\n]*\n|[ \t]*\n)+)", text, re.M):
                yield path, at(text, match.start(2)), textwrap.dedent(match.group(2))
        if path.startswith("examples/") and path.endswith(".toml"):
            yield path, 1, read(root, path)


def check_toml(root: str, outrider: str) -> Iterator[Violation]:
    found = 0
    for path, line, text in configurations(root):
        found += 1
        with tempfile.NamedTemporaryFile("w", suffix=".toml", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            run = subprocess.run([outrider, "validate", "-c", file.name], capture_output=True, text=True, check=False,
                                 timeout=30)
            output = (run.stdout + run.stderr).replace(file.name, "block").strip()
        if run.returncode != 0 or output != "OK":
            yield Violation(path, line, "toml", output)
    if found < 3:
        yield Violation("README.md", 1, "toml", f"only {found} configurations were found: is this test blind?")


def check_admin(root: str) -> Iterator[Violation]:
    rows = re.findall(r'\{"(/[\w/{}]*)",\s*"(GET|POST)",\s*"', read(root, "proxy/admin.cc"))
    served: Dict[str, str] = dict(rows)
    if not served:
        yield Violation("proxy/admin.cc", 1, "admin", "the table of pages is not found")
    text = read(root, ADMIN_REFERENCE)
    told: Dict[str, str] = {}
    for match in re.finditer(r"^\| `(/[\w/{}]*)` \| (GET|POST) \|", text, re.M):
        told[match.group(1)] = match.group(2)
        if served.get(match.group(1)) != match.group(2):
            yield Violation(ADMIN_REFERENCE, at(text, match.start()), "admin",
                            f"{match.group(2)} {match.group(1)} is not in proxy/admin.cc")
    for path, method in served.items():
        if path not in told:
            yield Violation(ADMIN_REFERENCE, 1, "admin", f"{method} {path} is not in the table")
    for document in documents(root):
        if document == "docs/http.md":  # speaks of requests, not of the admin interface
            continue
        text = read(root, document)
        for match in re.finditer(r"`(GET|POST) (/[\w/]+)", text):
            if served.get(match.group(2)) != match.group(1):
                yield Violation(document, at(text, match.start()), "admin", f"{match.group(1)} {match.group(2)} does not exist")


def commands_of(text: str) -> Iterator[Tuple[int, List[str]]]:
    """Command lines that begin with outrider: in code, in blocks, in manifests, in units."""
    prose, blocks = split(text)
    for match in CODE.finditer(prose):
        if match.group(1).startswith("outrider "):
            yield at(prose, match.start()), match.group(1).split()[1:]
    for block in blocks:
        for number, line in enumerate(block.text.split("\n")):
            match = re.match(r"(?:\$ )?(?:build/release/cli/)?outrider +([^#]*)", line)
            if match:
                yield block.line + number, match.group(1).split()
    for match in re.finditer(r'\["outrider"((?:, *"[^"]*")*)\]|^Exec\w+=\S*/outrider +(.*)$', text, re.M):
        words = re.findall(r'"([^"]*)"', match.group(1)) if match.group(1) is not None else match.group(2).split()
        yield at(text, match.start()), words


def check_subcommands(root: str, outrider: str) -> Iterator[Violation]:
    def help_of(*words: str) -> str:
        return subprocess.run([outrider, *words, "--help"], capture_output=True, text=True, check=False, timeout=30).stdout

    def commands_in(text: str) -> Set[str]:
        at_commands = text.find("Subcommands:")
        return set(re.findall(r"^  ([a-z]+) ", text[at_commands:], re.M)) if at_commands >= 0 else set()

    known = commands_in(help_of())
    helps: Dict[Tuple[str, ...], str] = {}
    paths = documents(root) + [p for p in tree(root) if p.startswith("deploy/")]
    for path in paths:
        for line, words in commands_of(read(root, path)):
            # `outrider ctl: …` is what it says on stderr.
            if not words or words[0].startswith("--") or words[0].endswith(":"):
                continue
            if words[0] not in known:
                yield Violation(path, line, "subcommand", f"outrider {words[0]} is not in --help")
                continue
            # `ctl kv get`: an option may be that of the command or of those it belongs to.
            command: Tuple[str, ...] = (words[0],)
            text = helps.setdefault(command, help_of(*command))
            for word in words[1:]:
                if word == "--":
                    break
                if word in commands_in(helps[command]):
                    command += (word,)
                    text += helps.setdefault(command, help_of(*command))
                    continue
                option = re.match(r"--?[a-z][a-z-]*", word)
                if option and not re.search(rf"(?<![\w-]){option.group()}\b", text):
                    yield Violation(path, line, "subcommand", f"outrider {' '.join(command)} has no {option.group()}")


def check_errors(root: str) -> Iterator[Violation]:
    table = read(root, "proxy/problem.cc")
    for path in ("docs/http.md", "docs/operations.md"):
        text = read(root, path)
        for match in re.finditer(r"[`=]((?:connection|http|destination|dns|proxy|tls)_[a-z_]+)", text):
            if f'"{match.group(1)}"' not in table:
                yield Violation(path, at(text, match.start()), "error", f"{match.group(1)} is not in proxy/problem.cc")


def check(root: str, outrider: str) -> List[Violation]:
    found: List[Violation] = []
    for path in documents(root):
        found += check_links(root, path)
    for path in NAMED_FILES:
        found += check_files(root, path)
    found += check_names(root, "ARCHITECTURE.md")
    found += check_toml(root, outrider)
    found += check_admin(root)
    found += check_subcommands(root, outrider)
    found += check_errors(root)
    return found


def main() -> int:
    if len(sys.argv) != 3:
        print("usage: docs.py ROOT OUTRIDER", file=sys.stderr)
        return 2
    root = os.path.abspath(sys.argv[1])
    found = check(root, sys.argv[2])
    for violation in found:
        print(violation)
    print(f"docs: {len(documents(root))} documents, {len(found)} violations")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
