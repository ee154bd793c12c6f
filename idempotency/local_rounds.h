// The pure part of the local store: what one round of questions makes of the keys, of those who wait, and of the log. Time
// and questions come in, records and replies go out; the caller writes the records and says whether they are durable.
//
// A round is begin(), apply() for each question until full(), then records() are written with one append and one sync,
// then committed() or failed(), then take_replies(). Nothing of a round leaves before that: so a duplicate never sees an
// answer before it is durable, and rounds need no order among their own effects.
//
// Invariants
//   * Each Ask and each Tell is replied to exactly once, unless its client has gone. Never with Wait.
//   * When the round has failed, none of its claims is replied to with Forward.
//   * Who waits for a claim that failed is told StoreFailed too: asking again at once would fail the same way, one by one.
//   * What could not be written (an answer, a release) is remembered, up to kUnwrittenMax keys, and rewrite() writes it
//     later: a disk that was full for a while leaves no "unknown" behind it.
//   * All bounds: waiting_max parked; a round ends at round_bytes of records, and one record more.
#pragma once

#include <compare>
#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <variant>
#include <vector>

#include "base/result.h"
#include "base/time.h"
#include "filters/policy/idempotency_table.h"
#include "filters/policy/idempotency_waiting.h"
#include "idempotency/store.h"

namespace outrider::idempotency {

// Whose question: a client of the store, and which of its questions. Used again after the reply.
struct Ticket {
    std::uint32_t client = 0;
    std::uint32_t slot = 0;
    friend auto operator<=>(const Ticket&, const Ticket&) = default;
};

struct Ask {
    policy::Digest key;
    policy::Digest fingerprint;
    policy::IdempotencyPolicy policy;
    policy::OwnerToken token;
    Instant arrived{};
};
// Of the Ask with this ticket. Has a reply only if it is parked: Conflict.
struct Leave {};
struct Tell {
    policy::Digest key;
    policy::Owner owner;
    Report report;
};
// Nothing of this client waits any more. No reply.
struct ClientGone {};
struct Question {
    Ticket ticket;
    std::variant<Ask, Leave, Tell, ClientGone> what;
};

struct SettledReply {
    policy::Settled settled{};
    bool durable = true;
};
struct Reply {
    Ticket ticket;
    Duration parked{};  // of the time since the question
    std::variant<policy::Verdict, SettledReply> what;
    bool waited = false;  // it was parked
};

struct RoundLimits {
    policy::TableLimits table{};
    std::size_t waiting_max = 10'000;
    bool log = true;  // false: nothing is to be written
    std::size_t round_bytes = std::size_t{4} << 20;
};

class LocalRounds {
  public:
    // Keys whose expiry or lapse one begin() looks at: about a millisecond.
    static constexpr std::size_t kStepsMax = 1024;
    static constexpr std::size_t kUnwrittenMax = 65'536;
    static constexpr Duration kRewriteAfter = std::chrono::seconds(1);

    LocalRounds(const RoundLimits& limits, policy::ClockAnchor anchor, std::uint64_t secret);

    // A record of the log, in its order, before the first round.
    Result<void> recover(std::string_view bytes, std::uint64_t position, Instant now);

    // Time passes: keys expire, leases lapse, whoever waited too long is told.
    void begin(Instant now);
    void apply(Question question);
    // An operator's; the round must be committed before it is told. kForgotten is void if the round fails.
    policy::Forgotten forget(const policy::Digest& key);
    // Records of what was not written before, if it is time to try, and of up to `move_bytes` of keys at the log's beginning,
    // so that its first segments can go although a few keys in them live long. Instead of apply(). Whether there is anything.
    bool rewrite(Instant now, std::size_t move_bytes);

    bool full() const { return encoded_.size() >= limits_.round_bytes; }
    // To be appended in this order, each a record of its own. Valid until the round ends.
    std::vector<std::string_view> records() const;
    // How many changes there are to be committed; also without a log.
    std::size_t changes() const { return notes_.size(); }

    // All records are durable, the first at this position of the log; with nothing to write, the round is over.
    void committed(std::uint64_t first_position);
    // They are not. `maybe_written`: some may be in the log nevertheless.
    void failed(bool maybe_written);
    // Appends.
    void take_replies(std::vector<Reply>& out);

    // When begin() and rewrite() have something to do though nobody asks; may lie in the past.
    std::optional<Instant> next_due() const;
    std::optional<Instant> rewrite_due() const { return rewrite_at_; }
    // Records below are of no use any more; nothing: all that were committed.
    std::optional<std::uint64_t> low_water() const;

    KeyView look(const policy::Digest& key, Instant now) const;
    // What memory knows.
    void describe(StoreStatus& status) const;
    std::uint64_t bytes() const { return table_.bytes(); }
    std::size_t unwritten() const { return unwritten_.size(); }
    // The last new key found no place.
    bool memory_full() const { return memory_full_; }

  private:
    struct Parked {
        Ticket ticket;
        Ask ask;
        Instant since{};
    };
    struct KeyGeneration {
        policy::Digest key;
        policy::Generation generation;
    };
    // Of a record of this round.
    struct Note {
        KeyGeneration of;
        bool state = false;  // the table wants to know where it lies
        bool claim = false;
        std::size_t size = 0;
    };
    struct Claim {
        policy::Digest key;
        policy::Owner owner;
        std::size_t reply = 0;
    };

    void ask(Ticket ticket, Ask ask, std::optional<Instant> parked_since);
    void leave(Ticket ticket);
    void tell(Ticket ticket, Tell tell);
    void client_gone(std::uint32_t client);
    policy::OwnerEffects settle(Tell& tell);
    void wake(const policy::Digest& key);
    Parked take_parked(policy::WaiterId id);
    void reply(Ticket ticket, std::optional<Instant> parked_since, policy::Verdict verdict);
    void write(const policy::Record& record, policy::Generation generation);
    void rewrite_key(const KeyGeneration& of);
    void remember_unwritten(const KeyGeneration& of);
    void end_round();
    WallTime wall_of(Instant t) const;

    const RoundLimits limits_;
    const policy::ClockAnchor anchor_;
    policy::IdempotencyTable table_;
    policy::WaitingList waiting_;
    std::unordered_map<std::uint64_t, Parked> parked_;  // by WaiterId
    std::map<Ticket, policy::WaiterId> waiter_of_;

    std::vector<KeyGeneration> unwritten_;
    std::optional<Instant> rewrite_at_;  // while there is something unwritten

    // The round.
    Instant now_{};
    std::string encoded_;
    std::vector<Note> notes_;
    std::vector<Claim> claims_;
    std::vector<std::size_t> told_;  // replies to Tells that have a record
    bool memory_full_ = false;
    std::vector<Reply> replies_;
};

}  // namespace outrider::idempotency
