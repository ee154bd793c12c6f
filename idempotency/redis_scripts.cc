#include "idempotency/redis_scripts.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <limits>

#include <openssl/evp.h>

namespace outrider::idempotency {
namespace {

using policy::Digest;
using policy::Settled;

// Scripts
// ---------------------------------------------------------------------------------------------------------
// KEYS[1]: the key. ARGV[1]: the time in microseconds, in tests; else "".

#define OUTRIDER_LUA_NOW                    \
    "local now = tonumber(ARGV[1])\n"       \
    "if not now then\n"                     \
    "  local time = redis.call('TIME')\n"   \
    "  now = time[1] * 1000000 + time[2]\n" \
    "end\n"                                 \
    "local function text(n) return string.format('%.0f', n) end\n"

// `phase`: what counts now (phase_at() of policy::); false: absent. `why` likewise.
#define OUTRIDER_LUA_PHASE                                                                           \
    "local k = redis.call('HMGET', KEYS[1], 'phase', 'expires', 'lease_end', 'why', 'fingerprint', " \
    "'token', 'generation', 'again')\n"                                                              \
    "local phase, why = k[1], k[4]\n"                                                                \
    "if phase and now >= tonumber(k[2]) then phase = false end\n"                                    \
    "if phase == 'in_flight' and now >= tonumber(k[3]) then phase = 'unknown'; why = '1' end\n"

// may_settle() of policy::. ARGV[2]: token, ARGV[3]: generation or 0, ARGV[4]: '1' when asked again.
#define OUTRIDER_LUA_OWNER                                                            \
    "local own = phase and k[6] == ARGV[2] and (ARGV[3] == '0' or k[7] == ARGV[3])\n" \
    "local open = own and phase ~= 'done'\n"                                          \
    "local again = ARGV[4] == '1'\n"

// Tells those who wait. Digests are the last 64 characters of a key.
#define OUTRIDER_LUA_TELL                                                                                \
    "local function tell()\n"                                                                            \
    "  redis.pcall('PUBLISH', string.sub(KEYS[1], 1, -65) .. 'done:' .. string.sub(KEYS[1], -64), '')\n" \
    "end\n"

// KEYS[2]: the counter. ARGV: now, fingerprint, token, lease, window (not below the lease), '1' to reexecute.
// The counter comes first among the writes: when Redis has no memory left, nothing has happened then.
constexpr std::string_view kArrive = OUTRIDER_LUA_NOW OUTRIDER_LUA_PHASE R"lua(
local same = k[5] == ARGV[2]
if phase and not (phase == 'unknown' and ARGV[6] == '1' and same) then
  if not same then return {'mismatch'} end
  if phase == 'in_flight' then return {'in_flight', tonumber(k[3]) - now} end
  if phase == 'unknown' then return {'unknown', tonumber(why), tonumber(k[2]) - now} end
  local done = redis.call('HMGET', KEYS[1], 'status', 'headers', 'body')
  if not done[3] then return {'done', tonumber(done[1])} end
  return {'replay', tonumber(done[1]), done[2], done[3]}
end
local generation = redis.call('INCR', KEYS[2])
if k[7] and generation <= tonumber(k[7]) then  -- the counter was lost, the key was not
  generation = tonumber(k[7]) + 1
  redis.call('SET', KEYS[2], text(generation))
end
local again = phase and '1' or '0'
if k[1] then redis.call('DEL', KEYS[1]) end
redis.call('HSET', KEYS[1], 'phase', 'in_flight', 'fingerprint', ARGV[2], 'token', ARGV[3], 'generation', text(generation),
  'again', again, 'claimed', text(now), 'lease_end', text(now + ARGV[4]), 'expires', text(now + ARGV[5]))
if phase then redis.call('HSET', KEYS[1], 'why', why) end
redis.call('PEXPIRE', KEYS[1], text(math.ceil(ARGV[5] / 1000)))
return {'claimed', generation, tonumber(again)}
)lua";

// ARGV: now, owner, again, status, '1' when the answer is kept, headers, body.
constexpr std::string_view kAnswered =
    OUTRIDER_LUA_NOW OUTRIDER_LUA_PHASE OUTRIDER_LUA_OWNER OUTRIDER_LUA_TELL R"lua(
local kept = ARGV[6] == '1'
local recorded = kept and 'recorded' or 'recorded_without_answer'
if own and again and phase == 'done' then return recorded end
if not open then return 'late' end
if kept then
  redis.call('HSET', KEYS[1], 'phase', 'done', 'status', ARGV[5], 'headers', ARGV[7], 'body', ARGV[8])
else
  redis.call('HSET', KEYS[1], 'phase', 'done', 'status', ARGV[5])
end
tell()
return recorded
)lua";

// ARGV: now, owner, again. A reexecution becomes what it was before: of the earlier execution nobody knows more.
constexpr std::string_view kReleased =
    OUTRIDER_LUA_NOW OUTRIDER_LUA_PHASE OUTRIDER_LUA_OWNER OUTRIDER_LUA_TELL R"lua(
if again and not phase then return 'released' end
if not open then return 'late' end
if k[8] == '1' then
  redis.call('HSET', KEYS[1], 'phase', 'unknown')
else
  redis.call('DEL', KEYS[1])
end
tell()
return 'released'
)lua";

constexpr std::string_view kCut =
    OUTRIDER_LUA_NOW OUTRIDER_LUA_PHASE OUTRIDER_LUA_OWNER OUTRIDER_LUA_TELL R"lua(
if not open then return 'late' end
redis.call('HSET', KEYS[1], 'phase', 'unknown', 'why', '0')
tell()
return 'unknown'
)lua";

constexpr std::string_view kForget = OUTRIDER_LUA_NOW OUTRIDER_LUA_PHASE OUTRIDER_LUA_TELL R"lua(
if not phase then return 'absent' end
if phase == 'in_flight' then return 'in_flight' end
redis.call('DEL', KEYS[1])
tell()
return 'forgotten'
)lua";

constexpr std::string_view kLook = OUTRIDER_LUA_NOW OUTRIDER_LUA_PHASE R"lua(
if not phase then return {'absent'} end
local v = redis.call('HMGET', KEYS[1], 'status', 'claimed')
local headers, body = redis.call('HSTRLEN', KEYS[1], 'headers'), redis.call('HSTRLEN', KEYS[1], 'body')
return {phase, tonumber(why or '0'), tonumber(v[1] or '0'), redis.call('HEXISTS', KEYS[1], 'body'), tonumber(k[7]),
  tonumber(v[2]), tonumber(k[2]), tonumber(k[3]), headers + body}
)lua";

constexpr std::array<std::string_view, kRedisScripts> kScripts{kArrive, kAnswered, kReleased,
                                                               kCut,    kForget,   kLook};

std::string sha1_hex(std::string_view text) {
    std::array<unsigned char, EVP_MAX_MD_SIZE> digest{};
    unsigned size = 0;
    EVP_Digest(text.data(), text.size(), digest.data(), &size, EVP_sha1(), nullptr);
    std::string out;
    constexpr std::string_view kDigits = "0123456789abcdef";
    for (const unsigned char byte : std::span(digest).first(size)) {
        out.push_back(kDigits[byte >> 4]);
        out.push_back(kDigits[byte & 15]);
    }
    return out;
}

std::string_view bytes_of(const Digest& digest) {
    return {reinterpret_cast<const char*>(digest.bytes.data()), digest.bytes.size()};
}

std::uint64_t micros_of(Duration d) {
    return static_cast<std::uint64_t>(std::chrono::ceil<std::chrono::microseconds>(d).count());
}

}  // namespace

std::string_view script_text(RedisScript script) {
    return kScripts[static_cast<std::size_t>(script)];
}

const std::string& script_sha(RedisScript script) {
    static const std::array<std::string, kRedisScripts> shas = [] {
        std::array<std::string, kRedisScripts> all;
        std::transform(kScripts.begin(), kScripts.end(), all.begin(), sha1_hex);
        return all;
    }();
    return shas[static_cast<std::size_t>(script)];
}

// Commands
// ---------------------------------------------------------------------------------------------------------

namespace {
void append_size(std::string& out, char type, std::uint64_t size) {
    char digits[24];
    digits[0] = type;
    char* end = std::to_chars(digits + 1, digits + sizeof digits - 2, size).ptr;
    *end++ = '\r';
    *end++ = '\n';
    out.append(digits, static_cast<std::size_t>(end - digits));
}
}  // namespace

RedisCommand::RedisCommand(std::string& out, std::size_t words) : out_(out) {
    append_size(out_, '*', words);
}

RedisCommand& RedisCommand::word(std::string_view word) {
    append_size(out_, '$', word.size());
    out_.append(word).append("\r\n");
    return *this;
}

RedisCommand& RedisCommand::number(std::uint64_t value) {
    char digits[24];
    const char* const end = std::to_chars(digits, digits + sizeof digits, value).ptr;
    return word({digits, static_cast<std::size_t>(end - digits)});
}

RedisCommand RedisScripts::begin(std::string& out, RedisScript script, ScriptBy by, const Digest& key,
                                 bool counter, std::size_t arguments) const {
    out.clear();
    RedisCommand command(out, 5 + (counter ? 1 : 0) + arguments);
    if (by == ScriptBy::kSha) {
        command.word("EVALSHA").word(script_sha(script));
    } else {
        command.word("EVAL").word(script_text(script));
    }
    command.number(counter ? 2 : 1);
    append_size(out, '$', prefix_.size() + 2 * Digest::kSize);
    out.append(prefix_).append(key.hex()).append("\r\n");
    if (counter) {
        constexpr std::string_view kCounter = "generation";
        append_size(out, '$', prefix_.size() + kCounter.size());
        out.append(prefix_).append(kCounter).append("\r\n");
    }
    if (now_micros != 0) {
        command.number(now_micros);
    } else {
        command.word("");
    }
    return command;
}

void RedisScripts::arrive(std::string& out, const Arrive& arrive, ScriptBy by) const {
    begin(out, RedisScript::kArrive, by, arrive.key, true, 5)
        .word(bytes_of(arrive.fingerprint))
        .number(arrive.token.value)
        .number(micros_of(arrive.lease))
        .number(micros_of(std::max(arrive.window, arrive.lease)))
        .word(arrive.reexecute ? "1" : "0");
}

void RedisScripts::settle(std::string& out, const Settle& settle, ScriptBy by) const {
    const auto owner = [&](RedisCommand command) {
        return command.number(settle.owner.token.value)
            .number(settle.owner.generation.value)
            .word(settle.again ? "1" : "0");
    };
    if (std::holds_alternative<Cut>(settle.report)) {
        owner(begin(out, RedisScript::kCut, by, settle.key, false, 3));
        return;
    }
    const Answered* const answered = std::get_if<Answered>(&settle.report);
    const bool passed_on = answered != nullptr && answered->record == policy::RecordAnswers::kBelow500 &&
                           answered->answer.status >= 500;
    if (answered == nullptr || passed_on) {
        owner(begin(out, RedisScript::kReleased, by, settle.key, false, 3));
        return;
    }
    const policy::StoredResponse* const response = answered->answer.response.get();
    owner(begin(out, RedisScript::kAnswered, by, settle.key, false, 7))
        .number(answered->answer.status)
        .word(response != nullptr ? "1" : "0")
        .word(response != nullptr ? std::string_view(response->headers) : "")
        .word(response != nullptr ? std::string_view(response->body) : "");
}

void RedisScripts::forget(std::string& out, const Digest& key, ScriptBy by) const {
    begin(out, RedisScript::kForget, by, key, false, 0);
}

void RedisScripts::look(std::string& out, const Digest& key, ScriptBy by) const {
    begin(out, RedisScript::kLook, by, key, false, 0);
}

std::optional<Digest> RedisScripts::key_of_channel(std::string_view channel) const {
    const std::string begin = prefix_ + "done:";
    if (!channel.starts_with(begin)) return std::nullopt;
    return policy::parse_digest(channel.substr(begin.size()));
}

// Replies
// ---------------------------------------------------------------------------------------------------------

namespace {

// An array as the scripts return it. What is not there, or of another type, is empty or 0.
class Fields {
  public:
    explicit Fields(const redisReply& reply) : reply_(reply) {}

    std::string_view text(std::size_t i) const {
        const redisReply* const element = at(i);
        return element != nullptr ? text_of(*element) : std::string_view();
    }
    std::int64_t number(std::size_t i) const {
        const redisReply* const element = at(i);
        return element != nullptr && element->type == REDIS_REPLY_INTEGER ? element->integer : 0;
    }
    Duration micros(std::size_t i) const {
        constexpr std::int64_t kMax = std::numeric_limits<std::int64_t>::max() / 4000;
        return std::chrono::microseconds(std::clamp<std::int64_t>(number(i), 0, kMax));
    }
    std::optional<std::uint16_t> status(std::size_t i) const {
        const std::int64_t n = number(i);
        if (n < 100 || n > 999) return std::nullopt;
        return static_cast<std::uint16_t>(n);
    }
    bool has(std::size_t size) const { return reply_.type == REDIS_REPLY_ARRAY && reply_.elements == size; }

  private:
    const redisReply* at(std::size_t i) const { return i < reply_.elements ? reply_.element[i] : nullptr; }
    const redisReply& reply_;
};

RedisFailure not_understood() {
    return {RedisTrouble::kOther, "a reply that this version does not understand"};
}

std::optional<policy::UnknownWhy> why_of(std::int64_t value) {
    if (value < 0 || value > static_cast<std::int64_t>(policy::UnknownWhy::kRestart)) return std::nullopt;
    return static_cast<policy::UnknownWhy>(value);
}

}  // namespace

std::string_view text_of(const redisReply& reply) {
    const bool text = reply.type == REDIS_REPLY_STRING || reply.type == REDIS_REPLY_STATUS ||
                      reply.type == REDIS_REPLY_ERROR;
    return text ? std::string_view(reply.str, reply.len) : std::string_view();
}

std::optional<RedisFailure> error_of(const redisReply& reply) {
    if (reply.type != REDIS_REPLY_ERROR) return std::nullopt;
    return RedisFailure{classify_redis_error(text_of(reply)), std::string(text_of(reply))};
}

ArriveReply read_arrive(const redisReply& reply) {
    if (auto error = error_of(reply)) return std::move(*error);
    const Fields fields(reply);
    if (reply.type != REDIS_REPLY_ARRAY) return not_understood();
    const std::string_view what = fields.text(0);
    if (what == "claimed" && fields.has(3) && fields.number(1) > 0) {
        return Claimed{{static_cast<std::uint64_t>(fields.number(1))}, fields.number(2) != 0};
    }
    if (what == "in_flight" && fields.has(2)) return InFlight{fields.micros(1)};
    if (what == "mismatch") return policy::Mismatch{};
    if (what == "unknown" && fields.has(3)) {
        if (const auto why = why_of(fields.number(1))) return Unknown{*why, fields.micros(2)};
    }
    const auto status = fields.status(1);
    if (what == "done" && status) return DoneWithoutAnswer{*status};
    if (what == "replay" && fields.has(4) && status) {
        return policy::Replay{*status, std::make_shared<const policy::StoredResponse>(policy::StoredResponse{
                                           std::string(fields.text(2)), std::string(fields.text(3))})};
    }
    return not_understood();
}

std::variant<RedisFailure, Settled> read_settle(const redisReply& reply) {
    if (auto error = error_of(reply)) return std::move(*error);
    const std::string_view what = text_of(reply);
    if (what == "recorded") return Settled::kRecorded;
    if (what == "recorded_without_answer") return Settled::kRecordedWithoutAnswer;
    if (what == "released") return Settled::kReleased;
    if (what == "unknown") return Settled::kUnknown;
    if (what == "late") return Settled::kTooLate;
    return not_understood();
}

std::variant<RedisFailure, policy::Forgotten> read_forget(const redisReply& reply) {
    if (auto error = error_of(reply)) return std::move(*error);
    const std::string_view what = text_of(reply);
    if (what == "forgotten") return policy::Forgotten::kForgotten;
    if (what == "absent") return policy::Forgotten::kAbsent;
    if (what == "in_flight") return policy::Forgotten::kInFlight;
    return not_understood();
}

std::variant<RedisFailure, KeyView> read_look(const redisReply& reply) {
    if (auto error = error_of(reply)) return std::move(*error);
    const Fields fields(reply);
    const std::string_view phase = fields.text(0);
    if (phase == "absent") return KeyView{};
    const auto why = why_of(fields.number(1));
    if (!fields.has(9) || !why) return not_understood();
    KeyView view;
    view.generation = static_cast<std::uint64_t>(fields.number(4));
    view.claimed = {fields.number(5)};
    view.expires = {fields.number(6)};
    if (phase == "in_flight") {
        view.phase = policy::KeyPhase::kInFlight;
        view.lease_end = WallTime{fields.number(7)};
    } else if (phase == "unknown") {
        view.phase = policy::KeyPhase::kUnknown;
        view.why = *why;
    } else if (phase == "done") {
        view.phase = policy::KeyPhase::kDone;
        view.status = fields.status(2).value_or(0);
        view.replayable = fields.number(3) != 0;
        view.answer_bytes = static_cast<std::uint64_t>(std::max<std::int64_t>(fields.number(8), 0));
    } else {
        return not_understood();
    }
    return view;
}

}  // namespace outrider::idempotency
