// A ServerConnection over a real socket, with exchanges that do what the test says and note what they hear.
#pragma once

#include <algorithm>
#include <functional>
#include <list>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/http/server_connection.h"
#include "tests/base_uv/loop_fixture.h"

namespace outrider::http::test {

using namespace std::chrono_literals;

class ServerFixture;

// What became of one exchange; outlives it.
struct Story {
    std::string target;  // "!400" for a request that was none
    std::string body;
    std::vector<std::string> trailers;
    int requests = 0;
    int ends = 0;
    int bad = 0;
    int aborts = 0;
    int releases = 0;
    int blocked = 0;
    int drained = 0;
    ServerExchange::AbortReason abort_reason{};
};

class ScriptedExchange : public ServerExchange {
  public:
    ScriptedExchange(ServerFixture& fixture, Story& noted) : story(noted), fixture_(fixture) {}

    void on_request() override;
    void on_request_body(std::span<const std::string_view> slices) override;
    void on_request_end(std::span<const Field> trailers) override;
    void on_bad_request(int status, const char* reason) override;
    void on_aborted(AbortReason reason) override;
    void on_response_blocked() override;
    void on_response_drained() override;

    void begin(int status, Body body, std::uint64_t length = 0) {
        start_response(status, reason_phrase(status), body, length, 0, [](HeadWriter&) {});
    }
    void piece(std::string_view text) { write_body({&text, 1}, false); }
    void answer(int status, std::string_view text) {
        begin(status, Body::kLength, text.size());
        piece(text);
        finish();
    }
    // Writes `size` bytes in pieces as long as it is not told to wait, then ends.
    void stream(Body framing, std::size_t size);

    Story& story;

  private:
    void produce();

    ServerFixture& fixture_;
    std::size_t left_ = 0;
    bool producing_ = false;
    bool waiting_ = false;
};

using Hook = std::function<void(ScriptedExchange&)>;

// What exchanges with one target do. Without a script: answer 200 with "METHOD target" and the body, when the request
// is complete.
struct Script {
    Hook request;
    Hook body;  // after each piece
    Hook end;
    Hook bad;
};

class ServerFixture : public testing::Test, protected ServerHandler {
  protected:
    ServerFixture() {
        limits_.header_timeout = 20s;
        limits_.idle_timeout = 20s;
        limits_.body_idle_timeout = 20s;
    }
    ~ServerFixture() override {
        client_.reset();
        if (connection_ != nullptr) {
            run_.in_event([&] { connection_->kill(ServerExchange::AbortReason::kShutdown); });
        }
        EXPECT_TRUE(run_.until([&] { return connection_ == nullptr; })) << "the connection is closed";
        EXPECT_TRUE(exchanges_.empty()) << "every exchange is released";
        for (const Story& s : stories_) {
            EXPECT_EQ(s.releases, 1) << s.target;
            EXPECT_LE(s.aborts, 1) << s.target;
            EXPECT_LE(s.requests, 1) << s.target;
        }
    }

    void connect(int buffer_bytes = 0) {
        const TcpPair pair = tcp_pair(buffer_bytes);
        client_ = std::make_unique<Peer>(run_.loop(), pair.theirs);
        connection_ = new ServerConnection(run_.loop(), *this, limits_, scratch_);
        run_.in_event([&] { ASSERT_TRUE(connection_->start(pair.ours)); });
    }

    Peer& client() { return *client_; }
    ServerConnection& connection() { return *connection_; }
    bool closed() const { return connection_ == nullptr; }
    bool until(const std::function<bool()>& holds) { return run_.until(holds); }
    void settle() { run_.settle(); }

    // Sends, and waits until the client has got exactly this many bytes more or the connection's end.
    std::string exchange(std::string_view request, std::size_t bytes) {
        client().send(request);
        until([&] { return client().received().size() >= bytes || client().over(); });
        settle();
        return client().take();
    }
    // Everything the client gets until the server's end of the connection.
    std::string all_until_close(std::string_view request) {
        client().send(request);
        EXPECT_TRUE(until([&] { return client().over(); }));
        return client().take();
    }
    // The client reacts to the server's FIN, and the connection is gone.
    void expect_closes() {
        EXPECT_TRUE(until([&] { return client().over(); }));
        client().half_close();
        EXPECT_TRUE(until([&] { return closed(); }));
    }

    ScriptedExchange* live(std::string_view target) {
        for (const auto& e : exchanges_) {
            if (e->story.target == target) return e.get();
        }
        return nullptr;
    }
    bool wait_for(std::string_view target) {
        return until([&] { return live(target) != nullptr && live(target)->story.requests == 1; });
    }
    void answer(std::string_view target, std::string_view text) {
        ScriptedExchange* e = live(target);
        ASSERT_NE(e, nullptr) << target;
        run_.in_event([&] { e->answer(200, text); });
    }
    const Story& story(std::string_view target) {
        for (const Story& s : stories_) {
            if (s.target == target) return s;
        }
        static const Story none;
        ADD_FAILURE() << "no exchange for " << target;
        return none;
    }
    bool has_story(std::string_view target) {
        return std::any_of(stories_.begin(), stories_.end(),
                           [&](const Story& s) { return s.target == target; });
    }

    ServerExchange* new_exchange(ServerConnection&) override {
        stories_.emplace_back();
        exchanges_.push_back(std::make_unique<ScriptedExchange>(*this, stories_.back()));
        return exchanges_.back().get();
    }
    void release_exchange(ServerExchange* exchange) override {
        const auto it = std::find_if(exchanges_.begin(), exchanges_.end(),
                                     [&](const auto& e) { return e.get() == exchange; });
        ASSERT_NE(it, exchanges_.end()) << "released once";
        ++(*it)->story.releases;
        // Its name, for one that was never begun.
        if ((*it)->story.target.empty()) (*it)->story.target = (*it)->request().target();
        exchanges_.erase(it);
    }
    void on_connection_closed(ServerConnection& connection) override {
        EXPECT_EQ(&connection, connection_);
        EXPECT_TRUE(exchanges_.empty()) << "exchanges are released before their connection goes";
        delete connection_;
        connection_ = nullptr;
    }

    LoopRun run_;
    ServerLimits limits_;
    ParserScratch scratch_;
    std::map<std::string, Script, std::less<>> scripts_;
    std::list<Story> stories_;
    std::vector<std::unique_ptr<ScriptedExchange>> exchanges_;
    std::unique_ptr<Peer> client_;
    ServerConnection* connection_ = nullptr;
    std::size_t queued_max_ = 0;
    std::size_t produced_ = 0;

    friend class ScriptedExchange;
};

inline void ScriptedExchange::on_request() {
    EXPECT_EQ(story.requests + story.ends + story.aborts, 0) << "on_request() comes first";
    EXPECT_FALSE(response_finished());
    ++story.requests;
    story.target = request().target();
    ServerFixture& f = fixture_;
    const auto script = f.scripts_.find(story.target);
    if (script != f.scripts_.end()) {
        if (script->second.request) script->second.request(*this);
        return;
    }
    if (request_complete()) answer(200, std::string(request().method_text()) + " " + story.target);
}

inline void ScriptedExchange::on_request_body(std::span<const std::string_view> slices) {
    EXPECT_EQ(story.requests, 1);
    EXPECT_EQ(story.aborts + story.ends, 0);
    for (const std::string_view s : slices)
        story.body += s;
    const auto script = fixture_.scripts_.find(story.target);
    if (script != fixture_.scripts_.end() && script->second.body) script->second.body(*this);
}

inline void ScriptedExchange::on_request_end(std::span<const Field> trailers) {
    EXPECT_EQ(story.requests, 1);
    EXPECT_EQ(story.aborts + story.ends, 0);
    ++story.ends;
    for (const Field& t : trailers)
        story.trailers.push_back(std::string(t.name) + "=" + std::string(t.value));
    const auto script = fixture_.scripts_.find(story.target);
    if (script != fixture_.scripts_.end()) {
        if (script->second.end) script->second.end(*this);
        return;
    }
    answer(200, std::string(request().method_text()) + " " + story.target + " " + story.body);
}

inline void ScriptedExchange::on_bad_request(int status, const char* reason) {
    EXPECT_STRNE(reason, "");
    ++story.bad;
    const auto script = fixture_.scripts_.find(story.target);
    if (story.target.empty()) story.target = "!" + std::to_string(status);
    if (script != fixture_.scripts_.end() && script->second.bad) {
        script->second.bad(*this);
    } else if (response_started()) {
        abort_response();
    } else {
        answer(status, "");
    }
}

inline void ScriptedExchange::on_aborted(AbortReason reason) {
    ++story.aborts;
    story.abort_reason = reason;
    producing_ = false;
}

inline void ScriptedExchange::on_response_blocked() {
    EXPECT_EQ(story.aborts, 0);
    ++story.blocked;
    waiting_ = true;
}

inline void ScriptedExchange::on_response_drained() {
    EXPECT_EQ(story.aborts, 0);
    ++story.drained;
    waiting_ = false;
    if (producing_) produce();
}

inline void ScriptedExchange::stream(Body framing, std::size_t size) {
    begin(200, framing, size);
    left_ = size;
    producing_ = true;
    produce();
}

// One piece an event, as a body arrives from an upstream.
inline void ScriptedExchange::produce() {
    if (response_blocked()) waiting_ = true;
    if (waiting_ || !producing_) return;
    const std::size_t size = std::min<std::size_t>(left_, 16 * 1024);
    piece(std::string(size, 'z'));
    left_ -= size;
    fixture_.produced_ += size;
    fixture_.queued_max_ = std::max(fixture_.queued_max_, connection().queued());
    if (left_ == 0) {
        producing_ = false;
        finish();
        return;
    }
    ServerFixture& fixture = fixture_;
    fixture.run_.loop().post([&fixture, target = story.target] {
        if (ScriptedExchange* e = fixture.live(target); e != nullptr && e->producing_) e->produce();
    });
}

// A whole response with a length, as the exchanges above write it.
inline std::string ok(std::string_view body, std::string_view connection = "") {
    return "HTTP/1.1 200 OK\r\nContent-Length: " + std::to_string(body.size()) + "\r\n" +
           std::string(connection) + "\r\n" + std::string(body);
}
inline std::string closing(std::string_view body) {
    return ok(body, "Connection: close\r\n");
}
inline std::string get(std::string_view target, std::string_view fields = "") {
    return "GET " + std::string(target) + " HTTP/1.1\r\nHost: a\r\n" + std::string(fields) + "\r\n";
}
inline std::string post(std::string_view target, std::string_view body) {
    return "POST " + std::string(target) +
           " HTTP/1.1\r\nHost: a\r\nContent-Length: " + std::to_string(body.size()) + "\r\n\r\n" +
           std::string(body);
}

}  // namespace outrider::http::test
