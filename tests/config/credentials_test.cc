#include "config/credentials.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "config_helpers.h"

namespace outrider::config {
namespace {

using testing::HasSubstr;
using testing::Not;

TEST(Credentials, AreToldByTheFieldsName) {
    for (const char* name : {"Authorization",
                             "Proxy-Authorization",
                             "Cookie",
                             "set-cookie",
                             "X-Api-Key",
                             "X-ApiKey",
                             "X-Auth",
                             "X-Auth-Key",
                             "x_auth",
                             "X-OAuth",
                             "X-Access-Key",
                             "X-AccessKey",
                             "Private-Key",
                             "X-Passwd",
                             "X-Signature",
                             "X-Session-Id",
                             "X-Amz-Security-Token",
                             "Client-Secret",
                             "X-User-Password",
                             "X-JWT",
                             "key"}) {
        EXPECT_TRUE(carries_credentials(name)) << name;
    }
    for (const char* name : {"X-Keyboard", "Keep-Alive", "Keywords", "Accept", "Host", "X-Author",
                             "X-Authored-By", "X-Request-Id", "Content-Type", ""}) {
        EXPECT_FALSE(carries_credentials(name)) << name;
    }
}

// A file with these lines in its route, which can be loaded; as it is shown.
std::string shown(std::string_view lines) {
    const std::string text = file_with_route("cluster = \"app\"\n" + std::string(lines));
    const LoadResult result = parse_text(text);
    EXPECT_TRUE(result.settings) << testing::PrintToString(lines_of(result));
    std::string out = hide_secrets(result.source);
    EXPECT_TRUE(parse_text(out).settings) << "what is shown can still be loaded: " << out;
    return out;
}

TEST(HideSecrets, LeavesAFileWithoutAnyAsItIs) {
    const std::string text = "\xef\xbb\xbf# a comment\r\n" +
                             file_with_route(
                                 "cluster = \"app\" # the token, of which nobody speaks\n"
                                 "rate_limit = { rate = 1, key = \"header:X-Api-Key\" }\n"
                                 "headers.request.remove = [\"Authorization\"]\n"
                                 "headers.request.set.X-A = '''# Authorization = \"no comment\"'''");
    EXPECT_EQ(hide_secrets(text), text);
}

TEST(HideSecrets, HoweverTheValueIsWritten) {
    for (const char* lines : {
             R"(headers.request.set.Authorization = "Bearer leak")",
             R"(headers.request.set.Authorization = "Bearer ${TOK:-leak}")",
             R"(headers.request.set.X-Secret = "${PRE:-}leak")",
             "headers.request.set.X-Secret = \"l\\u0065ak\"  # \u00e4",
             R"(headers.request.set.X-Secret = 'leak')",
             R"(headers.request.set.X-Secret = '''leak''')",
             "headers.request.set.X-Secret = \"\"\"\\\n   leak\"\"\"",
             R"(headers.request.set.X-Secret = """a\\\"""\"leak""""")",
             R"(headers.request.set."X-S\u0065cret" = "leak")",
             "headers.request.set = { X-A = \"\u00e4\u20ac\", X-Secret = \"leak\", X-B = \"seen\" }",
             "headers = { response = { add = { 'Set-Cookie' = [\"leak\", # leak\n '''leak]''' ], X-B = "
             "\"seen\" } } }",
             R"(match = { headers = { X-Session-Id = "leak" } })",
             "[route.headers.request.set]\nX-Plain = \"1\"\nX-Auth-Key = \"leak\"\nX-Private-Key=\t'leak'",
             "[route.match.headers]\nX-Passwd = \"leak\"",
         }) {
        const std::string out = shown(lines);
        EXPECT_THAT(out, Not(HasSubstr("leak"))) << lines;
        EXPECT_THAT(out, Not(HasSubstr("l\\u0065ak"))) << lines;
        EXPECT_THAT(out, HasSubstr("\"***\"")) << lines;
        const bool has_more = std::string_view(lines).find("seen") != std::string_view::npos;
        EXPECT_EQ(out.find("seen") != std::string::npos, has_more) << out;
    }
}

TEST(HideSecrets, InComments) {
    struct Row {
        const char* comment;
        const char* shown;
    };
    const Row rows[] = {
        {R"(# Authorization = "Bearer leak")", "# Authorization = ***"},
        {R"(  # "X-Api-Key" = "leak" # more)", R"(  # "X-Api-Key" = ***)"},
        {R"(# headers = { X-A = "1", X-Token = 'leak' })", R"(# headers = { X-A = "1", X-Token = ***)"},
        {"# X-Session-Id: leak", "# X-Session-Id: ***"},
        {R"(# the password is "leak")", "# the password is ***"},
        {"# for now it is Bearer leak", "# for now it is Bearer ***"},
        {R"(# "Author\u0069zation" = "leak")", "# ***"},
        {"# add.Cookie = [\n#   \"leak\",\n\n  # \"leak\" ]", "# add.Cookie = ***\n# ***\n\n  # ***"},
        {"# Cookie =\n# 'leak'", "# Cookie = ***\n# ***"},
        {"# Cookie = '1'\n# plain", "# Cookie = ***\n# plain"},
        {"# Cookie = [\nname = 'a'\n# plain", "# Cookie = ***\nname = 'a'\n# plain"},
        {"name = 'a' # Cookie = 'leak'", "name = 'a' # Cookie = ***"},
        {"# the key, and the token", "# the key, and the token"},
        {R"(# X-Keyboard = "seen")", R"(# X-Keyboard = "seen")"},
    };
    for (const Row& row : rows) {
        const std::string out = shown(row.comment);
        EXPECT_THAT(out, HasSubstr("\n" + std::string(row.shown) + "\n")) << row.comment;
        EXPECT_THAT(out, Not(HasSubstr("leak"))) << row.comment;
    }
}

TEST(HideSecrets, ShowsNothingOfWhatItCannotRead) {
    for (const char* text : {"[[route]]\nheaders.request.set.Authorization = \"leak", "a = leak",
                             "[headers.Cookie]\nx = \"leak\"", "[[headers.Cookie]]\nx = \"leak\"",
                             "headers.Cookie = [{ x = \"leak\" }]", "headers.Cookie = 1979-05-27"}) {
        EXPECT_THAT(hide_secrets(text), testing::StartsWith("# This file cannot be shown")) << text;
        EXPECT_THAT(hide_secrets(text), Not(HasSubstr("leak"))) << text;
    }
}

// Whatever words are in it: a comment is read once.
TEST(HideSecrets, ALongCommentTakesNoTime) {
    std::string text = "# ";
    while (text.size() < 2'000'000)
        text += "key ";
    text += "\n";
    EXPECT_EQ(hide_secrets(text), text);
}

}  // namespace
}  // namespace outrider::config
