// "did you mean": the nearest known word to a mistyped one.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

namespace outrider::config {

// Edit distance in which swapping two neighbours counts once (optimal string alignment; Damerau
// 1964). Words longer than 64 bytes are no typing mistake: they are taken as infinitely far.
std::size_t edit_distance(std::string_view a, std::string_view b);

// The words that did_you_mean() measures at most; the first that are of about the right length.
inline constexpr std::size_t kComparedMax = 200;

// " (did you mean 'listen'?)" when a known word is near enough to be meant (edits in a third of its
// letters, at most 3; letter case and '-' for '_' not counted) or begins with `word`, else "".
std::string did_you_mean(std::string_view word, const std::vector<std::string>& known);

}  // namespace outrider::config
