// docs/configuration.md tells the truth: its files and outputs are real, and no key is missing.
#include <fstream>
#include <sstream>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "config_helpers.h"

namespace outrider::config {
namespace {

using testing::HasSubstr;

std::string reference() {
    std::ifstream file(std::string(OUTRIDER_DOCS) + "/configuration.md");
    std::ostringstream text;
    text << file.rdbuf();
    return text.str();
}

// The contents of the fenced blocks of a language, in order.
std::vector<std::string> blocks(const std::string& text, const std::string& language) {
    std::vector<std::string> out;
    const std::string fence = "```" + language + "\n";
    for (std::size_t at = text.find(fence); at != std::string::npos; at = text.find(fence, at)) {
        at += fence.size();
        out.push_back(text.substr(at, text.find("```", at) - at));
    }
    return out;
}

std::string printed(const std::string& file) {
    const EnvLookup none = [](const std::string&) { return std::nullopt; };
    std::string out;
    for (const Diagnostic& d : parse(file, "sidecar.toml", none, "h").diagnostics) {
        out += to_string(d) + "\n";
    }
    return out;
}

TEST(ConfigDocs, TheSmallestFileIsValidAndTheSampleOutputReal) {
    const std::vector<std::string> files = blocks(reference(), "toml");
    const std::vector<std::string> outputs = blocks(reference(), "text");
    ASSERT_GE(files.size(), 2u);
    ASSERT_GE(outputs.size(), 2u);
    EXPECT_EQ(printed(files[0]), "");
    EXPECT_EQ(printed(files[1]), outputs[0]);
    EXPECT_EQ(printed("[[listener]]\nname = \"in\"\nlisten = \"0.0.0.0:80\"\n\n[[route]]\nname = "
                      "\"everything\"\nlistener = \"in\"\nrespond = {}\n\n[[route]]\nname = \"health\"\n"
                      "listener = \"in\"\nmatch = { path = \"/health\" }\nrespond = {}\n"),
              outputs[1]);
}

TEST(ConfigDocs, TheExamplesOfSharedCallsAreOneValidFile) {
    std::string file = "[[listener]]\nname = \"inbound\"\nlisten = \"127.0.0.1:8080\"\n\n";
    int found = 0;
    for (const std::string& block : blocks(reference(), "toml")) {
        if (block.find("\ncollapse ") == std::string::npos && block.find("\nbatch ") == std::string::npos &&
            block.find("\nchannel ") == std::string::npos)
            continue;
        file += block + "\n";
        ++found;
    }
    EXPECT_EQ(found, 3);
    EXPECT_EQ(printed(file), "");
}

TEST(ConfigDocs, EveryKeyThatSettingsHaveIsExplained) {
    const std::string text = reference();
    const LoadResult result = load_file(std::string(OUTRIDER_CORPUS) + "/full.toml");
    ASSERT_TRUE(result.settings);
    const std::string all = to_toml(*result.settings);
    for (const char* section :
         {"route.retry", "route.hedge", "route.rate_limit", "route.concurrency", "route.fault",
          "route.idempotency", "route.collapse", "route.batch", "cluster.health", "cluster.outlier",
          "cluster.limits", "cluster.channel", "store.local", "store.shared", "store.scratch"}) {
        EXPECT_THAT(all, HasSubstr("[" + std::string(section) + "]"));
    }
    std::istringstream lines(all);
    std::size_t keys = 0;
    for (std::string line; std::getline(lines, line);) {
        const std::size_t equals = line.find(" = ");
        if (equals == std::string::npos) continue;
        ++keys;
        EXPECT_THAT(text, HasSubstr("| `" + line.substr(0, equals) + "` |"));
    }
    EXPECT_GT(keys, 100u);
}

}  // namespace
}  // namespace outrider::config
