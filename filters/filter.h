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

namespace outrider::filters {

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
    Random* random = nullptr;
    Arena* arena = nullptr;

    // Down.
    http::RequestHead* request = nullptr;
    std::string_view target;     // path and query sent upstream
    std::string_view authority;  // sent upstream as Host
    std::string_view request_id;
    Additions request_fields;

    // Up.
    http::ResponseHead* response = nullptr;  // null when outrider itself answers
    int status = 0;
    Additions response_fields;

    Flags flags;
};

// A response that a filter gives itself.
struct LocalResponse {
    int status = 200;
    std::string_view content_type;
    std::string_view body;      // static, of the settings, or in the arena
    std::string_view location;  // redirects
};
struct Continue {};
using Verdict = std::variant<Continue, LocalResponse>;

class Filter {
  public:
    virtual ~Filter() = default;
    virtual Verdict on_request(Context&) const { return Continue{}; }
    virtual void on_response(Context&) const {}
};

// In their fixed order, outermost first. Stateless, shared by every exchange of a worker.
class Chain {
  public:
    Chain();
    // The first filter, request id and trace, alone: every exchange has an id, also one that no route matches. Once, and
    // before on_request().
    void identify(Context& context) const;
    // The first verdict that is not Continue ends the way down.
    Verdict on_request(Context& context) const;
    // In the opposite order.
    void on_response(Context& context) const;

  private:
    std::vector<std::unique_ptr<const Filter>> filters_;
};

// Their factories; chain.cc is the only caller.
std::unique_ptr<const Filter> make_request_id();
std::unique_ptr<const Filter> make_forwarding();
std::unique_ptr<const Filter> make_route_action();
std::unique_ptr<const Filter> make_rewrite();
std::unique_ptr<const Filter> make_header_rules();

}  // namespace outrider::filters
