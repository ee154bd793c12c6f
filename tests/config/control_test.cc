// A control-plane node's file.
#include <cstdio>
#include <fstream>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "config/control_settings.h"

namespace outrider::config {
namespace {

ControlLoadResult load(const std::string& text) {
    return parse_control(
        text, "control.toml", [](const std::string&) { return std::nullopt; }, "host");
}

std::string first_problem(const std::string& text) {
    const ControlLoadResult loaded = load(text);
    return loaded.diagnostics.empty() ? "" : to_string(loaded.diagnostics.front());
}

TEST(ControlFile, TheSmallestIsOneNode) {
    const ControlLoadResult loaded = load("[control]\ndata = \"/d\"\n");
    ASSERT_TRUE(loaded.settings);
    const ControlSettings& control = loaded.settings->control;
    EXPECT_EQ(control.name, "host");
    EXPECT_EQ(control.data, "/d");
    EXPECT_EQ(to_string(control.api_listen), "127.0.0.1:2379");
    EXPECT_EQ(control.heartbeat, 100ms);
    EXPECT_EQ(control.election_timeout, 500ms);
    EXPECT_FALSE(loaded.settings->admin_listen);
    ASSERT_EQ(control.founders().size(), 1U);
    EXPECT_EQ(control.founders().begin()->first, "host");
}

TEST(ControlFile, HasPeersByName) {
    const ControlLoadResult loaded = load(
        "[control]\nname = \"a\"\ndata = \"/d\"\npeers = { a = \"h:1\", b = \"[::1]:2\" }\njoin = true\n"
        "[admin]\nlisten = \"127.0.0.1:9\"\n[log]\nlevel = \"debug\"\n");
    ASSERT_TRUE(loaded.settings) << to_string(loaded.diagnostics.front());
    EXPECT_EQ(loaded.settings->control.peers.at("b").host, "::1");
    EXPECT_TRUE(loaded.settings->control.join);
    EXPECT_EQ(loaded.settings->log_level, "debug");
    EXPECT_EQ(loaded.settings->admin_listen->port, 9);
}

TEST(ControlFile, NamesItsMistakes) {
    EXPECT_THAT(first_problem(""), testing::HasSubstr("control: missing"));
    EXPECT_THAT(first_problem("[control]\n"), testing::HasSubstr("control.data: missing"));
    EXPECT_THAT(first_problem("[control]\ndata = \"/d\"\nname = \"c\"\npeers = { a = \"h:1\" }\n"),
                testing::HasSubstr("control.peers: does not list this node, c"));
    EXPECT_THAT(first_problem("[control]\ndata = \"/d\"\njoin = true\n"),
                testing::HasSubstr("control.join: needs"));
    EXPECT_THAT(first_problem("[control]\ndata = \"/d\"\nheartbeat = \"400ms\"\n"),
                testing::HasSubstr("at most half of election_timeout"));
    EXPECT_THAT(first_problem(
                    "[control]\nname = \"a\"\ndata = \"/d\"\npeers = { a = \"[::1]:1\", b = \"[::1]:1\" }\n"),
                testing::HasSubstr("control.peers.b: has the address of a"));
    EXPECT_THAT(first_problem("[control]\ndata = \"/d\"\npers = {}\n"),
                testing::HasSubstr("control.pers: unknown key"));
}

TEST(ControlFile, IsTakenForOneBeforeItHasKeys) {
    const std::string path = testing::TempDir() + "control_file_test.toml";
    const auto is_control = [&path](const std::string& text) {
        std::ofstream(path) << text;
        return is_control_file(path);
    };
    EXPECT_TRUE(is_control("[control]\n"));
    EXPECT_TRUE(is_control("[control]\nname = \"a\"\n[admin]\n[log]\n"));
    EXPECT_TRUE(is_control("[control]\ndata = \"/d\"\n[[listener]]\n"));
    EXPECT_FALSE(is_control("[control]\n[[listener]]\n"));
    EXPECT_FALSE(is_control("[admin]\n"));
    EXPECT_FALSE(is_control(""));
    std::remove(path.c_str());
}

TEST(ControlFile, NoTwoPortsAreOne) {
    EXPECT_THAT(first_problem("[control]\ndata = \"/d\"\n[admin]\nlisten = \"127.0.0.1:2379\"\n"),
                testing::HasSubstr("admin.listen: is the address of control.api_listen"));
    EXPECT_THAT(first_problem("[control]\ndata = \"/d\"\n[admin]\nlisten = \"127.0.0.1:2380\"\n"),
                testing::HasSubstr("admin.listen: is the address of control.peer_listen"));
    EXPECT_THAT(first_problem("[control]\ndata = \"/d\"\napi_listen = \"0.0.0.0:2380\"\n"),
                testing::HasSubstr("control.peer_listen: is the address of api_listen"));
    EXPECT_EQ(first_problem(
                  "[control]\ndata = \"/d\"\napi_listen = \"127.0.0.1:0\"\npeer_listen = \"127.0.0.1:0\"\n"
                  "[admin]\nlisten = \"127.0.0.1:0\"\n"),
              "");
}

TEST(ControlFile, WarnsOfAPeerListenThatPeersDoNotReach) {
    const std::string head = "[control]\nname = \"a\"\ndata = \"/d\"\n";
    const ControlLoadResult loaded =
        load(head + "peers = { a = \"10.0.0.1:2380\", b = \"10.0.0.2:2380\" }\n");
    EXPECT_TRUE(loaded.settings);
    ASSERT_EQ(loaded.diagnostics.size(), 1U);
    EXPECT_EQ(loaded.diagnostics.front().severity, Diagnostic::Severity::kWarning);
    EXPECT_THAT(to_string(loaded.diagnostics.front()),
                testing::HasSubstr(
                    "peer_listen is 127.0.0.1:2380, where b (10.0.0.2:2380) does not reach this node"));
    EXPECT_EQ(first_problem(head + "peer_listen = \"10.0.0.1:2380\"\n"
                                   "peers = { a = \"10.0.0.1:2380\", b = \"10.0.0.2:2380\" }\n"),
              "");
    EXPECT_EQ(first_problem(
                  head + "peers = { a = \"127.0.0.1:2380\", b = \"localhost:3380\", c = \"[::1]:3380\" }\n"),
              "");
}

}  // namespace
}  // namespace outrider::config
