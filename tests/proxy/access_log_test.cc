#include "proxy/access_log.h"

#include <array>
#include <memory>
#include <string>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/bytes.h"

namespace outrider::proxy {
namespace {
using namespace std::chrono_literals;
using filters::Flag;
using ::testing::EndsWith;
using ::testing::HasSubstr;

// The buffers are of the exact size, so that the address sanitizer sees a byte too many.
std::string text_of(const AccessEntry& entry) {
    const auto out = std::make_unique<char[]>(kAccessLineMax);
    return {out.get(), format_text(entry, out.get(), kAccessLineMax)};
}
std::string json_of(const AccessEntry& entry) {
    const auto out = std::make_unique<char[]>(kAccessLineMax);
    return {out.get(), format_json(entry, out.get(), kAccessLineMax)};
}

AccessEntry common_entry() {
    AccessEntry entry;
    entry.time = {1'769'860'800'123'456};
    entry.listener = "inbound";
    entry.route = "payments";
    entry.method = "POST";
    entry.path = "/v1/transfers?limit=20";
    entry.status = 503;
    entry.flags = Flag::kURX | Flag::kUF;
    entry.bytes_in = 12;
    entry.bytes_out = 1024;
    entry.duration = 1'234'567ns;
    entry.upstream_duration = 1'101'000ns;
    entry.attempts = 3;
    entry.endpoint = "10.0.12.34:8080";
    entry.request_id = "5f0c6f0e-3b8e-4d55-9d2b-6b0f0b7d8c11";
    entry.idempotency = "first";
    entry.client = "[2001:db8::7]:51234";
    return entry;
}

// A strict reader of one JSON string: the position behind its closing quote, or npos.
std::size_t json_string_end(std::string_view s, std::size_t at) {
    if (at >= s.size() || s[at] != '"') return std::string_view::npos;
    for (++at; at < s.size();) {
        const auto c = static_cast<unsigned char>(s[at]);
        if (c == '"') return at + 1;
        if (c < 0x20) return std::string_view::npos;
        if (c == '\\') {
            const std::string_view rest = s.substr(at);
            if (rest.starts_with("\\\"") || rest.starts_with("\\\\")) {
                at += 2;
            } else if (rest.starts_with("\\u") && rest.size() >= 6 &&
                       rest.substr(2, 4).find_first_not_of("0123456789abcdef") == std::string_view::npos) {
                at += 6;
            } else {
                return std::string_view::npos;
            }
            continue;
        }
        const std::size_t n = utf8_sequence(s.substr(at));
        if (n == 0) return std::string_view::npos;
        at += n;
    }
    return std::string_view::npos;
}

// Whether the line is one flat object of seventeen members, each a string, a number or null, and a
// newline.
bool json_line_ok(std::string_view s) {
    if (!s.starts_with("{") || !s.ends_with("}\n")) return false;
    std::size_t at = 1;
    for (int member = 0; member < 17; ++member) {
        at = json_string_end(s, at);
        if (at == std::string_view::npos || s[at] != ':') return false;
        ++at;
        if (s[at] == '"') {
            at = json_string_end(s, at);
            if (at == std::string_view::npos) return false;
        } else {
            const std::size_t end = s.find_first_of(",}", at);
            const std::string_view value = s.substr(at, end - at);
            if (value != "null" && value.find_first_not_of("0123456789.") != std::string_view::npos)
                return false;
            at = end;
        }
        if (s[at] != (member == 16 ? '}' : ',')) return false;
        ++at;
    }
    return at == s.size() - 1;
}

// Whether no byte but the last is one that a reader could take for a line's end or a terminal's
// command.
bool text_line_ok(std::string_view s) {
    if (!s.ends_with("\n")) return false;
    bool quoted = false;
    int quotes = 0;
    for (std::size_t i = 0; i + 1 < s.size(); ++i) {
        if (s.substr(i).starts_with("\xE2\x80\xA6")) {
            i += 2;
            continue;
        }
        if (s[i] < 0x20 || s[i] > 0x7E) return false;
        if (s[i] == '\\') {
            ++i;
            continue;
        }
        if (s[i] == '"') {
            quoted = !quoted;
            ++quotes;
        }
    }
    return !quoted && quotes <= 4;
}

TEST(AccessLine, IsLogfmtWithKeysInAFixedOrder) {
    EXPECT_EQ(text_of(common_entry()),
              "time=2026-01-31T12:00:00.123Z listener=inbound route=payments method=POST "
              "path=\"/v1/transfers?limit=20\" protocol=HTTP/1.1 status=503 flags=UF,URX bytes_in=12 "
              "bytes_out=1024 duration_ms=1.234 upstream_ms=1.101 attempts=3 "
              "endpoint=10.0.12.34:8080 request_id=\"5f0c6f0e-3b8e-4d55-9d2b-6b0f0b7d8c11\" "
              "idempotency=first client=[2001:db8::7]:51234\n");
}

TEST(AccessLine, IsAJsonObjectWithTheSameKeys) {
    EXPECT_EQ(json_of(common_entry()),
              "{\"time\":\"2026-01-31T12:00:00.123Z\",\"listener\":\"inbound\",\"route\":"
              "\"payments\",\"method\":\"POST\",\"path\":\"/v1/transfers?limit=20\",\"protocol\":"
              "\"HTTP/1.1\",\"status\":503,\"flags\":\"UF,URX\",\"bytes_in\":12,\"bytes_out\":1024,"
              "\"duration_ms\":1.234,\"upstream_ms\":1.101,\"attempts\":3,\"endpoint\":"
              "\"10.0.12.34:8080\",\"request_id\":\"5f0c6f0e-3b8e-4d55-9d2b-6b0f0b7d8c11\","
              "\"idempotency\":\"first\",\"client\":\"[2001:db8::7]:51234\"}\n");
    EXPECT_TRUE(json_line_ok(json_of(common_entry())));
}

TEST(AccessLine, MarksWhatIsAbsent) {
    const AccessEntry nothing;
    EXPECT_EQ(text_of(nothing),
              "time=1970-01-01T00:00:00.000Z listener=- route=- method=- path=- protocol=HTTP/1.1 "
              "status=0 flags=- bytes_in=0 bytes_out=0 duration_ms=0.000 upstream_ms=- attempts=0 "
              "endpoint=- request_id=- idempotency=- client=-\n");
    EXPECT_TRUE(json_line_ok(json_of(nothing)));
    EXPECT_THAT(json_of(nothing), HasSubstr("\"flags\":null"));
    EXPECT_THAT(json_of(nothing), HasSubstr("\"upstream_ms\":null"));
}

TEST(AccessLine, KeepsHostileBytesFromForgingALineOrAField) {
    AccessEntry entry;
    entry.path = "/a\" status=200\r\n\x1b[2J\x7f\\\xff\xc3\xa9";
    entry.method = "A B=\"\n";
    EXPECT_THAT(text_of(entry), HasSubstr(" method=A\\x20B\\x3d\\x22\\x0a path=\"/a\\\" status=200"
                                          "\\x0d\\x0a\\x1b[2J\\x7f\\\\\\xff\\xc3\\xa9\" protocol="));
    EXPECT_THAT(json_of(entry), HasSubstr("\"method\":\"A B=\\\"\\u000a\",\"path\":\"/a\\\" status=200"
                                          "\\u000d\\u000a\\u001b[2J\\u007f\\\\\\ufffd\xc3\xa9\","));
}

TEST(AccessLine, EscapesEveryByteAtEveryPlace) {
    for (const std::size_t size : {1, 2, 3, 4, 7, 8, 9, 15, 16, 17, 33}) {
        for (std::size_t at = 0; at < size; ++at) {
            for (int byte = 0; byte < 256; ++byte) {
                std::string value(size, 'x');
                value[at] = static_cast<char>(byte);
                AccessEntry entry;
                entry.path = value;
                entry.route = value;
                const std::string text = text_of(entry);
                ASSERT_TRUE(text_line_ok(text)) << text;
                const std::string json = json_of(entry);
                ASSERT_TRUE(json_line_ok(json)) << json;
                const bool kept = byte > 0x20 && byte < 0x7F && byte != '"' && byte != '\\';
                ASSERT_EQ(text.find("path=\"" + value + "\"") != std::string::npos, kept || byte == ' ')
                    << text;
                ASSERT_EQ(text.find("route=" + value + " ") != std::string::npos, kept && byte != '=')
                    << text;
            }
        }
    }
}

TEST(AccessLine, CutsLongFieldsWithAMark) {
    AccessEntry entry;
    const std::string exact(kAccessPathMax, 'p');
    entry.path = exact;
    EXPECT_THAT(text_of(entry), HasSubstr("\"" + exact + "\""));
    const std::string longer = exact + "p";
    entry.path = longer;
    EXPECT_THAT(text_of(entry), HasSubstr("\"" + exact + "\xE2\x80\xA6\""));
    EXPECT_THAT(json_of(entry), HasSubstr("\"" + exact + "\xE2\x80\xA6\""));
    const std::string escaped(kAccessPathMax, '\n');  // the bound counts what is written
    entry.path = escaped;
    EXPECT_LE(text_of(entry).size(), 400 + kAccessPathMax);
    EXPECT_THAT(text_of(entry), HasSubstr("\\x0a\xE2\x80\xA6\""));
}

TEST(AccessLine, NeverExceedsItsBound) {
    const std::string monster(5000, '\n');
    const std::string plain(5000, 'x');
    for (const std::string& value : {monster, plain}) {
        AccessEntry entry{
            {INT64_MAX}, value,      value,      value,           value,           value,      2147483647,
            {},          UINT64_MAX, UINT64_MAX, Duration::max(), Duration::max(), UINT32_MAX, value,
            value,       value,      value};
        for (std::size_t i = 0; i < filters::kFlagNames.size(); ++i) {
            entry.flags.set(static_cast<Flag>(i));
        }
        const std::string text = text_of(entry);
        EXPECT_TRUE(text_line_ok(text)) << text;
        EXPECT_LT(text.size(), kAccessLineMax);
        EXPECT_TRUE(json_line_ok(json_of(entry))) << json_of(entry);
        EXPECT_THAT(text, HasSubstr(" flags=UH,UF,UO,UT,UC,UR,URX,RL,NR,DC,DPE,UPE,OM,FI,DI,IR,IC,"
                                    "IM,NL,CL,BT,IS "));
    }
}

TEST(AccessLine, WritesTimesAcrossSecondsAndDays) {
    AccessEntry entry;
    const auto time_of = [&](std::int64_t micros) {
        entry.time.unix_micros = micros;
        return text_of(entry).substr(5, 24);
    };
    EXPECT_EQ(time_of(1'769'860'799'999'999), "2026-01-31T11:59:59.999Z");
    EXPECT_EQ(time_of(1'769'860'800'000'000), "2026-01-31T12:00:00.000Z");
    EXPECT_EQ(time_of(1'709'164'800'001'000), "2024-02-29T00:00:00.001Z");
    EXPECT_EQ(time_of(-1), "1970-01-01T00:00:00.000Z");
}

TEST(AccessLine, WritesDurationsInMillisecondsCutToTheMicrosecond) {
    AccessEntry entry;
    const auto duration_of = [&](Duration d) {
        entry.duration = d;
        const std::string text = text_of(entry);
        const std::size_t at = text.find("duration_ms=") + 12;
        return text.substr(at, text.find(' ', at) - at);
    };
    EXPECT_EQ(duration_of(999ns), "0.000");
    EXPECT_EQ(duration_of(1us), "0.001");
    EXPECT_EQ(duration_of(12'345'678ns), "12.345");
    EXPECT_EQ(duration_of(90min), "5400000.000");
    EXPECT_EQ(duration_of(-5ms), "0.000");
}

TEST(Flags, AreASetInAFixedOrder) {
    filters::Flags flags;
    EXPECT_TRUE(flags.empty());
    flags.set(Flag::kDC);
    flags |= Flag::kUT | Flag::kDC;
    EXPECT_TRUE(flags.has(Flag::kUT));
    EXPECT_FALSE(flags.has(Flag::kUF));
    AccessEntry entry;
    entry.flags = flags;
    EXPECT_THAT(text_of(entry), HasSubstr(" flags=UT,DC "));
}

}  // namespace
}  // namespace outrider::proxy
