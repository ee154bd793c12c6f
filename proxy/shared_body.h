// The part of a shared answer's body that some of its readers have not taken yet. Pure.
//
// Positions count from the body's first byte. What lies before begin() is gone: a reader that still needs it has fallen behind.
#pragma once

#include <algorithm>
#include <cstdint>
#include <string>
#include <string_view>

namespace outrider::proxy {

class SharedBody {
  public:
    std::uint64_t begin() const { return begin_; }
    std::uint64_t end() const { return begin_ + (text_.size() - gone_); }
    std::size_t size() const { return text_.size() - gone_; }

    void append(std::string_view bytes) { text_.append(bytes); }
    // At most `most` bytes from `position`, which lies from begin() to end(). Valid until the next change.
    std::string_view from(std::uint64_t position, std::size_t most) const {
        return std::string_view(text_).substr(gone_ + static_cast<std::size_t>(position - begin_), most);
    }
    // Nobody needs what lies before `position` any more, or nobody will get it.
    void drop_before(std::uint64_t position) {
        if (position <= begin_) return;
        const std::uint64_t to = std::min(position, end());
        gone_ += static_cast<std::size_t>(to - begin_);
        begin_ = to;
        if (gone_ == text_.size()) {
            text_.clear();
            gone_ = 0;
        } else if (gone_ >= kMoveAt) {  // not for each piece: what stays is moved
            text_.erase(0, gone_);
            gone_ = 0;
        }
    }

  private:
    static constexpr std::size_t kMoveAt = std::size_t{256} << 10;
    std::string text_;
    std::size_t gone_ = 0;  // bytes of text_ before begin_
    std::uint64_t begin_ = 0;
};

}  // namespace outrider::proxy
