// The consistent-hashing balancers; balancer.h says what they promise. Made through
// make_balancer().
#pragma once

#include <memory>
#include <vector>

#include "filters/policy/balancer.h"

namespace outrider::policy {

std::unique_ptr<Balancer> make_ring_hash(const std::vector<BalancerEndpoint>& endpoints);
std::unique_ptr<Balancer> make_maglev(const std::vector<BalancerEndpoint>& endpoints);

}  // namespace outrider::policy
