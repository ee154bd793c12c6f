#include "filters/policy/collapse.h"

#include <map>
#include <set>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/random.h"

namespace outrider::policy {
namespace {
using testing::ElementsAre;
using testing::IsEmpty;
using Role = CollapseTable::Place::Role;
using Left = CollapseTable::Left;

const std::vector<std::string> kVary = {"accept", "authorization"};

std::optional<std::string> key_of(std::string_view method, std::string_view host, std::string_view target,
                                  const std::vector<FieldView>& fields, bool body = false,
                                  const std::vector<std::string>& vary = kVary) {
    return collapse_key({.method = method,
                         .scheme = "http",
                         .host = host,
                         .target = target,
                         .has_body = body,
                         .fields = fields},
                        vary, 1024);
}
std::optional<std::string> get(const std::vector<FieldView>& fields,
                               const std::vector<std::string>& vary = kVary) {
    return key_of("GET", "a", "/", fields, false, vary);
}

// --- who takes part ---------------------------------------------------------------------------------------

TEST(CollapseKey, OnlyGetAndHeadWithoutABodyTakePart) {
    EXPECT_TRUE(key_of("GET", "a", "/", {}));
    EXPECT_TRUE(key_of("HEAD", "a", "/", {}));
    for (const char* method : {"POST", "PUT", "DELETE", "OPTIONS", "TRACE", "PATCH", "get", ""}) {
        EXPECT_FALSE(key_of(method, "a", "/", {})) << method;
    }
    EXPECT_FALSE(key_of("GET", "a", "/", {}, true));
}

TEST(CollapseKey, ARequestForItselfAloneStaysApart) {
    const FieldView apart[] = {{"Range", "bytes=0-1"},
                               {"if-range", "\"x\""},
                               {"If-Match", "\"x\""},
                               {"If-None-Match", "\"x\""},
                               {"If-Modified-Since", "Tue, 15 Nov 1994 12:45:26 GMT"},
                               {"If-Unmodified-Since", "Tue, 15 Nov 1994 12:45:26 GMT"},
                               {"Authorization", "Basic eA=="},
                               {"Cookie", "a=b"},
                               {"Cache-Control", "max-stale, no-cache"},
                               {"Cache-Control", "No-Store"},
                               {"Cache-Control", "max-age=0"},
                               {"Pragma", "no-cache"},
                               {"Expect", "100-continue"},
                               {"Upgrade", "websocket"}};
    for (const FieldView& field : apart) {
        EXPECT_FALSE(get({field}, {})) << field.name << ": " << field.value;
    }
    for (const FieldView& field : {FieldView{"Cache-Control", "max-age=60"}, FieldView{"Accept", "*/*"},
                                   FieldView{"X-No-Cache", "no-cache"}}) {
        EXPECT_TRUE(get({field}, {})) << field.name;
    }
}

TEST(CollapseKey, VaryTakesInWhatOtherwiseStaysApartButNotARange) {
    EXPECT_TRUE(get({{"Authorization", "Basic eA=="}}, {"authorization"}));
    EXPECT_TRUE(get({{"Cookie", "a=b"}}, {"Cookie"}));
    EXPECT_TRUE(get({{"If-None-Match", "\"x\""}}, {"if-none-match"}));
    EXPECT_FALSE(get({{"Range", "bytes=0-1"}}, {"range"}));
    EXPECT_FALSE(get({{"Cache-Control", "no-cache"}}, {"cache-control"}));
}

TEST(CollapseKey, EqualRequestsHaveEqualKeysAndOthersNot) {
    const std::vector<FieldView> none;
    EXPECT_EQ(key_of("GET", "A.example", "/x", none), key_of("GET", "a.EXAMPLE", "/x", none));
    EXPECT_EQ(get({{"Accept", "a"}, {"X-Other", "1"}}), get({{"X-Other", "2"}, {"accept", " a "}}));
    std::set<std::string> keys;
    const auto add = [&](const std::optional<std::string>& key) {
        ASSERT_TRUE(key);
        EXPECT_TRUE(keys.insert(*key).second) << *key;
    };
    add(key_of("GET", "a", "/", none));
    add(key_of("HEAD", "a", "/", none));
    add(key_of("GET", "b", "/", none));
    add(key_of("GET", "a", "/?", none));
    add(key_of("GET", "a", "/A", none));
    add(key_of("GET", "a", "/a", none));
    add(get({{"Accept", "x"}}));
    add(get({{"Accept", ""}}));
    add(get({{"Accept", "x, y"}}));
    add(get({{"Accept", "x"}, {"Accept", "y"}}));
    add(get({{"Accept", "y"}, {"Accept", "x"}}));
    add(get({{"Authorization", "x"}}));
    add(get({{"Accept", "x1:y"}}));
    add(key_of("GET", "a/", "", none));
}

TEST(CollapseKey, AKeyIsBounded) {
    EXPECT_TRUE(key_of("GET", "a", std::string(900, 'x'), {}));
    EXPECT_FALSE(key_of("GET", "a", std::string(1024, 'x'), {}));
    const std::string value(1024, 'x');
    EXPECT_FALSE(get({{"Accept", value}}));
    EXPECT_TRUE(get({{"X-Other", value}}));
}

// --- what is shared ---------------------------------------------------------------------------------------

TEST(CollapseResponse, SomeResponsesAreForOneClientOnly) {
    const struct {
        int status;
        std::vector<FieldView> fields;
        NotShared why;
    } rows[] = {
        {200, {}, NotShared::kNone},
        {200, {{"Cache-Control", "max-age=60, public"}, {"Vary", "Accept"}}, NotShared::kNone},
        {200, {{"Vary", "ACCEPT, Authorization"}}, NotShared::kNone},
        {404, {}, NotShared::kNone},
        {503, {}, NotShared::kNone},
        {302, {}, NotShared::kNone},
        {206, {}, NotShared::kStatus},
        {304, {}, NotShared::kStatus},
        {412, {}, NotShared::kStatus},
        {401, {}, NotShared::kStatus},
        {407, {}, NotShared::kStatus},
        {421, {}, NotShared::kStatus},
        {101, {}, NotShared::kStatus},
        {200, {{"cache-control", "Private"}}, NotShared::kCacheControl},
        {200, {{"Cache-Control", "max-age=60"}, {"Cache-Control", "no-store"}}, NotShared::kCacheControl},
        {200, {{"Cache-Control", "private=\"Set-Cookie, X\", max-age=60"}}, NotShared::kCacheControl},
        {200, {{"Cache-Control", "no-cache"}}, NotShared::kCacheControl},
        {200, {{"Set-Cookie", "a=b"}}, NotShared::kSetCookie},
        {200, {{"Vary", "*"}}, NotShared::kVary},
        {200, {{"Vary", "Accept, Accept-Language"}}, NotShared::kVary},
        {200, {{"Vary", "Accept"}, {"Vary", "Cookie"}}, NotShared::kVary},
    };
    for (const auto& row : rows) {
        const NotShared why = why_not_shared({.status = row.status, .fields = row.fields}, kVary);
        EXPECT_EQ(to_text(why), to_text(row.why))
            << row.status << (row.fields.empty() ? "" : row.fields[0].value);
    }
    const std::vector<std::string> validators = {"if-none-match"};
    EXPECT_EQ(why_not_shared({.status = 304, .fields = {}}, validators), NotShared::kNone);
}

// --- groups -----------------------------------------------------------------------------------------------

constexpr CollapseExchange ex(std::uint64_t id) {
    return CollapseExchange{id};
}

TEST(CollapseTable, TheFirstLeadsAndOthersFollowUntilTheHead) {
    CollapseTable table({});
    const auto leader = table.arrive("k", ex(1));
    EXPECT_EQ(leader.role, Role::kLead);
    const auto follower = table.arrive("k", ex(2));
    EXPECT_EQ(follower.role, Role::kFollow);
    EXPECT_EQ(follower.group, leader.group);
    EXPECT_EQ(table.arrive("other", ex(3)).role, Role::kLead);
    const auto sharing = table.head(leader.group, true);
    EXPECT_THAT(sharing.share, ElementsAre(ex(1), ex(2)));
    EXPECT_THAT(sharing.own_way, IsEmpty());
    const auto late = table.arrive("k", ex(4));
    EXPECT_EQ(late.role, Role::kLead) << "the beginning of the response is gone";
    EXPECT_NE(late.group, leader.group);
    table.end(leader.group);
    EXPECT_EQ(table.groups(), 2u);
    EXPECT_EQ(table.arrive("k", ex(5)).group, late.group);
}

TEST(CollapseTable, AResponseThatMustNotBeSharedSendsFollowersTheirOwnWay) {
    CollapseTable table({});
    const auto group = table.arrive("k", ex(1)).group;
    table.arrive("k", ex(2));
    table.arrive("k", ex(3));
    const auto sharing = table.head(group, false);
    EXPECT_THAT(sharing.share, ElementsAre(ex(1)));
    EXPECT_THAT(sharing.own_way, ElementsAre(ex(2), ex(3)));
    EXPECT_EQ(table.leave(ex(2)), Left::kUnknown);
    table.end(group);
    EXPECT_EQ(table.groups(), 0u);
}

TEST(CollapseTable, TheCallGoesOnWithoutItsLeaderAsLongAsSomebodyFollows) {
    CollapseTable table({});
    const auto group = table.arrive("k", ex(1)).group;
    table.arrive("k", ex(2));
    EXPECT_EQ(table.leave(ex(1)), Left::kGoesOn);
    EXPECT_EQ(table.leave(ex(1)), Left::kUnknown);
    EXPECT_EQ(table.arrive("k", ex(3)).role, Role::kFollow);
    EXPECT_THAT(table.head(group, true).share, ElementsAre(ex(2), ex(3)));
    EXPECT_EQ(table.leave(ex(2)), Left::kGoesOn);
    EXPECT_EQ(table.leave(ex(3)), Left::kGiveUp);
    EXPECT_EQ(table.groups(), 0u);
}

TEST(CollapseTable, ALoneLeaderThatLeavesGivesUpTheCall) {
    CollapseTable table({});
    table.arrive("k", ex(1));
    EXPECT_EQ(table.leave(ex(1)), Left::kGiveUp);
    EXPECT_EQ(table.arrive("k", ex(2)).role, Role::kLead);
}

TEST(CollapseTable, AResponseForTheLeaderAloneThatHasLeftIsNobodys) {
    CollapseTable table({});
    const auto group = table.arrive("k", ex(1)).group;
    table.arrive("k", ex(2));
    table.leave(ex(1));
    const auto sharing = table.head(group, false);
    EXPECT_THAT(sharing.share, IsEmpty());
    EXPECT_THAT(sharing.own_way, ElementsAre(ex(2)));
    EXPECT_TRUE(sharing.give_up);
    EXPECT_EQ(table.groups(), 0u);
}

TEST(CollapseTable, AFailureIsSharedIfItIsTheUpstreams) {
    for (const bool shared : {true, false}) {
        CollapseTable table({});
        const auto group = table.arrive("k", ex(1)).group;
        table.arrive("k", ex(2));
        const auto sharing = table.failed(group, shared);
        EXPECT_EQ(sharing.share.size(), shared ? 2u : 1u);
        EXPECT_EQ(sharing.own_way.size(), shared ? 0u : 1u);
        EXPECT_EQ(table.groups(), 0u);
        EXPECT_EQ(table.leave(ex(1)), Left::kUnknown);
        EXPECT_EQ(table.arrive("k", ex(2)).role, Role::kLead);
    }
}

TEST(CollapseTable, AtItsBoundsRequestsStayApart) {
    CollapseTable table({.groups_max = 2, .followers_max = 1});
    table.arrive("a", ex(1));
    table.arrive("a", ex(2));
    EXPECT_EQ(table.arrive("a", ex(3)).role, Role::kApart);
    table.arrive("b", ex(4));
    EXPECT_EQ(table.arrive("c", ex(5)).role, Role::kApart);
    EXPECT_EQ(table.leave(ex(5)), Left::kUnknown);
    table.leave(ex(2));
    EXPECT_EQ(table.arrive("a", ex(6)).role, Role::kFollow);
}

TEST(CollapseTable, EachExchangeIsInOneGroupAndLeavesItOnce) {
    for (std::uint64_t seed = 1; seed <= 50; ++seed) {
        SCOPED_TRACE(seed);
        Random random{seed};
        CollapseTable table({.groups_max = 6, .followers_max = 4});
        std::map<CollapseGroup, std::set<CollapseExchange>> model;
        std::set<CollapseGroup> headed;
        std::uint64_t next = 1;
        for (int step = 0; step < 3'000; ++step) {
            const std::uint64_t what = random.below(10);
            if (what < 5) {
                const auto place =
                    table.arrive(std::string(1, static_cast<char>('a' + random.below(5))), ex(next));
                if (place.role == Role::kFollow) {
                    ASSERT_EQ(headed.count(place.group), 0u) << "no one joins behind the head";
                    ASSERT_EQ(model.count(place.group), 1u);
                }
                if (place.role != Role::kApart) model[place.group].insert(ex(next));
                ++next;
            } else if (!model.empty()) {
                auto group = model.begin();
                std::advance(group, static_cast<long>(random.below(model.size())));
                if (what < 7) {
                    const CollapseExchange who = *group->second.begin();
                    group->second.erase(who);
                    ASSERT_EQ(table.leave(who), group->second.empty() ? Left::kGiveUp : Left::kGoesOn);
                    if (group->second.empty()) model.erase(group);
                } else if (headed.count(group->first) != 0) {
                    table.end(group->first);
                    model.erase(group);
                } else {
                    const bool fails = what == 9;
                    const auto sharing = fails ? table.failed(group->first, random.below(2) == 0)
                                               : table.head(group->first, random.below(2) == 0);
                    std::set<CollapseExchange> all(sharing.share.begin(), sharing.share.end());
                    all.insert(sharing.own_way.begin(), sharing.own_way.end());
                    ASSERT_EQ(all, group->second);
                    headed.insert(group->first);
                    group->second = {sharing.share.begin(), sharing.share.end()};
                    if (fails || sharing.give_up) model.erase(group);
                }
            }
            ASSERT_EQ(table.groups(), model.size());
        }
    }
}

}  // namespace
}  // namespace outrider::policy
