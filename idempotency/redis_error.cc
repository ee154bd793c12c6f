#include "idempotency/redis_error.h"

#include <array>

#include "base/log.h"

namespace outrider::idempotency {
namespace {

struct Known {
    std::string_view begin;  // of the error
    RedisTrouble trouble;
};

constexpr std::array kKnown{
    Known{"NOSCRIPT", RedisTrouble::kNoScript},
    Known{"WRONGPASS", RedisTrouble::kCredentials},
    Known{"NOAUTH", RedisTrouble::kCredentials},
    Known{"ERR invalid password", RedisTrouble::kCredentials},
    Known{"ERR AUTH", RedisTrouble::kCredentials},
    Known{"ERR Client sent AUTH", RedisTrouble::kCredentials},
    Known{"NOPERM", RedisTrouble::kNotPermitted},
    Known{"LOADING", RedisTrouble::kLoading},
    Known{"READONLY", RedisTrouble::kReadOnly},
    Known{"OOM", RedisTrouble::kMemoryFull},
    Known{"MISCONF", RedisTrouble::kCannotPersist},
    Known{"NOREPLICAS", RedisTrouble::kNoReplicas},
    Known{"MASTERDOWN", RedisTrouble::kNoReplicas},
    Known{"CLUSTERDOWN", RedisTrouble::kCluster},
    Known{"MOVED", RedisTrouble::kCluster},
    Known{"ASK ", RedisTrouble::kCluster},
    Known{"CROSSSLOT", RedisTrouble::kCluster},
    Known{"BUSY", RedisTrouble::kBusy},
    Known{"ERR max number of clients", RedisTrouble::kRefused},
    Known{"DENIED", RedisTrouble::kRefused},
};

// "ERR Error running script (call to f_…): @user_script:7: -OOM command not allowed …" (before Redis 7)
constexpr std::string_view kInScript = "@user_script:";

constexpr std::size_t kQuotedMax = 160;

std::string quoted(std::string_view error) {
    std::string out;
    for (const char c : error.substr(0, kQuotedMax)) {
        const bool printable = c >= ' ' && c <= '~';
        out.push_back(printable ? c : '?');
    }
    return out;
}

}  // namespace

RedisTrouble classify_redis_error(std::string_view error) {
    if (const auto script = error.find(kInScript);
        error.starts_with("ERR") && script != std::string_view::npos) {
        error.remove_prefix(script + kInScript.size());
        const auto cause = error.find(": ");
        if (cause != std::string_view::npos) error.remove_prefix(cause + 2);
        if (error.starts_with('-')) error.remove_prefix(1);
    }
    for (const Known& known : kKnown) {
        if (error.starts_with(known.begin)) return known.trouble;
    }
    return RedisTrouble::kOther;
}

bool ends_connection(RedisTrouble trouble) {
    switch (trouble) {
        case RedisTrouble::kReadOnly:
        case RedisTrouble::kCredentials:
        case RedisTrouble::kLoading:
        case RedisTrouble::kNoReplicas:
        case RedisTrouble::kRefused:
            return true;
        default:
            return false;
    }
}

std::string redis_sentence(RedisTrouble trouble, std::string_view where, std::string_view error) {
    const std::string redis = "Redis at " + std::string(where);
    switch (trouble) {
        case RedisTrouble::kNone:
        case RedisTrouble::kNoScript:
            return redis + " answers";
        case RedisTrouble::kUnreachable:
            return redis + " cannot be reached: " + quoted(error);
        case RedisTrouble::kSlow:
            return redis + " does not answer within operation_timeout: it is overloaded, stopped or cut off";
        case RedisTrouble::kCredentials:
            return redis +
                   " refuses the user or password of this store's url, or it demands one and the url has "
                   "none";
        case RedisTrouble::kNotPermitted:
            return redis +
                   " does not permit this user what the store needs (EVALSHA, EVAL, SCRIPT LOAD, ROLE, keys "
                   "and channels "
                   "that begin with the store's prefix): " +
                   quoted(error);
        case RedisTrouble::kLoading:
            return redis + " has been started and is still loading its data";
        case RedisTrouble::kReadOnly:
            return redis +
                   " is a read-only replica: a store needs the master, use a redis-sentinel:// url to follow "
                   "it";
        case RedisTrouble::kMemoryFull:
            return redis +
                   " has reached its maxmemory and takes no new keys: raise it, or shorten the routes' "
                   "window";
        case RedisTrouble::kCannotPersist:
            return redis + " refuses writes because it cannot save to its disk (MISCONF): look into its log";
        case RedisTrouble::kNoReplicas:
            return redis + " refuses commands because its master or enough of its replicas are out of reach";
        case RedisTrouble::kCluster:
            return redis +
                   " is in cluster mode, which is not supported: use a single master, with Sentinel if it is "
                   "to fail over";
        case RedisTrouble::kBusy:
            return redis + " is busy with a script of somebody else that runs too long";
        case RedisTrouble::kRefused:
            return redis + " refuses the connection: " + quoted(error);
        case RedisTrouble::kOther:
            break;
    }
    return redis + " answers with an error: " + quoted(error);
}

void RedisReport::trouble(RedisTrouble trouble, std::string_view where, std::string_view error, Instant now) {
    const std::lock_guard lock(mutex_);
    problem_ = redis_sentence(trouble, where, error);
    if (trouble == last_ && last_said_) return;
    last_ = trouble;
    last_said_ = trouble != said_ || now >= quiet_until_;
    if (!last_said_) return;
    said_ = trouble;
    quiet_until_ = now + kQuiet;
    log_warning("store {}: {}", store_, problem_);
}

void RedisReport::well(std::string_view where) {
    const std::lock_guard lock(mutex_);
    problem_.clear();
    if (last_ == RedisTrouble::kNone) return;
    last_ = RedisTrouble::kNone;
    if (last_said_) log_info("store {}: Redis at {} answers again", store_, where);
}

void RedisReport::may_evict(std::string_view where, std::string_view policy) {
    const std::lock_guard lock(mutex_);
    if (eviction_said_) return;
    eviction_said_ = true;
    log_warning(
        "store {}: Redis at {} may evict keys (maxmemory-policy is {}): a request whose key was evicted is "
        "executed again. Set "
        "maxmemory-policy to noeviction",
        store_, where, quoted(policy));
}

std::string RedisReport::problem() const {
    const std::lock_guard lock(mutex_);
    return problem_;
}

}  // namespace outrider::idempotency
