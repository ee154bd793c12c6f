#include "control/agent/stream_reader.h"

#include <algorithm>

namespace outrider::agent {

void StreamReader::add(std::string_view bytes) {
    if (too_long_) return;
    pending_.erase(0, taken_);
    looked_at_ -= std::min(looked_at_, taken_);
    taken_ = 0;
    pending_.append(bytes);
}

Result<std::optional<std::string_view>> StreamReader::next() {
    while (!too_long_) {
        const std::size_t end = pending_.find('\n', std::max(looked_at_, taken_));
        const std::size_t size = (end == std::string::npos ? pending_.size() : end) - taken_;
        if (size > line_bytes_max_) break;
        if (end == std::string::npos) {
            looked_at_ = pending_.size();
            return std::optional<std::string_view>();
        }
        std::string_view line(pending_.data() + taken_, size);
        taken_ = end + 1;
        if (!line.empty() && line.back() == '\r') line.remove_suffix(1);
        if (!line.empty()) return std::optional(line);
    }
    too_long_ = true;
    std::string().swap(pending_);
    taken_ = looked_at_ = 0;
    return Error{"a message of the stream is longer than " + std::to_string(line_bytes_max_) + " bytes"};
}

}  // namespace outrider::agent
