#include "base/http/http1_parser.h"

#include <random>
#include <string>

#include <gtest/gtest.h>

namespace outrider::http {
namespace {

// What a parser made of some bytes, however they were cut.
struct Seen {
    std::string kind;  // "ok", or the error's status
    std::string method, target, authority, path;
    std::vector<std::pair<std::string, std::string>> fields;
    std::string body;
    std::vector<std::pair<std::string, std::string>> trailers;
    Framing framing = Framing::kNone;
    int status = 0;
    bool keep_alive = false;
    bool complete = false;
    std::size_t consumed = 0;
    std::string reason;
    friend bool operator==(const Seen&, const Seen&) = default;
};

struct Feed {
    Http1Parser::Side side = Http1Parser::Side::kRequest;
    ParserLimits limits{};
    bool to_head = false;
    bool then_eof = false;
};

Seen run(const std::string& bytes, const Feed& feed, const std::vector<std::size_t>& cuts) {
    ParserScratch scratch;
    Http1Parser parser(feed.side, feed.limits, scratch);
    parser.reset(feed.to_head);
    Seen seen;
    seen.kind = "ok";
    const auto note_head = [&](const Head& head) {
        for (const FieldRef& f : head.all()) {
            if (!f.dropped) seen.fields.emplace_back(head.name(f), head.value(f));
        }
        seen.framing = head.framing;
        seen.keep_alive = head.keep_alive;
    };
    std::size_t begin = 0;
    for (std::size_t i = 0; i <= cuts.size(); ++i) {
        const std::size_t end = i < cuts.size() ? cuts[i] : bytes.size();
        // A buffer of its own, so that nothing can be read beyond the piece unnoticed by the sanitizers.
        const std::string piece = bytes.substr(begin, end - begin);
        std::size_t at = 0;
        for (;;) {
            const Step step = parser.step(std::string_view(piece).substr(at));
            at += step.consumed;
            seen.consumed += step.consumed;
            if (step.kind == Step::Kind::kHead) {
                if (feed.side == Http1Parser::Side::kRequest) {
                    const RequestHead& head = parser.request();
                    seen.method = head.method_text();
                    seen.target = head.target();
                    seen.authority = head.authority();
                    seen.path = head.path();
                    note_head(head);
                } else {
                    seen.status = parser.response().status;
                    seen.reason = parser.response().reason();
                    note_head(parser.response());
                }
            } else if (step.kind == Step::Kind::kBody) {
                for (const auto slice : parser.body())
                    seen.body += slice;
            } else if (step.kind == Step::Kind::kEnd) {
                for (const Field& f : parser.trailers())
                    seen.trailers.emplace_back(f.name, f.value);
                seen.complete = true;
                return seen;
            } else if (step.kind == Step::Kind::kError) {
                seen.kind = std::to_string(status_for(parser.error()));
                seen.reason = "";
                seen.consumed = 0;
                return seen;
            } else {
                break;
            }
        }
        begin = end;
    }
    if (feed.then_eof) seen.complete = parser.finish();
    return seen;
}

Seen whole(const std::string& bytes, const Feed& feed = {}) {
    return run(bytes, feed, {});
}

std::string request_with(const std::string& fields, const std::string& body = "") {
    return "POST /x HTTP/1.1\r\nHost: a\r\n" + fields + "\r\n" + body;
}

TEST(Http1Request, ReadsAPlainRequest) {
    const Seen seen = whole("GET /a?b=1 HTTP/1.1\r\nHost: h.example:80\r\nX-Empty:\r\nX: 1 \r\n\r\nGET");
    EXPECT_EQ(seen.kind, "ok");
    EXPECT_EQ(seen.method, "GET");
    EXPECT_EQ(seen.target, "/a?b=1");
    EXPECT_EQ(seen.path, "/a");
    EXPECT_EQ(seen.authority, "h.example:80");
    EXPECT_EQ(seen.fields, (decltype(seen.fields){{"Host", "h.example:80"}, {"X-Empty", ""}, {"X", "1"}}));
    EXPECT_TRUE(seen.complete);
    EXPECT_TRUE(seen.keep_alive);
    EXPECT_EQ(seen.consumed,
              std::string("GET /a?b=1 HTTP/1.1\r\nHost: h.example:80\r\nX-Empty:\r\nX: 1 \r\n\r\n").size());
}

TEST(Http1Request, ReadsBodiesOfBothFramings) {
    Seen seen = whole(request_with("Content-Length: 5\r\n", "helloEXTRA"));
    EXPECT_EQ(seen.body, "hello");
    EXPECT_TRUE(seen.complete);
    const std::string chunked =
        request_with("Transfer-Encoding: Chunked\r\n",
                     "3;x=y\r\nabc\r\n2\r\nde\r\n0\r\nX-Sum: 1\r\nX-Nil:\r\nHost: evil\r\nX-Z: 2\r\n\r\n");
    seen = whole(chunked + "GET");
    EXPECT_EQ(seen.kind, "ok");
    EXPECT_EQ(seen.body, "abcde");
    EXPECT_EQ(seen.consumed, chunked.size());
    EXPECT_EQ(seen.trailers, (decltype(seen.trailers){{"X-Sum", "1"}, {"X-Nil", ""}, {"X-Z", "2"}}));
}

TEST(Http1Request, FragmentsNeverChangeTheMeaning) {
    const std::vector<std::string> messages = {
        "\r\nGET http://h.example/p?q HTTP/1.1\r\nHost: other\r\nX-A:  spaced \t\r\nX-E:\r\nX-B: 2\r\n\r\n",
        request_with("Transfer-Encoding: chunked\r\n",
                     "3;a=b\r\nabc\r\nA\r\n0123456789\r\n0\r\nT-1: a\r\nT-2:\r\nT-3: c\r\n\r\n"),
        request_with("Content-Length: 12\r\nConnection: X-Drop\r\nX-Drop: 1\r\n", "hello, world"),
        request_with("Transfer-Encoding: gzip, chunked\r\n", "0\r\n\r\n"),
        "GET / HTTP/1.1\r\nHost: a\r\n folded\r\n\r\n",
        "1;a\r\n\r\n",
        "GET / HTTP/3.0x\r\n\r\n",
    };
    std::mt19937 random(7);
    for (const std::string& message : messages) {
        const Seen expected = whole(message);
        for (std::size_t cut = 1; cut < message.size(); ++cut)
            EXPECT_EQ(run(message, {}, {cut}), expected) << message << cut;
        for (int i = 0; i < 50; ++i) {
            std::vector<std::size_t> cuts;
            for (std::size_t at = 0; at < message.size(); at += 1 + random() % 5)
                cuts.push_back(at);
            EXPECT_EQ(run(message, {}, cuts), expected) << message;
        }
    }
}

struct Bad {
    const char* name;
    std::string bytes;
    const char* status;
};

class Http1Refuses : public testing::TestWithParam<Bad> {};

TEST_P(Http1Refuses, WithTheRightStatus) {
    const Bad& bad = GetParam();
    EXPECT_EQ(whole(bad.bytes).kind, bad.status) << bad.name << "\n" << bad.bytes.substr(0, 300);
}

const std::string kNul(1, '\0');

INSTANTIATE_TEST_SUITE_P(
    Requests, Http1Refuses,
    testing::Values(
        Bad{"cl_and_te", request_with("Content-Length: 4\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n"),
            "400"},
        Bad{"te_and_cl", request_with("Transfer-Encoding: chunked\r\nContent-Length: 4\r\n", "0\r\n\r\n"),
            "400"},
        Bad{"te_comma_chunked", request_with("Transfer-Encoding: ,chunked\r\n", "0\r\n\r\n"), "400"},
        Bad{"te_deflate_chunked", request_with("Transfer-Encoding: deflate, chunked\r\n", "0\r\n\r\n"),
            "501"},
        Bad{"te_gzip", request_with("Transfer-Encoding: gzip\r\n"), "501"},
        Bad{"te_chunked_twice", request_with("Transfer-Encoding: chunked, chunked\r\n", "0\r\n\r\n"), "400"},
        Bad{"te_two_lines",
            request_with("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n"), "400"},
        Bad{"te_empty_with_cl", request_with("Transfer-Encoding:\r\nContent-Length: 4\r\n", "abcd"), "400"},
        Bad{"te_empty", request_with("Transfer-Encoding:\r\n"), "400"},
        Bad{"te_vt",
            request_with("Transfer-Encoding: \x0b"
                         "chunked\r\n",
                         "0\r\n\r\n"),
            "400"},
        Bad{"te_1_0", "POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "400"},
        Bad{"cl_plus", request_with("Content-Length: +5\r\n", "hello"), "400"},
        Bad{"cl_minus", request_with("Content-Length: -5\r\n", "hello"), "400"},
        Bad{"cl_hex", request_with("Content-Length: 0x5\r\n", "hello"), "400"},
        Bad{"cl_empty", request_with("Content-Length:\r\n"), "400"},
        Bad{"cl_list", request_with("Content-Length: 5, 5\r\n", "hello"), "400"},
        Bad{"cl_twice_equal", request_with("Content-Length: 5\r\nContent-Length: 5\r\n", "hello"), "400"},
        Bad{"cl_twice", request_with("Content-Length: 5\r\nContent-Length: 6\r\n", "hello"), "400"},
        Bad{"cl_huge", request_with("Content-Length: 9223372036854775808\r\n"), "400"},
        Bad{"cl_space_inside", request_with("Content-Length: 5 5\r\n", "hello"), "400"},
        Bad{"obs_fold", request_with("X: a\r\n b\r\n"), "400"},
        Bad{"space_before_colon", request_with("X : a\r\n"), "400"},
        Bad{"space_first_field", "GET / HTTP/1.1\r\n Host: a\r\n\r\n", "400"},
        Bad{"empty_name", request_with(": a\r\n"), "400"},
        Bad{"bare_lf", "GET / HTTP/1.1\nHost: a\n\n", "400"},
        Bad{"bare_lf_field", "GET / HTTP/1.1\r\nHost: a\nX: b\r\n\r\n", "400"},
        Bad{"bare_lf_end", "GET / HTTP/1.1\r\nHost: a\r\n\n", "400"},
        Bad{"bare_cr", request_with("X: a\rb\r\n"), "400"},
        Bad{"bare_cr_end", request_with("X: a\r\r\n"), "400"},
        Bad{"nul_value", request_with("X: a" + kNul + "b\r\n"), "400"},
        Bad{"nul_name", request_with("X" + kNul + ": ab\r\n"), "400"},
        Bad{"control_value",
            request_with("X: a\x01"
                         "b\r\n"),
            "400"},
        Bad{"del_value",
            request_with("X: a\x7f"
                         "b\r\n"),
            "400"},
        Bad{"no_host", "GET / HTTP/1.1\r\n\r\n", "400"},
        Bad{"two_hosts", "GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", "400"},
        Bad{"host_empty", "GET / HTTP/1.1\r\nHost:\r\n\r\n", "400"},
        Bad{"host_userinfo", "GET / HTTP/1.1\r\nHost: u@a\r\n\r\n", "400"},
        Bad{"host_path", "GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", "400"},
        Bad{"host_comma", "GET / HTTP/1.1\r\nHost: a,b\r\n\r\n", "400"},
        Bad{"host_space", "GET / HTTP/1.1\r\nHost: a b\r\n\r\n", "400"},
        Bad{"host_port", "GET / HTTP/1.1\r\nHost: a:99999\r\n\r\n", "400"},
        Bad{"two_spaces", "GET  / HTTP/1.1\r\nHost: a\r\n\r\n", "400"},
        Bad{"two_spaces_version", "GET /  HTTP/1.1\r\nHost: a\r\n\r\n", "400"},
        Bad{"tab", "GET\t/ HTTP/1.1\r\nHost: a\r\n\r\n", "400"},
        Bad{"trailing_space", "GET / HTTP/1.1 \r\nHost: a\r\n\r\n", "400"},
        Bad{"http_0_9", "GET /\r\n\r\n", "400"},
        Bad{"http_0_9_version", "GET / HTTP/0.9\r\nHost: a\r\n\r\n", "505"},
        Bad{"http_1_2", "GET / HTTP/1.2\r\nHost: a\r\n\r\n", "505"},
        Bad{"http_2_0", "GET / HTTP/2.0\r\nHost: a\r\n\r\n", "505"},
        Bad{"http_2_preface", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "505"},
        Bad{"http_11", "GET / HTTP/11\r\nHost: a\r\n\r\n", "400"},
        Bad{"http_lower", "GET / http/1.1\r\nHost: a\r\n\r\n", "400"},
        Bad{"method_unknown", "FROB / HTTP/1.1\r\nHost: a\r\n\r\n", "501"},
        Bad{"method_bad", "G(T / HTTP/1.1\r\nHost: a\r\n\r\n", "400"},
        Bad{"tls_hello", "\x16\x03\x01\x02\x05\x01\x01\xfc\x03\x03", "400"},
        Bad{"target_relative", "GET x HTTP/1.1\r\nHost: a\r\n\r\n", "400"},
        Bad{"target_star_get", "GET * HTTP/1.1\r\nHost: a\r\n\r\n", "400"},
        Bad{"target_fragment", "GET /#x HTTP/1.1\r\nHost: a\r\n\r\n", "400"},
        Bad{"target_userinfo", "GET http://u@h/ HTTP/1.1\r\nHost: h\r\n\r\n", "400"},
        Bad{"target_scheme", "GET ftp://h/ HTTP/1.1\r\nHost: h\r\n\r\n", "400"},
        Bad{"target_nul", "GET /a" + kNul + " HTTP/1.1\r\nHost: a\r\n\r\n", "400"},
        Bad{"target_high", "GET /\xc3\xa4 HTTP/1.1\r\nHost: a\r\n\r\n", "400"},
        Bad{"leading_lf", "\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", "400"},
        Bad{"leading_cr", "\rGET / HTTP/1.1\r\nHost: a\r\n\r\n", "400"},
        Bad{"chunk_lf_ext", request_with("Transfer-Encoding: chunked\r\n", "1;a\nb\r\nx\r\n0\r\n\r\n"),
            "400"},
        Bad{"chunk_lf", request_with("Transfer-Encoding: chunked\r\n", "1\nx\r\n0\r\n\r\n"), "400"},
        Bad{"chunk_data_lf", request_with("Transfer-Encoding: chunked\r\n", "1\r\nx\n0\r\n\r\n"), "400"},
        Bad{"chunk_no_crlf", request_with("Transfer-Encoding: chunked\r\n", "1\r\nxx0\r\n\r\n"), "400"},
        Bad{"chunk_overflow", request_with("Transfer-Encoding: chunked\r\n", "fffffffffffffffff\r\nx"),
            "400"},
        Bad{"chunk_minus", request_with("Transfer-Encoding: chunked\r\n", "-1\r\nx"), "400"},
        Bad{"chunk_0x", request_with("Transfer-Encoding: chunked\r\n", "0x1\r\nx"), "400"},
        Bad{"chunk_space", request_with("Transfer-Encoding: chunked\r\n", " 1\r\nx\r\n0\r\n\r\n"), "400"},
        Bad{"chunk_space_after", request_with("Transfer-Encoding: chunked\r\n", "1 \r\nx\r\n0\r\n\r\n"),
            "400"},
        Bad{"chunk_end_lf", request_with("Transfer-Encoding: chunked\r\n", "0\r\n\n"), "400"}),
    [](const testing::TestParamInfo<Bad>& bad) { return bad.param.name; });

TEST(Http1Request, LimitsHaveTheirOwnAnswers) {
    Feed feed;
    feed.limits.head_bytes_max = 4096;
    feed.limits.target_bytes_max = 1024;
    feed.limits.fields_max = 10;
    const std::string get = "GET / HTTP/1.1\r\nHost: a\r\n";
    EXPECT_EQ(whole("GET /" + std::string(2000, 'a') + " HTTP/1.1\r\nHost: a\r\n\r\n", feed).kind, "414");
    EXPECT_EQ(whole("GET /" + std::string(5000, 'a'), feed).kind, "414");
    // However far the rest of its head has come.
    EXPECT_EQ(whole("GET /" + std::string(2000, 'a') + " HTTP/1.1\r\nHost: a", feed).kind, "414");
    EXPECT_EQ(whole(get + "X: " + std::string(5000, 'a') + "\r\n\r\n", feed).kind, "431");
    std::string many = get;
    for (int i = 0; i < 10; ++i)
        many += "X: 1\r\n";
    EXPECT_EQ(whole(many + "\r\n", feed).kind, "431");
    // The limit itself still passes.
    const std::string fits = get + "X: " + std::string(4096 - get.size() - 7, 'a') + "\r\n\r\n";
    EXPECT_EQ(fits.size(), 4096u);
    EXPECT_EQ(whole(fits, feed).kind, "ok");
    feed.limits.body_bytes_max = 3;
    EXPECT_EQ(whole(request_with("Content-Length: 4\r\n", "abcd"), feed).kind, "413");
    EXPECT_EQ(whole(request_with("Transfer-Encoding: chunked\r\n", "4\r\nabcd\r\n0\r\n\r\n"), feed).kind,
              "413");
}

TEST(Http1Request, ChunkFramingFloodsAreCut) {
    std::string ones = request_with("Transfer-Encoding: chunked\r\n");
    for (int i = 0; i < 200'000; ++i)
        ones += "1\r\nx\r\n";
    EXPECT_EQ(whole(ones + "0\r\n\r\n").kind, "400");
    const std::string extension = request_with("Transfer-Encoding: chunked\r\n",
                                               "1;" + std::string(8 << 20, 'e') + "\r\nx\r\n0\r\n\r\n");
    EXPECT_EQ(whole(extension).kind, "400");
    // What comes behind does not make it good, in one read or in two.
    const std::string late =
        request_with("Transfer-Encoding: chunked\r\n", "5000;" + std::string(66 << 10, 'e') + "\r\n" +
                                                           std::string(0x5000, 'x') + "\r\n0\r\n\r\n");
    EXPECT_EQ(whole(late).kind, "400");
    EXPECT_EQ(run(late, {}, {std::size_t{66} << 10}).kind, "400");
}

TEST(Http1Request, ConnectionNamesFieldsButNotFraming) {
    const Seen seen =
        whole(request_with("Connection: X-Secret, content-length, Host, close\r\nX-Secret: 1\r\nKeep-Alive: "
                           "5\r\nTE: trailers\r\nContent-Length: 2\r\n",
                           "ok"));
    EXPECT_EQ(seen.fields, (decltype(seen.fields){{"Host", "a"}}));
    EXPECT_EQ(seen.body, "ok");
    EXPECT_FALSE(seen.keep_alive);
}

Feed response(bool to_head = false, bool eof = false) {
    return {Http1Parser::Side::kResponse, {}, to_head, eof};
}

TEST(Http1Response, ReadsEveryFraming) {
    Seen seen = whole("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhiX", response());
    EXPECT_EQ(seen.body, "hi");
    EXPECT_EQ(seen.reason, "OK");
    EXPECT_TRUE(seen.complete);
    seen = whole("HTTP/1.1 200\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n", response());
    EXPECT_EQ(seen.body, "hi");
    EXPECT_TRUE(seen.complete);
    seen = whole("HTTP/1.1 200 OK\r\n\r\nuntil close", response(false, true));
    EXPECT_EQ(seen.body, "until close");
    EXPECT_TRUE(seen.complete);
    EXPECT_FALSE(seen.keep_alive);
    seen = whole("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\nX", response());
    EXPECT_TRUE(seen.complete);
    EXPECT_EQ(seen.consumed, 38u);
}

TEST(Http1Response, TruncatedBodiesAreNotComplete) {
    EXPECT_FALSE(whole("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhi", response(false, true)).complete);
    EXPECT_FALSE(whole("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhi", response(false, true))
                     .complete);
    EXPECT_FALSE(
        whole("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n", response(false, true))
            .complete);
    EXPECT_FALSE(whole("HTTP/1.1 200 OK\r\nX: 1", response(false, true)).complete);
}

TEST(Http1Response, HeadAndBodilessStatusesHaveNoBody) {
    Seen seen = whole("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nHTTP/1.1 200", response(true));
    EXPECT_TRUE(seen.complete);
    EXPECT_EQ(seen.body, "");
    EXPECT_EQ(seen.fields, (decltype(seen.fields){{"Content-Length", "5"}}));
    seen = whole("HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\nhello", response());
    EXPECT_TRUE(seen.complete);
    EXPECT_EQ(seen.body, "");
    seen = whole("HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", response());
    EXPECT_TRUE(seen.complete);
    seen = whole("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n\x01\x02",
                 response());
    EXPECT_TRUE(seen.complete);
    EXPECT_EQ(seen.status, 101);
}

TEST(Http1Response, RefusesWhatCouldSplit) {
    for (const std::string& bad : std::vector<std::string>{
             "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
             "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nhi",
             "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
             "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
             "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "HTTP/1.1 2x0 OK\r\n\r\n",
             "HTTP/1.1 20 OK\r\n\r\n", "HTTP/1.1 2000 OK\r\n\r\n", "HTTP/1.1 999 OK\r\n\r\n",
             "HTTP/1.1  200 OK\r\n\r\n", "HTTP/2.0 200 OK\r\n\r\n", "ICY 200 OK\r\n\r\n",
             "\r\nHTTP/1.1 200 OK\r\n\r\n", "HTTP/1.1 200 O\x01K\r\n\r\n",
             "HTTP/1.1 200 OK\nContent-Length: 0\n\n", "HTTP/1.1 200 OK\r\nX: a\r\n b\r\n\r\n",
             "HTTP/1.1 200 OK\r\nX: a" + kNul + "\r\n\r\n", "HTTP/1.1 200 OK\r\nX : a\r\n\r\n",
             "garbage\r\n\r\n"}) {
        EXPECT_NE(whole(bad, response()).kind, "ok") << bad;
    }
}

}  // namespace
}  // namespace outrider::http
