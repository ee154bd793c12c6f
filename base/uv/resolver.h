// Resolves names on a libuv loop with c-ares: addresses and SRV records together with their TTL,
// which getaddrinfo(3) and libuv's uv_getaddrinfo cannot give, and without their threads.
//
// Contract
//   * One thread: the loop's. All calls and callbacks happen there.
//   * A callback fires exactly once, never before the call that started it has returned, and never
//   after
//     close() or the destructor. It may start look-ups, call close() and destroy the resolver.
//   * Failures are values. A look-up ends after at most about timeout * (2^tries - 1) per server
//   and search
//     domain (c-ares doubles the time with each try).
//   * close() cancels everything at once. The loop must turn once more before it is closed, so that
//   libuv
//     can let go of the handles. An idle resolver does not keep the loop alive.
//   * No cache: whoever asks decides when to ask again (filters/policy/dns_refresh.h).
//   * System settings (/etc/resolv.conf: servers, search domains, ndots) are read once, at
//   construction;
//     /etc/hosts at each look-up.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <variant>
#include <vector>

#include "base/time.h"

struct uv_loop_s;

namespace outrider::uv {

struct ResolverOptions {
    // "127.0.0.1:5353", "[::1]:53", "10.0.0.10"; empty = the system's. /etc/hosts counts in either
    // case.
    std::vector<std::string> servers;
    Duration timeout = std::chrono::seconds(2);  // of the first try at each server
    int tries = 3;
    // false: names are taken as they are, whatever the system's search list says.
    bool search_domains = true;
    // Look-ups in flight; one above fails at once with kServerFailure.
    std::size_t lookups_max = 4096;
};

enum class ResolveFailure : std::uint8_t {
    kNotFound,       // the name, or a record of the asked type, does not exist; or it is no valid name
    kTimeout,        // no server answered in time
    kServerFailure,  // a server refused or failed, none could be reached, or the limit above
    kMalformed,      // an answer came and could not be read
};
const char* to_string(ResolveFailure failure);  // "not found", "timeout", ...

struct ResolveError {
    ResolveFailure failure = ResolveFailure::kServerFailure;
    std::string message;  // "ledger.default: not found (Domain name not found)"
};

// Exactly one of the two; std::get_if picks.
template <typename T>
using Resolution = std::variant<T, ResolveError>;

// TTL of what does not come from DNS: /etc/hosts and literal addresses.
inline constexpr Duration kHostsTtl = std::chrono::seconds(60);

struct ResolvedAddresses {
    std::vector<std::string> ips;  // never empty, no duplicates, IPv4 before IPv6, IPv6 without brackets
    Duration ttl{};                // the smallest of all records on the way, CNAMEs included
};

struct SrvTarget {
    std::string host;
    std::uint16_t port = 0;
    std::uint16_t priority = 0;  // lower is preferred; higher ones are for when those fail (RFC 2782)
    std::uint16_t weight = 0;    // share within a priority; 0 = seldom, not never
    friend bool operator==(const SrvTarget&, const SrvTarget&) = default;
};
struct SrvRecords {
    std::vector<SrvTarget> targets;  // never empty, by priority
    Duration ttl{};
};

struct SrvEndpoint {
    std::string ip;
    SrvTarget target;
    friend bool operator==(const SrvEndpoint&, const SrvEndpoint&) = default;
};
struct ResolvedSrv {
    std::vector<SrvEndpoint> endpoints;  // never empty, by priority, then as the server ordered them
    Duration ttl{};                      // the smallest of the SRV and all address records
};

// Addresses of at most this many targets of one SRV answer are looked up; the rest, which are the
// least preferred ones, is left out.
inline constexpr std::size_t kSrvTargetsMax = 1024;
// ... and this many at a time, so that a large answer does not overflow a UDP socket's buffer.
inline constexpr std::size_t kSrvLookupsAtOnce = 32;
// Of one target this many addresses are used, or its equal share of kSrvAddressesMax when that is more: without a bound an
// answer of 1,024 targets with thousands of addresses each would be held and handed on at once. Which ones does not depend on
// the order in which the server lists them.
inline constexpr std::size_t kSrvAddressesMax = 4096;
inline constexpr std::size_t kSrvTargetAddressesMin = 64;
// When some targets have no address, the endpoints found are used and the ttl is at most this.
inline constexpr Duration kPartialSrvTtl = std::chrono::seconds(10);

class Resolver {
  public:
    explicit Resolver(uv_loop_s* loop, const ResolverOptions& options = {});
    ~Resolver();  // closes
    Resolver(const Resolver&) = delete;
    Resolver& operator=(const Resolver&) = delete;

    // /etc/hosts first, then A and AAAA together. One family alone is enough.
    void resolve_addresses(std::string name, std::function<void(Resolution<ResolvedAddresses>)> callback);
    // "_ledger._tcp.example.com"; targets as names.
    void resolve_srv(std::string name, std::function<void(Resolution<SrvRecords>)> callback);
    // resolve_srv, then resolve_addresses for each target. When no target has an address, the first
    // target's error is the result.
    void resolve_srv_addresses(std::string name, std::function<void(Resolution<ResolvedSrv>)> callback);

    // Idempotent. Calls made afterwards do nothing, and their callbacks never fire.
    void close();

  private:
    class Impl;
    Impl* impl_;  // owns itself until libuv has closed its handles; null once closed
};

}  // namespace outrider::uv
