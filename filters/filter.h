// A filter sees every exchange on its way down (the request's head, before an endpoint is picked) and on its way up (the
// response's head). One filter, one file: an anonymous class and its factory; the order is chain.cc's alone.
//
// Filters change heads only through Context: fields that came with the message are marked as dropped, new ones are added
// behind; text for them lives in the exchange's arena.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string_view>
#include <variant>
#include <vector>

#include "base/arena.h"
#include "base/http/message.h"
#include "base/random.h"
#include "base/time.h"
#include "config/settings.h"
#include "filters/flags.h"
#include "filters/key_outcome.h"
#include "filters/policy/idempotency_key.h"

namespace outrider::filters {

class RateLimiter;
struct RoutePolicies;

// Filters of the chain, a bit for each: bit 0 is the outermost.
using FilterSet = std::uint32_t;
constexpr FilterSet kAllFilters = ~FilterSet{0};

// Fields to be written behind those of the message.
class Additions {
  public:
    void add(std::string_view name, std::string_view value) {
        fields_.push_back({name, value});
        bytes_ += name.size() + value.size() + 4;
    }
    // Removes an addition of that name (a later filter overrides an earlier one).
    void remove(std::string_view name);
    std::span<const http::Field> all() const { return fields_; }
    std::size_t bytes() const { return bytes_; }
    void clear() {
        fields_.clear();
        bytes_ = 0;
    }

  private:
    std::vector<http::Field> fields_;
    std::size_t bytes_ = 0;
};

// One exchange as the filters see it.
struct Context {
    // Fixed before the first filter runs.
    const config::ListenerSettings* listener = nullptr;
    const config::RouteSettings* route = nullptr;
    const config::NodeSettings* node = nullptr;
    std::string_view peer_ip;
    WallTime received{};
    Instant now{};                        // of the loop's turn
    RateLimiter* rate_limiter = nullptr;  // when the route has one
    RoutePolicies* policies = nullptr;    // when the route has any
    Random* random = nullptr;
    Arena* arena = nullptr;

    // Down.
    http::RequestHead* request = nullptr;
    std::string_view target;     // path and query sent upstream
    std::string_view authority;  // sent upstream as Host
    std::string_view request_id;
    Additions request_fields;
    std::optional<Duration> time_left;     // from now until the answer must have ended; nothing = no limit
    Instant limit_since{};                 // when the adaptive limit admitted it
    bool under_concurrency_limit = false;  // counted by the route's adaptive limit until on_end()
    FilterSet filters = kAllFilters;       // that have something to do on the route (Chain::concerned)
    std::size_t position = 0;              // of the filter that is next on the way down
    std::optional<policy::Digest> key;     // with Hold
    std::string_view collapse_key;         // with Join; in the arena
    std::string_view batch_group;          // with Gather; in the arena: only equal ones share a call

    // Up.
    http::ResponseHead* response = nullptr;  // null when outrider itself answers
    int status = 0;
    Additions response_fields;

    Flags flags;
    KeyOutcome key_outcome = KeyOutcome::kNone;
};

// A response that a filter gives itself.
struct LocalResponse {
    int status = 200;
    std::string_view content_type;
    std::string_view body;      // static, of the settings, or in the arena
    std::string_view location;  // redirects
};
struct Continue {};
// Wait, then go on with the next filter.
struct Pause {
    Duration time{};
};
// The request has an idempotency key (Context::key): take in its body and ask the route's store. If that says to forward it, go on with
// the next filter.
struct Hold {};
// Identical requests may be under way (Context::collapse_key): lead them, or wait for their answer. Who leads, or has to go its own way, goes
// on with the next filter. Context::time_left is how long it may wait.
struct Join {};
// A part of a batch, if its body is what the route's format wants: take it in and queue it. Context::time_left as with Join.
struct Gather {};
// A response in outrider's usual form of an error. What it says is proxy/problem.h's.
enum class Refusal : std::uint8_t {
    kRateLimited,
    kShed,
    kFault,
    kDeadlinePassed,
    kLoop,
    kKeyMissing,
    kKeyMalformed
};
struct Refuse {
    Refusal why{};
    int status = 0;             // kFault only
    Duration retry_after{};     // 0 = not said
    std::string_view detail{};  // kKeyMalformed: why; static, or in the arena
};
using Verdict = std::variant<Continue, LocalResponse, Pause, Hold, Join, Gather, Refuse>;

// How an exchange went, for filters that keep count.
struct Outcome {
    Instant now{};
    Duration latency{-1};    // from the admission to the answer's head; negative: there was none
    bool timed_out = false;  // no answer, or no whole one, for want of time
};

class Filter {
  public:
    virtual ~Filter() = default;
    // False: it does nothing to any exchange of the route, and is not asked.
    virtual bool concerns(const config::RouteSettings&) const { return true; }
    virtual Verdict on_request(Context&) const { return Continue{}; }
    virtual void on_response(Context&) const {}
    // The exchange is over; only for exchanges whose Context says that a filter counted them.
    virtual void on_end(Context&, const Outcome&) const {}
};

// In their fixed order, outermost first. Stateless, shared by every exchange of a worker.
class Chain {
  public:
    Chain();
    // Those that Context::filters has to name. A snapshot asks once for each route.
    FilterSet concerned(const config::RouteSettings& route) const;
    // The first filter, request id and trace, alone: every exchange has an id, also one that no route matches. Once, and
    // before on_request().
    void identify(Context& context) const;
    // From context.position on; the first verdict that is not Continue ends the way down. After a Pause, Hold, Join or Gather, call again.
    Verdict on_request(Context& context) const;
    // In the opposite order.
    void on_response(Context& context) const;
    void on_end(Context& context, const Outcome& outcome) const;

  private:
    std::vector<std::unique_ptr<const Filter>> filters_;
    FilterSet all_ = 0;
};

// How long the exchange may take, from its head on: the route's timeout, or what the caller's deadline says if that is less.
// Nothing = no limit. For who waits before the chain's last filter, which says the same.
std::optional<Duration> time_allowed(const Context& context);

// Their factories; chain.cc is the only caller.
std::unique_ptr<const Filter> make_request_id();
std::unique_ptr<const Filter> make_rate_limit();
std::unique_ptr<const Filter> make_fault();
std::unique_ptr<const Filter> make_idempotency();
std::unique_ptr<const Filter> make_collapse();
std::unique_ptr<const Filter> make_batch();
std::unique_ptr<const Filter> make_concurrency();
std::unique_ptr<const Filter> make_deadline();
std::unique_ptr<const Filter> make_forwarding();
std::unique_ptr<const Filter> make_route_action();
std::unique_ptr<const Filter> make_rewrite();
std::unique_ptr<const Filter> make_header_rules();

}  // namespace outrider::filters
