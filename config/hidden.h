// Finds routes that can never be taken because an earlier one takes all their requests.
#pragma once

#include <cstddef>
#include <string_view>

#include "config/settings.h"

namespace outrider::config {

// Whole segments: "/pay" holds for /pay and /pay/x, not for /payments; "/pay/" for what is below
// /pay;
// "" and "/" for everything.
bool prefix_holds(std::string_view prefix, std::string_view path);

// Whether every request that `later` matches is matched by `earlier` too. Looks at one earlier
// route at a time: false when only several together take everything.
bool hides(const MatchSettings& earlier, const MatchSettings& later);
// The same; adds to `work` how many comparisons it may have taken.
bool hides(const MatchSettings& earlier, const MatchSettings& later, std::size_t& work);

}  // namespace outrider::config
