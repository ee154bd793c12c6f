#!/usr/bin/env python3
"""docs.py finds what it says it finds: a small tree that is true, and then one lie after another."""

import os
import stat
import sys
import tempfile
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import docs  # noqa: E402

FAKE = """#!/bin/sh
case "$*" in
    "--help") printf 'Usage\\n\\nSubcommands:\\n  run      Run\\n  ready    Ready\\n  ctl      Ctl\\n' ;;
    "ctl --help") printf '  --endpoints TEXT\\n\\nSubcommands:\\n  kv       Keys\\n' ;;
    "ctl kv --help") printf '  --limit INT\\n' ;;
    "ready --help") printf '  --timeout TEXT\\n' ;;
    "run --help") printf '  -c,--config TEXT\\n' ;;
    validate*) if grep -q wrong "$3"; then echo "$3:1:1: wrong"; exit 1; else echo OK; fi ;;
esac
"""

TREE = {
    "README.md": "# A\n[b](docs/http.md#what-is-it)\n`scripts/demo` `base/` `x.cc` `outrider ready --timeout 1s` `POST /drain`\n"
                 "```toml\na = 1\n```\n```\noutrider run -c f.toml\noutrider ctl --endpoints x kv a --limit 1\noutrider ctl: no\nscripts/demo\n```\n",
    "ARCHITECTURE.md": "# B\n`Thing::go` in `base/x.cc`\n",
    "docs/http.md": "# What is it?\n`connection_refused`\n```toml\nb = 1\n```\n",
    "docs/operations.md": "# C\n| `/ready` | GET | x |\n| `/drain` | POST | y |\n",
    "deploy/pod.yaml": "data:\n  s.toml: |\n    c = 1\n\n    d = 1\nkind: x\nexec: [\"outrider\", \"ready\", \"--timeout\", \"1s\"]\n",
    "deploy/o.service": "ExecStart=/usr/local/bin/outrider run -c /etc/f.toml\n",
    "proxy/admin.cc": '{"/ready", "GET", "x", true},\n{"/drain", "POST", "y", false},\n',
    "proxy/problem.cc": 'return {502, "connection_refused", "x"};\n',
    "base/x.cc": "void Thing::go() {}\n",
    "scripts/demo": "\n",
    "outrider": FAKE,
}


class Docs(unittest.TestCase):
    def found(self, **lies):
        """The rules broken when `old` of a file (its name with _ for / and .) is replaced by `new`."""
        with tempfile.TemporaryDirectory() as root:
            for path, text in TREE.items():
                key = path.replace("/", "_").replace(".", "_")
                if key in lies:
                    old, new = lies[key]
                    self.assertIn(old, text)
                    text = text.replace(old, new)
                file = os.path.join(root, path)
                os.makedirs(os.path.dirname(file), exist_ok=True)
                with open(file, "w", encoding="utf-8") as stream:
                    stream.write(text)
            outrider = os.path.join(root, "outrider")
            os.chmod(outrider, os.stat(outrider).st_mode | stat.S_IXUSR)
            return [violation.rule for violation in docs.check(root, outrider)]

    def test_a_true_tree_is_clean(self):
        self.assertEqual(self.found(), [])

    def test_each_lie_is_named(self):
        lies = [
            ("link", dict(README_md=("docs/http.md#", "docs/none.md#"))),
            ("link", dict(README_md=("#what-is-it", "#what-was-it"))),
            ("file", dict(README_md=("`scripts/demo`", "`scripts/none`"))),
            ("file", dict(README_md=("`x.cc`", "`y.cc`"))),
            ("file", dict(README_md=("\nscripts/demo\n```", "\nscripts/none\n```"))),
            ("name", dict(ARCHITECTURE_md=("Thing::go", "Thing::stay"))),
            ("toml", dict(README_md=("a = 1", "wrong = 1"))),
            ("toml", dict(deploy_pod_yaml=("d = 1", "wrong = 1"))),
            ("admin", dict(README_md=("POST /drain", "GET /drain"))),
            ("subcommand", dict(README_md=("outrider ready", "outrider steady"))),
            ("subcommand", dict(README_md=("--timeout", "--time"))),
            ("subcommand", dict(README_md=("outrider run", "outrider walk"))),
            ("subcommand", dict(README_md=("kv a", "lease a"))),
            ("subcommand", dict(README_md=("--endpoints", "--ends"))),
            ("subcommand", dict(README_md=("--limit", "--limits"))),
            ("subcommand", dict(deploy_pod_yaml=('"ready"', '"steady"'))),
            ("subcommand", dict(deploy_o_service=("outrider run", "outrider walk"))),
            ("error", dict(docs_http_md=("connection_refused", "connection_lost"))),
        ]
        for rule, lie in lies:
            with self.subTest(rule=rule, lie=lie):
                self.assertEqual(self.found(**lie), [rule])

    def test_the_admin_table_holds_both_ways(self):
        self.assertEqual(self.found(docs_operations_md=("| `/ready` | GET | x |\n", "")), ["admin"])
        self.assertEqual(self.found(proxy_admin_cc=('{"/ready", "GET", "x", true},\n', "")), ["admin"])

    def test_too_few_configurations_mean_blindness(self):
        self.assertEqual(self.found(README_md=("```toml", "```"), docs_http_md=("```toml", "```")), ["toml"])


if __name__ == "__main__":
    unittest.main()
