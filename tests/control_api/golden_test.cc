// What Debian's etcd-server answered (golden.json, by record_golden.py) against what the store and the API answer.
//
// Compared: HTTP status and the whole JSON, but for what no two clusters share (ids, terms, sizes, a lease id that the
// server chose) and what DIFFERENCES below names. Of a refusal of malformed JSON the code is compared and not the text.
#include <fstream>
#include <map>
#include <set>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "control/api/requests.h"
#include "control/api/responses.h"
#include "control/store/lease_clock.h"
#include "control/store/store.h"
#include "control/store/watch_hub.h"

namespace outrider::api {
namespace {

using Json = nlohmann::json;
using namespace std::chrono_literals;

// Path and request -> why it is not as etcd.
const std::map<std::pair<std::string, std::string>, std::string> kDifferences{
    {{"/v3/kv/range", R"({"key":"_-8="})"}, "URL-safe base64 is accepted"},
    {{"/v3/kv/range", R"({"key":"YQ"})"}, "base64 without padding is accepted"},
    {{"/v3/kv/range", R"({"key":"Zm9v","keys_only":"true"})"}, "a boolean in quotes is accepted"},
    {{"/v3/kv/compaction", "{}"}, "etcd compacts at revision 0, once; here there is nothing below 1"},
};

// The least of a node: one member, applies at once, its clock stands still.
class Member {
  public:
    // The answer, or of a stream the first `lines` messages.
    Answer ask(const std::string& method, const std::string& path, const std::string& body,
               std::vector<std::string>& stream) {
        const auto found = find_call(method, path);
        if (const auto* refused = std::get_if<Answer>(&found)) return *refused;
        call_ = std::get<Call>(found);
        if (is_stream(call_)) return serve_stream(body, stream);
        const auto parsed = parse_request(call_, body);
        if (const auto* refused = std::get_if<Answer>(&parsed)) return *refused;
        return std::visit([this](const auto& request) { return serve(request); }, std::get<Request>(parsed));
    }

  private:
    Answer serve_stream(const std::string& body, std::vector<std::string>& stream) {
        MessageSplitter splitter;
        splitter.add(body);
        watches_.clear();
        for (auto message = splitter.next(); message.ok() && *message; message = splitter.next()) {
            const auto parsed = parse_request(call_, **message);
            if (const auto* refused = std::get_if<Answer>(&parsed)) return *refused;
            std::visit([&](const auto& request) { stream.push_back(serve(request).body); },
                       std::get<Request>(parsed));
        }
        while (const auto id = hub_.next_ready()) {
            const auto watch = watches_.find(id->value);
            if (watch == watches_.end()) continue;
            const std::string line = responder_.watch_batch(watch->second, hub_.poll(store_, *id));
            if (!line.empty()) stream.push_back(line);
        }
        for (const auto& [id, watch_id] : watches_)
            hub_.remove({id});
        return {};
    }

    template <typename R>
    Answer run(R request) {
        store::Command command;
        command.request = std::move(request);
        if (const auto status = store_.admit(command, limits_); status != store::Status::kOk)
            return refuse(status);
        const auto applied = store_.apply(++index_, command);
        hub_.applied(applied.events);
        if (const auto* grant = std::get_if<store::LeaseGrantResponse>(&applied.response.body))
            clock_.granted(now_, grant->id, grant->ttl_seconds);
        if (const auto* revoke = std::get_if<store::LeaseRevokeRequest>(&command.request))
            clock_.revoked(revoke->id);
        return responder_.command(call_, applied.response);
    }

    Answer serve(const store::RangeRequest& r) {
        return responder_.range(store_.revision(), store_.range(r, limits_));
    }
    Answer serve(const store::PutRequest& r) { return run(r); }
    Answer serve(const store::DeleteRequest& r) { return run(r); }
    Answer serve(const store::TxnRequest& r) {
        store::Command command;
        command.request = r;
        const auto status = store::Store::check(command, limits_);
        if (status == store::Status::kOk && store::Store::read_only(r))
            return responder_.command(call_, store_.read(r));
        return run(r);
    }
    Answer serve(const store::CompactRequest& r) { return run(r); }
    Answer serve(const store::LeaseGrantRequest& r) { return run(r); }
    Answer serve(const store::LeaseRevokeRequest& r) { return run(r); }
    Answer serve(const LeaseKeepAlive& r) {
        return {200,
                {},
                responder_.keep_alive(store_.revision(), r.id, clock_.keep_alive(now_, r.id).value_or(0))};
    }
    Answer serve(const LeaseTimeToLive& r) {
        const auto* lease = store_.leases().find(r.id);
        return responder_.time_to_live(store_.revision(), r.id, clock_.seconds_left(now_ + 1ms, r.id),
                                       lease == nullptr ? 0 : lease->ttl_seconds,
                                       r.keys ? store_.leases().keys(r.id) : std::vector<std::string>{});
    }
    Answer serve(const LeaseLeases&) { return responder_.leases(store_.revision(), store_.leases()); }
    Answer serve(const WatchCreate& r) {
        const auto watch_id = r.watch_id;
        if (r.request.empty())
            return {200, {}, responder_.watch_refused(store_.revision(), kWatchRangeEmpty)};
        for (const auto& [id, taken] : watches_) {
            if (taken == watch_id)
                return {200, {}, responder_.watch_refused(store_.revision(), kWatchIdDuplicate)};
        }
        watches_[hub_.add(store_, r.request)->value] = watch_id;
        return {200, {}, responder_.watch_created(store_.revision(), watch_id)};
    }
    Answer serve(const WatchCancel& r) {
        return {200, {}, responder_.watch_cancelled(store_.revision(), r.watch_id)};
    }
    Answer serve(const WatchProgress&) { return {200, {}, responder_.watch_progress(store_.revision())}; }
    Answer serve(const WatchNothing&) { return {}; }
    Answer serve(const StatusCall&) {
        Status status;
        status.version = "3.4.23";
        status.db_size = status.db_size_in_use = 1;
        status.leader = status.raft_index = status.raft_term = status.raft_applied_index = 1;
        return responder_.status(store_.revision(), status);
    }
    Answer serve(const HashCall&) { return responder_.hash(store_.revision(), 1); }
    Answer serve(const DefragmentCall&) { return responder_.empty(); }
    Answer serve(const AlarmCall&) { return responder_.empty(); }
    Answer serve(const SnapshotCall&) { return responder_.empty(); }
    Answer serve(const SessionOpen&) { return run(store::SessionOpenRequest{}); }
    Answer serve(const SessionClose&) { return responder_.empty(); }
    Answer serve(const MemberList&) { return responder_.members({{1, "default", {"p"}, {"c"}, false}}); }
    Answer serve(const MemberAdd&) { return refuse(kMemberUrlsInvalid); }
    Answer serve(const MemberRemove&) { return refuse(kMemberNotFound); }
    Answer serve(const MemberUpdate&) { return refuse(kMemberNotFound); }
    Answer serve(const MemberPromote&) { return refuse(kMemberNotFound); }

    store::Store store_;
    store::WatchHub hub_;
    store::LeaseClock clock_;
    store::Limits limits_;
    Responder responder_{{1, 2, 3}};
    Instant now_{1h};
    std::uint64_t index_ = 0;
    Call call_ = Call::kRange;
    std::map<std::uint64_t, std::int64_t> watches_;
};

// What no two clusters share becomes "*"; that it is there at all is still compared.
void normalise(Json& value) {
    static const std::set<std::string> kOwn{"cluster_id", "member_id", "raft_term",  "raftTerm",
                                            "raftIndex",  "leader",    "dbSize",     "dbSizeInUse",
                                            "hash",       "peerURLs",  "clientURLs", "raftAppliedIndex"};
    if (value.is_array()) {
        for (Json& element : value)
            normalise(element);
    }
    if (!value.is_object()) return;
    if (value.contains("members")) value["members"][0]["ID"] = "*";
    if (value.contains("leases")) {  // etcd's order is that of the time left
        for (Json& lease : value["leases"]) {
            if (lease["ID"].get<std::string>().size() > 10) lease["ID"] = "*";
        }
        std::sort(value["leases"].begin(), value["leases"].end());
    }
    for (auto& [name, element] : value.items()) {
        if (kOwn.contains(name))
            element = "*";
        else if (name == "ID" && element.is_string() && element.get<std::string>().size() > 10)
            element = "*";
        else
            normalise(element);
    }
}

std::string request_text(const Json& request) {
    if (request.is_string()) return request;
    // The one that is too long to be kept: zeros would do as well as what was sent.
    return R"({"key":"Ymln","value":")" +
           std::string(request["value_bytes"].get<std::size_t>() / 3 * 4, 'A') + R"("})";
}

Json answer_of(Member& member, const Json& exchange, int& status) {
    std::vector<std::string> stream;
    const Answer answer =
        member.ask(exchange["method"], exchange["path"], request_text(exchange["request"]), stream);
    status = answer.status;
    if (!exchange.contains("lines")) {
        return answer.content_type == "application/json" ? Json::parse(answer.body) : Json(answer.body);
    }
    Json lines = Json::array();
    for (const std::string& line : stream) {
        EXPECT_EQ(line.find('\n'), line.size() - 1) << "one line a message";
        lines.push_back(Json::parse(line));
        if (lines.size() == exchange["lines"]) break;
    }
    return lines;
}

bool about_json(const Json& expected) {
    return expected.is_object() && expected.contains("error") &&
           expected["error"].get<std::string>().rfind("etcdserver: ", 0) != 0;
}

TEST(Golden, AnswersAsEtcdDoes) {
    std::ifstream file(GOLDEN_FILE);
    ASSERT_TRUE(file) << GOLDEN_FILE;
    const Json golden = Json::parse(file);
    ASSERT_GE(golden["exchanges"].size(), 150U);
    Member member;
    std::size_t differences = 0;
    for (const Json& exchange : golden["exchanges"]) {
        SCOPED_TRACE(exchange["path"].get<std::string>() + " " + exchange["request"].dump().substr(0, 400));
        int status = 0;
        Json actual = answer_of(member, exchange, status);
        Json expected = exchange["answer"];
        if (exchange["request"].is_string() &&
            kDifferences.contains({exchange["path"], exchange["request"]})) {
            EXPECT_NE(status, exchange["status"]) << "no difference any more";
            ++differences;
            continue;
        }
        EXPECT_EQ(status, exchange["status"]);
        if (about_json(expected) && actual.is_object()) {
            EXPECT_EQ(actual.value("code", 0), expected["code"]);
            EXPECT_FALSE(actual.value("error", "").empty());
            EXPECT_EQ(actual.value("error", ""), actual.value("message", ""));
            continue;
        }
        normalise(actual);
        normalise(expected);
        EXPECT_EQ(actual, expected);
    }
    EXPECT_EQ(differences, kDifferences.size());
}

}  // namespace
}  // namespace outrider::api
