#include "idempotency/redis_reports.h"

#include <algorithm>

namespace outrider::idempotency {

using namespace std::chrono_literals;
using policy::Settled;

namespace {

constexpr Duration kRetry = 1s;

// What the owner hears when Redis could not be told.
Settled intended(const Report& report) {
    if (std::holds_alternative<Released>(report)) return Settled::kReleased;
    if (std::holds_alternative<Cut>(report)) return Settled::kUnknown;
    const Answered& answered = *std::get_if<Answered>(&report);
    if (answered.record == policy::RecordAnswers::kBelow500 && answered.answer.status >= 500)
        return Settled::kReleased;
    return answered.answer.response != nullptr ? Settled::kRecorded : Settled::kRecordedWithoutAnswer;
}

std::size_t bytes_of(const Report& report) {
    const Answered* const answered = std::get_if<Answered>(&report);
    if (answered == nullptr || answered->answer.response == nullptr) return 0;
    return answered->answer.response->headers.size() + answered->answer.response->body.size();
}

}  // namespace

struct RedisReports::Entry {
    Call* call = nullptr;  // null: told, or nobody's
    policy::Digest key;
    policy::Owner owner;
    Report report;
    Instant since{};
    Instant until{};         // then it is given up
    Instant next{};          // when it is sent again, while it is kept
    bool again = false;      // it has been sent before
    bool look_back = false;  // a claim that may still be on its way to Redis, on a connection that is gone
};

class RedisReports::Ask final : public RedisAsk {
  public:
    Ask(RedisReports& reports, std::unique_ptr<Entry> entry, ScriptBy by)
        : reports_(reports), entry_(std::move(entry)), by_(by) {}

    void on_reply(std::unique_ptr<RedisAsk>, const redisReply& reply) override {
        reports_.heard(std::move(entry_), reply, by_);
    }
    void on_timeout() override {
        entry_->again = true;
        reports_.tell(*entry_, intended(entry_->report), false);
    }
    void on_lost(std::unique_ptr<RedisAsk>) override {
        entry_->again = true;
        reports_.keep(std::move(entry_), kRetry);
    }
    std::unique_ptr<Entry> back() { return std::move(entry_); }

  private:
    RedisReports& reports_;
    std::unique_ptr<Entry> entry_;
    ScriptBy by_;
};

RedisReports::RedisReports(uv::Loop& loop, const config::StoreSettings& settings, const RedisScripts& scripts,
                           RedisLink& link, const StoreCells& cells, Owner& owner)
    : loop_(loop), settings_(settings), scripts_(scripts), link_(link), cells_(cells), owner_(owner) {}

RedisReports::~RedisReports() = default;

void RedisReports::settle(Call& call, const policy::Digest& key, const policy::Owner& owner, Report report) {
    auto entry = std::make_unique<Entry>();
    entry->call = &call;
    entry->key = key;
    entry->owner = owner;
    entry->report = std::move(report);
    entry->since = loop_.now();
    entry->until = entry->since + kKeptFor;
    send(std::move(entry), ScriptBy::kSha);
}

void RedisReports::disown(const policy::Digest& key, const policy::Owner& owner, Instant until) {
    auto entry = std::make_unique<Entry>();
    entry->key = key;
    entry->owner = owner;
    entry->report = Released{};
    entry->since = loop_.now();
    entry->until = std::min(until, entry->since + kKeptFor);
    entry->look_back = owner.generation.value == 0;
    send(std::move(entry), ScriptBy::kSha);
}

void RedisReports::send(std::unique_ptr<Entry> entry, ScriptBy by) {
    scripts_.settle(command_, {entry->key, entry->owner, entry->report, entry->again}, by);
    std::unique_ptr<RedisAsk> ask = std::make_unique<Ask>(*this, std::move(entry), by);
    if (link_.ask(ask, command_)) return;
    keep(static_cast<Ask*>(ask.get())->back(), kRetry);
}

void RedisReports::keep(std::unique_ptr<Entry> entry, Duration until_next) {
    entry->next = loop_.now() + until_next;
    kept_bytes_ += bytes_of(entry->report);
    kept_.push_back(std::move(entry));
    // Those who still wait for a word are not given up: they are few, and soon told.
    for (auto it = kept_.begin();
         it != kept_.end() && (kept_.size() > kKeptMax || kept_bytes_ > kKeptBytes);) {
        if ((*it)->call != nullptr) {
            ++it;
            continue;
        }
        kept_bytes_ -= bytes_of((*it)->report);
        it = kept_.erase(it);
    }
    arm();
}

void RedisReports::tell(Entry& entry, Settled settled, bool durable) {
    Call* const call = std::exchange(entry.call, nullptr);
    if (call == nullptr) return;
    if (cells_.seconds != nullptr) cells_.seconds->observe(loop_.now() - entry.since);
    if (!durable && cells_.errors != nullptr) cells_.errors->add();
    call->on_settled(settled, durable);
}

void RedisReports::heard(std::unique_ptr<Entry> entry, const redisReply& reply, ScriptBy by) {
    const auto read = read_settle(reply);
    if (const auto* failure = std::get_if<RedisFailure>(&read)) {
        if (failure->trouble == RedisTrouble::kNoScript && by == ScriptBy::kSha) {
            send(std::move(entry), ScriptBy::kText);
            return;
        }
        // Nothing was done, and asking at once would not help.
        tell(*entry, intended(entry->report), false);
        keep(std::move(entry), kRetry);
        link_.trouble(failure->trouble, failure->error);
        return;
    }
    const Settled settled = *std::get_if<Settled>(&read);
    const policy::Digest key = entry->key;
    tell(*entry, settled, true);
    if (settled == Settled::kTooLate && entry->look_back) {
        entry->look_back = false;
        keep(std::move(entry), kRetry);
    }
    if (settled != Settled::kTooLate) owner_.on_key_settled(key);
}

void RedisReports::resume() {
    for (const auto& entry : kept_)
        entry->next = loop_.now();
    on_timeout(loop_.now());
}

void RedisReports::on_timeout(Instant now) {
    std::list<std::unique_ptr<Entry>> due;
    std::vector<Entry*> unanswered;
    for (auto it = kept_.begin(); it != kept_.end();) {
        const auto each = it++;
        Entry& entry = **each;
        if (link_.ready() && entry.next <= now) {
            due.splice(due.end(), kept_, each);
        } else if (entry.call != nullptr && entry.since + settings_.operation_timeout <= now) {
            unanswered.push_back(&entry);
        } else if (entry.call == nullptr && entry.until <= now) {
            due.splice(due.end(), kept_, each);
        } else if (entry.next <= now) {
            entry.next = now + kRetry;
        }
    }
    for (auto& entry : due) {
        kept_bytes_ -= bytes_of(entry->report);
        if (entry->until > now) {
            send(std::move(entry), ScriptBy::kSha);
        } else {  // after a long stop of the process its call may not have been told yet
            tell(*entry, intended(entry->report), false);
        }
    }
    for (Entry* const entry : unanswered)
        tell(*entry, intended(entry->report), false);
    arm();
}

void RedisReports::arm() {
    if (kept_.empty()) return;
    Instant next = Instant::max();
    for (const auto& entry : kept_) {
        next = std::min(next, entry->next);
        if (entry->call != nullptr) next = std::min(next, entry->since + settings_.operation_timeout);
    }
    if (!scheduled() || deadline() > next) loop_.schedule(*this, std::max(Duration(0), next - loop_.now()));
}

}  // namespace outrider::idempotency
