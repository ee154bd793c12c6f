// Identical concurrent requests share one upstream call. Pure: the caller owns exchanges and bodies.
//
// A group is a leader, whose request goes upstream, and followers that came until its response head was there and wait
// for the same response. Nothing is stored: whoever comes after the head leads a group of its own. A shared response is
// as old for a follower as for the leader, so a follower may be answered from before a write that it knows of; a route
// that must not do that must not collapse.
//
// What may be shared follows RFC 9111, read for a shared cache that collapses requests (section 4) and stores nothing.
//
// Requests that take part: GET and HEAD without a body. Not (kApart: as if there were no collapsing) those with
//   * Range or If-Range: the response is a part that others did not ask for;
//   * If-Match, If-None-Match, If-Modified-Since, If-Unmodified-Since: a 304 or 412 answers one client's validators;
//   * Authorization (section 3.5) or Cookie, from which a response may depend without saying so;
//   * Cache-Control: no-cache, no-store, max-age=0 or Pragma: no-cache: its client asks for an answer of its own
//     (sections 5.2.1, 5.4);
//   * Expect, Upgrade.
// unless `vary` names that field: then its values are part of the key, and only requests equal in it share. Range,
// If-Range, Expect and Upgrade never, and Cache-Control neither.
//
// The key: method, scheme and host (without regard to case), target, and for each field of `vary` its lines in their
// order. HEAD and GET do not share.
//
// Responses that are shared: any final status but 206, 304 and 412 without validators in the key, 401 and 407 (a
// challenge is one client's), and 421. Failures (5xx) are shared too: sparing a failing upstream the same
// request a hundred times is what collapsing is for. Not those that say
//   * Cache-Control: private, no-store, no-cache (section 5.2.2), with or without fields named;
//   * Set-Cookie;
//   * Vary: *, or a field that is not in `vary` (section 4.1): the followers may differ in it.
// Then the leader keeps the response and the followers go their own way, each by itself.
//
// When the upstream call fails without a response, everybody gets that failure if it is the upstream's; if it is the
// leader's own (its deadline) the followers go their own way. They may arrive again: then one of them leads the rest.
//
// When the leader's client leaves, the call goes on for the followers; when nobody is left, it is given up.
//
// Invariants
//   * At most groups_max groups, followers_max followers each: beyond, requests are kApart. A key is at most
//     key_bytes_max long, or its request is kApart.
//   * Each exchange is in at most one group and leaves it once: by leave(), head() or failed() that sends it its own way,
//     or end().
//   * At most one group of a key takes followers.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace outrider::policy {

struct FieldView {
    std::string_view name;
    std::string_view value;
};

struct CollapseRequest {
    std::string_view method;
    std::string_view scheme;
    std::string_view host;
    std::string_view target;
    bool has_body = false;
    std::span<const FieldView> fields;
};

// The key of a request that takes part; `vary`: field names, in any case, always in the same order for a table.
std::optional<std::string> collapse_key(const CollapseRequest& request, std::span<const std::string> vary,
                                        std::size_t key_bytes_max);

struct CollapseResponse {
    int status = 200;
    std::span<const FieldView> fields;
};
enum class NotShared : std::uint8_t { kNone, kStatus, kCacheControl, kSetCookie, kVary };
NotShared why_not_shared(const CollapseResponse& response, std::span<const std::string> vary);
std::string_view to_text(NotShared why);

// Never used twice.
enum class CollapseExchange : std::uint64_t {};
enum class CollapseGroup : std::uint64_t {};

struct CollapseLimits {
    std::size_t groups_max = 4096;
    std::size_t followers_max = 1024;
};

class CollapseTable {
  public:
    explicit CollapseTable(CollapseLimits limits) : limits_(limits) {}

    struct Place {
        enum class Role : std::uint8_t { kLead, kFollow, kApart };
        Role role = Role::kApart;
        CollapseGroup group{};  // unless kApart
    };
    Place arrive(const std::string& key, CollapseExchange exchange);

    struct Sharing {
        std::vector<CollapseExchange> share;    // the leader first, unless its client has left
        std::vector<CollapseExchange> own_way;  // followers who leave the group and go upstream themselves
        bool give_up = false;  // nobody wants the response: cancel the call; the group has ended
    };
    // The response head is there. From now on the group takes no follower.
    Sharing head(CollapseGroup group, bool shared);
    // The call ended without a response head. `shared`: `share` gets the failure. The group has ended.
    Sharing failed(CollapseGroup group, bool shared);
    // The response has ended, or broke off after its head: the same for all who share it.
    void end(CollapseGroup group);

    enum class Left : std::uint8_t {
        kUnknown,  // in no group
        kGoesOn,   // others want the response
        kGiveUp,   // nobody does: cancel the call; the group has ended
    };
    Left leave(CollapseExchange exchange);

    std::size_t groups() const { return groups_.size(); }

  private:
    struct Group {
        std::string key;
        std::optional<CollapseExchange> leader;
        std::vector<CollapseExchange> followers;
        bool open = true;  // takes followers
    };
    void close_to_followers(Group& group);
    void erase(CollapseGroup id);

    CollapseLimits limits_;
    std::uint64_t next_group_ = 1;
    std::map<CollapseGroup, Group> groups_;
    std::unordered_map<std::string, CollapseGroup> open_;
    std::unordered_map<CollapseExchange, CollapseGroup> members_;
};

}  // namespace outrider::policy
