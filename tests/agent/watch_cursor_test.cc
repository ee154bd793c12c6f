#include "control/agent/watch_cursor.h"

#include <gtest/gtest.h>

#include "base/random.h"

namespace outrider::agent {
namespace {

using Want = WatchCursor::Want;
using Kind = WatchUpdate::Kind;
using Why = WatchUpdate::Why;

v3::RangeResponse page(std::int64_t revision, const std::vector<std::pair<std::string, std::int64_t>>& keys,
                       bool more = false, std::uint64_t cluster = 1) {
    v3::RangeResponse response;
    response.mutable_header()->set_revision(revision);
    response.mutable_header()->set_cluster_id(cluster);
    response.set_more(more);
    for (const auto& [key, mod] : keys) {
        v3::KeyValue& kv = *response.add_kvs();
        kv.set_key(key);
        kv.set_mod_revision(mod);
    }
    return response;
}

v3::WatchResponse message(std::int64_t revision, std::uint64_t cluster = 1) {
    v3::WatchResponse response;
    response.mutable_header()->set_revision(revision);
    response.mutable_header()->set_cluster_id(cluster);
    return response;
}

void add(v3::WatchResponse& response, const std::string& key, std::int64_t mod, bool deleted = false) {
    v3::Event& event = *response.add_events();
    if (deleted) event.set_type(v3::Event::DELETE);
    event.mutable_kv()->set_key(key);
    event.mutable_kv()->set_mod_revision(mod);
}

std::string text_of(const WatchUpdate& update) {
    std::string text;
    if (update.kind == Kind::kResync) text += "resync ";
    if (update.kind == Kind::kProgress) text += "progress ";
    if (update.why == Why::kFirst) text += "first ";
    if (update.why == Why::kCompacted) text += "compacted ";
    if (update.why == Why::kHistoryLost) text += "lost ";
    text += "@" + std::to_string(update.revision.value);
    for (const v3::Event& event : update.events) {
        text += event.type() == v3::Event::PUT ? " +" : " -";
        text += event.kv().key() + std::to_string(event.kv().mod_revision());
    }
    return text;
}

struct Log {
    std::vector<std::string> updates;
    WatchCursor::Deliver deliver() {
        return [this](const WatchUpdate& update) { updates.push_back(text_of(update)); };
    }
    std::vector<std::string> take() { return std::exchange(updates, {}); }
};
using Texts = std::vector<std::string>;

WatchCursor::Options prefix_options() {
    WatchCursor::Options options;
    options.range = {"a", "b"};
    return options;
}

// A cursor that has read @5 and watches.
struct Watching {
    Log log;
    WatchCursor cursor;
    explicit Watching(WatchCursor::Options options = prefix_options()) : cursor(options) {
        EXPECT_TRUE(cursor.on_read(page(5, {{"a1", 3}, {"a2", 2}}), log.deliver()).ok());
        log.take();
        EXPECT_TRUE(say(message(5), [](auto& m) { m.set_created(true); }));
    }
    bool say(v3::WatchResponse response, const std::function<void(v3::WatchResponse&)>& change = {}) {
        if (change) change(response);
        return cursor.on_message(response, log.deliver()).ok();
    }
};

TEST(WatchCursor, BeginsWithTheStateInPagesOfOneRevision) {
    Log log;
    WatchCursor cursor(prefix_options());
    ASSERT_EQ(cursor.want(), Want::kRead);
    EXPECT_EQ(cursor.read_request().revision(), 0);
    ASSERT_TRUE(cursor.on_read(page(5, {{"a1", 3}}, true), log.deliver()).ok());
    EXPECT_EQ(cursor.read_request().revision(), 5);
    EXPECT_EQ(cursor.read_request().key(), std::string("a1\0", 3));
    EXPECT_TRUE(log.take().empty());
    ASSERT_TRUE(cursor.on_read(page(8, {{"a2", 2}}), log.deliver()).ok());
    EXPECT_EQ(log.take(), Texts{"resync first @5 +a22 +a13"});
    ASSERT_EQ(cursor.want(), Want::kWatch);
    EXPECT_EQ(cursor.watch_request().create_request().start_revision(), 6);
}

TEST(WatchCursor, BeginsFromNowWithoutReadingTheState) {
    Log log;
    auto options = prefix_options();
    options.first = WatchCursor::First::kNow;
    WatchCursor cursor(options);
    ASSERT_EQ(cursor.want(), Want::kCheck);
    EXPECT_TRUE(cursor.read_request().count_only());
    ASSERT_TRUE(cursor.on_read(page(5, {}), log.deliver()).ok());
    EXPECT_EQ(cursor.watch_request().create_request().start_revision(), 6);
    EXPECT_TRUE(log.take().empty());
}

TEST(WatchCursor, BeginsAtARevisionAndReadsTheStateWhenThatIsCompacted) {
    Log log;
    auto options = prefix_options();
    options.first = WatchCursor::First::kRevision;
    options.revision = {3};
    WatchCursor cursor(options);
    ASSERT_EQ(cursor.want(), Want::kWatch);
    EXPECT_EQ(cursor.watch_request().create_request().start_revision(), 3);
    auto cancelled = message(9);
    cancelled.set_canceled(true);
    cancelled.set_compact_revision(7);
    ASSERT_TRUE(cursor.on_message(cancelled, log.deliver()).ok());
    ASSERT_EQ(cursor.want(), Want::kRead);
    ASSERT_TRUE(cursor.on_read(page(9, {{"a1", 8}}), log.deliver()).ok());
    EXPECT_EQ(log.take(), Texts{"resync compacted @9 +a18"});
}

TEST(WatchCursor, GoesOnBehindTheLastEventAndDropsWhatWasDelivered) {
    Watching w;
    auto events = message(7);
    add(events, "a1", 6);
    add(events, "a2", 7, true);
    ASSERT_TRUE(w.say(events));
    EXPECT_EQ(w.log.take(), Texts{"@7 +a16 -a27"});
    w.cursor.on_disconnected();
    ASSERT_EQ(w.cursor.want(), Want::kCheck);
    ASSERT_TRUE(w.cursor.on_read(page(7, {}), w.log.deliver()).ok());
    EXPECT_EQ(w.cursor.watch_request().create_request().start_revision(), 8);
    add(events, "a3", 8);  // with the two that were delivered
    ASSERT_TRUE(w.say(events));
    EXPECT_EQ(w.log.take(), Texts{"@8 +a38"});
}

TEST(WatchCursor, KeepsAnIncompleteRevisionBack) {
    Watching w;
    auto first = message(8);
    first.set_fragment(true);
    add(first, "a1", 6);
    add(first, "a1", 7);
    ASSERT_TRUE(w.say(first));
    EXPECT_EQ(w.log.take(), Texts{"@6 +a16"});
    w.cursor.on_disconnected();  // the rest of 7 is lost: both parts come again
    ASSERT_TRUE(w.cursor.on_read(page(8, {}), w.log.deliver()).ok());
    EXPECT_EQ(w.cursor.watch_request().create_request().start_revision(), 7);
    auto again = message(8);
    again.set_fragment(true);
    add(again, "a1", 7);
    ASSERT_TRUE(w.say(again));
    EXPECT_TRUE(w.log.take().empty());
    auto rest = message(8);
    add(rest, "a2", 7);
    ASSERT_TRUE(w.say(rest));
    EXPECT_EQ(w.log.take(), Texts{"@7 +a17 +a27"});
}

TEST(WatchCursor, ACompactionIsBridgedByTheDifference) {
    Watching w;
    ASSERT_TRUE(w.say(message(9), [](auto& m) { m.set_compact_revision(8); }));
    ASSERT_EQ(w.cursor.want(), Want::kRead);
    ASSERT_TRUE(w.cursor.on_read(page(10, {{"a0", 7}, {"a1", 3}, {"a9", 6}}), w.log.deliver()).ok());
    EXPECT_EQ(w.log.take(), Texts{"resync compacted @10 -a210 +a96 +a07"});
    EXPECT_EQ(w.cursor.watch_request().create_request().start_revision(), 11);
}

TEST(WatchCursor, ADifferenceDoesNotNameAKeyWhoseDeletionWasTold) {
    Watching w;
    auto deleted = message(6);
    add(deleted, "a2", 6, true);
    ASSERT_TRUE(w.say(deleted));
    w.log.take();
    ASSERT_TRUE(w.say(message(9), [](auto& m) { m.set_compact_revision(8); }));
    ASSERT_TRUE(w.cursor.on_read(page(10, {{"a1", 3}}), w.log.deliver()).ok());
    EXPECT_EQ(w.log.take(), Texts{"resync compacted @10"});
}

TEST(WatchCursor, APageThatIsCompactedMeanwhileBeginsTheReadAnew) {
    Log log;
    WatchCursor cursor(prefix_options());
    ASSERT_TRUE(cursor.on_read(page(5, {{"a1", 3}}, true), log.deliver()).ok());
    cursor.on_read_compacted();
    EXPECT_EQ(cursor.read_request().revision(), 0);
    ASSERT_TRUE(cursor.on_read(page(9, {{"a2", 8}}), log.deliver()).ok());
    EXPECT_EQ(log.take(), Texts{"resync first @9 +a28"});
}

TEST(WatchCursor, ProgressIsToldAndDoesNotMoveThePlace) {
    Watching w;
    ASSERT_TRUE(w.say(message(9)));
    EXPECT_EQ(w.log.take(), Texts{"progress @9"});
    auto late = message(9);
    add(late, "a1", 8);  // the notice came too early
    ASSERT_TRUE(w.say(late));
    EXPECT_EQ(w.log.take(), Texts{"@8 +a18"});
}

TEST(WatchCursor, HistoryThatWasLostIsDeliveredWhole) {
    for (const bool other_cluster : {false, true}) {
        Watching w;
        w.cursor.on_disconnected();
        const std::uint64_t cluster = other_cluster ? 2 : 1;
        const std::int64_t newest = other_cluster ? 50 : 4;
        ASSERT_TRUE(w.cursor.on_read(page(newest, {}, false, cluster), w.log.deliver()).ok());
        ASSERT_EQ(w.cursor.want(), Want::kRead);
        ASSERT_TRUE(w.cursor.on_read(page(newest, {{"a1", 3}}, false, cluster), w.log.deliver()).ok());
        const std::string at = std::to_string(newest);
        EXPECT_EQ(w.log.take(), Texts{"resync lost @" + at + " -a2" + at + " +a13"});
        EXPECT_EQ(w.cursor.watch_request().create_request().start_revision(), newest + 1);
    }
}

TEST(WatchCursor, AMemberThatIsBehindIsNoLoss) {
    Watching w;
    w.cursor.on_disconnected();
    ASSERT_TRUE(w.cursor.on_read(page(5, {}), w.log.deliver()).ok());  // linearizable
    EXPECT_TRUE(w.say(message(2), [](auto& m) { m.set_created(true); }));
    auto events = message(6);
    add(events, "a1", 6);
    ASSERT_TRUE(w.say(events));
    EXPECT_EQ(w.log.take(), Texts{"@6 +a16"});
}

TEST(WatchCursor, WhatIsNoAnswerIsAnErrorAndKeepsThePlace) {
    const std::vector<std::function<void(v3::WatchResponse&)>> bad = {
        [](auto& m) { add(m, "c", 6); },                    // not watched
        [](auto& m) { add(m, "a1", 7), add(m, "a1", 6); },  // not in order
        [](auto& m) { add(m, "a1", 0); },
        [](auto& m) { m.set_canceled(true); },
        [](auto& m) { m.mutable_header()->set_cluster_id(2); },
    };
    for (const auto& change : bad) {
        Watching w;
        EXPECT_FALSE(w.say(message(9), change));
        EXPECT_TRUE(w.log.take().empty());
        EXPECT_EQ(w.cursor.seen().value, 5);
    }
    Log log;
    for (const auto& wrong :
         {page(0, {}), page(5, {{"c", 1}}), page(5, {{"a2", 1}, {"a1", 1}}), page(5, {}, true)}) {
        WatchCursor cursor(prefix_options());
        EXPECT_FALSE(cursor.on_read(wrong, log.deliver()).ok());
        EXPECT_TRUE(log.take().empty());
    }
}

TEST(WatchCursor, KeepsNoMoreThanItsBound) {
    auto options = prefix_options();
    options.state_bytes_max = 2'000;
    Watching w(options);
    auto large = message(6);
    add(large, "a1", 6);
    large.mutable_events(0)->mutable_kv()->set_value(std::string(3'000, 'x'));
    EXPECT_FALSE(w.say(large));
    WatchCursor cursor(options);
    std::vector<std::pair<std::string, std::int64_t>> many;
    for (int i = 100; i < 200; ++i)
        many.emplace_back("a" + std::to_string(i), 1);
    EXPECT_FALSE(cursor.on_read(page(5, many), w.log.deliver()).ok());
}

// ---- a server that does its worst -----------------------------------------------------------------------------------------

using State = std::map<std::string, std::int64_t>;  // key -> mod_revision

struct Change {
    std::string key;
    std::int64_t revision = 0;
    bool deleted = false;
};

class Model {
  public:
    explicit Model(Random& random) : random_(random) { states_.resize(2); }

    std::int64_t newest() const { return static_cast<std::int64_t>(states_.size()) - 1; }
    const State& state(std::int64_t revision) const { return states_[static_cast<std::size_t>(revision)]; }
    std::uint64_t cluster() const { return cluster_; }
    std::int64_t compacted() const { return compacted_; }

    void write() {
        State next = states_.back();
        const std::int64_t revision = newest() + 1;
        std::vector<std::string> touched;
        for (std::uint64_t i = 0; i <= random_.below(3); ++i) {
            const std::string key = (random_.below(4) == 0 ? "c" : "a") + std::to_string(random_.below(6));
            if (std::find(touched.begin(), touched.end(), key) != touched.end()) continue;
            touched.push_back(key);
            const bool deleted = random_.below(3) == 0;
            if (deleted && next.erase(key) == 0) continue;
            if (!deleted) next[key] = revision;
            history_.push_back({key, revision, deleted});
        }
        states_.push_back(std::move(next));
    }
    void compact() {
        compacted_ = std::max(compacted_, newest() - static_cast<std::int64_t>(random_.below(5)));
    }
    void lose_history() {
        const std::int64_t back =
            std::max<std::int64_t>(1, newest() - static_cast<std::int64_t>(1 + random_.below(8)));
        states_.resize(static_cast<std::size_t>(back) + 1);
        std::erase_if(history_, [&](const Change& change) { return change.revision > back; });
        compacted_ = std::min(compacted_, back);
    }
    void become_another_cluster() { ++cluster_; }
    // What a watch of [a, b) must deliver of (from, to].
    std::vector<Change> changes(std::int64_t from, std::int64_t to) const {
        std::vector<Change> out;
        for (const Change& change : history_) {
            if (change.revision > from && change.revision <= to && change.key[0] == 'a')
                out.push_back(change);
        }
        return out;
    }

  private:
    Random& random_;
    std::vector<State> states_;
    std::vector<Change> history_;
    std::int64_t compacted_ = 0;
    std::uint64_t cluster_ = 7;
};

class Scenario {
  public:
    Scenario(std::uint64_t seed, WatchCursor::First first)
        : random_(seed), server_(random_), cursor_(options(first)) {
        seen_ = first == WatchCursor::First::kRevision ? 0 : -1;
    }

    void go() {
        for (int step = 0; step < 600 && !testing::Test::HasFatalFailure(); ++step) {
            const std::uint64_t dice = random_.below(100);
            if (dice < 30) server_.write();
            if (dice == 30) server_.compact();
            if (dice == 31 && random_.below(4) == 0) lose_history();
            if (dice > 31 && dice < 36) disconnect();
            if (dice >= 36) turn();
        }
        for (int step = 0; step < 500 && !testing::Test::HasFatalFailure(); ++step)
            turn();  // and now undisturbed: it arrives
        EXPECT_EQ(view_, watched(server_.state(server_.newest())));
    }

  private:
    static WatchCursor::Options options(WatchCursor::First first) {
        WatchCursor::Options options;
        options.range = {"a", "b"};
        options.first = first;
        options.revision = {1};
        options.page_keys = 2;
        return options;
    }
    static State watched(const State& all) {
        State out;
        for (const auto& [key, revision] : all) {
            if (key[0] == 'a') out[key] = revision;
        }
        return out;
    }
    void disconnect() {
        cursor_.on_disconnected();
        streaming_ = false;
    }
    // Streams of a server that is restored break. In the same cluster it is noticed before new revisions have made up for those
    // that were lost.
    void lose_history() {
        server_.lose_history();
        disconnect();
        lost_ = true;
        if (random_.below(2) == 0) {
            server_.become_another_cluster();
            return;
        }
        for (int i = 0; i < 20 && cursor_.want() != Want::kWatch; ++i)
            turn();
    }
    void turn() {
        if (cursor_.want() != Want::kWatch) {
            answer_read();
        } else if (!streaming_) {
            position_ = cursor_.watch_request().create_request().start_revision();
            streaming_ = true;
            auto created = message(server_.newest(), server_.cluster());
            created.set_created(true);
            hear(created);
        } else {
            stream();
        }
    }
    void answer_read() {
        const v3::RangeRequest request = cursor_.read_request();
        if (request.count_only()) {
            ASSERT_TRUE(
                cursor_.on_read(page(server_.newest(), {}, false, server_.cluster()), deliver()).ok());
            return;
        }
        const std::int64_t at = request.revision() != 0 ? request.revision() : server_.newest();
        if (at < server_.compacted() || at > server_.newest()) {  // refused
            cursor_.on_read_compacted();
            return;
        }
        std::vector<std::pair<std::string, std::int64_t>> keys;
        bool more = false;
        for (const auto& [key, mod] : watched(server_.state(at))) {
            if (key < request.key()) continue;
            more = keys.size() == 2;
            if (more) break;
            keys.emplace_back(key, mod);
        }
        const bool taken =
            cursor_.on_read(page(server_.newest(), keys, more, server_.cluster()), deliver()).ok();
        ASSERT_TRUE(taken || request.revision() != 0);  // pages of two clusters are refused
    }
    void stream() {
        if (position_ < server_.compacted()) {
            auto cancelled = message(server_.newest(), server_.cluster());
            cancelled.set_canceled(true);
            cancelled.set_compact_revision(server_.compacted());
            hear(cancelled);
            streaming_ = false;
            return;
        }
        // Some revisions, in fragments perhaps, with repetitions of what came before, and notices that come too early.
        const std::int64_t to =
            std::min(server_.newest(), position_ + static_cast<std::int64_t>(random_.below(4)));
        auto events = server_.changes(position_ - 1, to);
        if (events.empty() || random_.below(8) == 0) {
            hear(message(server_.newest(), server_.cluster()));
            if (events.empty()) position_ = std::max(position_, to + 1);
            return;
        }
        if (random_.below(8) == 0) {
            auto before = server_.changes(std::max<std::int64_t>(0, position_ - 3), position_ - 1);
            events.insert(events.begin(), before.begin(), before.end());
        }
        position_ = to + 1;
        auto part = message(server_.newest(), server_.cluster());
        for (const Change& change : events) {
            if (part.events_size() != 0 && random_.below(3) == 0) {
                part.set_fragment(true);
                hear(part);
                if (random_.below(20) == 0) {
                    disconnect();
                    return;
                }
                part = message(server_.newest(), server_.cluster());
            }
            add(part, change.key, change.revision, change.deleted);
        }
        hear(part);
    }
    void hear(const v3::WatchResponse& response) {
        const auto heard = cursor_.on_message(response, deliver());
        ASSERT_TRUE(heard.ok()) << heard.error();
    }
    WatchCursor::Deliver deliver() {
        return [this](const WatchUpdate& update) { check(update); };
    }
    void check(const WatchUpdate& update) {
        if (update.kind == Kind::kProgress) return;
        if (update.why == Why::kHistoryLost) {
            EXPECT_TRUE(lost_);
        } else {
            EXPECT_GE(update.revision.value, seen_);
        }
        if (update.kind == Kind::kEvents) {
            const auto expected = server_.changes(seen_, update.revision.value);
            ASSERT_EQ(update.events.size(), expected.size());
            for (std::size_t i = 0; i < expected.size(); ++i) {
                ASSERT_EQ(update.events[static_cast<std::size_t>(i)].kv().key(), expected[i].key);
                ASSERT_EQ(update.events[i].kv().mod_revision(), expected[i].revision);
                ASSERT_EQ(update.events[i].type() == v3::Event::DELETE, expected[i].deleted);
            }
        }
        for (const v3::Event& event : update.events) {
            if (event.type() == v3::Event::DELETE) {
                view_.erase(event.kv().key());
            } else {
                view_[event.kv().key()] = event.kv().mod_revision();
            }
        }
        seen_ = update.revision.value;
        ASSERT_EQ(view_, watched(server_.state(seen_)));
        ASSERT_EQ(cursor_.seen().value, seen_);
    }

    Random random_;
    Model server_;
    WatchCursor cursor_;
    State view_;
    std::int64_t seen_ = 0;
    std::int64_t position_ = 0;  // the stream's next revision
    bool streaming_ = false;
    bool lost_ = false;
};

TEST(WatchCursor, NeverLosesRepeatsOrReordersWhateverTheServerDoes) {
    for (std::uint64_t seed = 0; seed < 300; ++seed) {
        SCOPED_TRACE("seed " + std::to_string(seed));
        Scenario(seed, seed % 2 == 0 ? WatchCursor::First::kState : WatchCursor::First::kRevision).go();
        if (testing::Test::HasFailure()) return;
    }
}

}  // namespace
}  // namespace outrider::agent
