// The ledger as an HTTP service without HTTP's wire: a request's parts in, an answer out. Pure.
//
//   GET  /accounts?after=ID&limit=N     {"accounts":[…],"next":ID,"total_balance":CENTS}; next only when more follow
//   GET  /accounts/ID                   {"id","balance","transfers"}
//   POST /transfers                     {"from","to","amount"} -> 201 {"id","from","to","amount","balances":{ID:CENTS,…}}
//                                       with "reference" (1 to 128 letters, digits and "-_.:"): the same in the answer, and
//                                       told to on_posted(). It is a remark, nothing else: it makes no two transfers one
//   POST /transfers/bulk                array of the same -> 200 array; element i answers request i, with "status"
//   GET  /transfers?after=ID&limit=N    {"transfers":[…],"next":ID}
//   GET  /transfers/ID
//   GET  /healthz                       200 or 503
//   GET  /control, POST /control        Controls; a POST changes the members it names; the answer also has what was
//                                       "observed": the last transfer's number, without latency
//
// Every failure is application/problem+json (RFC 9457). /echo, /bytes and /chunked need the wire: they are the server's.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <utility>

#include "base/http/message.h"
#include "demo/ledger.h"

namespace outrider::demo {

// How the service misbehaves; none of it touches /healthz and /control.
struct Controls {
    std::uint32_t latency_ms = 0;    // between a request's effect and its answer
    double fail_percent = 0;         // of requests that are answered with fail_status
    int fail_status = 503;           // 400..599, or 0: the connection is cut instead
    bool fail_after_effect = false;  // a failing request has taken effect all the same
    bool healthy = true;
    bool hang = false;  // requests take effect and are answered only when this is false again
};

struct ApiRequest {
    http::Method method = http::Method::kGet;
    std::string_view path;
    std::string_view query;
    std::string_view content_type;
    std::string_view body;
};

struct Answer {
    int status = 200;
    std::string body;
    std::string_view content_type = "application/json";
    std::string location;    // of what was created
    std::string_view allow;  // with 405
};

Answer problem(int status, std::string_view detail);

// The digits of an id or a size, nothing else around them; false when they are none or too many.
bool read_number(std::string_view text, std::uint64_t& out);

class LedgerApi {
  public:
    static constexpr std::size_t kListLimitMax = 1000;
    static constexpr std::size_t kListLimitDefault = 100;
    static constexpr std::size_t kBulkMax = 1000;
    static constexpr std::uint32_t kLatencyMax = 600'000;  // ms

    // Called each time a transfer took effect, before it is answered.
    using OnPosted = std::function<void(std::string_view reference, const Transfer&)>;

    explicit LedgerApi(Ledger& ledger, OnPosted on_posted = {})
        : ledger_(ledger), on_posted_(std::move(on_posted)) {}

    Answer answer(const ApiRequest& request);

    Controls& controls() { return controls_; }
    // Answered at once and always, so that a misbehaving service can be watched and set right.
    static bool is_management(std::string_view path) { return path == "/healthz" || path == "/control"; }

  private:
    Answer list_accounts(const ApiRequest& request) const;
    Answer show_account(std::string_view id) const;
    Answer list_transfers(const ApiRequest& request) const;
    Answer show_transfer(std::string_view id) const;
    Answer post_transfer(const ApiRequest& request);
    Answer post_bulk(const ApiRequest& request);
    Answer health() const;
    Answer show_controls() const;
    Answer set_controls(const ApiRequest& request);

    Ledger& ledger_;
    OnPosted on_posted_;
    Controls controls_;
};

}  // namespace outrider::demo
