// Runs every tests/raft/*.txt: commands, "----", what they print, an empty line; "#" begins a comment line. With
// OUTRIDER_REWRITE=1 in the environment the outputs are written anew: read the difference before committing it.
#include "tests/raft/script.h"

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

#include <gtest/gtest.h>

namespace outrider::raft {
namespace {

std::vector<std::string> scripts() {
    std::vector<std::string> names;
    for (const auto& file : std::filesystem::directory_iterator(RAFT_SCRIPTS)) {
        if (file.path().extension() == ".txt" && file.path().stem() != "CMakeLists") {
            names.push_back(file.path().stem().string());
        }
    }
    std::sort(names.begin(), names.end());
    return names;
}

// The same file with the outputs that the core gives.
std::string played(std::istream& in) {
    Script script;
    std::string out;
    std::string results;
    for (std::string line; std::getline(in, line);) {
        if (line.empty() || line[0] == '#') {
            out += line + "\n";
        } else if (line == "----") {
            out += "----\n" + results;
            results.clear();
            while (std::getline(in, line) && !line.empty()) {
            }
            out += "\n";
        } else {
            out += line + "\n";
            results += script.run(line);
        }
    }
    EXPECT_TRUE(results.empty()) << "commands without ----: " << results;
    return out;
}

class RaftScript : public testing::TestWithParam<std::string> {};

TEST_P(RaftScript, PrintsWhatItExpects) {
    const std::string path = std::string(RAFT_SCRIPTS) + "/" + GetParam() + ".txt";
    std::ifstream file(path);
    std::stringstream text;
    text << file.rdbuf();
    std::istringstream in(text.str());
    const std::string out = played(in);
    EXPECT_EQ(out.find("VIOLATION"), std::string::npos);
    if (std::getenv("OUTRIDER_REWRITE") != nullptr) {
        std::ofstream(path) << out;
        return;
    }
    EXPECT_EQ(out, text.str());
}

INSTANTIATE_TEST_SUITE_P(Scripts, RaftScript, testing::ValuesIn(scripts()),
                         [](const testing::TestParamInfo<std::string>& script) {
                             std::string name = script.param;
                             std::replace(name.begin(), name.end(), '-', '_');
                             return name;
                         });

}  // namespace
}  // namespace outrider::raft
