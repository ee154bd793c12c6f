// Which requests join others: what the filter reads from the head and the route. What makes two keys equal is
// collapse_test.cc's.
#include "tests/filters/filter_fixture.h"

namespace outrider::filters {
namespace {

using namespace std::chrono_literals;
using test::OneRequest;

class CollapseFilter : public testing::Test {
  protected:
    CollapseFilter() { one_.route.collapse = config::CollapseSettings{}; }

    bool joins(const std::string& head) { return std::holds_alternative<Join>(one_.ask(*filter_, head)); }
    std::string key(const std::string& head) {
        return joins(head) ? std::string(one_.context.collapse_key) : "apart";
    }

    const std::unique_ptr<const Filter> filter_ = make_collapse();
    OneRequest one_;
};

std::string get(const std::string& fields = "", const std::string& target = "/a?b") {
    return "GET " + target + " HTTP/1.1\r\nHost: h\r\n" + fields;
}

TEST_F(CollapseFilter, JoinsOnlyWhatMayBeShared) {
    const std::pair<std::string, bool> rows[] = {
        {get(), true},
        {get("Accept: */*\r\n"), true},
        {"HEAD /a HTTP/1.1\r\nHost: h\r\n", true},
        {"OPTIONS /a HTTP/1.1\r\nHost: h\r\n", false},
        {"POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n", false},
        {"PUT /a HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n", false},
        {get("Content-Length: 3\r\n"), false},
        {get("Transfer-Encoding: chunked\r\n"), false},
        {get("Connection: upgrade\r\nUpgrade: websocket\r\n"), false},
        {get("Authorization: x\r\n"), false},
        {get("Cookie: a=b\r\n"), false},
        {get("Range: bytes=0-1\r\n"), false},
        {get("Cache-Control: max-age=0\r\n"), false},
        {get("If-None-Match: \"x\"\r\n"), false},
    };
    for (const auto& [head, joined] : rows)
        EXPECT_EQ(joins(head), joined) << head;
}

TEST_F(CollapseFilter, GoesOnWithoutTheTable) {
    one_.route.collapse.reset();
    EXPECT_FALSE(joins(get()));
}

TEST_F(CollapseFilter, ARequestWithAnIdempotencyKeyIsRecordedByItself) {
    one_.keyed = true;
    EXPECT_FALSE(joins(get()));
}

TEST_F(CollapseFilter, TheKeyIsOfMethodHostTargetAndTheFieldsOfVary) {
    one_.route.collapse->vary = {"Authorization"};
    const std::string mine = get("Authorization: me\r\n");
    const std::string same[] = {"GET /a?b HTTP/1.1\r\nhost: H\r\nauthorization: me\r\nX-Other: 1\r\n",
                                "GET http://h/a?b HTTP/1.1\r\nHost: h\r\nAuthorization: me\r\n"};
    const std::string others[] = {get("Authorization: you\r\n"), get(), get("Authorization: me\r\n", "/a?c"),
                                  "HEAD /a?b HTTP/1.1\r\nHost: h\r\nAuthorization: me\r\n",
                                  "GET /a?b HTTP/1.1\r\nHost: i\r\nAuthorization: me\r\n"};
    const std::string wanted = key(mine);
    ASSERT_NE(wanted, "apart");
    for (const std::string& head : same)
        EXPECT_EQ(key(head), wanted) << head;
    for (const std::string& head : others)
        EXPECT_NE(key(head), wanted) << head;
}

TEST_F(CollapseFilter, AKeyThatIsTooLongIsNotMade) {
    const std::string path(7 * 1024, 'x');
    EXPECT_TRUE(joins(get("", "/" + path)));
    one_.route.collapse->vary = {"X-Long"};
    EXPECT_FALSE(joins(get("X-Long: " + std::string(2048, 'y') + "\r\n", "/" + path)));
}

TEST_F(CollapseFilter, SaysHowLongItMayWait) {
    ASSERT_TRUE(joins(get()));
    EXPECT_EQ(one_.context.time_left, 15s);
    one_.route.timeout = 0s;
    ASSERT_TRUE(joins(get()));
    EXPECT_EQ(one_.context.time_left, std::nullopt);
    one_.listener.trust_forwarded = true;
    ASSERT_TRUE(joins(get("Outrider-Deadline-Ms: 250\r\n")));
    EXPECT_EQ(one_.context.time_left, 250ms);
}

TEST_F(CollapseFilter, WhoseTimeIsOverIsLeftToBeRefused) {
    one_.listener.trust_forwarded = true;
    EXPECT_FALSE(joins(get("Outrider-Deadline-Ms: 0\r\n")));
    one_.listener.trust_forwarded = false;
    EXPECT_TRUE(joins(get("Outrider-Deadline-Ms: 0\r\n"))) << "nobody believes it";
}

}  // namespace
}  // namespace outrider::filters
