#!/usr/bin/env python3
"""Proves that layering.py sees what it must see: each test writes a small tree with one violation."""

import os
import tempfile
import unittest
from typing import Dict, List

import layering


def rules(files: Dict[str, str], **options) -> List[str]:
    """file:line: rule of every violation in a tree of these files."""
    with tempfile.TemporaryDirectory() as root:
        for name, text in files.items():
            path = os.path.join(root, name)
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(path, "w", encoding="utf-8") as stream:
                stream.write(text)
        _, found = layering.check(root, options.get("allowed", {}))
        return [f"{v.file}:{v.line}: {v.rule}" for v in found]


class Layers(unittest.TestCase):
    def test_arrows_that_point_down_are_clean(self):
        self.assertEqual([], rules({
            "base/units.cc": '#include "base/result.h"\n',
            "base/uv/loop.cc": '#include "base/uv/loop.h"\n#include "base/time.h"\n#include <uv.h>\n',
            "base/http/codec.cc": '#include "base/uv/loop.h"\n#include <llhttp.h>\n',
            "config/load.cc": '#include "config/settings.h"\n#include "base/units.h"\n#include <toml++/toml.h>\n',
            "filters/policy/limit.cc": '#include "filters/policy/limit.h"\n#include "base/time.h"\n',
            "filters/limit.cc": '#include "filters/policy/limit.h"\n#include "base/http/message.h"\n',
            "proxy/router.cc": '#include "filters/chain.h"\n#include "config/settings.h"\n',
            "cli/main.cc": '#include "proxy/router.h"\n#include "demo/ledger.h"\n',
            "tests/proxy/router_test.cc": '#include "proxy/router.h"\n#include "tests/fake.h"\n',
        }))

    def test_each_arrow_that_points_up_is_caught(self):
        for file, header in [
                ("base/units.cc", "base/uv/loop.h"),
                ("base/units.cc", "base/http/message.h"),
                ("base/units.cc", "config/settings.h"),
                ("base/uv/loop.cc", "base/http/message.h"),
                ("base/uv/loop.cc", "config/settings.h"),
                ("base/http/codec.cc", "filters/chain.h"),
                ("config/load.cc", "base/uv/loop.h"),
                ("config/load.cc", "proxy/router.h"),
                ("filters/policy/limit.cc", "base/uv/loop.h"),
                ("filters/policy/limit.cc", "base/http/message.h"),
                ("filters/policy/limit.cc", "config/settings.h"),
                ("filters/policy/limit.cc", "filters/chain.h"),
                ("filters/limit.cc", "proxy/router.h"),
                ("proxy/router.cc", "cli/main.h"),
                ("proxy/router.cc", "tests/fake.h"),
                ("cli/main.cc", "tests/fake.h"),
                ("demo/ledger.cc", "proxy/router.h"),
        ]:
            with self.subTest(file=file, header=header):
                self.assertEqual([f"{file}:2: layer"], rules({file: f'\n#include "{header}"\n'}))

    def test_an_include_in_angle_brackets_or_from_beside_is_seen_too(self):
        self.assertEqual(["base/units.cc:1: layer"], rules({"base/units.cc": "#include <proxy/router.h>\n"}))
        self.assertEqual(["base/units.cc:1: layer"], rules({
            "base/units.cc": '#  include "uv/loop.h"\n', "base/uv/loop.h": "#pragma once\n"}))
        self.assertEqual(["base/units.cc:1: layer"], rules({"base/units.cc": '#include "../proxy/router.h"\n',
                                                           "proxy/router.h": ""}))

    def test_an_include_in_a_comment_is_none(self):
        self.assertEqual([], rules({"base/units.cc": '// #include "proxy/a.h"\n/*\n#include "proxy/b.h"\n*/\n'}))

    def test_a_folder_without_a_row_is_named(self):
        self.assertEqual(["misc/new.cc:1: layer"], rules({"misc/new.cc": "int x;\n"}))


class Uv(unittest.TestCase):
    def test_uv_outside_its_folder_is_caught(self):
        self.assertEqual(["proxy/a.cc:1: uv", "proxy/a.cc:2: uv"],
                         rules({"proxy/a.cc": "#include <uv.h>\nuv_loop_t* loop;\n"}))
        self.assertEqual(["tests/a_test.cc:1: uv"], rules({"tests/a_test.cc": "int x = UV_EOF;\n"}))

    def test_uv_in_its_folder_in_a_comment_or_in_a_string_is_clean(self):
        self.assertEqual([], rules({
            "base/uv/loop.cc": "uv_loop_t loop;\n",
            "proxy/a.cc": 'const char* s = "uv_run"; // uv_run\n/* uv_run */ auto r = R"x(uv_run)x";\nint my_uv_x;\n',
        }))


class Clock(unittest.TestCase):
    def test_every_way_to_read_a_clock_is_caught(self):
        for code in [
                "auto t = std::chrono::steady_clock::now();",
                "auto t = std::chrono::system_clock :: now();",
                "auto t = high_resolution_clock::now();",
                "using Clock = std::chrono::steady_clock;",
                "clock_gettime(CLOCK_MONOTONIC, &ts);",
                "gettimeofday(&tv, nullptr);",
                "auto t = time(nullptr);",
                "auto t = std::time( NULL );",
                "int n = 1'000 + f(2'000); auto t = time(nullptr); int m = 3'000;",
        ]:
            with self.subTest(code=code):
                self.assertEqual(["filters/policy/a.cc:2: clock"], rules({"filters/policy/a.cc": "\n" + code + "\n"}))

    def test_only_base_uv_tests_and_bench_may(self):
        code = "auto t = std::chrono::steady_clock::now();\n"
        self.assertEqual([], rules({"base/uv/loop.cc": code, "tests/a_test.cc": code, "bench/load.cc": code}))
        self.assertEqual(["base/a.cc:1: clock", "cli/a.cc:1: clock"], rules({"base/a.cc": code, "cli/a.cc": code}))

    def test_what_only_looks_like_it_is_clean(self):
        self.assertEqual([], rules({"proxy/a.cc": "auto t = loop.now();\nauto u = x.time(0);\nint runtime(0);\n"}))


class Sleep(unittest.TestCase):
    def test_a_test_that_sleeps_is_caught(self):
        for code in ["std::this_thread::sleep_for(1ms);", "usleep(10);", "::sleep(1);", "nanosleep(&ts, nullptr);"]:
            with self.subTest(code=code):
                self.assertEqual(["tests/a_test.cc:1: sleep"], rules({"tests/a_test.cc": code + "\n"}))


class Allowed(unittest.TestCase):
    def test_an_exception_covers_one_rule_of_one_file(self):
        allowed = {("cli/a.cc", "clock"): "shows the time to a person"}
        code = "auto t = time(nullptr);\n"
        self.assertEqual(["cli/b.cc:1: clock"], rules({"cli/a.cc": code, "cli/b.cc": code}, allowed=allowed))

    def test_an_exception_that_nothing_needs_is_named(self):
        self.assertEqual(["cli/a.cc:1: allow"], rules({"cli/a.cc": "\n"}, allowed={("cli/a.cc", "clock"): "once"}))


if __name__ == "__main__":
    unittest.main()
