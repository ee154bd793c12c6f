// One worker's groups of identical requests on one route: who leads, who waits, who reads the answer. The rules are
// filters/policy/collapse.h's; what an exchange does about them is exchange_collapsed.cc's.
//
// The leader's answer is a SharedAnswer that each reader takes at its own speed, the leader among them. The upstream is read as fast as the
// quickest reader takes it; what the slower ones have not taken is kept once for all of them. An answer of known length is shared up to
// kKeptMax, so that nobody can fall behind; of an answer without a length kKeptMax bytes are kept, and who is further behind is cut.
//
// Invariants
//   * An exchange that waits or reads is in by_id_; a fate finds its exchange there, or it has gone meanwhile.
//   * Fates are met at the end of the turn, never inside a callback of the leader's connection.
//   * What is kept counts among the worker's held bytes.
#pragma once

#include <map>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "base/http/server_connection.h"
#include "base/ref.h"
#include "base/uv/loop.h"
#include "filters/policy/collapse.h"
#include "proxy/problem.h"
#include "proxy/shared_body.h"

namespace outrider::proxy {

class Collapser;
class Exchange;
class Worker;

struct SharedAnswer final : RefCounted {
    explicit SharedAnswer(Worker& w) : worker(w) {}
    ~SharedAnswer() override;

    Worker& worker;
    Exchange* call = nullptr;  // through whose attempt it comes; null when that has ended
    std::string head;          // http::kept_head()
    int status = 0;
    http::ServerExchange::Body framing{};
    std::uint64_t length = 0;
    SharedBody body;
    std::size_t held = 0;  // of it, as the worker counts
    std::vector<policy::CollapseExchange> readers;
    std::vector<std::pair<std::string, std::string>> trailers;
    bool ended = false;
    bool paused = false;  // every reader is behind
};

// An exchange's place in a group.
struct CollapseSeat {
    enum class Role : std::uint8_t { kNone, kLeads, kWaits, kReads };
    Role role = Role::kNone;
    bool absent = false;  // leads, but its own client does not want the answer any more
    policy::CollapseExchange id{};
    policy::CollapseGroup group{};
    Ref<Collapser> collapser;
    Ref<SharedAnswer> answer;    // kReads, and kLeads from the head on if others share it
    std::uint64_t position = 0;  // in its body
};

class Collapser final : public RefCounted, private uv::TurnEnd {
  public:
    // Of an answer: its length at most, and what is kept for slow readers.
    static constexpr std::size_t kKeptMax = std::size_t{1} << 20;

    Collapser(Worker& worker, std::vector<std::string> vary)
        : worker_(worker), vary_(std::move(vary)), table_(policy::CollapseLimits{}) {}
    const std::vector<std::string>& vary() const { return vary_; }

    // Takes its seat: kLeads, kWaits, or kNone when it goes by itself.
    void arrive(Exchange& exchange);
    // The exchange does not want the answer any more. A leader whose answer others want stays, absent.
    void leave(Exchange& exchange);
    // The leader's answer has begun. Null: it is nobody else's, and the seat is given up.
    Ref<SharedAnswer> head_came(Exchange& leader, http::ResponseHead& head, http::ServerExchange::Body body);
    void begin_reading(const Ref<SharedAnswer>& answer);
    void body_came(const Ref<SharedAnswer>& answer, std::span<const std::string_view> slices);
    // Last: the leader may be gone.
    void answer_ended(Exchange& leader, std::span<const http::Field> trailers);
    // The leader's call failed: everybody's failure, or only the leader's own.
    void failed(Exchange& leader, Failure failure, std::string_view detail, Duration retry_after);
    // A reader has taken all of it.
    void done(Exchange& reader);
    // Goes on or pauses, as the readers are.
    void pace(SharedAnswer& answer);

  private:
    enum class Fate : std::uint8_t {
        kOwnWay,  // upstream, by itself
        kAgain,   // arrives again: another one leads
        kFail,    // has the leader's failure
        kBehind,  // is cut: it reads too slowly
    };
    struct Pending {
        policy::CollapseExchange id{};
        Fate fate{};
        Failure failure{};
        std::string detail{};
        Duration retry_after{};
    };

    void on_turn_end() override;
    void await(Pending pending);
    void meet(Exchange& exchange, const Pending& pending);
    Exchange* find(policy::CollapseExchange id) const;
    // Forgets what everybody has taken, and cuts who is too far behind.
    void trim(SharedAnswer& answer);
    static void hold(SharedAnswer& answer);
    static void drop_reader(SharedAnswer& answer, policy::CollapseExchange id);

    Worker& worker_;
    std::vector<std::string> vary_;
    policy::CollapseTable table_;
    std::uint64_t next_id_ = 1;
    std::unordered_map<policy::CollapseExchange, Exchange*> by_id_;
    std::map<policy::CollapseGroup, Exchange*> calls_;  // the leaders
    std::vector<Pending> pending_;
    bool meeting_ = false;
};

}  // namespace outrider::proxy
