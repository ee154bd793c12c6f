#include "tests/base_uv/dns_server.h"

#include <algorithm>
#include <cctype>

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/check.h"

namespace outrider::test {
namespace {

std::string u16(unsigned value) {
    return {static_cast<char>(value >> 8 & 0xff), static_cast<char>(value & 0xff)};
}
std::string u32(std::uint32_t value) {
    return u16(value >> 16) + u16(value & 0xffff);
}

DnsRecord address_record(int family, const std::string& ip, std::uint32_t ttl_seconds) {
    char bytes[16];
    require(inet_pton(family, ip.c_str(), bytes) == 1, "a test's address parses");
    const bool v4 = family == AF_INET;
    return {v4 ? kTypeA : kTypeAaaa, ttl_seconds, std::string(bytes, v4 ? 4 : 16), ""};
}

}  // namespace

DnsRecord a_record(const std::string& ip, std::uint32_t ttl_seconds) {
    return address_record(AF_INET, ip, ttl_seconds);
}
DnsRecord aaaa_record(const std::string& ip, std::uint32_t ttl_seconds) {
    return address_record(AF_INET6, ip, ttl_seconds);
}
DnsRecord cname_record(const std::string& target, std::uint32_t ttl_seconds) {
    return {kTypeCname, ttl_seconds, wire_name(target), ""};
}
DnsRecord srv_record(std::uint16_t priority, std::uint16_t weight, std::uint16_t port,
                     const std::string& target, std::uint32_t ttl_seconds) {
    return {kTypeSrv, ttl_seconds, u16(priority) + u16(weight) + u16(port) + wire_name(target), ""};
}

std::string wire_name(const std::string& name) {
    std::string out;
    std::size_t begin = 0;
    while (begin < name.size()) {
        const std::size_t dot = std::min(name.find('.', begin), name.size());
        out.push_back(static_cast<char>(dot - begin));
        out += name.substr(begin, dot - begin);
        begin = dot + 1;
    }
    out.push_back('\0');
    return out;
}

std::string make_dns_response(const DnsZone& zone, const std::string& query, bool over_tcp) {
    constexpr std::size_t kHeader = 12;
    if (query.size() < kHeader + 5) return "";
    std::string name;
    std::size_t at = kHeader;
    while (at < query.size() && query[at] != 0) {
        const auto length = static_cast<unsigned char>(query[at]);
        if (!name.empty()) name += '.';
        for (const char c : query.substr(at + 1, length)) {
            name += static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
        }
        at += 1U + length;
    }
    if (at + 5 > query.size()) return "";
    const auto type = static_cast<std::uint16_t>(static_cast<unsigned char>(query[at + 1]) << 8 |
                                                 static_cast<unsigned char>(query[at + 2]));
    const std::string question = query.substr(kHeader, at + 5 - kHeader);
    const auto found = zone.find({name, type});
    const DnsReply reply = found != zone.end() ? found->second : DnsReply{DnsReply::Kind::kNotFound, {}};

    using Kind = DnsReply::Kind;
    if (reply.kind == Kind::kSilent) return "";
    if (reply.kind == Kind::kNoise) return "\xff\x00 this is no DNS message \xc0\xc0\xc0";
    unsigned flags = 0x8180;  // response, recursion desired and available
    if (reply.kind == Kind::kNotFound) flags |= 3;
    if (reply.kind == Kind::kServerFailure) flags |= 2;
    const bool cut = reply.kind == Kind::kTruncated && !over_tcp;
    if (cut) flags |= 0x0200;
    std::string records;
    unsigned count = 0;
    if (!cut) {
        for (const DnsRecord& record : reply.records) {
            ++count;
            records += record.owner.empty() ? u16(0xc00c) : wire_name(record.owner);
            records += u16(record.type) + u16(1) + u32(record.ttl_seconds);
            records += u16(static_cast<unsigned>(record.data.size())) + record.data;
        }
    }
    if (reply.kind == Kind::kCutRecord) {
        ++count;
        records += u16(0xc00c) + u16(type) + u16(1) + u32(60) + u16(400) + "short";
    }
    return query.substr(0, 2) + u16(flags) + u16(1) + u16(count) + u16(0) + u16(0) + question + records;
}

DnsServer::DnsServer(DnsZone zone) : zone_(std::move(zone)) {
    open_sockets();
    stop_ = eventfd(0, EFD_CLOEXEC);
    thread_ = std::thread([this] { run(); });
}

DnsServer::~DnsServer() {
    const std::uint64_t one = 1;
    require(write(stop_, &one, sizeof one) == sizeof one, "an eventfd takes a value");
    thread_.join();
    close(udp_);
    close(tcp_);
    close(stop_);
}

// The kernel picks the UDP port; another process may hold the same TCP port, so several tries.
void DnsServer::open_sockets() {
    for (int i = 0; i < 20; ++i) {
        udp_ = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
        tcp_ = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        sockaddr_in address{};
        address.sin_family = AF_INET;
        address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        socklen_t size = sizeof address;
        auto* generic = reinterpret_cast<sockaddr*>(&address);
        require(bind(udp_, generic, size) == 0, "a loopback UDP port is free");
        require(getsockname(udp_, generic, &size) == 0, "a bound socket has a name");
        if (bind(tcp_, generic, size) == 0 && listen(tcp_, 16) == 0) {
            port_ = ntohs(address.sin_port);
            return;
        }
        close(udp_);
        close(tcp_);
    }
    require(false, "a port is free for both UDP and TCP");
}

void DnsServer::run() const {
    pollfd waits[] = {{udp_, POLLIN, 0}, {tcp_, POLLIN, 0}, {stop_, POLLIN, 0}};
    for (;;) {
        if (poll(waits, 3, -1) < 0) continue;
        if (waits[2].revents != 0) return;
        if (waits[0].revents != 0) answer_datagram();
        if (waits[1].revents != 0) answer_connection();
    }
}

void DnsServer::answer_datagram() const {
    char bytes[4096];
    sockaddr_in peer{};
    socklen_t size = sizeof peer;
    const ssize_t got = recvfrom(udp_, bytes, sizeof bytes, 0, reinterpret_cast<sockaddr*>(&peer), &size);
    if (got < 0) return;
    const std::string reply =
        make_dns_response(zone_, std::string(bytes, static_cast<std::size_t>(got)), false);
    if (reply.empty()) return;
    // A client that has gone away is no concern of the server's.
    (void)sendto(udp_, reply.data(), reply.size(), 0, reinterpret_cast<sockaddr*>(&peer), size);
}

// One query, one answer, close (RFC 1035 section 4.2.2: two bytes of length before each message).
void DnsServer::answer_connection() const {
    const int connection = accept4(tcp_, nullptr, nullptr, SOCK_CLOEXEC);
    if (connection < 0) return;
    const timeval patience{.tv_sec = 2, .tv_usec = 0};
    setsockopt(connection, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    std::string query;
    char bytes[4096];
    while (query.size() < 2 || query.size() < 2U + (static_cast<unsigned char>(query[0]) << 8 |
                                                    static_cast<unsigned char>(query[1]))) {
        const ssize_t got = recv(connection, bytes, sizeof bytes, 0);
        if (got <= 0) break;
        query.append(bytes, static_cast<std::size_t>(got));
    }
    if (query.size() > 2) {
        const std::string reply = make_dns_response(zone_, query.substr(2), true);
        const std::string framed = u16(static_cast<unsigned>(reply.size())) + reply;
        (void)send(connection, framed.data(), framed.size(), MSG_NOSIGNAL);
    }
    close(connection);
}

}  // namespace outrider::test
