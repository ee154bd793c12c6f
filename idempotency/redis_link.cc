#include "idempotency/redis_link.h"

#include <algorithm>

#include "base/check.h"
#include "base/uv/acceptor.h"
#include "idempotency/redis_scripts.h"

namespace outrider::idempotency {

using namespace std::chrono_literals;

namespace {
constexpr Duration kBackoffFirst = 50ms;
constexpr Duration kBackoffMax = 2s;
constexpr Duration kBrokenAfterMin = 200ms;

std::string described(const config::RedisUrl& url) {
    return url.sentinel ? "Sentinel's \"" + url.service + "\"" : to_string(url.hosts.front());
}
}  // namespace

RedisLink::RedisLink(uv::Loop& loop, const config::StoreSettings& settings, RedisReport& report, Owner& owner,
                     Use use)
    : loop_(loop),
      settings_(settings),
      report_(report),
      owner_(owner),
      use_(use),
      finder_(loop, settings.url, settings.connect_timeout),
      random_(uv::random_seed()),
      where_(described(settings.url)) {
    loop_.schedule(*this, 0ns);
}

RedisLink::~RedisLink() = default;

// Connecting
// ---------------------------------------------------------------------------------------------------------

void RedisLink::find() {
    state_ = State::kFinding;
    loop_.cancel(*this);
    where_ = described(settings_.url);
    finder_.find([this](Result<std::vector<RedisAddress>> found) {
        if (!found) {
            fail(RedisTrouble::kUnreachable, found.error());
            return;
        }
        addresses_ = std::move(found.value());
        connect();
    });
}

void RedisLink::connect() {
    state_ = State::kConnecting;
    // Another address of the same name with each try.
    const RedisAddress& to = addresses_[failures_ % addresses_.size()];
    where_ = to.text();
    auto connection = RedisConnection::open(loop_, to, *this);
    if (!connection) {
        fail(RedisTrouble::kUnreachable, connection.error());
        return;
    }
    connection_ = std::move(connection.value());
    loop_.schedule(*this, settings_.connect_timeout);
}

void RedisLink::introduce() {
    std::string out;
    const auto send = [&](Step step) {
        connection_->command(out);
        steps_.push_back(step);
        out.clear();
    };
    const config::RedisUrl& url = settings_.url;
    steps_.clear();
    if (!url.password.empty()) {
        RedisCommand auth(out, url.user.empty() ? 2 : 3);
        auth.word("AUTH");
        if (!url.user.empty()) auth.word(url.user);
        auth.word(url.password);
        send(Step::kAuth);
    }
    if (url.db != 0) {
        RedisCommand(out, 2).word("SELECT").number(url.db);
        send(Step::kSelect);
    }
    RedisCommand(out, 1).word("ROLE");
    send(Step::kRole);
    if (use_ == Use::kChannels) return;
    for (std::size_t i = 0; i < kRedisScripts; ++i) {
        RedisCommand(out, 3).word("SCRIPT").word("LOAD").word(script_text(static_cast<RedisScript>(i)));
        send(Step::kScript);
    }
    RedisCommand(out, 2).word("INFO").word("memory");
    send(Step::kMemory);
}

void RedisLink::stepped(const redisReply& reply) {
    const Step step = steps_.front();
    steps_.pop_front();
    const auto error = error_of(reply);
    // What a user need not be permitted: to ask for the role, and for the memory.
    const bool needed = step != Step::kRole && step != Step::kMemory;
    if (error && step == Step::kAuth &&
        (error->trouble == RedisTrouble::kOther || error->trouble == RedisTrouble::kNotPermitted)) {
        // Not shown: "unknown command 'AUTH', with args beginning with: ..." has the password in it.
        fail(RedisTrouble::kCredentials, {});
        return;
    }
    if (error && (needed || error->trouble != RedisTrouble::kNotPermitted) && step != Step::kMemory) {
        fail(error->trouble, error->error);
        return;
    }
    if (step == Step::kRole && !error && reply.type == REDIS_REPLY_ARRAY && reply.elements > 0 &&
        text_of(*reply.element[0]) != "master") {
        fail(RedisTrouble::kReadOnly, {});
        return;
    }
    if (step == Step::kMemory) look_at_memory(reply);
    if (steps_.empty()) become_ready();
}

void RedisLink::look_at_memory(const redisReply& reply) {
    constexpr std::string_view kPolicy = "maxmemory_policy:";
    std::string_view text = text_of(reply);
    const auto at = reply.type == REDIS_REPLY_ERROR ? std::string_view::npos : text.find(kPolicy);
    if (at == std::string_view::npos) return;
    text.remove_prefix(at + kPolicy.size());
    text = text.substr(0, text.find_first_of("\r\n"));
    if (text != "noeviction") report_.may_evict(where_, text);
}

void RedisLink::tried() {
    if (!tried_) owner_.on_link_tried();
    tried_ = true;
}

void RedisLink::become_ready() {
    state_ = State::kReady;
    tried();
    loop_.cancel(*this);
    if (use_ == Use::kCommands) report_.well(where_);
    owner_.on_link_up();
}

void RedisLink::fail(RedisTrouble trouble, std::string_view error) {
    if (state_ == State::kBackoff) return;
    const bool was_ready = ready();
    state_ = State::kBackoff;
    tried();
    report_.trouble(trouble, where_, error, loop_.now());
    connection_.reset();
    steps_.clear();
    const Duration most = std::min(kBackoffMax, kBackoffFirst * (1 << std::min(failures_, 6u)));
    ++failures_;
    loop_.schedule(
        *this, Duration(static_cast<std::int64_t>(random_.below(static_cast<std::uint64_t>(most.count())))));
    overdue_ = asked_bytes_ = 0;
    std::deque<Asked> lost;
    lost.swap(asks_);
    if (was_ready) owner_.on_link_down();
    for (Asked& asked : lost) {
        RedisAsk& ask = *asked.ask;
        ask.on_lost(std::move(asked.ask));
    }
}

// Questions
// ---------------------------------------------------------------------------------------------------------

bool RedisLink::ask(std::unique_ptr<RedisAsk>& ask, std::string_view command) {
    const bool full = asks_.size() >= kOutstandingMax || asked_bytes_ + command.size() > kOutstandingBytes;
    if (!ready() || (full && !asks_.empty())) return false;
    connection_->command(command);
    asks_.push_back({std::move(ask), loop_.now(), command.size()});
    asked_bytes_ += command.size();
    if (!scheduled()) arm_for_oldest();
    return true;
}

void RedisLink::channel_command(std::string_view command) {
    if (ready()) connection_->channel_command(command);
}

void RedisLink::on_reply(const redisReply& reply) {
    if (!steps_.empty()) {
        stepped(reply);
        return;
    }
    require(!asks_.empty(), "a reply belongs to a question");
    failures_ = 0;
    if (troubled_ && reply.type != REDIS_REPLY_ERROR) {
        troubled_ = false;
        report_.well(where_);
    }
    std::unique_ptr<RedisAsk> ask = std::move(asks_.front().ask);
    if (asks_.front().overdue) --overdue_;
    asked_bytes_ -= asks_.front().bytes;
    asks_.pop_front();
    // The timer stays where it is, at the latest where the next one needs it.
    RedisAsk& asked = *ask;
    asked.on_reply(std::move(ask), reply);
}

void RedisLink::trouble(RedisTrouble trouble, std::string_view error) {
    if (trouble == RedisTrouble::kNoScript) return;
    if (ready() && ends_connection(trouble)) {
        fail(trouble, error);
    } else {
        troubled_ = true;
        report_.trouble(trouble, where_, error, loop_.now());
    }
}

Duration RedisLink::broken_after() const {
    return std::max(2 * settings_.operation_timeout, kBrokenAfterMin);
}

// Questions are of one patience, so the first that is not overdue yet is the next to be.
void RedisLink::arm_for_oldest() {
    loop_.cancel(*this);
    if (asks_.empty()) return;
    Instant due = asks_.front().at + broken_after();
    if (overdue_ < asks_.size()) due = std::min(due, asks_[overdue_].at + settings_.operation_timeout);
    loop_.schedule(*this, due - loop_.now());
}

void RedisLink::on_timeout(Instant now) {
    if (state_ == State::kBackoff) {
        find();
        return;
    }
    if (state_ == State::kConnecting) {
        fail(RedisTrouble::kUnreachable, "no connection within connect_timeout");
        return;
    }
    if (!ready() || asks_.empty()) return;
    const bool overdue = overdue_ < asks_.size() && asks_[overdue_].at + settings_.operation_timeout <= now;
    if (!overdue && asks_.front().at + broken_after() > now) {
        arm_for_oldest();
        return;
    }
    // If it was this thread that was late, the replies are here.
    connection_->read_now();
    if (!ready()) return;
    if (!asks_.empty() && asks_.front().at + broken_after() <= now) {
        fail(RedisTrouble::kSlow, {});
        return;
    }
    while (ready() && overdue_ < asks_.size() && asks_[overdue_].at + settings_.operation_timeout <= now) {
        Asked& asked = asks_[overdue_++];
        asked.overdue = true;
        troubled_ = true;
        report_.trouble(RedisTrouble::kSlow, where_, {}, now);
        asked.ask->on_timeout();
    }
    if (ready()) arm_for_oldest();
}

}  // namespace outrider::idempotency
