// What is wrong with one peer, for the log: said at once, and again after a while if it is still so, however often it is met in
// between. A process that is started again and again must not fill the others' logs. Pure.
#pragma once

#include <cstddef>
#include <map>
#include <string>

#include "base/time.h"

namespace outrider::node {

class Complaints {
  public:
    static constexpr Duration kSaidAgain = std::chrono::seconds(30);
    // Of different ones within that time; further ones wait. Part of a problem's text may be another process's.
    static constexpr std::size_t kProblemsMax = 8;

    // Whether it is to be said now; then it counts as said.
    bool due(const std::string& problem, Instant now) {
        std::erase_if(said_, [now](const auto& said) { return now - said.second >= kSaidAgain; });
        return said_.size() < kProblemsMax && said_.emplace(problem, now).second;
    }
    // All is well: what comes now is news.
    void clear() { said_.clear(); }

  private:
    std::map<std::string, Instant> said_;
};

}  // namespace outrider::node
