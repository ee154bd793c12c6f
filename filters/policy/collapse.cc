#include "filters/policy/collapse.h"

#include <algorithm>
#include <array>

#include "base/bytes.h"
#include "base/check.h"

namespace outrider::policy {
namespace {

bool names(std::span<const std::string> vary, std::string_view name) {
    return std::any_of(vary.begin(), vary.end(), [name](const std::string& v) { return iequals(v, name); });
}

bool is_one_of(std::string_view name, std::span<const std::string_view> list) {
    return std::any_of(list.begin(), list.end(), [name](std::string_view n) { return iequals(n, name); });
}

// A directive's name, without its argument.
std::string_view directive_name(std::string_view directive) {
    return trim_ows(directive.substr(0, directive.find('=')));
}

bool asks_for_its_own(const FieldView& field) {
    if (iequals(field.name, "Pragma")) {
        bool own = false;
        for_each_list_element(field.value, [&](std::string_view d) { own |= iequals(d, "no-cache"); });
        return own;
    }
    if (!iequals(field.name, "Cache-Control")) return false;
    bool own = false;
    for_each_list_element(field.value, [&](std::string_view directive) {
        const std::string_view name = directive_name(directive);
        own |= iequals(name, "no-cache") || iequals(name, "no-store");
        if (!iequals(name, "max-age")) return;
        const std::size_t equals = directive.find('=');
        const std::string_view age =
            equals == std::string_view::npos ? "" : trim_ows(directive.substr(equals + 1));
        own |= age.find_first_not_of("0\"") == std::string_view::npos;
    });
    return own;
}

constexpr std::array<std::string_view, 4> kNever = {"Range", "If-Range", "Expect", "Upgrade"};
constexpr std::array<std::string_view, 6> kUnlessInVary = {
    "If-Match", "If-None-Match", "If-Modified-Since", "If-Unmodified-Since", "Authorization", "Cookie"};
constexpr std::array<std::string_view, 4> kValidators = {"If-Match", "If-None-Match", "If-Modified-Since",
                                                         "If-Unmodified-Since"};

bool keeps_apart(const FieldView& field, std::span<const std::string> vary) {
    if (is_one_of(field.name, kNever)) return true;
    if (is_one_of(field.name, kUnlessInVary) && !names(vary, field.name)) return true;
    return asks_for_its_own(field);
}

// Each part with its length, so that no two different lists of parts make the same key.
void add_part(std::string& key, std::string_view part) {
    key.append(std::to_string(part.size())).push_back(':');
    key.append(part);
}

bool status_is_shared(int status, std::span<const std::string> vary) {
    switch (status) {
        case 206:
        case 401:
        case 407:
        case 421:
            return false;
        case 304:
        case 412:
            return std::any_of(kValidators.begin(), kValidators.end(),
                               [vary](std::string_view name) { return names(vary, name); });
        default:
            return status >= 200;
    }
}

}  // namespace

std::optional<std::string> collapse_key(const CollapseRequest& request, std::span<const std::string> vary,
                                        std::size_t key_bytes_max) {
    if (request.method != "GET" && request.method != "HEAD") return std::nullopt;
    if (request.has_body) return std::nullopt;
    std::size_t bytes = request.host.size() + request.target.size();
    for (const FieldView& field : request.fields) {
        if (keeps_apart(field, vary)) return std::nullopt;
        if (names(vary, field.name)) bytes += field.value.size();
    }
    if (bytes > key_bytes_max) return std::nullopt;  // before it is built
    std::string key;
    add_part(key, request.method);
    add_part(key, to_lower(request.scheme));
    add_part(key, to_lower(request.host));
    add_part(key, request.target);
    for (const std::string& name : vary) {
        std::string lines;
        for (const FieldView& field : request.fields) {
            if (iequals(field.name, name)) add_part(lines, trim_ows(field.value));
        }
        add_part(key, lines);
    }
    if (key.size() > key_bytes_max) return std::nullopt;
    return key;
}

NotShared why_not_shared(const CollapseResponse& response, std::span<const std::string> vary) {
    if (!status_is_shared(response.status, vary)) return NotShared::kStatus;
    NotShared why = NotShared::kNone;
    for (const FieldView& field : response.fields) {
        if (iequals(field.name, "Set-Cookie")) return NotShared::kSetCookie;
        if (iequals(field.name, "Cache-Control")) {
            for_each_list_element(field.value, [&](std::string_view directive) {
                constexpr std::array<std::string_view, 3> kOwn = {"private", "no-store", "no-cache"};
                if (is_one_of(directive_name(directive), kOwn)) why = NotShared::kCacheControl;
            });
        } else if (iequals(field.name, "Vary")) {
            for_each_list_element(field.value, [&](std::string_view name) {
                if (!names(vary, name)) why = NotShared::kVary;  // "*" is no field's name
            });
        }
        if (why != NotShared::kNone) return why;
    }
    return why;
}

std::string_view to_text(NotShared why) {
    switch (why) {
        case NotShared::kNone:
            return "shared";
        case NotShared::kStatus:
            return "status";
        case NotShared::kCacheControl:
            return "cache_control";
        case NotShared::kSetCookie:
            return "set_cookie";
        case NotShared::kVary:
            return "vary";
    }
    return "unknown";
}

CollapseTable::Place CollapseTable::arrive(const std::string& key, CollapseExchange exchange) {
    require(members_.count(exchange) == 0, "an exchange is in one group");
    const auto found = open_.find(key);
    if (found != open_.end()) {
        Group& group = groups_.at(found->second);
        if (group.followers.size() >= limits_.followers_max) return {};
        group.followers.push_back(exchange);
        members_.emplace(exchange, found->second);
        return {.role = Place::Role::kFollow, .group = found->second};
    }
    if (groups_.size() >= limits_.groups_max) return {};
    const CollapseGroup id{next_group_++};
    groups_.emplace(id, Group{.key = key, .leader = exchange, .followers = {}, .open = true});
    open_.emplace(key, id);
    members_.emplace(exchange, id);
    return {.role = Place::Role::kLead, .group = id};
}

void CollapseTable::close_to_followers(Group& group) {
    if (group.open) open_.erase(group.key);
    group.open = false;
}

void CollapseTable::erase(CollapseGroup id) {
    const auto found = groups_.find(id);
    require(found != groups_.end(), "a group ends once");
    close_to_followers(found->second);
    if (found->second.leader) members_.erase(*found->second.leader);
    for (const CollapseExchange follower : found->second.followers) {
        members_.erase(follower);
    }
    groups_.erase(found);
}

CollapseTable::Sharing CollapseTable::head(CollapseGroup id, bool shared) {
    const auto found = groups_.find(id);
    require(found != groups_.end() && found->second.open, "a head comes once, to a group that has not ended");
    Group& group = found->second;
    close_to_followers(group);
    Sharing sharing;
    if (group.leader) sharing.share.push_back(*group.leader);
    if (shared) {
        sharing.share.insert(sharing.share.end(), group.followers.begin(), group.followers.end());
    } else {
        sharing.own_way = std::move(group.followers);
        group.followers.clear();
        for (const CollapseExchange follower : sharing.own_way) {
            members_.erase(follower);
        }
    }
    sharing.give_up = sharing.share.empty();
    if (sharing.give_up) erase(id);
    return sharing;
}

CollapseTable::Sharing CollapseTable::failed(CollapseGroup id, bool shared) {
    Sharing sharing = head(id, shared);
    if (!sharing.give_up) erase(id);
    sharing.give_up = false;  // the call is over
    return sharing;
}

void CollapseTable::end(CollapseGroup id) {
    erase(id);
}

CollapseTable::Left CollapseTable::leave(CollapseExchange exchange) {
    const auto member = members_.find(exchange);
    if (member == members_.end()) return Left::kUnknown;
    const CollapseGroup id = member->second;
    members_.erase(member);
    Group& group = groups_.at(id);
    if (group.leader == exchange) {
        group.leader.reset();
    } else {
        std::erase(group.followers, exchange);
    }
    if (group.leader || !group.followers.empty()) return Left::kGoesOn;
    erase(id);
    return Left::kGiveUp;
}

}  // namespace outrider::policy
