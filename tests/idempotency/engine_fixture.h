// A local store without its thread on a disk and a clock of the test's own.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "base/wal/files.h"
#include "idempotency/local_engine.h"

namespace outrider::idempotency::test {

inline policy::Digest digest(std::uint64_t number) {
    return policy::key_digest({}, "engine", std::to_string(number));
}

inline std::shared_ptr<const policy::StoredResponse> response(std::string body) {
    return std::make_shared<const policy::StoredResponse>(
        policy::StoredResponse{"h: v\r\n", std::move(body)});
}

// The verdict in a reply, if it is a V.
template <typename V>
const V* verdict_in(const Reply& reply) {
    const auto* verdict = std::get_if<policy::Verdict>(&reply.what);
    return verdict != nullptr ? std::get_if<V>(verdict) : nullptr;
}

// Stops between two rounds and comes back: the process's memory is gone, the disk stays.
class EngineOnDisk {
  public:
    explicit EngineOnDisk(wal::FileSystem& files) : files_(files) {
        settings.name = "test";
        settings.kind = config::StoreKind::kLog;
        settings.path = "/log";
        settings.segment_bytes = {16 << 10};
    }

    config::StoreSettings settings;
    Duration time{std::chrono::hours(1000)};  // of the world
    Duration paused{};
    Counter errors;

    std::string start() {
        auto opened = LocalEngine::open(
            settings, {.files = &files_,
                       .clock = [this] { return Instant(time); },
                       .wall = {std::chrono::duration_cast<std::chrono::microseconds>(time).count()},
                       .secret = 5,
                       .pause = [this](Duration d) { paused += d; },
                       .cells = {.errors = &errors}});
        if (!opened) return opened.error();
        engine = std::move(*opened);
        return {};
    }
    void stop() { engine.reset(); }

    std::vector<Reply> round(std::vector<Question> questions) {
        std::vector<Reply> replies;
        std::size_t taken = 0;
        do {
            taken += engine->round(std::span(questions).subspan(taken), replies);
            engine->tidy();
        } while (taken < questions.size());
        return replies;
    }
    // One question, one reply.
    Reply one(Question question) {
        std::vector<Question> questions;
        questions.push_back(std::move(question));
        auto replies = round(std::move(questions));
        require(replies.size() == 1, "one question has one reply");
        return std::move(replies[0]);
    }
    Reply ask(std::uint64_t key, std::uint32_t slot = 0) {
        return one({{1, slot}, Ask{digest(key), digest(99), policy, {++last_token}, Instant(time)}});
    }
    Reply tell(std::uint64_t key, const policy::Owner& owner, Report report) {
        return one({{1, 0}, Tell{digest(key), owner, std::move(report)}});
    }
    // Lets everything come that is due without questions, until `end`.
    void pass_time(Duration d) {
        const Instant end = Instant(time + d);
        for (int i = 0; i < 100'000; ++i) {
            const auto due = engine->next_due();
            if (!due || *due > end) break;
            if (*due > Instant(time)) time = due->time_since_epoch();
            round({});
        }
        time = end.time_since_epoch();
        round({});
    }

    policy::IdempotencyPolicy policy{.window = std::chrono::hours(1), .lease = std::chrono::seconds(30)};
    std::uint64_t last_token = 0;
    std::unique_ptr<LocalEngine> engine;

  private:
    wal::FileSystem& files_;
};

}  // namespace outrider::idempotency::test
