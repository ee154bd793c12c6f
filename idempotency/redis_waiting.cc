#include "idempotency/redis_waiting.h"

#include <algorithm>

#include "base/uv/acceptor.h"

namespace outrider::idempotency {

using namespace std::chrono_literals;

namespace {
constexpr Duration kPollFirst = 250ms;
constexpr Duration kPollMax = 1s;
}  // namespace

std::optional<policy::Verdict> common_verdict(const ArriveReply& reply, Instant now) {
    if (const auto* replay = std::get_if<policy::Replay>(&reply)) return *replay;
    if (const auto* unknown = std::get_if<Unknown>(&reply))
        return policy::OutcomeUnknown{unknown->why, now + unknown->window_left};
    if (const auto* done = std::get_if<DoneWithoutAnswer>(&reply))
        return policy::Conflict{policy::ConflictWhy::kDoneNotReplayable, done->status};
    return std::nullopt;
}

class RedisWaiting::Line final : public Timer {
  public:
    Line(RedisWaiting& owner, const policy::Digest& of) : key(of), owner_(owner) {}

    // When it asks by itself: soon after the lease has passed, or when the channel may have lost something.
    void arm(Instant now) {
        const Duration jittered = poll / 2 + Duration(static_cast<std::int64_t>(owner_.random_.below(
                                                 static_cast<std::uint64_t>(poll.count()))));
        poll = std::min(kPollMax, poll * 2);
        Duration wait = jittered;
        if (lease_end > now) wait = std::min(wait, lease_end - now + 1ms);
        owner_.loop_.schedule(*this, wait);
    }

    const policy::Digest key;
    std::deque<RedisQuestionRef> waiters;  // first come first
    bool asking = false;
    bool again = false;   // told something while asking
    bool failed = false;  // the last question had no answer
    Instant lease_end{};
    Duration poll = kPollFirst;

  private:
    void on_timeout(Instant) override { owner_.ask(*this); }
    RedisWaiting& owner_;
};

RedisWaiting::RedisWaiting(uv::Loop& loop, const config::StoreSettings& settings, const RedisScripts& scripts,
                           RedisReport& report, std::atomic<std::uint64_t>& waiting, Owner& owner)
    : loop_(loop),
      waiting_max_(settings.max_waiting),
      waiting_(waiting),
      owner_(owner),
      random_(uv::random_seed()),
      list_(settings.max_waiting),
      notices_(loop, settings, scripts, report, *this) {}

RedisWaiting::~RedisWaiting() {
    waiting_ -= waiters_.size();
}

RedisWaiting::Line* RedisWaiting::line_of(const policy::Digest& key) {
    const auto found = lines_.find(key);
    return found == lines_.end() ? nullptr : found->second.get();
}

bool RedisWaiting::park(const RedisQuestionRef& question, Instant until, Duration lease_left) {
    if (waiting_.fetch_add(1) >= waiting_max_) {
        --waiting_;
        return false;
    }
    const auto id = list_.park(question->key, until);
    if (!id) {
        --waiting_;
        return false;
    }
    question->waiter = *id;
    question->waited = true;
    waiters_.emplace(*id, question);
    std::unique_ptr<Line>& line = lines_[question->key];
    const bool fresh = line == nullptr;
    if (fresh) line = std::make_unique<Line>(*this, question->key);
    line->waiters.push_back(question);
    line->lease_end = loop_.now() + lease_left;
    if (fresh) {
        line->arm(loop_.now());
        notices_.watch(question->key);
    }
    arm();
    return true;
}

void RedisWaiting::remove(RedisQuestion& question) {
    if (!question.waiter) return;
    const policy::Digest key = question.key;
    list_.leave(*question.waiter);
    Line* const line = line_of(key);
    if (line != nullptr) {  // mostly the first
        auto& waiters = line->waiters;
        waiters.erase(std::find_if(waiters.begin(), waiters.end(),
                                   [&](const RedisQuestionRef& each) { return each.get() == &question; }));
    }
    const auto id = *std::exchange(question.waiter, std::nullopt);
    --waiting_;
    waiters_.erase(id);  // `question` may be gone
    if (line == nullptr || !line->waiters.empty()) return;
    lines_.erase(key);
    notices_.unwatch(key);
}

void RedisWaiting::ask(Line& line) {
    if (line.asking) {
        line.again = true;
        return;
    }
    line.again = false;
    if (owner_.ask_again(line.waiters.front())) {
        line.asking = true;
        loop_.cancel(line);
    } else {
        line.failed = true;
        line.arm(loop_.now());
    }
}

void RedisWaiting::on_told(const policy::Digest& key) {
    if (Line* const line = line_of(key)) ask(*line);
}

void RedisWaiting::heard(const RedisQuestionRef& question, const ArriveReply& reply) {
    const policy::Digest key = question->key;
    Line* line = line_of(key);
    if (line == nullptr) return;
    line->asking = false;
    line->failed = false;
    if (const auto* in_flight = std::get_if<InFlight>(&reply)) {
        line->lease_end = loop_.now() + in_flight->lease_left;
    } else if (const auto verdict = common_verdict(reply, loop_.now())) {
        // The same for all who would have asked the same.
        std::vector<RedisQuestionRef> all;
        for (const RedisQuestionRef& each : line->waiters) {
            if (each->fingerprint == question->fingerprint &&
                each->policy.on_unknown == question->policy.on_unknown)
                all.push_back(each);
        }
        for (const RedisQuestionRef& each : all)
            remove(*each);
        for (const RedisQuestionRef& each : all)
            owner_.answer(*each, *verdict);
        line = line_of(key);
        if (line != nullptr) ask(*line);  // whoever is left, is told something else
        return;
    } else if (std::holds_alternative<policy::Mismatch>(reply)) {
        remove(*question);
        owner_.answer(*question, policy::Mismatch{});
        line = line_of(key);
        if (line != nullptr) ask(*line);
        return;
    }
    // In flight, by another one or by the one who just asked: the others wait for it.
    if (line->again) {
        ask(*line);
    } else {
        line->arm(loop_.now());
    }
}

void RedisWaiting::failed(const RedisQuestion& question) {
    Line* const line = line_of(question.key);
    if (line == nullptr) return;
    line->asking = false;
    line->failed = true;
    line->arm(loop_.now());
}

void RedisWaiting::on_timeout(Instant now) {
    std::vector<std::pair<RedisQuestionRef, policy::Verdict>> over;
    for (const policy::WaiterId id : list_.time_out(now)) {
        const RedisQuestionRef question = waiters_.at(id);
        const Line* const line = line_of(question->key);
        const bool unreachable = line != nullptr && line->failed;
        policy::Verdict verdict = policy::Conflict{policy::ConflictWhy::kWaitedTooLong, 0};
        if (unreachable) verdict = policy::StoreFailed{};
        remove(*question);
        over.emplace_back(question, verdict);
    }
    for (const auto& [question, verdict] : over)
        owner_.answer(*question, verdict);
    arm();
}

void RedisWaiting::arm() {
    const auto next = list_.next_deadline();
    if (!next) return;
    if (!scheduled() || deadline() > *next) loop_.schedule(*this, *next - loop_.now());
}

}  // namespace outrider::idempotency
