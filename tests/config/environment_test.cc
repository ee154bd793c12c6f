#include "config/environment.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "config_helpers.h"

namespace outrider::config {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::SizeIs;

std::optional<std::string> lookup(const std::string& name) {
    if (name == "A") return "alpha";
    if (name == "EMPTY") return "";
    if (name == "NESTED") return "${A}";
    if (name == "LATIN1") return "\xe4";
    if (name == "LONG") return std::string(64 * 1024, 'x');
    return std::nullopt;
}

TEST(Environment, ReplacesNamesAndDefaults) {
    const std::pair<const char*, const char*> rows[] = {
        {"", ""},
        {"plain $ text $A", "plain $ text $A"},
        {"${A}", "alpha"},
        {"<${A}-${A}>", "<alpha-alpha>"},
        {"${EMPTY}", ""},
        {"${EMPTY:-d}", "d"},
        {"${UNSET:-}", ""},
        {"${UNSET:-127.0.0.1:80}", "127.0.0.1:80"},
        {"${A:-d}", "alpha"},
        {"${NESTED}", "${A}"},
        {"$${A}", "${A}"},
        {"$$${A}", "$${A}"},
        {"$", "$"},
        {"}{", "}{"},
    };
    for (const auto& [text, expected] : rows) {
        const Expansion expansion = expand_environment(text, lookup);
        EXPECT_EQ(expansion.text, expected) << text;
        EXPECT_THAT(expansion.errors, IsEmpty()) << text;
    }
}

TEST(Environment, MistakesNameTheVariable) {
    const std::pair<const char*, const char*> rows[] = {
        {"${UNSET}", "environment variable UNSET is not set"},
        {"a ${A", "'${A' has no closing }"},
        {"${}", "does not name an environment variable"},
        {"${1A}", "does not name an environment variable"},
        {"${A-d}", "does not name an environment variable"},
        {"${LATIN1}", "LATIN1 is not UTF-8"},
    };
    for (const auto& [text, expected] : rows) {
        EXPECT_THAT(expand_environment(text, lookup).errors, ElementsAre(HasSubstr(expected))) << text;
    }
    EXPECT_THAT(expand_environment("${X}${Y}", lookup).errors, SizeIs(2));
}

TEST(Environment, TheResultIsBounded) {
    std::string text;
    for (int i = 0; i < 1000; ++i)
        text += "${LONG}";
    EXPECT_THAT(expand_environment(text, lookup).errors, ElementsAre(HasSubstr("longer than 1 MiB")));
}

TEST(Environment, EscapedTextReadsBack) {
    for (const char* text : {"", "$", "${A}", "$${A}", "$$${", "a${b}c${d", "$$$$"}) {
        EXPECT_EQ(expand_environment(escape_environment(text), lookup).text, text);
    }
}

TEST(Environment, ReachesEveryStringOfAFile) {
    const LoadResult result = parse_text(
        "[node]\naddress = \"${IP}\"\nzone = \"${ZONE}\"\n" +
            file_with("header_timeout = \"${T:-3s}\"",
                      "cluster = \"${C}\"\nmatch = { methods = [\"${M}\"], headers = { X = \"${IP}\" } }",
                      "endpoints = [\"${IP}:${PORT:-3000}\"]"),
        {{"IP", "10.0.0.9"}, {"C", "app"}, {"M", "PUT"}});
    EXPECT_THAT(lines_of(result),
                ElementsAre(HasSubstr("f.toml:3:8: node.zone: environment variable ZONE is not set")));
    const LoadResult fixed = parse_text("[node]\nname = \"${POD_NAME:-}\"\n" + smallest_file());
    ASSERT_TRUE(fixed.settings);
    EXPECT_EQ(fixed.settings->node.name, "test-host");
}

TEST(Utf8, RefusesOverlongSurrogatesAndCutSequences) {
    for (const char* good : {"", "a", "\xc3\xa4", "\xe2\x82\xac", "\xf0\x9f\x90\x8e", "\xf4\x8f\xbf\xbf"}) {
        EXPECT_TRUE(is_utf8(good));
    }
    for (const char* bad : {"\x80", "\xc0\xaf", "\xc3", "\xe0\x80\x80", "\xed\xa0\x80", "\xe2\x82",
                            "\xf4\x90\x80\x80", "\xff", "\xe2\x82g"}) {
        EXPECT_FALSE(is_utf8(bad));
    }
}

}  // namespace
}  // namespace outrider::config
