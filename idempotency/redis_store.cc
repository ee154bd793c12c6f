#include "idempotency/redis_store.h"

#include <list>

#include "base/check.h"
#include "idempotency/redis_client.h"

namespace outrider::idempotency {
namespace {

using policy::Digest;

// What an operator asks: waits for the connection, which is made for it, for at most connect_timeout.
class AdminQuestion {
  public:
    virtual ~AdminQuestion() = default;
    virtual void write(const RedisScripts& scripts, std::string& out, ScriptBy by) const = 0;
    virtual RedisTrouble read(const redisReply& reply) = 0;  // answers, unless it is NOSCRIPT
    virtual void fail(const std::string& why) = 0;
};

// Reads what `Read` says of the reply.
template <typename T, auto Read, auto Write>
class ScriptQuestion final : public AdminQuestion {
  public:
    ScriptQuestion(const Digest& key, std::function<void(Result<T>)> done)
        : key_(key), done_(std::move(done)) {}
    void write(const RedisScripts& scripts, std::string& out, ScriptBy by) const override {
        (scripts.*Write)(out, key_, by);
    }
    RedisTrouble read(const redisReply& reply) override {
        auto read = Read(reply);
        if (const auto* failure = std::get_if<RedisFailure>(&read)) {
            if (failure->trouble != RedisTrouble::kNoScript)
                done_(Error{redis_sentence(failure->trouble, "the store's url", failure->error)});
            return failure->trouble;
        }
        done_(std::move(*std::get_if<T>(&read)));
        return RedisTrouble::kNone;
    }
    void fail(const std::string& why) override { done_(Error{why}); }

  private:
    Digest key_;
    std::function<void(Result<T>)> done_;
};
using LookQuestion = ScriptQuestion<KeyView, read_look, &RedisScripts::look>;
using ForgetQuestion = ScriptQuestion<policy::Forgotten, read_forget, &RedisScripts::forget>;

class StatusQuestion final : public AdminQuestion {
  public:
    StatusQuestion(const RedisShared& shared, std::function<void(StoreStatus)> done)
        : shared_(shared), done_(std::move(done)) {}
    void write(const RedisScripts&, std::string& out, ScriptBy) const override {
        out.clear();
        RedisCommand(out, 1).word("PING");
    }
    RedisTrouble read(const redisReply& reply) override {
        const auto error = error_of(reply);
        finish(error ? redis_sentence(error->trouble, "the store's url", error->error)
                     : shared_.report.problem());
        return error ? error->trouble : RedisTrouble::kNone;
    }
    void fail(const std::string& why) override { finish(why); }

  private:
    void finish(const std::string& problem) {
        StoreStatus status;
        status.kind = "redis";
        status.ok = problem.empty();
        status.problem = problem;
        status.waiting = shared_.waiting;
        status.clients = shared_.clients;
        status.connected = shared_.connected;
        done_(std::move(status));
    }
    const RedisShared& shared_;
    std::function<void(StoreStatus)> done_;
};

class RedisStore final : public Store, private RedisLink::Owner, private Timer {
  public:
    RedisStore(const config::StoreSettings& settings, uv::Loop& main, const StoreCells& cells)
        : main_(main), shared_(std::make_shared<RedisShared>(settings)), cells_(cells) {
        require(settings.kind == config::StoreKind::kRedis, "a store of kind redis is made of its settings");
    }

    std::unique_ptr<StoreClient> connect(uv::Loop& loop, const StoreCells& cells) override {
        return std::make_unique<RedisClient>(loop, shared_, cells);
    }
    bool settled(unsigned clients) const override { return shared_->tried >= clients; }
    void look(const Digest& key, std::function<void(Result<KeyView>)> done) override {
        ask(std::make_unique<LookQuestion>(key, std::move(done)));
    }
    void forget(const Digest& key, std::function<void(Result<policy::Forgotten>)> done) override {
        ask(std::make_unique<ForgetQuestion>(key, std::move(done)));
    }
    void status(std::function<void(StoreStatus)> done) override {
        ask(std::make_unique<StatusQuestion>(*shared_, std::move(done)));
    }

  private:
    static constexpr std::size_t kPendingMax = 1000;

    struct Pending {
        std::unique_ptr<AdminQuestion> question;
        Instant until{};
    };
    class Ask;

    void ask(std::unique_ptr<AdminQuestion> question) {
        if (link_ == nullptr) {
            RedisLink::Owner& self = *this;
            link_ = std::make_unique<RedisLink>(main_, shared_->settings, shared_->report, self,
                                                RedisLink::Use::kCommands);
        }
        const bool full = pending_.size() >= kPendingMax;
        pending_.push_back(
            {std::move(question), full ? main_.now() : main_.now() + shared_->settings.connect_timeout});
        // Not from within the call.
        main_.schedule(*this, Duration(0));
    }
    void on_link_up() override { main_.schedule(*this, Duration(0)); }
    void on_timeout(Instant now) override;
    bool send(std::unique_ptr<AdminQuestion>& question, ScriptBy by);
    void fail(AdminQuestion& question) {
        if (cells_.errors != nullptr) cells_.errors->add();
        const std::string problem = shared_->report.problem();
        question.fail(problem.empty() ? "Redis did not answer in time" : problem);
    }

    uv::Loop& main_;
    std::shared_ptr<RedisShared> shared_;
    StoreCells cells_;
    std::list<Pending> pending_;
    std::string command_;
    std::unique_ptr<RedisLink> link_;  // last: what is outstanding goes first
};

class RedisStore::Ask final : public RedisAsk {
  public:
    Ask(RedisStore& store, std::unique_ptr<AdminQuestion> question, ScriptBy by)
        : store_(store), question_(std::move(question)), by_(by) {}
    void on_reply(std::unique_ptr<RedisAsk>, const redisReply& reply) override {
        if (question_ == nullptr) return;
        const RedisTrouble trouble = question_->read(reply);
        if (trouble == RedisTrouble::kNoScript) {
            if (by_ == ScriptBy::kText || !store_.send(question_, ScriptBy::kText)) store_.fail(*question_);
            return;
        }
        if (trouble != RedisTrouble::kNone) store_.link_->trouble(trouble, text_of(reply));
    }
    void on_timeout() override {
        store_.fail(*question_);
        question_.reset();
    }
    void on_lost(std::unique_ptr<RedisAsk>) override {
        if (question_ != nullptr) store_.fail(*question_);
    }
    std::unique_ptr<AdminQuestion> back() { return std::move(question_); }

  private:
    RedisStore& store_;
    std::unique_ptr<AdminQuestion> question_;
    ScriptBy by_;
};

bool RedisStore::send(std::unique_ptr<AdminQuestion>& question, ScriptBy by) {
    question->write(shared_->scripts, command_, by);
    std::unique_ptr<RedisAsk> asked = std::make_unique<Ask>(*this, std::move(question), by);
    if (link_->ask(asked, command_)) return true;
    question = static_cast<Ask*>(asked.get())->back();
    return false;
}

void RedisStore::on_timeout(Instant now) {
    std::list<Pending> pending;
    pending.swap(pending_);
    Instant next = Instant::max();
    while (!pending.empty()) {
        Pending& first = pending.front();
        if (link_->ready() && send(first.question, ScriptBy::kSha)) {
            pending.pop_front();
        } else if (first.until <= now) {
            const Pending over = std::move(first);
            pending.pop_front();
            fail(*over.question);
        } else {
            next = std::min(next, first.until);
            pending_.splice(pending_.end(), pending, pending.begin());
        }
    }
    if (!pending_.empty() && !scheduled()) main_.schedule(*this, next - now);
}

}  // namespace

std::unique_ptr<Store> make_redis_store(const config::StoreSettings& settings, uv::Loop& main,
                                        const StoreCells& cells) {
    return std::make_unique<RedisStore>(settings, main, cells);
}

}  // namespace outrider::idempotency
