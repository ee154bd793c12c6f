#include "base/uv/resolver.h"

#include <algorithm>
#include <memory>
#include <optional>
#include <type_traits>
#include <unordered_map>
#include <unordered_set>
#include <utility>

#include <ares.h>
#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/time.h>
#include <uv.h>

#include "base/bytes.h"
#include "base/check.h"
#include "base/uv/dns_message.h"

namespace outrider::uv {
namespace {

constexpr int kClassInternet = 1;
constexpr int kTypeSrv = 33;
constexpr std::size_t kNameMax = 254;  // with a trailing dot
constexpr std::size_t kLabelMax = 63;

ResolveFailure failure_of(int status) {
    switch (status) {
        case ARES_ENODATA:
        case ARES_ENOTFOUND:
        case ARES_EBADNAME:
            return ResolveFailure::kNotFound;
        case ARES_ETIMEOUT:
            return ResolveFailure::kTimeout;
        case ARES_EBADRESP:
            return ResolveFailure::kMalformed;
        default:
            return ResolveFailure::kServerFailure;
    }
}

ResolveError error_of(const std::string& name, ResolveFailure failure, const char* detail) {
    return {failure, name + ": " + to_string(failure) + " (" + detail + ")"};
}
ResolveError error_of(const std::string& name, int status) {
    return error_of(name, failure_of(status), ares_strerror(status));
}

// RFC 1035 section 2.3.4. Checked here because c-ares' versions report it differently (1.34's
// ares_search as if the server had said so). What bytes a label holds is left to the server.
bool valid_name(const std::string& name) {
    if (name.empty() || name.size() > kNameMax || name.find('\0') != std::string::npos) return false;
    std::size_t begin = 0;
    while (begin < name.size()) {
        const std::size_t dot = std::min(name.find('.', begin), name.size());
        if (dot == begin || dot - begin > kLabelMax) return false;
        begin = dot + 1;
    }
    return true;
}

Duration ttl_of(int seconds) {
    return std::chrono::seconds(std::max(0, seconds));
}

ResolvedAddresses addresses_of(const ares_addrinfo& answer) {
    ResolvedAddresses out{.ips = {}, .ttl = Duration::max()};
    std::unordered_set<std::string> seen;
    for (const int family : {AF_INET, AF_INET6}) {
        for (const ares_addrinfo_node* node = answer.nodes; node != nullptr; node = node->ai_next) {
            if (node->ai_family != family) continue;
            const void* address =
                family == AF_INET
                    ? static_cast<const void*>(&reinterpret_cast<const sockaddr_in*>(node->ai_addr)->sin_addr)
                    : static_cast<const void*>(
                          &reinterpret_cast<const sockaddr_in6*>(node->ai_addr)->sin6_addr);
            char text[INET6_ADDRSTRLEN] = {};
            if (inet_ntop(family, address, text, sizeof text) == nullptr) continue;
            out.ttl = std::min(out.ttl, ttl_of(node->ai_ttl));
            if (seen.insert(text).second) out.ips.emplace_back(text);
        }
    }
    for (const ares_addrinfo_cname* cname = answer.cnames; cname != nullptr; cname = cname->next) {
        out.ttl = std::min(out.ttl, ttl_of(cname->ttl));
    }
    return out;
}

}  // namespace

const char* to_string(ResolveFailure failure) {
    switch (failure) {
        case ResolveFailure::kNotFound:
            return "not found";
        case ResolveFailure::kTimeout:
            return "timeout";
        case ResolveFailure::kServerFailure:
            return "server failure";
        case ResolveFailure::kMalformed:
            return "malformed answer";
    }
    return "unknown";
}

// Two c-ares channels: one that knows /etc/hosts only, one that knows DNS only. A single channel
// for both does not tell which of them answered, and only DNS answers carry a TTL.
//
// Results are queued and delivered once c-ares has returned: it must not be destroyed from within
// its own callbacks, and our users may do anything in theirs.
class Resolver::Impl {
  public:
    Impl(uv_loop_t* loop, const ResolverOptions& options) : loop_(loop), lookups_max_(options.lookups_max) {
        static const int library = ares_library_init(ARES_LIB_INIT_ALL);
        require(uv_timer_init(loop, &timer_) == 0, "a libuv timer initialises");
        timer_.data = this;
        status_ = library;
        if (status_ == ARES_SUCCESS) status_ = open_channel(&hosts_, "f", options);
        if (status_ == ARES_SUCCESS) status_ = open_channel(&dns_, "b", options);
    }

    void close() {
        closing_ = true;
        // Cancels every query; their callbacks see closing_ and only free the request.
        if (hosts_ != nullptr) ares_destroy(hosts_);
        if (dns_ != nullptr) ares_destroy(dns_);
        results_.clear();
        require(polls_.empty(), "c-ares gives its sockets back when it is destroyed");
        uv_close(reinterpret_cast<uv_handle_t*>(&timer_),
                 [](uv_handle_t* handle) { delete static_cast<Impl*>(handle->data); });
    }

    void resolve_addresses(std::string name, std::function<void(Resolution<ResolvedAddresses>)> callback) {
        if (const auto refused = refusal(name)) {
            deliver_later([callback = std::move(callback), error = *refused] { callback(error); });
            return;
        }
        ++lookups_;
        auto* lookup = new AddressLookup{this, std::move(name), std::move(callback)};
        const ares_addrinfo_hints hints = address_hints();
        ares_getaddrinfo(hosts_, lookup->name.c_str(), nullptr, &hints, on_hosts, lookup);
        arm_timer();
    }

    void resolve_srv(std::string name, std::function<void(Resolution<SrvRecords>)> callback) {
        if (const auto refused = refusal(name)) {
            deliver_later([callback = std::move(callback), error = *refused] { callback(error); });
            return;
        }
        ++lookups_;
        auto* lookup = new SrvLookup{this, std::move(name), std::move(callback)};
        // Deprecated since c-ares 1.28 for ares_search_dnsrec, which Debian 12's 1.18 does not
        // have.
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wdeprecated-declarations"
        ares_search(dns_, lookup->name.c_str(), kClassInternet, kTypeSrv, on_srv, lookup);
#pragma GCC diagnostic pop
        arm_timer();
    }

  private:
    template <typename T>
    struct Lookup {
        Impl* impl;
        std::string name;
        std::function<void(Resolution<T>)> callback;
    };
    using AddressLookup = Lookup<ResolvedAddresses>;
    using SrvLookup = Lookup<SrvRecords>;

    // libuv's handle for one of c-ares' sockets. Frees itself when libuv has closed it.
    struct Poll {
        uv_poll_t handle;
        Impl* impl;
        ares_socket_t socket;
    };

    int open_channel(ares_channel* channel, const char* lookups, const ResolverOptions& options) {
        ares_options settings{};
        int mask = ARES_OPT_SOCK_STATE_CB | ARES_OPT_TIMEOUTMS | ARES_OPT_TRIES | ARES_OPT_LOOKUPS;
        settings.sock_state_cb = on_socket_state;
        settings.sock_state_cb_data = this;
        settings.timeout = static_cast<int>(std::clamp<std::int64_t>(millis_of(options.timeout), 1, 60'000));
        settings.tries = std::clamp(options.tries, 1, 10);
        std::string order = lookups;
        settings.lookups = order.data();
        if (!options.search_domains) {
            settings.flags = ARES_FLAG_NOSEARCH;
            mask |= ARES_OPT_FLAGS;
            // 1.18's ares_getaddrinfo does not look at the flag; an empty search list says the
            // same.
            mask |= ARES_OPT_DOMAINS;
        }
#ifdef ARES_OPT_QUERY_CACHE
        settings.qcache_max_ttl = 0;  // on by default where it exists, and would outlive our own TTLs
        mask |= ARES_OPT_QUERY_CACHE;
#endif
        int status = ares_init_options(channel, &settings, mask);
        if (status != ARES_SUCCESS) {
            *channel = nullptr;
            return status;
        }
        std::string servers;
        for (const std::string& server : options.servers) {
            servers += (servers.empty() ? "" : ",") + server;
        }
        if (!servers.empty()) status = ares_set_servers_ports_csv(*channel, servers.c_str());
        return status;
    }

    static ares_addrinfo_hints address_hints() {
        ares_addrinfo_hints hints{};
        hints.ai_family = AF_UNSPEC;
        // Sorting by RFC 6724 opens a socket to each address; balancers do not need it.
        hints.ai_flags = ARES_AI_NOSORT;
        return hints;
    }

    std::optional<ResolveError> refusal(const std::string& name) const {
        if (status_ != ARES_SUCCESS) {
            return error_of(name, ResolveFailure::kServerFailure, ares_strerror(status_));
        }
        if (!valid_name(name)) {
            return error_of(name, ResolveFailure::kNotFound, "not a valid name");
        }
        if (lookups_ >= lookups_max_) {
            return error_of(name, ResolveFailure::kServerFailure, "too many look-ups in flight");
        }
        return std::nullopt;
    }

    static void on_hosts(void* data, int status, int /*timeouts*/, ares_addrinfo* answer) {
        auto* lookup = static_cast<AddressLookup*>(data);
        if (status == ARES_SUCCESS || lookup->impl->closing_) {
            finish_addresses(lookup, status, answer, kHostsTtl);
            return;
        }
        if (is_localhost(lookup->name)) {
            const std::unique_ptr<AddressLookup> owned(lookup);
            finish(*owned, ResolvedAddresses{{"127.0.0.1"}, kHostsTtl});
            return;
        }
        const ares_addrinfo_hints hints = address_hints();
        ares_getaddrinfo(lookup->impl->dns_, lookup->name.c_str(), nullptr, &hints, on_dns, lookup);
    }

    // RFC 6761 section 6.3: never asked of a server. Small images have no /etc/hosts that says it.
    static bool is_localhost(std::string_view name) {
        if (!name.empty() && name.back() == '.') name.remove_suffix(1);
        constexpr std::string_view kLocalhost = "localhost";
        const std::size_t at =
            name.size() < kLocalhost.size() ? name.size() : name.size() - kLocalhost.size();
        return iequals(name.substr(at), kLocalhost) && (at == 0 || name[at - 1] == '.');
    }

    static void on_dns(void* data, int status, int /*timeouts*/, ares_addrinfo* answer) {
        finish_addresses(static_cast<AddressLookup*>(data), status, answer, std::nullopt);
    }

    static void finish_addresses(AddressLookup* raw, int status, ares_addrinfo* answer,
                                 std::optional<Duration> fixed_ttl) {
        const std::unique_ptr<AddressLookup> lookup(raw);
        const std::unique_ptr<ares_addrinfo, decltype(&ares_freeaddrinfo)> owned(answer, ares_freeaddrinfo);
        if (status != ARES_SUCCESS || answer == nullptr) {
            finish(*lookup, error_of(lookup->name, status));
            return;
        }
        ResolvedAddresses addresses = addresses_of(*answer);
        if (addresses.ips.empty()) {
            finish(*lookup, error_of(lookup->name, ARES_ENODATA));
            return;
        }
        addresses.ttl = fixed_ttl.value_or(addresses.ttl);
        finish(*lookup, std::move(addresses));
    }

    static void on_srv(void* data, int status, int /*timeouts*/, unsigned char* bytes, int size) {
        const std::unique_ptr<SrvLookup> lookup(static_cast<SrvLookup*>(data));
        if (status != ARES_SUCCESS || bytes == nullptr || size < 0) {
            finish(*lookup, error_of(lookup->name, status));
            return;
        }
        Resolution<SrvRecords> records = parse_srv_response({bytes, static_cast<std::size_t>(size)});
        if (const auto* error = std::get_if<ResolveError>(&records)) {
            finish(*lookup, error_of(lookup->name, error->failure, error->message.c_str()));
            return;
        }
        finish(*lookup, std::move(records));
    }

    template <typename T>
    static void finish(Lookup<T>& lookup, std::type_identity_t<Resolution<T>> result) {
        Impl* impl = lookup.impl;
        --impl->lookups_;
        if (impl->closing_) return;
        impl->deliver_later([callback = std::move(lookup.callback), result = std::move(result)]() mutable {
            callback(std::move(result));
        });
    }

    void deliver_later(std::function<void()> result) {
        results_.push_back(std::move(result));
        arm_timer();
    }

    void deliver() {
        std::vector<std::function<void()>> ready;
        ready.swap(results_);
        for (std::function<void()>& result : ready) {
            result();
            // close() or the destructor ran; the memory of *this lives until libuv's next turn.
            if (closing_) return;
        }
    }

    void process(ares_socket_t readable, ares_socket_t writable) {
        ares_process_fd(dns_, readable, writable);
        deliver();
        if (!closing_) arm_timer();
    }

    // One timer for both: results to deliver, and c-ares' next timeout.
    void arm_timer() {
        if (!results_.empty()) {
            uv_timer_start(&timer_, on_timer, 0, 0);
            return;
        }
        timeval storage{};
        const timeval* wait = dns_ == nullptr ? nullptr : ares_timeout(dns_, nullptr, &storage);
        if (wait == nullptr) {
            uv_timer_stop(&timer_);
            return;
        }
        // Rounded up: waking before c-ares' own clock is there would be a turn for nothing.
        const auto ms = static_cast<std::uint64_t>(wait->tv_sec) * 1000 +
                        static_cast<std::uint64_t>(wait->tv_usec) / 1000 + 1;
        uv_timer_start(&timer_, on_timer, ms, 0);
    }

    static void on_timer(uv_timer_t* timer) {
        auto* impl = static_cast<Impl*>(timer->data);
        if (impl->dns_ == nullptr) {
            impl->deliver();
            return;
        }
        impl->process(ARES_SOCKET_BAD, ARES_SOCKET_BAD);
    }

    static void on_poll(uv_poll_t* handle, int status, int events) {
        const auto* poll = static_cast<const Poll*>(handle->data);
        // On an error c-ares must look at the socket in both directions to learn of it.
        const bool failed = status < 0;
        const ares_socket_t socket = poll->socket;
        poll->impl->process((failed || (events & UV_READABLE) != 0) ? socket : ARES_SOCKET_BAD,
                            (failed || (events & UV_WRITABLE) != 0) ? socket : ARES_SOCKET_BAD);
    }

    // c-ares says what it waits for on a socket; neither = it is about to close it.
    static void on_socket_state(void* data, ares_socket_t socket, int readable, int writable) {
        auto* impl = static_cast<Impl*>(data);
        auto found = impl->polls_.find(socket);
        if (readable == 0 && writable == 0) {
            if (found == impl->polls_.end()) return;
            Poll* poll = found->second;
            impl->polls_.erase(found);
            // Out of epoll before the descriptor's number can be used again.
            uv_poll_stop(&poll->handle);
            uv_close(reinterpret_cast<uv_handle_t*>(&poll->handle),
                     [](uv_handle_t* handle) { delete static_cast<Poll*>(handle->data); });
            return;
        }
        if (found == impl->polls_.end()) {
            auto poll = std::make_unique<Poll>(Poll{.handle = {}, .impl = impl, .socket = socket});
            // Without a handle the query runs into its timeout, which is reported.
            if (uv_poll_init(impl->loop_, &poll->handle, socket) != 0) return;
            poll->handle.data = poll.get();
            found = impl->polls_.emplace(socket, poll.release()).first;
        }
        const int events = (readable != 0 ? UV_READABLE : 0) | (writable != 0 ? UV_WRITABLE : 0);
        uv_poll_start(&found->second->handle, events, on_poll);
    }

    uv_loop_t* loop_;
    uv_timer_t timer_{};
    std::size_t lookups_max_;
    std::size_t lookups_ = 0;
    int status_ = ARES_SUCCESS;  // of the initialisation; every look-up reports it
    ares_channel hosts_ = nullptr;
    ares_channel dns_ = nullptr;
    std::unordered_map<ares_socket_t, Poll*> polls_;
    std::vector<std::function<void()>> results_;
    bool closing_ = false;
};

Resolver::Resolver(uv_loop_s* loop, const ResolverOptions& options) : impl_(new Impl(loop, options)) {}

Resolver::~Resolver() {
    close();
}

void Resolver::close() {
    if (impl_ == nullptr) return;
    std::exchange(impl_, nullptr)->close();
}

void Resolver::resolve_addresses(std::string name,
                                 std::function<void(Resolution<ResolvedAddresses>)> callback) {
    if (impl_ != nullptr) impl_->resolve_addresses(std::move(name), std::move(callback));
}

void Resolver::resolve_srv(std::string name, std::function<void(Resolution<SrvRecords>)> callback) {
    if (impl_ != nullptr) impl_->resolve_srv(std::move(name), std::move(callback));
}

}  // namespace outrider::uv
