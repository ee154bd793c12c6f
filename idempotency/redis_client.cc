#include "idempotency/redis_client.h"

#include "base/uv/acceptor.h"

namespace outrider::idempotency {

using namespace std::chrono_literals;

namespace {
// When Redis is full it does not say until when.
constexpr Duration kRoomAfter = 1s;
}  // namespace

// One arrive script on its way.
class RedisClient::Ask final : public RedisAsk {
  public:
    Ask(RedisClient& client, RedisQuestionRef question_, policy::OwnerToken token_, Instant sent_,
        Instant since_, ScriptBy by_, bool for_line_)
        : question(std::move(question_)),
          token(token_),
          sent(sent_),
          since(since_),
          by(by_),
          for_line(for_line_),
          client_(client) {}

    void on_reply(std::unique_ptr<RedisAsk>, const redisReply& reply) override {
        client_.heard(*this, reply);
    }
    void on_timeout() override {
        overdue = true;
        client_.failed(*this, policy::StoreFailed{});
    }
    void on_lost(std::unique_ptr<RedisAsk>) override {
        if (!overdue) client_.failed(*this, policy::StoreFailed{});
        client_.parts_->reports.disown(question->key, {token, {}}, lease_end());
    }
    Instant lease_end() const { return sent + question->policy.lease; }

    const RedisQuestionRef question;
    const policy::OwnerToken token;
    const Instant sent;
    const Instant since;  // the first question of this round
    const ScriptBy by;
    const bool for_line;  // asked by the first in line, for all (redis_waiting.h)
    bool overdue = false;

  private:
    RedisClient& client_;
};

RedisClient::Parts::Parts(RedisClient& client, uv::Loop& loop, RedisShared& shared, const StoreCells& cells)
    : link(loop, shared.settings, shared.report, client, RedisLink::Use::kCommands),
      reports(loop, shared.settings, shared.scripts, link, cells, client),
      waiting(loop, shared.settings, shared.scripts, shared.notices_report, shared.waiting, client) {}

RedisClient::RedisClient(uv::Loop& loop, std::shared_ptr<RedisShared> shared, const StoreCells& cells)
    : loop_(loop), shared_(std::move(shared)), cells_(cells), random_(uv::random_seed()) {
    parts_ = std::make_unique<Parts>(*this, loop, *shared_, cells);
    ++shared_->clients;
}

RedisClient::~RedisClient() {
    close();
}

void RedisClient::close() {
    if (parts_ == nullptr) return;
    *alive_ = false;
    questions_.clear();
    --shared_->clients;
    if (ready()) --shared_->connected;
    parts_.reset();
}

void RedisClient::on_link_up() {
    ++shared_->connected;
    parts_->reports.resume();
}

// Asking
// ---------------------------------------------------------------------------------------------------------

void RedisClient::arrive(Call& call, const policy::Digest& key, const policy::Digest& fingerprint,
                         const policy::IdempotencyPolicy& policy, Instant arrived) {
    if (parts_ == nullptr) return;
    const auto question = std::make_shared<RedisQuestion>(
        RedisQuestion{&call, key, fingerprint, policy, arrived, false, false, {}});
    call.store_slot = question.get();
    questions_.insert(question);
    if (send(question, ScriptBy::kSha, loop_.now(), false)) return;
    later([this, question] { answer(*question, policy::StoreFailed{}); });
}

bool RedisClient::send(const RedisQuestionRef& question, ScriptBy by, Instant since, bool for_line) {
    const policy::OwnerToken token{random_.next()};
    const bool reexecute = question->policy.on_unknown == policy::OnUnknown::kReexecute;
    shared_->scripts.arrive(command_,
                            {question->key, question->fingerprint, token, question->policy.lease,
                             question->policy.window, reexecute},
                            by);
    std::unique_ptr<RedisAsk> ask =
        std::make_unique<Ask>(*this, question, token, loop_.now(), since, by, for_line);
    return parts_->link.ask(ask, command_);
}

bool RedisClient::ask_again(const RedisQuestionRef& question) {
    return send(question, ScriptBy::kSha, loop_.now(), true);
}

// Hearing
// ---------------------------------------------------------------------------------------------------------

void RedisClient::heard(Ask& ask, const redisReply& reply) {
    const RedisQuestionRef question = ask.question;
    const ArriveReply said = read_arrive(reply);
    if (const auto* failure = std::get_if<RedisFailure>(&said)) {
        const bool again =
            failure->trouble == RedisTrouble::kNoScript && ask.by == ScriptBy::kSha && !ask.overdue;
        if (again && question->call != nullptr && send(question, ScriptBy::kText, ask.since, ask.for_line))
            return;
        policy::Verdict verdict = policy::StoreFailed{};
        if (failure->trouble == RedisTrouble::kMemoryFull)
            verdict = policy::StoreFull{loop_.now() + kRoomAfter};
        if (!ask.overdue) failed(ask, verdict);
        if (parts_ != nullptr) parts_->link.trouble(failure->trouble, failure->error);
        return;
    }
    if (!ask.overdue && cells_.seconds != nullptr) cells_.seconds->observe(loop_.now() - ask.since);
    if (const auto* claim = std::get_if<Claimed>(&said)) {
        claimed(ask, *claim, said);
    } else if (ask.overdue) {
        // Told already.
    } else if (ask.for_line) {
        parts_->waiting.heard(question, said);
    } else if (const auto* found = std::get_if<InFlight>(&said)) {
        in_flight(question, *found);
    } else if (const auto verdict = common_verdict(said, loop_.now())) {
        answer(*question, *verdict);
    } else {
        answer(*question, policy::Mismatch{});
    }
}

void RedisClient::claimed(Ask& ask, const Claimed& claim, const ArriveReply& reply) {
    const RedisQuestionRef& question = ask.question;
    const policy::Owner owner{ask.token, claim.generation};
    const bool usable = !ask.overdue && question->call != nullptr && loop_.now() < ask.lease_end();
    if (!usable) {
        parts_->reports.disown(question->key, owner, ask.lease_end());
        if (!ask.overdue) failed(ask, policy::StoreFailed{});
        return;
    }
    parts_->waiting.remove(*question);
    answer(*question, policy::Forward{owner, ask.lease_end(), claim.reexecution});
    if (ask.for_line && parts_ != nullptr) parts_->waiting.heard(question, reply);
}

void RedisClient::in_flight(const RedisQuestionRef& question, const InFlight& found) {
    const policy::IdempotencyPolicy& policy = question->policy;
    if (policy.in_flight == policy::InFlightPolicy::kConflict || question->left) {
        answer(*question, policy::Conflict{policy::ConflictWhy::kInFlight, 0});
        return;
    }
    const Instant until = question->arrived + policy.wait_timeout;
    if (loop_.now() >= until) {
        answer(*question, policy::Conflict{policy::ConflictWhy::kWaitedTooLong, 0});
        return;
    }
    if (!parts_->waiting.park(question, until, found.lease_left))
        answer(*question, policy::Conflict{policy::ConflictWhy::kInFlight, 0});
}

// A question without an answer. Those who wait go on waiting, whether or not the one who asked is still there.
void RedisClient::failed(Ask& ask, const policy::Verdict& verdict) {
    if (ask.for_line) {
        parts_->waiting.failed(*ask.question);
    } else {
        answer(*ask.question, verdict);
    }
}

void RedisClient::answer(RedisQuestion& question, const policy::Verdict& verdict) {
    Call* const call = std::exchange(question.call, nullptr);
    if (call == nullptr) return;
    const bool failed = std::holds_alternative<policy::StoreFailed>(verdict) ||
                        std::holds_alternative<policy::StoreFull>(verdict);
    if (failed && cells_.errors != nullptr) cells_.errors->add();
    call->store_slot = nullptr;
    call->waited = question.waited;
    questions_.erase(std::shared_ptr<RedisQuestion>(std::shared_ptr<void>(), &question));
    call->on_verdict(verdict);
}

// Owners and clients
// ---------------------------------------------------------------------------------------------------------

void RedisClient::leave(Call& call) {
    auto* const slot = static_cast<RedisQuestion*>(call.store_slot);
    if (slot == nullptr || parts_ == nullptr) return;
    slot->left = true;
    if (!slot->waiter) return;  // its answer is on its way
    const auto found = questions_.find(std::shared_ptr<RedisQuestion>(std::shared_ptr<void>(), slot));
    if (found == questions_.end()) return;
    const RedisQuestionRef question = *found;
    parts_->waiting.remove(*question);
    later([this, question] { answer(*question, policy::Conflict{policy::ConflictWhy::kInFlight, 0}); });
}

void RedisClient::settle(Call& call, const policy::Digest& key, const policy::Owner& owner, Report report) {
    if (parts_ != nullptr) parts_->reports.settle(call, key, owner, std::move(report));
}

void RedisClient::later(std::function<void()> task) {
    loop_.post([alive = alive_, task = std::move(task)] {
        if (*alive) task();
    });
}

}  // namespace outrider::idempotency
