// Shared by the tests of config/: parsing without a real environment, diagnostics as text, and tables of them.
#pragma once

#include <map>
#include <string>
#include <string_view>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "config/load.h"

namespace outrider::config {

using Environment = std::map<std::string, std::string>;

inline LoadResult parse_text(std::string_view text, const Environment& environment = {}) {
    const EnvLookup env = [&](const std::string& name) -> std::optional<std::string> {
        const auto it = environment.find(name);
        if (it == environment.end()) return std::nullopt;
        return it->second;
    };
    return parse(text, "f.toml", env, "test-host");
}

inline std::vector<std::string> lines_of(const LoadResult& result) {
    std::vector<std::string> lines;
    for (const Diagnostic& d : result.diagnostics)
        lines.push_back(to_string(d));
    return lines;
}

// A listener, a route and a cluster; `route`, `cluster` and `listener` are lines added to each.
inline std::string file_with(std::string_view listener, std::string_view route, std::string_view cluster) {
    std::string out = "[[listener]]\nname = \"in\"\nlisten = \"127.0.0.1:8080\"\n";
    out.append(listener).append("\n[[route]]\nlistener = \"in\"\n").append(route);
    out.append("\n[[cluster]]\nname = \"app\"\n").append(cluster).append("\n");
    return out;
}
inline std::string file_with_listener(std::string_view lines) {
    return file_with(lines, "cluster = \"app\"", "endpoints = [\"127.0.0.1:3000\"]");
}
inline std::string file_with_route(std::string_view lines) {
    return file_with("", lines, "endpoints = [\"127.0.0.1:3000\"]");
}
inline std::string file_with_cluster(std::string_view lines) {
    return file_with("", "cluster = \"app\"", lines);
}
inline std::string smallest_file() {
    return file_with_listener("");
}

struct Row {
    std::string lines;
    std::string expected;  // part of the only diagnostic; "" when there is none
};

using FileMaker = std::string (*)(std::string_view);  // the file with the lines in their place

inline void check(FileMaker make, const std::vector<Row>& rows) {
    for (const Row& row : rows) {
        const std::vector<std::string> lines = lines_of(parse_text(make(row.lines)));
        if (row.expected.empty()) {
            EXPECT_THAT(lines, testing::IsEmpty()) << row.lines;
        } else {
            EXPECT_THAT(lines, testing::ElementsAre(testing::HasSubstr(row.expected))) << row.lines;
        }
    }
}

}  // namespace outrider::config
