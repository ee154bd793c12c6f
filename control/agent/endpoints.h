// Which member of the quorum is asked next. Pure: time and randomness come in.
//
// Every member accepts every request, so a client stays with the one that works (its connection is warm, and its reads do not go
// back in time) and moves only when that fails. The first one is drawn, so that many clients spread over the members. One
// that failed rests: see backoff.h.
//
// Invariants
//   * pick() names an endpoint that is not in `tried`, unless all are; of those that rest not one while another does not
//   * an endpoint that failed is not named before its rest is over, unless all rest: then the one whose rest ends first,
//     and the caller waits until `not_before`
//   * failures while it rests count once: a hundred requests of one broken connection are one failure
#pragma once

#include <bitset>
#include <cstddef>
#include <vector>

#include "control/agent/backoff.h"

namespace outrider::agent {

inline constexpr std::size_t kEndpointsMax = 64;
using EndpointSet = std::bitset<kEndpointsMax>;

class EndpointChoice {
  public:
    struct Pick {
        std::size_t index = 0;
        Instant not_before{};  // in the past: now
    };

    // 1 to kEndpointsMax.
    EndpointChoice(std::size_t count, const BackoffOptions& backoff, std::uint64_t seed);

    Pick pick(Instant now, const EndpointSet& tried = {});
    void succeeded(std::size_t index);
    void failed(std::size_t index, Instant now);

    std::size_t size() const { return endpoints_.size(); }
    bool rests(std::size_t index, Instant now) const { return endpoints_[index].not_before > now; }
    Random& random() { return random_; }

  private:
    struct Endpoint {
        Backoff backoff;
        Instant not_before{};
    };

    Random random_;
    std::vector<Endpoint> endpoints_;
    std::size_t current_ = 0;
};

}  // namespace outrider::agent
