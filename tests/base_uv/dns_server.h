// A small DNS server on a loopback port of its own (UDP and TCP), for tests of the resolver: real
// sockets, scripted answers. Runs in a thread from construction to destruction; the zone never
// changes meanwhile.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <thread>
#include <utility>
#include <vector>

namespace outrider::test {

inline constexpr std::uint16_t kTypeA = 1;
inline constexpr std::uint16_t kTypeCname = 5;
inline constexpr std::uint16_t kTypeAaaa = 28;
inline constexpr std::uint16_t kTypeSrv = 33;

struct DnsRecord {
    std::uint16_t type = 0;
    std::uint32_t ttl_seconds = 0;
    std::string data;   // as on the wire
    std::string owner;  // empty = the question's name
};
DnsRecord a_record(const std::string& ip, std::uint32_t ttl_seconds);
DnsRecord aaaa_record(const std::string& ip, std::uint32_t ttl_seconds);
DnsRecord cname_record(const std::string& target, std::uint32_t ttl_seconds);
DnsRecord srv_record(std::uint16_t priority, std::uint16_t weight, std::uint16_t port,
                     const std::string& target, std::uint32_t ttl_seconds);

// "a.b" as labels, uncompressed; "" is the root.
std::string wire_name(const std::string& name);

struct DnsReply {
    enum class Kind : std::uint8_t {
        kAnswer,         // records; with none: the name exists without records of this type
        kNotFound,       // NXDOMAIN; also what every name outside the zone gets
        kServerFailure,  // SERVFAIL
        kSilent,         // no packet at all
        kNoise,          // bytes that are no DNS message
        kCutRecord,      // header and question are right, the record claims more bytes than there are
        kTruncated,      // TC over UDP, the records over TCP
    };
    Kind kind = Kind::kAnswer;
    std::vector<DnsRecord> records;
};

// (lower-case name, type) -> reply
using DnsZone = std::map<std::pair<std::string, std::uint16_t>, DnsReply>;

// The response to `query`, or nothing to send.
std::string make_dns_response(const DnsZone& zone, const std::string& query, bool over_tcp);

class DnsServer {
  public:
    explicit DnsServer(DnsZone zone);
    ~DnsServer();
    DnsServer(const DnsServer&) = delete;
    DnsServer& operator=(const DnsServer&) = delete;

    std::string address() const { return "127.0.0.1:" + std::to_string(port_); }

  private:
    void open_sockets();
    void run() const;
    void answer_datagram() const;
    void answer_connection() const;

    DnsZone zone_;
    int udp_ = -1;
    int tcp_ = -1;
    int stop_ = -1;
    std::uint16_t port_ = 0;
    std::thread thread_;
};

}  // namespace outrider::test
