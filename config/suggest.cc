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

constexpr std::size_t kEditsMax = 3;

char folded(char c) {
    return c == '-' ? '_' : ascii_lower(c);
}

std::string folded(std::string_view word) {
    std::string out(word);
    std::transform(out.begin(), out.end(), out.begin(), [](char c) { return folded(c); });
    return out;
}

bool begins_with(std::string_view candidate, std::string_view wanted) {
    return candidate.size() >= wanted.size() && std::equal(wanted.begin(), wanted.end(), candidate.begin(),
                                                           [](char a, char b) { return a == folded(b); });
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
    std::size_t compared = 0;
    for (const std::string& candidate : known) {
        const bool shortened = wanted.size() >= kPrefixMin && begins_with(candidate, wanted);
        const std::size_t longer = std::max(wanted.size(), candidate.size());
        // More letters have to come or go than are allowed to differ.
        if (!shortened && longer - std::min(wanted.size(), candidate.size()) > kEditsMax) continue;
        if (++compared > kComparedMax) break;
        const std::size_t distance = edit_distance(wanted, folded(candidate));
        const std::size_t limit = std::clamp<std::size_t>(longer / 3, 1, kEditsMax);
        if ((distance <= limit || shortened) && distance < best_distance) {
            best = &candidate;
            best_distance = distance;
        }
    }
    return best == nullptr ? "" : " (did you mean '" + *best + "'?)";
}

}  // namespace outrider::config
