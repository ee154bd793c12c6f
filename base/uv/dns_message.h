// Reads SRV records with their TTL out of a DNS response (RFC 1035 section 4, RFC 2782). Pure.
//
// Why by hand: c-ares 1.18 (Debian 12) drops an SRV record's TTL, and the parser that keeps it came
// with 1.28. Addresses go through ares_getaddrinfo, which knows TTLs in both.
//
// The bytes come from the network: whatever they are, the parser stays inside them and ends (a
// compression pointer must point before the name it is part of, RFC 1035 section 4.1.4, so there is
// no loop).
#pragma once

#include <cstdint>
#include <span>

#include "base/uv/resolver.h"

namespace outrider::uv {

// The SRV records of the answer section, sorted by priority, and the smallest TTL in that section
// (CNAMEs on the way count). kNotFound when there is none, or only the target "." ("decidedly not
// available"); kMalformed when the message does not parse or a target is not a host name. The
// response code is not looked at: c-ares has done so.
Resolution<SrvRecords> parse_srv_response(std::span<const std::uint8_t> message);

}  // namespace outrider::uv
