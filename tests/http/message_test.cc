#include "base/http/message.h"

#include <string>

#include <gtest/gtest.h>

#include "base/bytes.h"

namespace outrider::http {
namespace {

const std::pair<std::string, FieldId> kNames[] = {{"TE", FieldId::kTe},
                                                  {"Via", FieldId::kVia},
                                                  {"Host", FieldId::kHost},
                                                  {"Date", FieldId::kDate},
                                                  {"Accept", FieldId::kAccept},
                                                  {"Cookie", FieldId::kCookie},
                                                  {"Expect", FieldId::kExpect},
                                                  {"Upgrade", FieldId::kUpgrade},
                                                  {"Trailer", FieldId::kTrailer},
                                                  {"Connection", FieldId::kConnection},
                                                  {"Keep-Alive", FieldId::kKeepAlive},
                                                  {"Tracestate", FieldId::kTracestate},
                                                  {"Traceparent", FieldId::kTraceparent},
                                                  {"Content-Type", FieldId::kContentType},
                                                  {"X-Request-Id", FieldId::kXRequestId},
                                                  {"Content-Length", FieldId::kContentLength},
                                                  {"X-Forwarded-For", FieldId::kXForwardedFor},
                                                  {"X-Forwarded-Host", FieldId::kXForwardedHost},
                                                  {"Proxy-Connection", FieldId::kProxyConnection},
                                                  {"Transfer-Encoding", FieldId::kTransferEncoding},
                                                  {"X-Forwarded-Proto", FieldId::kXForwardedProto},
                                                  {"Outrider-Session", FieldId::kOutrider}};

TEST(FieldId, KnowsEveryNameInAnyCase) {
    for (const auto& [name, id] : kNames) {
        EXPECT_EQ(field_id(name), id) << name;
        EXPECT_EQ(field_id(to_lower(name)), id) << name;
        std::string upper = name;
        for (char& c : upper)
            c = c >= 'a' && c <= 'z' ? static_cast<char>(c - 32) : c;
        EXPECT_EQ(field_id(upper), id) << name;
    }
}

// Every single changed, missing or additional token byte makes it another field.
TEST(FieldId, TakesNothingThatOnlyLooksLikeAKnownName) {
    const std::string token = "!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
    for (const auto& [name, id] : kNames) {
        if (id == FieldId::kOutrider) continue;
        for (std::size_t i = 0; i < name.size(); ++i) {
            for (const char c : token) {
                std::string other = name;
                other[i] = c;
                if (iequals(other, name)) continue;
                EXPECT_NE(field_id(other), id) << other;
            }
            std::string shorter = name;
            shorter.erase(i, 1);
            EXPECT_NE(field_id(shorter), id) << shorter;
        }
        EXPECT_NE(field_id(name + "x"), id);
    }
    EXPECT_EQ(field_id("x"), FieldId::kOther);
    EXPECT_EQ(field_id("Outrider-"), FieldId::kOther);
}

}  // namespace
}  // namespace outrider::http
