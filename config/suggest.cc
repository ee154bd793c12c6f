#include "config/suggest.h"

#include <algorithm>
#include <array>
#include <limits>

#include "base/bytes.h"

namespace outrider::config {
namespace {

constexpr std::size_t kWordMax = 64;
constexpr std::size_t kPrefixMin = 3;
constexpr std::size_t kFar = std::numeric_limits<std::size_t>::max();

std::string folded(std::string_view word) {
    std::string out = to_lower(word);
    std::replace(out.begin(), out.end(), '-', '_');
    return out;
}

}  // namespace

std::size_t edit_distance(std::string_view a, std::string_view b) {
    if (a.size() > kWordMax || b.size() > kWordMax) return kFar;
    using Row = std::array<std::size_t, kWordMax + 1>;
    Row before_last{};
    Row last{};
    Row current{};
    for (std::size_t j = 0; j <= b.size(); ++j)
        last[j] = j;
    for (std::size_t i = 1; i <= a.size(); ++i) {
        current[0] = i;
        for (std::size_t j = 1; j <= b.size(); ++j) {
            const std::size_t cost = a[i - 1] == b[j - 1] ? 0 : 1;
            current[j] = std::min({last[j] + 1, current[j - 1] + 1, last[j - 1] + cost});
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1]) {
                current[j] = std::min(current[j], before_last[j - 2] + 1);
            }
        }
        before_last = last;
        last = current;
    }
    return last[b.size()];
}

std::string did_you_mean(std::string_view word, const std::vector<std::string>& known) {
    if (word.size() > kWordMax) return "";
    const std::string wanted = folded(word);
    const std::string* best = nullptr;
    std::size_t best_distance = kFar;
    for (const std::string& candidate : known) {
        const std::size_t distance = edit_distance(wanted, folded(candidate));
        const std::size_t limit =
            std::clamp<std::size_t>(std::max(wanted.size(), candidate.size()) / 3, 1, 3);
        const bool shortened = wanted.size() >= kPrefixMin && folded(candidate).starts_with(wanted);
        if ((distance <= limit || shortened) && distance < best_distance) {
            best = &candidate;
            best_distance = distance;
        }
    }
    return best == nullptr ? "" : " (did you mean '" + *best + "'?)";
}

}  // namespace outrider::config
