// The URL of a Redis store: its grammar, and that its password is shown nowhere.
#include "config/redis_url.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "config_helpers.h"

namespace outrider::config {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::Not;

// A file whose only store, used by its only route, has this URL on line 15.
std::string in_redis(std::string_view url) {
    return file_with_route("name = \"pay\"\ncluster = \"app\"\nidempotency = { store = \"s\" }") +
           "[store.s]\nkind = \"redis\"\nurl = \"" + std::string(url) + "\"\n";
}

TEST(RedisUrl, WhatIsRight) {
    struct RightRow {
        const char* text;
        RedisUrl url;
    };
    const RightRow rows[] = {
        {"redis://h", {false, {{"h", 6379}}, "", "", "", 0}},
        {"redis://h/", {false, {{"h", 6379}}, "", "", "", 0}},
        {"redis://10.0.0.1:1/15", {false, {{"10.0.0.1", 1}}, "", "", "", 15}},
        {"redis://[::1]", {false, {{"::1", 6379}}, "", "", "", 0}},
        {"redis://[::1]:7/2147483647", {false, {{"::1", 7}}, "", "", "", 2147483647}},
        {"redis://:pw@h", {false, {{"h", 6379}}, "", "", "pw", 0}},
        {"redis://me:pw@h:1/2", {false, {{"h", 1}}, "", "me", "pw", 2}},
        {"redis://me:a:b@h", {false, {{"h", 6379}}, "", "me", "a:b", 0}},
        {"redis://m%40e:%2f%3F%25%c3%A4%20@h", {false, {{"h", 6379}}, "", "m@e", "/?%\u00e4 ", 0}},
        {"redis-sentinel://a/m", {true, {{"a", 26379}}, "m", "", "", 0}},
        {"redis-sentinel://:p@a:1,[::1],b/my-master/7",
         {true, {{"a", 1}, {"::1", 26379}, {"b", 26379}}, "my-master", "", "p", 7}},
    };
    for (const RightRow& row : rows) {
        const Result<RedisUrl> url = parse_redis_url(row.text);
        ASSERT_TRUE(url) << row.text << ": " << url.error();
        EXPECT_EQ(*url, row.url) << row.text;
        const Result<RedisUrl> again = parse_redis_url(to_string(*url, Secrets::kShow));
        ASSERT_TRUE(again) << again.error();
        EXPECT_EQ(*again, *url);
        EXPECT_TRUE(parse_redis_url(to_string(*url, Secrets::kHide))) << "what is shown is a URL too";
    }
    EXPECT_EQ(to_string(*parse_redis_url("redis://h"), Secrets::kShow), "redis://h:6379/0");
    EXPECT_EQ(to_string(*parse_redis_url("redis://me:p%40w@h"), Secrets::kShow), "redis://me:p%40w@h:6379/0");
    EXPECT_EQ(to_string(*parse_redis_url("redis://me:p%40w@h"), Secrets::kHide), "redis://me:***@h:6379/0");
    EXPECT_EQ(to_string(*parse_redis_url("redis-sentinel://:p@a,[::1]:1/m/2"), Secrets::kHide),
              "redis-sentinel://:***@a:26379,[::1]:1/m/2");
}

// "leak" stands where a password is, or could be meant to be.
TEST(RedisUrl, WhatIsWrongIsSaidWithoutTheUrl) {
    const Row rows[] = {
        {"", "is not the URL of a Redis (redis://[user:password@]host[:6379][/db]"},
        {"leak", "is not the URL of a Redis"},
        {"leak@h", "is not the URL of a Redis"},
        {"http://:leak@h", "is not the URL of a Redis"},
        {"REDIS://:leak@h", "is not the URL of a Redis"},
        {"rediss://:leak@h", "rediss:// (TLS) is not supported"},
        {"redis://", "the host is not an IPv4 address"},
        {"redis://:leak@", "the host is not"},
        {"redis://:leak", "the host is not"},
        {"redis://me:leak", "the host is not"},
        {"redis://me:leak/0", "the host is not"},
        {"redis://:leak@h:0", "the host is not"},
        {"redis://:leak@h:65536", "the host is not"},
        {"redis://:leak@h:", "the host is not"},
        {"redis://:leak@::1", "the host is not"},
        {"redis://:leak@[::1", "the host is not"},
        {"redis://:leak@10.0.0.256", "the host is not"},
        {"redis://:leak@a,b", "there are several hosts; only redis-sentinel:// takes a list"},
        {"redis://leak@h", "there is a user without a password; write user:password@, or :password@"},
        {"redis://leak:@h", "the password before the '@' is empty"},
        {"redis://@h", "there is a user without a password"},
        {"redis://:le@leak@h",
         "before the last '@' has a character that a user or password carries percent-encoded"},
        {"redis://:leak/leak@h", "percent-encoded"},
        {"redis://:leak?@h", "percent-encoded"},
        {"redis://:leak#@h", "percent-encoded"},
        {"redis://:leak%@h", "has a '%' without two hexadecimal digits"},
        {"redis://:leak%2@h", "has a '%' without two hexadecimal digits"},
        {"redis://:leak%zz@h", "has a '%' without two hexadecimal digits"},
        {"redis://leak%4:x@h", "has a '%' without two hexadecimal digits"},
        {"redis://:leak%00@h", "has a control character"},
        {"redis://:leak%0a@h", "has a control character"},
        {"redis://:le ak@h", "the URL has a character that URLs carry percent-encoded (a space is %20)"},
        {"redis://:leak\u00e4@h", "percent-encoded"},
        {"redis://:leak@h/x", "the database at its end is not a number from 0 to 2147483647"},
        {"redis://:leak@h/-1", "the database"},
        {"redis://:leak@h/2147483648", "the database"},
        {"redis://:leak@h/0/1", "the database"},
        {"redis://:leak@h/0?timeout=1s", "the URL has a '?' or '#'"},
        {"redis://:leak@h#0", "the URL has a '?' or '#'"},
        {"redis-sentinel://:leak@a", "the name of the master that the sentinels watch is missing or wrong"},
        {"redis-sentinel://:leak@a/", "the name of the master"},
        {"redis-sentinel://:leak@a/m m", "percent-encoded"},
        {"redis-sentinel://:leak@a/m/", "the database"},
        {"redis-sentinel://:leak@a/m/x", "the database"},
        {"redis-sentinel://:leak@a,/m", "the host of sentinel 2 is not"},
        {"redis-sentinel://:leak@,a/m", "the host of sentinel 1 is not"},
        {"redis-sentinel://:leak@a,b,a:26379/m", "sentinel 3 is listed twice"},
        {"redis://:leak@" + std::string(4096, 'h'), "the URL has more than 4 KiB"},
    };
    for (const Row& row : rows) {
        const Result<RedisUrl> url = parse_redis_url(row.lines);
        ASSERT_FALSE(url) << row.lines;
        EXPECT_THAT(url.error(), HasSubstr(row.expected)) << row.lines;
        EXPECT_THAT(url.error(), Not(HasSubstr("leak"))) << row.lines;
        const std::vector<std::string> lines = lines_of(parse_text(in_redis(row.lines)));
        ASSERT_THAT(lines, ElementsAre(HasSubstr("f.toml:15:7: store.s.url: " + url.error()))) << row.lines;
        EXPECT_THAT(lines[0], Not(HasSubstr("leak")));
    }
    std::string many = "redis-sentinel://s0";
    for (int i = 1; i < 16; ++i)
        many += ",s" + std::to_string(i);
    EXPECT_TRUE(parse_redis_url(many + "/m"));
    EXPECT_THAT(parse_redis_url(many + ",s16/m").error(), HasSubstr("there are more than 16 sentinels"));
}

TEST(RedisUrl, APasswordFromTheEnvironmentIsShownNowhere) {
    const std::string text = in_redis("redis://me:${PW}@h");
    const LoadResult result = parse_text(text, {{"PW", "leak"}});
    ASSERT_TRUE(result.settings) << testing::PrintToString(lines_of(result));
    EXPECT_EQ(result.settings->stores[0].url.password, "leak");
    EXPECT_THAT(to_toml(*result.settings), Not(HasSubstr("leak")));
    EXPECT_THAT(to_toml(*result.settings), HasSubstr("url = \"redis://me:***@h:6379/0\"\n"));
    EXPECT_THAT(to_toml(*result.settings, Secrets::kShow), HasSubstr("url = \"redis://me:leak@h:6379/0\"\n"));
    for (const char* password : {"le@ak", "le/ak", "leak%", "le ak", "leak\n"}) {
        const LoadResult wrong = parse_text(text, {{"PW", password}});
        ASSERT_FALSE(wrong.settings) << password;
        for (const std::string& line : lines_of(wrong)) {
            EXPECT_THAT(line, Not(HasSubstr("leak"))) << password;
            EXPECT_THAT(line, Not(HasSubstr("ak@"))) << password;
        }
    }
    EXPECT_THAT(lines_of(parse_text(text)), ElementsAre(HasSubstr("environment variable PW is not set")));
}

TEST(RedisUrl, TheSourceIsShownWithoutPasswords) {
    struct Shown {
        const char* written;  // a value of `url`
        const char* shown;
    };
    const Shown rows[] = {
        {R"("redis://h:6379/0")", R"("redis://h:6379/0")"},
        {R"("redis-sentinel://a,b/m")", R"("redis-sentinel://a,b/m")"},
        {R"("${REDIS_URL}")", R"("${REDIS_URL}")"},
        {R"("redis://:leak@h:6379/0")", R"("redis://:***@h:6379/0")"},
        {R"('redis://me:leak@h')", R"("redis://:***@h")"},
        {R"('redis-sentinel://me:leak@[::1]:1,b/m/1')", R"("redis-sentinel://:***@[::1]:1,b/m/1")"},
        {R"("redis://:le@leak@h")", R"("redis://:***@h")"},
        {R"("redis://:leak\u0040h")", R"("redis://:***@h")"},
        {R"("redis://:${PW}@h")", R"("redis://:***@h")"},
        {R"("redis://:${PW:-leak}@h")", R"("redis://:***@h")"},
        {R"("${REDIS_URL:-redis://:leak@h}")", R"("***")"},
        {R"("redis://:leak${AT}h")", R"("***")"},
        {R"("${A}${B:-leak}")", R"("***")"},
        {R"("${leak")", R"("***")"},
        {R"("${")", R"("***")"},
        {R"("http://:leak@h")", R"("***")"},
        {R"("redis://:leak@h/\"\\")", R"("***")"},
        {"'''redis://:leak@h'''", R"("redis://:***@h")"},
        {"\"\"\"redis://\\\n   :leak@h\"\"\"", R"("redis://:***@h")"},
        {R"("")", R"("")"},
    };
    for (const Shown& row : rows) {
        const std::string before = smallest_file() + "[store.s]\nkind = \"redis\"\nurl = ";
        EXPECT_EQ(hide_secrets(before + row.written + " # end\n"), before + row.shown + " # end\n")
            << row.written;
    }
    EXPECT_EQ(hide_secrets("store = { s = { url = \"redis://:leak@h\", kind = \"redis\" } }\n"),
              "store = { s = { url = \"redis://:***@h\", kind = \"redis\" } }\n");
    EXPECT_EQ(hide_secrets("store.s.\"u\\u0072l\" = \"redis://:leak@h\"\n"),
              "store.s.\"u\\u0072l\" = \"redis://:***@h\"\n");
    for (const char* odd :
         {"store.s.url = [\"redis://:leak@h\"]\n", "store.s.url = { x = \"redis://:leak@h\" }\n"}) {
        EXPECT_THAT(hide_secrets(odd), testing::StartsWith("# This file cannot be shown")) << odd;
    }
}

TEST(RedisUrl, SoAreCommentsWithUrls) {
    struct Comment {
        const char* written;
        const char* shown;
    };
    const Comment rows[] = {
        {"# url = \"redis://:leak@h\"", "# url = \"redis://***"},
        {"# it was redis://me:leak@h:1 once", "# it was redis://***"},
        {"x = 1 # redis-sentinel://:leak@a,b/m", "x = 1 # redis-sentinel://***"},
        {"# url = \"\"\"redis://\\\n#   :leak@h\"\"\"", "# url = \"\"\"redis://***\n# ***"},
        {"# password of redis://leak@h", "# password of redis: ***"},
        {"# see https://redis.io/docs", "# see https://redis.io/docs"},
        {"# mail to me@example.org", "# mail to me@example.org"},
    };
    for (const Comment& row : rows) {
        EXPECT_EQ(hide_secrets(std::string(row.written) + "\n"), std::string(row.shown) + "\n");
    }
}

}  // namespace
}  // namespace outrider::config
