#include "filters/policy/idempotency_key.h"

#include <set>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "base/random.h"

namespace outrider::policy {
namespace {

using Values = std::vector<ScopeValue>;
constexpr std::nullopt_t kAbsent = std::nullopt;

std::string parsed(std::string_view value, KeySyntax syntax) {
    const Result<std::string> key = parse_idempotency_key(value, syntax);
    return key ? *key : "refused: " + key.error();
}

TEST(IdempotencyKey, AQuotedStringIsTakenInBothSyntaxes) {
    const struct {
        std::string_view value;
        std::string_view key;
    } rows[] = {
        {R"("8e03978e-40d5-43e8-bc93-6894a57f9324")", "8e03978e-40d5-43e8-bc93-6894a57f9324"},
        {R"("a")", "a"},
        {R"("a, b; c = d")", "a, b; c = d"},
        {R"(" ")", " "},
        {R"("\"\\")", R"("\)"},
        {R"("a\\\"b")", R"(a\"b)"},
        {" \"a\" \t", "a"},
        {R"("a";v=1)", "a"},
        {R"("a"; v; *w=token/x:y;x1_-.*=?1;  y=-12.5;z="s;\"")", "a"},
        {R"("a";v=:aGk=:;w=@-1659578233;x=%"f%c3%bc")", "a"},
    };
    for (const auto& row : rows) {
        EXPECT_EQ(parsed(row.value, KeySyntax::kStrict), row.key) << row.value;
        EXPECT_EQ(parsed(row.value, KeySyntax::kLenient), row.key) << row.value;
    }
}

TEST(IdempotencyKey, ABareKeyIsTakenOnlyWhenLenient) {
    const std::string_view rows[] = {
        "8e03978e-40d5-43e8-bc93-6894a57f9324", "a", "order_17:retry/2", "dGhpcw+/==", "0", ":YWJj:",
        "~!#$%&'()*+-./<=>?@[]^_`{|}"};
    for (const std::string_view value : rows) {
        EXPECT_EQ(parsed(value, KeySyntax::kLenient), value);
        EXPECT_EQ(parsed(value, KeySyntax::kStrict),
                  "refused: the idempotency key must be a string in double quotes");
    }
    EXPECT_EQ(parsed("\tabc ", KeySyntax::kLenient), "abc");
}

TEST(IdempotencyKey, EachWayToBeMalformedHasItsSentence) {
    using std::string_view_literals::operator""sv;
    const std::string_view empty = "refused: the idempotency key is empty";
    const std::string_view control = "refused: the idempotency key holds a control byte";
    const std::string_view ascii = "refused: the idempotency key holds a byte that is not ASCII";
    const std::string_view quotes =
        "refused: the idempotency key is not a complete quoted string; inside, only \\\" and \\\\ are "
        "escapes";
    const std::string_view list = "refused: the idempotency key must be one string, not a list";
    const std::string_view behind =
        "refused: the idempotency key must not be followed by anything but parameters";
    const std::string_view bare =
        "refused: the idempotency key must be in double quotes if it holds a space or one of \" , ; \\";
    const struct {
        std::string_view value;
        std::string_view reason;
    } rows[] = {
        {"", empty},
        {" \t ", empty},
        {"\"\"", empty},
        {"\"\";v=1", empty},
        {"\"a\0b\""sv, control},
        {"a\x01", control},
        {"\"a\tb\"", control},
        {"\"a\x7f\"", control},
        {"\"a\r\nb\"", control},
        {"\"f\xc3\xbc\"", ascii},
        {"\xff", ascii},
        {"\"", quotes},
        {"\"a", quotes},
        {"\"a\\\"", quotes},
        {"\"a\\", quotes},
        {"\"a\\n\"", quotes},
        {"\"a\",\"b\"", list},
        {"\"a\" , \"b\"", behind},
        {"\"a\"b", behind},
        {"\"a\"\"b\"", behind},
        {"\"a\" ;v", behind},
        {"\"a\";", behind},
        {"\"a\";V=1", behind},
        {"\"a\";1", behind},
        {"\"a\";v=", behind},
        {"\"a\";v =1", behind},
        {"\"a\";v=1,", behind},
        {"\"a\";v=?2", behind},
        {"\"a\";v=@1.5", behind},
        {"\"a\";v=1.", behind},
        {"\"a\";v=1.2345", behind},
        {"\"a\";v=1234567890123456", behind},
        {"\"a\";v=1234567890123.5", behind},
        {"\"a\";v=-", behind},
        {"\"a\";v=:YQ==", behind},
        {"\"a\";v=%\"%C3\"", behind},
        {"\"a\";v=%\"%c\"", behind},
        {"\"a\";v=\"\\x\"", behind},
        {"\"a\";v=(1 2)", behind},
        {"a b", bare},
        {"a,b", bare},
        {"a, b", bare},
        {"a;v=1", bare},
        {"a\"", bare},
        {"'a\"b'", bare},
        {"a\\b", bare},
    };
    for (const auto& row : rows) {
        EXPECT_EQ(parsed(row.value, KeySyntax::kLenient), row.reason) << row.value;
        EXPECT_EQ(parsed(row.value, KeySyntax::kStrict).substr(0, 8), "refused:") << row.value;
    }
}

TEST(IdempotencyKey, LengthCountsWhatIsLeftAfterUnquoting) {
    const std::string longest(255, 'k');
    const std::string reason = "refused: the idempotency key is longer than 255 characters";
    EXPECT_EQ(parsed(longest, KeySyntax::kLenient), longest);
    EXPECT_EQ(parsed("\"" + longest + "\"", KeySyntax::kStrict), longest);
    EXPECT_EQ(parsed(longest + "k", KeySyntax::kLenient), reason);
    EXPECT_EQ(parsed("\"" + longest + "k\"", KeySyntax::kStrict), reason);
    std::string escaped;
    for (int i = 0; i < 255; ++i) {
        escaped += "\\\\";
    }
    EXPECT_EQ(parsed("\"" + escaped + "\"", KeySyntax::kStrict), std::string(255, '\\'));
    EXPECT_EQ(parsed("\"" + escaped + "k\"", KeySyntax::kStrict), reason);
    EXPECT_EQ(parsed(std::string(1 << 20, 'k'), KeySyntax::kLenient), reason);
}

TEST(IdempotencyKey, OfNoneOneAndSeveralLines) {
    const std::string_view one[] = {"abc"};
    const std::string_view broken[] = {"\"abc"};
    const std::string_view two[] = {"abc", "abc"};
    const auto read = [](std::span<const std::string_view> lines, bool require_key) {
        return read_idempotency_key(lines, KeySyntax::kLenient, require_key);
    };
    EXPECT_TRUE(std::holds_alternative<NoKey>(read({}, false)));
    EXPECT_TRUE(std::holds_alternative<MissingKey>(read({}, true)));
    for (const bool require_key : {false, true}) {
        EXPECT_EQ(std::get<SoundKey>(read(one, require_key)).key, "abc");
        EXPECT_EQ(std::get<MalformedKey>(read(broken, require_key)).reason.substr(0, 35),
                  "the idempotency key is not a comple");
        EXPECT_EQ(std::get<MalformedKey>(read(two, require_key)).reason,
                  "there is more than one line with an idempotency key");
    }
}

TEST(IdempotencyKey, EveryPrefixAndEveryChangedByteIsReadWithinBounds) {
    const std::string whole = R"("a\"b";v=-1.5;w=:YQ==:;x=%"%c3";y="\\";z=?1;t=@1)";
    for (std::size_t i = 0; i < whole.size(); ++i) {
        // In a buffer of its own size, for the sanitizer.
        const std::vector<char> prefix(whole.begin(), whole.begin() + static_cast<std::ptrdiff_t>(i));
        (void)parse_idempotency_key({prefix.data(), prefix.size()}, KeySyntax::kStrict);
        for (int byte = 0; byte < 256; ++byte) {
            std::string changed = whole;
            changed[i] = static_cast<char>(byte);
            const Result<std::string> key = parse_idempotency_key(changed, KeySyntax::kStrict);
            if (!key) continue;
            EXPECT_GE(key->size(), 1u);
            for (const char c : *key) {
                EXPECT_TRUE(c >= 0x20 && c <= 0x7e) << changed;
            }
        }
    }
}

TEST(KeyDigest, IsThisOneForEver) {
    const Values scope{{"header:Authorization", "Bearer x"}, {"header:X-Tenant", kAbsent}};
    EXPECT_EQ(key_digest(scope, "payments", "k-1").hex(),
              "31bd7d6dd81eb1e19cbf00e528d547ffc00ebf6fbac615dcf684a3a0b8f50b94");
    Fingerprint fingerprint("POST", "/v1/transfers?dry=0", "application/json");
    fingerprint.body(R"({"amount":1})");
    EXPECT_EQ(fingerprint.finish().hex(), "c4bab0ac790f1e1bff274c63cfe48ab9af8a7722e0d227de40e63cc54c17243d");
}

TEST(KeyDigest, NoTwoInputsAreTheSameBytes) {
    const std::vector<std::pair<Values, std::pair<std::string, std::string>>> rows = {
        {{}, {"r", "k"}},
        {{}, {"", "rk"}},
        {{}, {"rk", ""}},
        {{}, {"", ""}},
        {{{"a", "b"}}, {"r", "k"}},
        {{{"a", kAbsent}}, {"r", "k"}},
        {{{"a", ""}}, {"r", "k"}},
        {{{"", "ab"}}, {"r", "k"}},
        {{{"ab", ""}}, {"r", "k"}},
        {{{"ab", kAbsent}}, {"r", "k"}},
        {{{"a", "b"}, {"c", "d"}}, {"r", "k"}},
        {{{"c", "d"}, {"a", "b"}}, {"r", "k"}},
        {{{"a", "bc"}, {"", "d"}}, {"r", "k"}},
        {{{"a", "b"}, {"c", kAbsent}}, {"r", "k"}},
        {{{"a", "bcd"}}, {"r", "k"}},
        {{{"a", "b1"}}, {"r", "k"}},
        {{{"a", "b"}}, {"1r", "k"}},
        {{{"a", "B"}}, {"r", "k"}},
        {{{"a", "b"}}, {"R", "k"}},
        {{{"a", "b"}}, {"r", "K"}},
    };
    std::set<Digest> seen;
    for (const auto& [scope, names] : rows) {
        EXPECT_TRUE(seen.insert(key_digest(scope, names.first, names.second)).second)
            << names.first << " " << names.second << " with " << scope.size();
    }
}

// Ways to cut one string into scope value, route and key: all of the same bytes when joined.
TEST(KeyDigest, WhereAStringIsCutMatters) {
    const std::string all("\x01\0\0\0\0\0\0\0aaaa11110000", 20);
    std::set<Digest> seen;
    std::size_t ways = 0;
    for (std::size_t i = 0; i <= all.size(); ++i) {
        for (std::size_t j = i; j <= all.size(); ++j) {
            const std::string_view text = all;
            const Values scope{{"s", text.substr(0, i)}};
            seen.insert(key_digest(scope, text.substr(i, j - i), text.substr(j)));
            ++ways;
        }
    }
    EXPECT_EQ(seen.size(), ways);
}

TEST(KeyDigest, TheCaseOfAScopesNameDoesNotMatter) {
    EXPECT_EQ(key_digest(Values{{"header:Authorization", "x"}}, "r", "k"),
              key_digest(Values{{"HEADER:authorization", "x"}}, "r", "k"));
}

TEST(FingerprintDigest, NoTwoRequestsAreTheSameBytes) {
    const struct {
        std::string_view method, target;
        std::optional<std::string_view> type;
        std::string_view body;
    } rows[] = {
        {"POST", "/a", kAbsent, ""},        {"POST", "/a", "", ""},        {"POST", "/a", "b", ""},
        {"POST", "/a", kAbsent, "b"},       {"POST", "/a", "", "b"},       {"POST", "/ab", kAbsent, ""},
        {"POST/", "a", kAbsent, ""},        {"PATCH", "/a", kAbsent, ""},  {"POST", "/a?", kAbsent, ""},
        {"POST", "/a?b", kAbsent, ""},      {"post", "/a", kAbsent, ""},   {"POST", "/a", "b", "b"},
        {"POST", "/a", kAbsent, "1b"},      {"POST", "/a", kAbsent, "0b"}, {"POST", "/a", kAbsent, "bb"},
        {"POST", "/a", "application/x", ""}};
    std::set<Digest> seen;
    for (const auto& row : rows) {
        Fingerprint fingerprint(row.method, row.target, row.type);
        fingerprint.body(row.body);
        EXPECT_TRUE(seen.insert(fingerprint.finish()).second) << row.method << row.target << row.body;
    }
    EXPECT_TRUE(seen.insert(key_digest({}, "POST", "/a")).second);
}

TEST(FingerprintDigest, ABodysPiecesDoNotMatter) {
    const std::string body(10'000, 'x');
    Fingerprint whole("POST", "/", "text/plain");
    whole.body(body);
    const Digest expected = whole.finish();
    Random random{1};
    for (int round = 0; round < 50; ++round) {
        Fingerprint pieces("POST", "/", "text/plain");
        std::string_view rest = body;
        while (!rest.empty()) {
            const std::size_t size = std::min<std::size_t>(rest.size(), random.below(1000));
            pieces.body(rest.substr(0, size));
            rest.remove_prefix(size);
        }
        EXPECT_EQ(pieces.finish(), expected);
    }
}

TEST(DigestValue, PrintsReadsAndCompares) {
    Digest digest;
    for (std::size_t i = 0; i < Digest::kSize; ++i) {
        digest.bytes[i] = static_cast<std::uint8_t>(i * 8 + 7);
    }
    const std::string hex = "070f171f272f373f474f575f676f777f878f979fa7afb7bfc7cfd7dfe7eff7ff";
    EXPECT_EQ(digest.hex(), hex);
    EXPECT_EQ(parse_digest(hex), digest);
    EXPECT_EQ(parse_digest("070F171F272F373F474F575F676F777F878F979FA7AFB7BFC7CFD7DFE7EFF7FF"), digest);
    for (const std::string& broken : {std::string(), hex + "0", hex.substr(1), "g" + hex.substr(1)}) {
        EXPECT_EQ(parse_digest(broken), std::nullopt) << broken;
    }
    for (std::size_t i = 0; i < Digest::kSize; ++i) {
        Digest other = digest;
        other.bytes[i] ^= 0x80;
        EXPECT_FALSE(other == digest) << i;
        EXPECT_NE(other < digest, digest < other) << i;
    }
}

TEST(DigestValue, ItsPlaceInATableDependsOnTheSecret) {
    const Digest digest = key_digest({}, "r", "k");
    EXPECT_EQ(DigestHash{1}(digest), DigestHash{1}(digest));
    EXPECT_NE(DigestHash{1}(digest), DigestHash{2}(digest));
}

}  // namespace
}  // namespace outrider::policy
